"""The findings as an HTML page, with pictures of how labeled and unlabeled scans are spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nnunetv2_spmc import __version__
from nnunetv2_spmc.common.colors import METHOD_COLORS
from nnunetv2_spmc.doctor.examination import Examination
from nnunetv2_spmc.doctor.finding import worst_first
from nnunetv2_spmc.doctor.text import summary
from nnunetv2_spmc.raw.scan_facts import PERCENTILES, ScanFacts
from nnunetv2_spmc.reports.html import Picture, svg_picture, write_html

AXES = ("x", "y", "z")
Scans = Mapping[str, Sequence[ScanFacts]]  # "labeled" and "unlabeled"


def write_page(examination: Examination, path: Path) -> None:
    """Write the page whole or not at all."""
    dataset = examination.dataset
    with matplotlib.style.context("default"):
        pictures = draw_scans(examination.scans, examination.channels)
    write_html(
        "doctor.html.jinja",
        path,
        title=f"nnUNetv2_spmc_doctor: {dataset or 'this installation'}",
        summary=summary(examination),
        findings=worst_first(examination.findings),
        sites=examination.sites,
        pictures=pictures,
        footer=f"Made by nnUNetv2_spmc_doctor of nnunetv2-spmc {__version__}.",
    )


def draw_scans(scans: Scans, channels: Sequence[str]) -> list[Picture]:
    """Draw spacing, size and intensities of labeled against unlabeled scans.

    Args:
        scans: kind -> facts; those that could not be read are left out.
        channels: their names.
    """
    read = {kind: [f for f in facts if f.size] for kind, facts in scans.items()}
    read = {kind: facts for kind, facts in read.items() if facts}
    if not read:
        return []
    numbers = " and ".join(f"{len(facts)} {kind}" for kind, facts in read.items())
    pictures = [
        _grid_picture(read, "spacing_mm", "spacing (mm)", f"Spacing of {numbers} scans"),
        _grid_picture(read, "size", "size (voxels)", f"Size of {numbers} scans"),
    ]
    for number, name in enumerate(channels):
        curves = {
            kind: np.array([c for f in facts if (c := _curve(f, number))])
            for kind, facts in read.items()
        }
        curves = {kind: values for kind, values in curves.items() if len(values)}
        if curves:
            text = f"Intensities of {name}: median of the scans, and the range of nine in ten"
            pictures.append(svg_picture(draw_intensities(curves, name), text))
    return pictures


def _curve(facts: ScanFacts, channel: int) -> tuple[float, ...]:
    return facts.intensities[channel] if len(facts.intensities) > channel else ()


def _grid_picture(read: Scans, attribute: str, label: str, text: str) -> Picture:
    values = {
        kind: np.array([getattr(f, attribute) for f in facts if len(f.size) == len(facts[0].size)])
        for kind, facts in read.items()
    }
    return svg_picture(draw_grid(values, label), text)


def draw_grid(values: Mapping[str, np.ndarray], label: str) -> Figure:
    """Draw a box per axis and kind, every scan as a dot.

    Args:
        values: kind -> (scans, axes).
        label: what is drawn.
    """
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    dimension = max(rows.shape[1] for rows in values.values())
    width = 0.8 / len(values)
    for number, (rows, color) in enumerate(zip(values.values(), METHOD_COLORS, strict=False)):
        for position in range(rows.shape[1]):
            middle = position + (number - (len(values) - 1) / 2) * width
            _draw_box(axes, middle, rows[:, position], width, color)
    axes.set_xticks(range(dimension), AXES[:dimension])
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3)
    _legend(figure, list(values))
    return figure


def _draw_box(axes: Any, position: float, values: Any, width: float, color: str) -> None:
    """Draw a box of values, and each of them as a dot."""
    axes.boxplot(
        values,
        positions=[position],
        widths=width * 0.8,
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": color, "alpha": 0.35, "edgecolor": color},
        medianprops={"color": "black"},
        whiskerprops={"color": color},
        capprops={"color": color},
    )
    # next to each other where several cases have the same value; not random, so that figures repeat
    offsets = [(number % 5 - 2) / 5 * width * 0.5 for number in range(len(values))]
    axes.plot([position + o for o in offsets], values, ".", color=color, markersize=4)


def draw_intensities(curves: Mapping[str, np.ndarray], channel: str) -> Figure:
    """Draw percentiles of intensities: the median of the scans and a band.

    Args:
        curves: kind -> (scans, PERCENTILES).
        channel: its name.
    """
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    for values, color in zip(curves.values(), METHOD_COLORS, strict=False):
        low, middle, high = np.percentile(values, (5, 50, 95), axis=0)
        axes.fill_between(PERCENTILES, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(PERCENTILES, middle, color=color, linewidth=1.6)
    axes.set_xlabel("voxels with at most that intensity (%)")
    axes.set_ylabel(f"intensity of {channel}")
    axes.grid(alpha=0.3)
    _legend(figure, list(curves))
    return figure


def _legend(figure: Figure, kinds: list[str]) -> None:
    handles: list[Any] = [
        Line2D([], [], color=color, linewidth=5, alpha=0.6)
        for _, color in zip(kinds, METHOD_COLORS, strict=False)
    ]
    figure.legend(handles, kinds, loc="outside upper left", ncols=2, frameon=False, fontsize=8)
