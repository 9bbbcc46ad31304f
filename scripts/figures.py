"""Draw the figures of the method from trained runs: what is unsure, where, and how that develops.

    python scripts/figures.py RUN [RUN ...] -o FOLDER

RUN is a fold folder of nnUNet_results; nnUNet_raw and nnUNet_preprocessed must be set. Written are

- uncertainty.png: confidence of every run on the same slice (figure 1 of the paper: supervised
  control and SPMC);
- common_difficulty.png: from the confidence of both branches to the common-difficulty voxels
  (figure 4), of the first run with a second branch;
- epochs.png: the same slice over the training (figure 8), of that run, from the checkpoint_*.pth
  in its folder.

Every figure says which scan it shows, and whether the last run was trained on it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from nnunetv2_spmc.common.colors import DIFFICULTY_COLOR, class_color
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.whole_file import whole_file
from nnunetv2_spmc.inference.case_maps import CaseMaps, predict_case
from nnunetv2_spmc.inference.trained_model import load_model
from nnunetv2_spmc.reports.case_figure import (
    extent_mm,
    show_confidence,
    show_image,
    show_labels,
    show_mask,
    show_outline,
    slice_title,
)
from nnunetv2_spmc.reports.case_views import CaseView, case_view
from nnunetv2_spmc.reports.run_names import run_labels
from nnunetv2_spmc.reports.run_record import RunRecord
from nnunetv2_spmc.training.checkpoint import read_checkpoint

PANEL_INCHES = 2.2
DPI = 100
MAX_CHECKPOINTS = 5


class Slice:
    """One slice of a case: draws maps of it into axes.

    Args:
        view: the case.
        index: of the slice.
        title: of the figure: which scan it is.
        class_names: label value -> class, for the legend.
    """

    def __init__(
        self, view: CaseView, index: int, title: str, class_names: Mapping[int, str]
    ) -> None:
        self.view = view
        self.index = index
        self.title = title
        self.class_names = class_names

    def image(self, axes: Any) -> None:
        """Draw the image alone."""
        show_image(axes, self.view, self.index)

    def reference(self, axes: Any) -> None:
        """Draw the outlines of the reference over the image, if there is one."""
        show_image(axes, self.view, self.index)
        if self.view.annotated is not None:
            show_outline(axes, self.view, self.view.annotated, self.index)

    def prediction(self, axes: Any, labels: np.ndarray) -> None:
        """Draw a segmentation over the image, and the outlines of the reference."""
        show_image(axes, self.view, self.index)
        show_labels(axes, self.view, labels, self.index)
        if self.view.annotated is not None:
            show_outline(axes, self.view, self.view.annotated, self.index)

    def confidence(self, axes: Any, confidence: np.ndarray) -> Any:
        """Draw a confidence map; return it for a colour bar."""
        return show_confidence(axes, self.view, confidence, self.index)

    def mask(self, axes: Any, mask: np.ndarray) -> None:
        """Draw a mask over the image."""
        show_image(axes, self.view, self.index)
        show_mask(axes, self.view, mask, self.index)

    def grid(self, rows: int, columns: int) -> tuple[Figure, np.ndarray]:
        """Return a figure with room for a colour bar, its panels as high as the slice."""
        height, width = extent_mm(self.view)
        size = (PANEL_INCHES * columns + 0.9, PANEL_INCHES * rows * height / width + 1.2)
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(self.title, fontsize=10)
        patches = [
            *(
                Patch(color=class_color(value), label=name)
                for value, name in self.class_names.items()
            ),
            Patch(color=DIFFICULTY_COLOR, label="unsure"),
            Line2D([], [], color="0.4", label="outline: reference"),
        ]
        figure.legend(
            handles=patches, loc="outside lower center", ncols=5, frameon=False, fontsize=8
        )
        axes = figure.subplots(rows, columns, squeeze=False)
        for panel in axes.flat:
            panel.set_xticks([])
            panel.set_yticks([])
        return figure, axes


def draw_uncertainty(shown: Slice, maps: dict[str, CaseMaps]) -> Figure:
    """Draw reference and prediction above, confidence below, one column per run."""
    figure, axes = shown.grid(2, 1 + len(maps))
    shown.reference(axes[0, 0])
    axes[0, 0].set_title("reference", fontsize=9)
    shown.image(axes[1, 0])
    axes[1, 0].set_title("image", fontsize=9)
    heat = None
    for column, (name, case_maps) in enumerate(maps.items(), start=1):
        shown.prediction(axes[0, column], case_maps.segmentation)
        name = name.removeprefix("nnUNetTrainer")
        axes[0, column].set_title(f"prediction, {name}", fontsize=9)
        heat = shown.confidence(axes[1, column], case_maps.confidence)
        axes[1, column].set_title(f"confidence, {name}", fontsize=9)
    figure.colorbar(heat, ax=axes[1, -1], label="largest class probability")
    return figure


def draw_common_difficulty(shown: Slice, maps: CaseMaps, tau: float) -> Figure:
    """Draw confidence, suspicious voxels of both branches, and the voxels in which they meet."""
    figure, axes = shown.grid(2, 4)
    confidences = {"main": maps.confidence, maps.second_name: maps.second_confidence}
    heat = None
    for row, (bit, (branch, confidence)) in enumerate(enumerate(confidences.items(), start=1)):
        heat = shown.confidence(axes[row, 1], confidence)
        axes[row, 1].set_title(f"confidence, {branch} branch", fontsize=9)
        shown.mask(axes[row, 2], (maps.suspicious & bit) > 0)
        axes[row, 2].set_title(f"suspicious (<= {tau:g}), {branch}", fontsize=9)
    shown.image(axes[0, 0])
    axes[0, 0].set_title("image", fontsize=9)
    shown.reference(axes[1, 0])
    axes[1, 0].set_title("reference", fontsize=9)
    shown.mask(axes[0, 3], maps.common_difficulty)
    axes[0, 3].set_title("common difficulty: both", fontsize=9)
    shown.prediction(axes[1, 3], maps.segmentation)
    axes[1, 3].set_title("prediction, main branch", fontsize=9)
    figure.colorbar(heat, ax=axes[:, 1], label="largest class probability", location="bottom")
    return figure


def draw_epochs(shown: Slice, snapshots: dict[int, CaseMaps]) -> Figure:
    """Draw prediction, confidence and common-difficulty voxels, one column per checkpoint."""
    figure, axes = shown.grid(3, 1 + len(snapshots))
    shown.reference(axes[0, 0])
    axes[0, 0].set_title("reference", fontsize=9)
    shown.image(axes[1, 0])
    axes[1, 0].set_title("image", fontsize=9)
    axes[2, 0].set_axis_off()
    heat = None
    for column, (epoch, maps) in enumerate(snapshots.items(), start=1):
        shown.prediction(axes[0, column], maps.segmentation)
        axes[0, column].set_title(f"epoch {epoch}", fontsize=9)
        heat = shown.confidence(axes[1, column], maps.confidence)
        shown.mask(axes[2, column], maps.common_difficulty)
    for row, name in enumerate(("prediction", "confidence", "common difficulty")):
        axes[row, 1].set_ylabel(name, fontsize=9)
    figure.colorbar(heat, ax=axes[1, -1], label="confidence")
    return figure


def checkpoints_over_time(run: RunRecord) -> dict[int, str]:
    """Return epoch -> checkpoint name, at most a few, evenly over the training."""
    by_epoch = {}
    for path in sorted(run.folder.glob("checkpoint_*.pth")):
        by_epoch[read_checkpoint(path)["current_epoch"]] = path.name
    epochs = sorted(by_epoch)
    picks = np.linspace(0, len(epochs) - 1, min(len(epochs), MAX_CHECKPOINTS)).round().astype(int)
    return {epochs[i]: by_epoch[epochs[i]] for i in picks}


def slice_with_most(labels: np.ndarray) -> int:
    """Return the index of the slice with most foreground."""
    return int((labels > 0).sum(axis=(1, 2)).argmax())


def make_figures(
    runs: Sequence[RunRecord], output: Path, case: str | None, index: int | None
) -> None:
    """Write the figures that the runs allow."""
    scores = runs[-1].mean_dice()
    case = case or str(scores.index[len(scores) // 2])  # the median: neither failure nor show piece
    view = case_view(runs[-1], case, with_maps=False)
    labels = view.prediction if view.reference is None else view.reference
    index = slice_with_most(labels) if index is None else index
    role = "training" if runs[-1].fold == "all" else "validation"
    title = f"{slice_title(case, view, index)}, a {role} scan"
    shown = Slice(view, index, title, runs[-1].class_of_value)
    images = runs[-1].validation_images(case)
    maps = {name: run.predict(images) for name, run in zip(run_labels(runs), runs, strict=True)}
    print(title)
    save(draw_uncertainty(shown, maps), output / "uncertainty.png")
    with_both = [run for run in runs if run.model.second is not None]
    if not with_both:
        print("note: no run has a second branch, so there are no common-difficulty voxels.")
        return
    run = with_both[0]
    run_maps = maps[run_labels(runs)[list(runs).index(run)]]
    save(draw_common_difficulty(shown, run_maps, run.model.tau), output / "common_difficulty.png")
    snapshots = {
        epoch: predict_case(load_model(run.folder, name), images)
        for epoch, name in checkpoints_over_time(run).items()
    }
    save(draw_epochs(shown, snapshots), output / "epochs.png")


def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, pil_kwargs={"optimize": True})
    print(f"Wrote {path}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("-o", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--case", help="validation case (default: the median one by Dice)")
    parser.add_argument("--slice", type=int, help="from 0 (default: that with most foreground)")
    arguments = parser.parse_args(argv)
    try:
        runs = [RunRecord.load(folder) for folder in arguments.runs]
        make_figures(runs, arguments.o, arguments.case, arguments.slice)
    except (DataError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
