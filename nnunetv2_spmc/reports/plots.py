"""Figures of curves over the epochs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from nnunetv2_spmc.common.colors import method_color
from nnunetv2_spmc.methods import TRAINERS
from nnunetv2_spmc.reports.curve_texts import panel_of

OTHER_BRANCHES = sorted({b for t in TRAINERS for b in getattr(t, "branches", ())[1:]})
BRANCH_STYLES: dict[str, Literal["-", "--"]] = {"main": "-", **dict.fromkeys(OTHER_BRANCHES, "--")}
FIRST_PANELS = ("ema_fg_dice", "train_losses", "val_losses", "mean_fg_dice")
PANELS_PER_ROW = 3
SMALL = (3.4, 2.5)  # inches; figures of this size stand side by side, or below each other


@dataclass(frozen=True)
class Panel:
    """What is drawn into one panel: the curves of all branches.

    Args:
        title: of the panel.
        healthy: a sentence on what it looks like where all is well.
        keys: of the curves.
    """

    title: str
    healthy: str
    keys: Sequence[str]

    @property
    def branches(self) -> list[str]:
        """The branches in it, if there are several."""
        names = [key.rpartition("_")[2] for key in self.keys]
        return [name for name in BRANCH_STYLES if name in names] if len(names) > 1 else []

    def is_in(self, curves: pd.DataFrame) -> bool:
        """Whether a run has one of them."""
        return any(key in curves and curves[key].notna().any() for key in self.keys)


def draw_curves(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw one panel per logged value, all runs in it; branches as solid and dashed lines.

    Args:
        tables: name of a run -> its curves, one row per epoch.
    """
    panels = curve_panels(tables.values())
    rows = math.ceil(len(panels) / PANELS_PER_ROW)
    figure = Figure(figsize=(11, 0.6 + 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, PANELS_PER_ROW, squeeze=False, sharex=True)
    colors = {name: method_color(number) for number, name in enumerate(tables)}
    for axes, panel in zip(grid.flat, panels, strict=False):
        _draw(axes, panel, tables, colors)
        axes.tick_params(labelbottom=True)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    figure.supxlabel("epoch", fontsize=9)
    branches = dict.fromkeys(branch for panel in panels for branch in panel.branches)
    handles = _handles(colors, branches)
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False)
    return figure


def draw_curve_panel(
    panel: Panel,
    tables: Mapping[str, pd.DataFrame],
    colors: Mapping[str, str],
    legend: Mapping[str, str],
) -> Figure:
    """Draw a panel as a small figure of its own.

    Args:
        panel: from `curve_panels`.
        tables: name of a run -> its curves.
        colors: name of a run -> its colour.
        legend: what is written below -> its colour.
    """
    figure = Figure(figsize=SMALL, layout="constrained")
    axes = figure.subplots()
    _draw(axes, panel, tables, colors)
    axes.set_xlabel("epoch", fontsize=8)
    handles = _handles(legend, panel.branches)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=8,
        columnspacing=1,
    )
    return figure


def curve_panels(tables: Iterable[pd.DataFrame]) -> list[Panel]:
    """Group the curves of all branches under one title, the most asked-for first."""
    logged = [key for curves in tables for key in curves.columns if curves[key].notna().any()]
    keys = list(dict.fromkeys(logged))
    ordered = [key for key in FIRST_PANELS if key in keys]
    ordered += [key for key in keys if key not in ordered]
    panels: dict[tuple[str, str], list[str]] = {}
    for key in ordered:
        base, _, branch = key.rpartition("_")
        panels.setdefault(panel_of(base if branch in BRANCH_STYLES else key), []).append(key)
    return [Panel(title, healthy, found) for (title, healthy), found in panels.items()]


def _draw(
    axes: Any, panel: Panel, tables: Mapping[str, pd.DataFrame], colors: Mapping[str, str]
) -> None:
    for name, curves in tables.items():
        for key in panel.keys:
            if key in curves and curves[key].notna().any():
                style = BRANCH_STYLES.get(key.rpartition("_")[2], "-")
                marker = "." if len(curves) < 8 else None
                axes.plot(curves[key], style, color=colors[name], marker=marker, linewidth=1.4)
    axes.set_title(panel.title, fontsize=9)
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _handles(colors: Mapping[str, str], branches: Iterable[str]) -> list[Line2D]:
    handles = [Line2D([], [], color=color, label=name) for name, color in colors.items()]
    for branch in branches:
        style = BRANCH_STYLES[branch]
        handles.append(Line2D([], [], color="0.4", linestyle=style, label=f"{branch} branch"))
    return handles
