"""Box plots of methods: the cases of each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnunetv2_spmc.common.colors import method_color
from nnunetv2_spmc.common.whole_file import whole_file
from nnunetv2_spmc.evaluation.comparison import case_values
from nnunetv2_spmc.evaluation.methods import Method
from nnunetv2_spmc.evaluation.text_table import TITLES
from nnunetv2_spmc.raw.cases import count_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COMPARISON_PNG = "comparison.png"
SHOWN = ("dice", "jaccard", "hd95_mm", "asd_mm")
GROUP_WIDTH = 0.8  # of the distance between classes
JITTER = 0.15  # of a box's width, to both sides


def draw_box_plot(methods: Sequence[Method], folder: Path) -> Path:
    """Draw one panel per metric, one group of boxes per class, and one dot per case.

    A dot is the mean over seeds; cases where the metric is undefined in a seed have none. Box:
    quartiles and median; whiskers: the last case within 1.5 times the box.
    """
    import matplotlib.style

    path = folder / COMPARISON_PNG
    with matplotlib.style.context("default"):
        _draw(methods, path)
    return path


def _draw(methods: Sequence[Method], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_boxes = len(methods) * len(methods[0].seeds[0].labels)
    figure = Figure(figsize=(min(24, 4.5 + 0.7 * num_boxes), 8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, metric in zip(figure.subplots(2, 2).flat, SHOWN, strict=True):
        _draw_panel(axes, methods, metric)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(4, len(names)))
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _draw_panel(axes: Axes, methods: Sequence[Method], metric: str) -> None:
    cases, labels = methods[0].seeds[0].cases, methods[0].seeds[0].labels
    width = GROUP_WIDTH / len(methods)
    jitter = np.random.default_rng(0)
    for number, method in enumerate(methods):
        values = case_values(method, metric)
        columns = [np.array([values["", case][label] for case in cases]) for label in labels]
        per_class = [column[~np.isnan(column)] for column in columns]
        positions = np.arange(len(labels)) + (number + 0.5) * width - GROUP_WIDTH / 2
        color = method_color(number)
        boxes = axes.boxplot(
            per_class,
            positions=positions,
            widths=0.8 * width,
            showfliers=False,  # the dots show every case
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": color, "alpha": 0.35},
            medianprops={"color": "black"},
        )
        boxes["boxes"][0].set_label(_legend_text(method))
        for position, defined in zip(positions, per_class, strict=True):
            offsets = jitter.uniform(-JITTER, JITTER, len(defined)) * width
            axes.plot(position + offsets, defined, ".", color=color, markersize=4)
    axes.set_title(TITLES[metric])
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.grid(axis="y", alpha=0.3)


def _legend_text(method: Method) -> str:
    seeds = count_of(len(method.seeds), "seed")
    failures = f", {count_of(method.failures, 'failure')}" if method.failures else ""
    return f"{method.name} ({seeds}{failures})"
