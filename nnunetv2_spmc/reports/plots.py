"""Figures of tables: curves over the epochs, boxes over the cases."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.evaluation.case_metrics import METRICS, OVERLAPS
from nnunetv2_spmc.evaluation.text_table import TITLES
from nnunetv2_spmc.methods import TRAINERS
from nnunetv2_spmc.reports.html import COLORS, draw_box

OTHER_BRANCHES = sorted({b for t in TRAINERS for b in getattr(t, "branches", ())[1:]})
BRANCH_STYLES: dict[str, Literal["-", "--"]] = {"main": "-", **dict.fromkeys(OTHER_BRANCHES, "--")}
FIRST_PANELS = ("train_losses", "val_losses", "ema_fg_dice", "mean_fg_dice")
PANEL_TITLES = {
    "train_losses": "training loss of the main branch",
    "val_losses": "validation loss",
    "mean_fg_dice": "pseudo Dice on validation patches",
    "ema_fg_dice": "pseudo Dice, moving average",
    "lrs": "learning rate",
    "seconds": "seconds per epoch",
    "lambda": "lambda (ramp-up weight)",
    "agreement": "agreement of the branches",
    "supervised": "supervised loss",
    "cdps": "CDPS loss",
    "cps": "CPS loss",
    "splat": "SPLAT loss",
    "suspicious": "share of suspicious voxels",
    "taught": "share of taught voxels",
    "common_difficulty_labeled": "share of common difficulty, labeled",
    "common_difficulty_unlabeled": "share of common difficulty, unlabeled",
    "single_class": "patches predicted as one class",
    "pseudo_label_dice": "pseudo-label Dice, withheld cases",
}
PANELS_PER_ROW = 3


def draw_curves(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw one panel per logged value, all runs in it; branches as solid and dashed lines.

    Args:
        tables: name of a run -> its curves, one row per epoch.
    """
    panels = _panels(tables.values())
    rows = math.ceil(len(panels) / PANELS_PER_ROW)
    figure = Figure(figsize=(11, 0.6 + 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, PANELS_PER_ROW, squeeze=False, sharex=True)
    colors = _colors(len(tables))
    for axes, (title, keys) in zip(grid.flat, panels.items(), strict=False):
        for curves, color in zip(tables.values(), colors, strict=True):
            for key in keys:
                if key in curves and curves[key].notna().any():
                    style = BRANCH_STYLES.get(key.rpartition("_")[2], "-")
                    marker = "." if len(curves) < 8 else None
                    axes.plot(curves[key], style, color=color, marker=marker, linewidth=1.4)
        axes.set_title(title, fontsize=9)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8, labelbottom=True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel("epoch", fontsize=9)
    handles = [Line2D([], [], color=color) for color in colors]
    names = list(tables)
    drawn = {key.rpartition("_")[2] for keys in panels.values() if len(keys) > 1 for key in keys}
    branches = [branch for branch in BRANCH_STYLES if branch in drawn]
    handles += [Line2D([], [], color="0.4", linestyle=BRANCH_STYLES[b]) for b in branches]
    names += [f"{branch} branch" for branch in branches]
    figure.legend(handles, names, loc="outside upper left", ncols=len(names), frameon=False)
    return figure


def _panels(tables: Iterable[pd.DataFrame]) -> dict[str, list[str]]:
    """Group the curves of both branches under one title, the most asked-for first."""
    keys = list(dict.fromkeys(key for curves in tables for key in curves.columns))
    ordered = [key for key in FIRST_PANELS if key in keys]
    ordered += [key for key in keys if key not in ordered]
    panels: dict[str, list[str]] = {}
    for key in ordered:
        base, _, branch = key.rpartition("_")
        title = base if branch in BRANCH_STYLES else key
        if title.startswith("dice_"):
            title = f"pseudo Dice {title.removeprefix('dice_')}"
        panels.setdefault(PANEL_TITLES.get(title, title.replace("_", " ")), []).append(key)
    return panels


def draw_metric_boxes(tables: Mapping[str, pd.DataFrame], metric: str = "dice") -> Figure:
    """Draw a box per class and run over the cases, every case as a dot.

    Args:
        tables: name of a run -> its metrics, one row per case and class.
        metric: one of the columns, "dice" for example.

    Raises:
        DataError: there is no such metric, or no run has it.
    """
    if metric not in METRICS:
        raise DataError(f"There is no metric {metric}; take one of {', '.join(METRICS)}.")
    if not any(table[metric].notna().any() for table in tables.values()):
        raise DataError(
            f"No run has the metric {metric}: run nnUNetv2_spmc_evaluate on its validation folder."
        )
    labels = list(dict.fromkeys(label for table in tables.values() for label in table["label"]))
    width = 0.8 / len(tables)
    figure = Figure(
        figsize=(min(11.0, max(4.5, 1.2 + len(labels) * (0.5 + 0.4 * len(tables)))), 3.4),
        layout="constrained",
    )
    axes = figure.subplots()
    colors = _colors(len(tables))
    for number, (table, color) in enumerate(zip(tables.values(), colors, strict=True)):
        for position, label in enumerate(labels):
            values = table.loc[table["label"] == label, metric].dropna().to_numpy()
            if len(values):
                middle = position + (number - (len(tables) - 1) / 2) * width
                draw_box(axes, middle, values, width, color)
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_ylabel(TITLES[metric])
    if metric in OVERLAPS:
        axes.set_ylim(-0.02, 1.02)
    else:
        axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3)
    handles = [Line2D([], [], color=color, linewidth=5, alpha=0.6) for color in colors]
    figure.legend(handles, list(tables), loc="outside upper left", frameon=False, fontsize=8)
    return figure


def _colors(number: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(number)]
