"""Print the mean Dice of prediction folders and draw one test case of them with its confidence.

    python scripts/demo_figure.py --images imagesTs --labels labelsTs --output demo.png FOLDER ...

A FOLDER is an output of nnUNetv2_predict --save_probabilities with nnUNetv2_evaluate_folder's
summary.json in it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import SimpleITK as sitk


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def mean_dice(folder: Path) -> tuple[float, dict[str, float]]:
    """Return the mean foreground Dice and that of every class, from summary.json."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    classes = {label: values["Dice"] for label, values in summary["mean"].items()}
    return summary["foreground_mean"]["Dice"], classes


def draw(images: Path, labels: Path, folders: list[Path], output: Path) -> None:
    """Draw the slice with most foreground of the first test case, one column per folder."""
    case = sorted(path.name for path in labels.glob("*.nii.gz"))[0]
    identifier = case.removesuffix(".nii.gz")
    image, reference = read(images / f"{identifier}_0000.nii.gz"), read(labels / case)
    z = int((reference > 0).sum(axis=(1, 2)).argmax())
    figure, axes = plt.subplots(
        2, 1 + len(folders), figsize=(3.4 * (1 + len(folders)), 7), layout="constrained"
    )
    show = {"cmap": "gray", "vmin": np.percentile(image, 1), "vmax": np.percentile(image, 99)}
    classes = {"cmap": "tab10", "vmin": 0, "vmax": 9, "alpha": 0.5, "interpolation": "nearest"}
    axes[0, 0].imshow(image[z], **show)
    axes[0, 0].set_title(f"{identifier}, slice {z}")
    axes[1, 0].imshow(image[z], **show)
    axes[1, 0].imshow(np.ma.masked_equal(reference[z], 0), **classes)
    axes[1, 0].set_title("reference")
    for column, folder in enumerate(folders, start=1):
        prediction = read(folder / case)
        confidence = np.load(folder / f"{identifier}.npz")["probabilities"].max(axis=0)
        axes[0, column].imshow(image[z], **show)
        axes[0, column].imshow(np.ma.masked_equal(prediction[z], 0), **classes)
        axes[0, column].set_title(f"{folder.name}\nmean test Dice {mean_dice(folder)[0]:.3f}")
        heat = axes[1, column].imshow(confidence[z], cmap="magma", vmin=0.3, vmax=1)
        axes[1, column].set_title("confidence")
    figure.colorbar(heat, ax=axes[1, -1], label="largest class probability")
    for ax in axes.flat:
        ax.set_axis_off()
    figure.savefig(output, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    for folder in arguments.folders:
        mean, classes = mean_dice(folder)
        details = ", ".join(f"class {label} {dice:.3f}" for label, dice in classes.items())
        print(f"{folder.name:32s} {mean:.3f}  ({details})")
    draw(arguments.images, arguments.labels, arguments.folders, arguments.output)
    print(f"Picture: {arguments.output}")


if __name__ == "__main__":
    main()
