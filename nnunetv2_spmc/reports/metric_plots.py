"""Figures of metrics: differences with their intervals, and the patients of all methods joined."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nnunetv2_spmc.common.colors import method_color
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.evaluation.case_metrics import METRICS, OVERLAPS
from nnunetv2_spmc.evaluation.comparison import MEAN, Difference
from nnunetv2_spmc.evaluation.text_table import TITLES

SMALL = (3.4, 2.7)  # inches; figures of this size stand side by side, or below each other
ROW_INCHES = 0.27
HEADING_WIDTH = 42  # characters
JITTER = 0.12  # of the distance between methods


def draw_forest(comparisons: Sequence[Mapping[str, Difference]]) -> Figure:
    """Draw a row per comparison and class: the difference in Dice and its 95 % interval.

    Args:
        comparisons: class -> difference, for each pair of methods; the first baseline is the first
            method of the page.
    """
    firsts = [next(iter(differences.values())) for differences in comparisons]
    numbers = {firsts[0].baseline: 0}
    rows: list[Difference | str] = []  # a text is the heading of what is below it
    for first, differences in zip(firsts, comparisons, strict=True):
        numbers.setdefault(first.method, len(numbers))
        if len(comparisons) > 1:
            rows += textwrap.wrap(f"{first.method} minus {first.baseline}", HEADING_WIDTH)
        rows += differences.values()
    figure = Figure(figsize=(SMALL[0], 1.1 + ROW_INCHES * len(rows)), layout="constrained")
    axes = figure.subplots()
    for row, found in enumerate(rows):
        if isinstance(found, str):
            place = axes.get_yaxis_transform()
            text = axes.text(
                0.01, row, found, va="center", fontsize=8, weight="bold", transform=place
            )
            text.set_bbox({"color": "white", "pad": 1})
            continue
        color = method_color(numbers[found.method])
        is_mean = found.label == MEAN or len(comparisons[0]) == 1
        if not np.isnan(found.low):
            axes.plot(
                [found.low, found.high],
                [row, row],
                color=color,
                linewidth=3 if is_mean else 1.6,
                solid_capstyle="butt",
            )
        marker = "D" if is_mean else "o"
        axes.plot(found.mean, row, marker, color=color, markersize=8 if is_mean else 5)
    axes.axvline(0, color="black", linewidth=0.8)
    names = {n: _row_name(r.label) for n, r in enumerate(rows) if isinstance(r, Difference)}
    axes.set_yticks(list(names), list(names.values()))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("difference in Dice; right of 0: better", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.grid(axis="x", alpha=0.3)
    if len(comparisons) == 1:
        figure.suptitle(f"{firsts[0].method} minus {firsts[0].baseline}", fontsize=10)
    return figure


def draw_joined_lines(values: Mapping[str, pd.Series], metric: str, title: str) -> Figure:
    """Draw a dot per case, or patient, and method, those of the same one joined, and the means.

    Args:
        values: method -> its values, by case or patient.
        metric: what they are, "dice" for example.
        title: of the figure, the class for example.
    """
    figure = Figure(figsize=SMALL, layout="constrained")
    _join(figure.subplots(), pd.DataFrame(values), metric, title)
    return figure


def _join(axes: Any, table: pd.DataFrame, metric: str, title: str) -> None:
    positions = np.arange(len(table.columns))
    if len(positions) > 1:
        for _, row in table.iterrows():
            axes.plot(positions, row.to_numpy(), "-", color="0.65", linewidth=0.7, zorder=1)
    # next to each other where several have the same value; not random, so that figures repeat
    spread = JITTER if len(positions) == 1 else 0
    offsets = (np.arange(len(table)) % 5 - 2) / 2 * spread
    for number, name in enumerate(table.columns):
        color = method_color(number)
        axes.plot(number + offsets, table[name], ".", color=color, markersize=5, zorder=2)
        ends, mean = [number - 0.22, number + 0.22], table[name].mean()
        axes.plot(ends, [mean, mean], "-", color=color, linewidth=3.5, zorder=3)
    axes.set_xticks(positions, [name.replace(", ", "\n") for name in table.columns])
    axes.set_xlim(-0.6, len(positions) - 0.4)
    axes.set_ylabel(TITLES[metric], fontsize=9)
    if metric in OVERLAPS:
        axes.set_ylim(-0.02, 1.02)
    else:
        axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=8)
    if len(positions) > 3:
        axes.tick_params(axis="x", labelrotation=30)
    axes.grid(axis="y", alpha=0.3)
    axes.set_title(title, fontsize=10)


def draw_metric(tables: Mapping[str, pd.DataFrame], metric: str = "dice") -> Figure:
    """Draw the cases of one or several runs for a notebook: a panel per class.

    Args:
        tables: name of a run -> its metrics, one row per case and class.
        metric: one of the columns, "dice" for example.

    Raises:
        DataError: there is no such metric, or no run has it.
    """
    check_metric(tables, metric)
    labels = list(dict.fromkeys(label for table in tables.values() for label in table["label"]))
    figure = Figure(figsize=(SMALL[0] * len(labels), SMALL[1]), layout="constrained")
    for axes, label in zip(figure.subplots(1, len(labels), squeeze=False)[0], labels, strict=True):
        values = {
            name: table[table["label"] == label].set_index("case")[metric]
            for name, table in tables.items()
        }
        _join(axes, pd.DataFrame(values), metric, label)
    return figure


def check_metric(tables: Mapping[str, pd.DataFrame], metric: str) -> None:
    """Raise DataError if there is no such metric, or no run has it."""
    if metric not in METRICS:
        raise DataError(f"There is no metric {metric}; take one of {', '.join(METRICS)}.")
    if not any(table[metric].notna().any() for table in tables.values()):
        raise DataError(
            f"No run has the metric {metric}: run nnUNetv2_spmc_evaluate on its validation folder."
        )


def _row_name(label: str) -> str:
    return "mean" if label == MEAN else label
