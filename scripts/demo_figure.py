"""Compare the four models of the demo: print their mean Dice, write results.json, draw demo.png.

    python scripts/demo_figure.py demo_output
    python scripts/demo_figure.py seed1 seed2 seed3    # demos of several seeds: a table

The folder holds the evaluated predictions control/, view_control/, spmc/ and all_labels/, and the
demo's nnUNet_raw. The picture has bars, the differences scan by scan, and a test scan: the one
whose lead over the control is the median, so that it is neither the best nor the worst.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_spmc.common.colors import class_color, method_color
from nnunetv2_spmc.common.whole_file import whole_file
from nnunetv2_spmc.evaluation.comparison import case_values
from nnunetv2_spmc.evaluation.methods import read_methods
from nnunetv2_spmc.evaluation.pairs import Pairs, pair
from nnunetv2_spmc.evaluation.patients import UNKNOWN
from nnunetv2_spmc.reports.case_figure import (
    extent_mm,
    show_image,
    show_labels,
    show_outline,
    slice_title,
)
from nnunetv2_spmc.reports.case_views import CaseView

SPMC = "spmc"
MODELS = {  # folder -> name in tables and pictures
    "control": "control",
    "view_control": "view control",
    SPMC: "SPMC",
    "all_labels": "all labels",
}
OTHERS = ("control", "view_control")
RESULTS = "results.json"
PICTURE = "demo.png"


def dice_of_scans(folder: Path) -> dict[str, dict[str, float]]:
    """Return model -> test scan -> mean Dice over its classes."""
    methods = read_methods([str(folder / name) for name in MODELS])
    return {
        method.name: {
            case: float(np.nanmean(list(classes.values())))
            for (_, case), classes in case_values(method, "dice").items()
        }
        for method in methods
    }


def compared(folder: Path) -> dict[str, Pairs]:
    """Return SPMC minus each control, scan by scan."""
    values = {
        m.name: case_values(m, "dice") for m in read_methods([str(folder / n) for n in MODELS])
    }
    return {other: pair(values[SPMC], values[other], UNKNOWN) for other in OTHERS}


def median_scan(pairs: Pairs) -> str:
    """Return the scan with the median difference, the lower one of two."""
    order = np.argsort(pairs.differences, kind="stable")
    return pairs.patients[order[(len(order) - 1) // 2]]


def sentence(other: str, pairs: Pairs) -> str:
    """Say by how much SPMC differs from a control."""
    low, high = pairs.interval
    return (
        f"SPMC minus {MODELS[other]}: {pairs.mean:+.3f} (95 % interval over scans {low:+.3f} to "
        f"{high:+.3f}), higher on {pairs.higher} of {len(pairs)} scans"
    )


def read_view(raw: Path, folder: Path, case: str) -> CaseView:
    """Read a test scan with the prediction in a folder."""
    reader = SimpleITKIO()
    image, properties = reader.read_images([str(raw / "imagesTs" / f"{case}_0000.nii.gz")])
    reference, prediction = (
        reader.read_seg(str(path / f"{case}.nii.gz"))[0][0] for path in (raw / "labelsTs", folder)
    )
    return CaseView(
        run_name=MODELS[folder.name],
        image=image[0],
        reference=reference,
        prediction=prediction,
        confidence=None,
        common_difficulty=None,
        spacing_mm=tuple(properties["spacing"]),
        properties=properties,
        dice=float("nan"),
    )


def draw(
    means: Mapping[str, float],
    pairs: Mapping[str, Pairs],
    views: Mapping[str, CaseView],
    case: str,
    class_names: Mapping[str, int],
) -> Figure:
    """Draw bars, differences and, below, a slice of a test scan with each prediction.

    Args:
        means: model -> mean Dice.
        pairs: control -> SPMC against it.
        views: model -> the scan with its prediction.
        case: name of the scan.
        class_names: class -> label value.
    """
    first = next(iter(views.values()))
    height, width = extent_mm(first)
    panels = 1 + len(views)
    figure = Figure(figsize=(11, 3.4 + 11 / panels * height / width), layout="constrained")
    heights = (3.0, 11 / panels * height / width + 0.4)
    rows = figure.add_gridspec(2, height_ratios=heights)
    above, below = figure.add_subfigure(rows[0]), figure.add_subfigure(rows[1])
    bars, differences = above.subplots(1, 2, width_ratios=(1, 1.2))
    _draw_bars(bars, means)
    _draw_differences(differences, pairs)
    reference = np.asarray(first.annotated)
    index = int((reference > 0).sum(axis=(1, 2)).argmax())
    axes = below.subplots(1, panels)
    show_image(axes[0], first, index)
    axes[0].set_title("image", fontsize=9)
    for ax, view in zip(axes[1:], views.values(), strict=True):
        show_image(ax, view, index)
        show_labels(ax, view, view.prediction, index)
        show_outline(ax, view, reference, index)
        ax.set_title(view.run_name, fontsize=9)
    for ax in axes:
        ax.set_axis_off()
    colors = [Patch(color=class_color(value), label=name) for name, value in class_names.items()]
    below.legend(handles=colors, loc="outside lower center", ncols=len(colors), frameon=False)
    below.suptitle(
        f"{slice_title(case, first, index)}, the scan with the median lead over the control. "
        "Filled: prediction; outline: reference",
        fontsize=9,
    )
    return figure


def _draw_bars(axes: Any, means: Mapping[str, float]) -> None:
    names = [MODELS[name] for name in means]
    colors = [method_color(number) for number in range(len(names))]
    drawn = axes.bar(names, means.values(), color=colors)
    axes.bar_label(drawn, fmt="%.3f")
    axes.set(ylabel="mean Dice of the test scans", ylim=(0, 1))


def _draw_differences(axes: Any, pairs: Mapping[str, Pairs]) -> None:
    for row, found in enumerate(pairs.values()):
        spread = np.linspace(-0.2, 0.2, len(found))
        axes.plot(found.differences, row + spread, ".", color="0.6")
        low, high = found.interval
        axes.plot([low, high], [row, row], color="black", linewidth=2)
        axes.plot(found.mean, row, "D", color="black")
        axes.annotate(f"{found.mean:+.3f}", (found.mean, row + 0.28), ha="center")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(pairs)), [f"SPMC minus\n{MODELS[other]}" for other in pairs])
    axes.set(xlabel="Dice, a dot per test scan; line: 95 % interval of the mean", ylim=(-0.5, 1.5))
    axes.invert_yaxis()


def table_of_seeds(folders: Sequence[Path]) -> str:
    """Return the mean Dice of demos with different seeds, by their results.json, as a table."""
    rows = {}
    for folder in folders:
        raw = raw_of(folder)
        if not (folder / RESULTS).is_file():
            raise SystemExit(f"error: {folder} has no {RESULTS}; let scripts/demo.sh finish")
        means = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
        split = json.loads((raw / "split.json").read_text(encoding="utf-8"))
        rows[str(split["seed"])] = [means[name] for name in MODELS]
    rows["mean"] = [float(np.mean(column)) for column in zip(*rows.values(), strict=True)]
    lines = [
        f"| seed | {' | '.join(MODELS.values())} | "
        f"{' | '.join(f'SPMC minus {MODELS[other]}' for other in OTHERS)} |",
        "|" + "---|" * (1 + len(MODELS) + len(OTHERS)),
    ]
    for seed, row in rows.items():
        means = dict(zip(MODELS, row, strict=True))
        cells = [seed, *(f"{mean:.3f}" for mean in row)]
        cells += [f"{means[SPMC] - means[other]:+.3f}" for other in OTHERS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def raw_of(folder: Path) -> Path:
    """Return the raw dataset with the few labels; SystemExit if it is missing."""
    raw = folder / "nnUNet_raw" / "Dataset500_Phantom"
    if not raw.is_dir():
        raise SystemExit(
            f"error: {folder} has no {raw.relative_to(folder)}; run scripts/demo.sh first"
        )
    return raw


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    folder, *more = folders = parser.parse_args().folders
    if more:
        print(table_of_seeds(folders))
        return
    raw = raw_of(folder)
    dice, pairs = dice_of_scans(folder), compared(folder)
    means = {name: float(np.mean(list(dice[name].values()))) for name in MODELS}
    for name, mean in means.items():
        print(f"{MODELS[name]:14s} {mean:.3f}")
    for other, found in pairs.items():
        print(sentence(other, found))
    case = median_scan(pairs["control"])
    views = {name: read_view(raw, folder / name, case) for name in MODELS if name != "all_labels"}
    labels = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))["labels"]
    classes = {name: value for name, value in labels.items() if value}
    with whole_file(folder / PICTURE) as temporary:
        draw(means, pairs, views, case, classes).savefig(temporary, format="png", dpi=110)
    with whole_file(folder / RESULTS) as temporary:
        rounded = {name: round(mean, 3) for name, mean in means.items()}
        temporary.write_text(json.dumps(rounded, indent=4) + "\n", encoding="utf-8")
    print(f"Picture: {folder / PICTURE}, numbers: {folder / RESULTS}")


if __name__ == "__main__":
    main()
