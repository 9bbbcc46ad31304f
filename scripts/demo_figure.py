"""Print the mean Dice of prediction folders and draw one test case of them with its confidence.

    python scripts/demo_figure.py --images imagesTs --labels labelsTs --output demo.png FOLDER ...

A FOLDER is an output of nnUNetv2_predict --save_probabilities with nnUNetv2_evaluate_folder's
summary.json in it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_spmc.reports.case_figure import (
    extent_mm,
    show_confidence,
    show_image,
    show_labels,
    slice_title,
)
from nnunetv2_spmc.reports.case_views import CaseView

PANEL_INCHES = 3.4


def mean_dice(folder: Path) -> tuple[float, dict[str, float]]:
    """Return the mean foreground Dice and that of every class, from summary.json."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    classes = {label: values["Dice"] for label, values in summary["mean"].items()}
    return summary["foreground_mean"]["Dice"], classes


def read_view(images: Path, labels: Path, folder: Path, case: str) -> CaseView:
    """Read a test case with the prediction in a folder."""
    reader = SimpleITKIO()
    image, properties = reader.read_images([str(images / f"{case}_0000.nii.gz")])
    reference, prediction = (
        reader.read_seg(str(path / f"{case}.nii.gz"))[0][0] for path in (labels, folder)
    )
    return CaseView(
        run_name=folder.name,
        image=image[0],
        reference=reference,
        prediction=prediction,
        confidence=np.load(folder / f"{case}.npz")["probabilities"].max(axis=0),
        common_difficulty=None,
        spacing_mm=tuple(properties["spacing"]),
        properties=properties,
        dice=mean_dice(folder)[0],
    )


def draw(images: Path, labels: Path, folders: list[Path]) -> Figure:
    """Draw the slice with most foreground of the first test case, one column per folder."""
    case = sorted(path.name for path in labels.glob("*.nii.gz"))[0].removesuffix(".nii.gz")
    views = [read_view(images, labels, folder, case) for folder in folders]
    first = views[0]
    z = int((first.reference > 0).sum(axis=(1, 2)).argmax())
    height, width = extent_mm(first)
    columns = 1 + len(views)
    figure = Figure(
        figsize=(PANEL_INCHES * columns, 2 * PANEL_INCHES * height / width + 0.2),
        layout="constrained",
    )
    axes = figure.subplots(2, columns)
    show_image(axes[0, 0], first, z)
    axes[0, 0].set_title(slice_title(case, first, z))
    show_image(axes[1, 0], first, z)
    show_labels(axes[1, 0], first, first.reference, z)
    axes[1, 0].set_title("reference")
    for column, view in enumerate(views, start=1):
        show_image(axes[0, column], view, z)
        show_labels(axes[0, column], view, view.prediction, z)
        axes[0, column].set_title(f"{view.run_name}\nmean test Dice {view.dice:.3f}")
        heat = show_confidence(axes[1, column], view, view.confidence, z)
        axes[1, column].set_title("confidence")
    figure.colorbar(heat, ax=axes[1, -1], label="largest class probability")
    for ax in axes.flat:
        ax.set_axis_off()
    return figure


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
    figure = draw(arguments.images, arguments.labels, arguments.folders)
    figure.savefig(arguments.output, dpi=120)
    print(f"Picture: {arguments.output}")


if __name__ == "__main__":
    main()
