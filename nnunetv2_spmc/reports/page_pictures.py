"""The pictures of the report page, small ones that flow as wide as the window allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex

from nnunetv2_spmc.common.colors import CONFIDENCE_MAP, method_color
from nnunetv2_spmc.evaluation.comparison import MEAN
from nnunetv2_spmc.evaluation.text_table import TITLES
from nnunetv2_spmc.reports.answers import unit_values
from nnunetv2_spmc.reports.case_figure import (
    draw_small_panel,
    legend_of,
    shown_panels,
    slice_title,
    slice_to_show,
)
from nnunetv2_spmc.reports.case_views import CaseView
from nnunetv2_spmc.reports.content import Report
from nnunetv2_spmc.reports.html import Picture, png_picture, svg_picture
from nnunetv2_spmc.reports.metric_plots import draw_forest, draw_joined_lines
from nnunetv2_spmc.reports.plots import curve_panels, draw_curve_panel

DISTANCES_SHOWN = ("hd95_mm", "asd_mm")
MAX_CLASSES = 12  # with figures of their own; a page of more than a hundred classes has an end


@dataclass(frozen=True)
class Row:
    """The panels of a case in one run."""

    name: str
    pictures: list[Picture]


@dataclass(frozen=True)
class CaseBlock:
    """A case on the page: title, what the colours mean, a row of panels per run."""

    title: str
    legend: list[tuple[str, str]]
    rows: list[Row]
    columns: int
    has_reference: bool
    has_confidence: bool


def page_figures(report: Report) -> dict[str, Any]:
    """Return the figures of answers, metrics and curves."""
    return {
        "forest": _forest(report),
        "dice_figures": _joined(report, "dice"),
        "distance_figures": {
            TITLES[metric]: _joined(report, metric)
            for metric in DISTANCES_SHOWN
            if metric in report.shown_metrics
        },
        "curve_figures": _curves(report),
    }


def case_blocks(report: Report) -> list[CaseBlock]:
    """Return the cases, each as pictures of one slice."""
    blocks = []
    for case, views in report.cases.items():
        index, panels = slice_to_show(views), shown_panels(views)
        blocks.append(
            CaseBlock(
                slice_title(case, views[0], index),
                legend_of(views, report.class_names),
                [Row(_row_name(view), _panels(view, panels, index, case)) for view in views],
                len(panels),
                views[0].reference is not None,
                "confidence" in panels,
            )
        )
    return blocks


def classes_remark(report: Report) -> str:
    """Say which classes have no figures of their own; '' if all have."""
    number = len(report.class_names)
    if number <= MAX_CLASSES:
        return ""
    return f"Figures show the first {MAX_CLASSES} of {number} classes; the tables have all."


def confidence_bar() -> str:
    """Return the CSS colours of confidences from 0.3 to 1."""
    colors = colormaps[CONFIDENCE_MAP](np.linspace(0, 1, 8))
    return ", ".join(to_hex(color) for color in colors)


def _panels(view: CaseView, panels: dict[str, str], index: int, case: str) -> list[Picture]:
    return [
        png_picture(
            draw_small_panel(view, panel, index), f"{case}, {view.run_name}: {title}", title
        )
        for panel, title in panels.items()
        if panel not in ("confidence", "common_difficulty") or getattr(view, panel) is not None
    ]


def _row_name(view: CaseView) -> str:
    return f"{view.run_name}, mean Dice {view.dice:.3f}"


def _forest(report: Report) -> Picture | None:
    comparisons = [answer.differences for answer in report.answers if answer.differences]
    if not comparisons:
        return None
    text = " ".join(answer.headline for answer in report.answers)
    return svg_picture(draw_forest(comparisons), f"Differences with their intervals. {text}")


def _joined(report: Report, metric: str) -> list[Picture]:
    """Return a figure per class, and one of the mean over classes."""
    values = {}
    for method in report.methods:
        tables = [report.metrics[name] for name in method.runs if name in report.metrics]
        if tables:
            values[method.name] = unit_values(tables, report.patients, metric)
    labels = dict.fromkeys(label for table in values.values() for label in table.columns)
    figures = []
    for label in sorted(labels, key=lambda label: label != MEAN)[: MAX_CLASSES + 1]:
        found = {name: table[label] for name, table in values.items() if label in table}
        if not any(series.notna().any() for series in found.values()):
            continue
        title = "mean over classes" if label == MEAN else label
        text = f"{TITLES[metric]}, {title}: {' and '.join(found)}, {report.kind} cases"
        figures.append(svg_picture(draw_joined_lines(found, metric, title), text))
    return figures


def _curves(report: Report) -> list[Picture]:
    methods = list(enumerate(report.methods))
    colors = {name: method_color(number) for number, method in methods for name in method.runs}
    curves = {name: run.curves for name, run in report.runs.items()}
    pictures = []
    without = {f"dice_{name}" for name in list(report.class_names.values())[MAX_CLASSES:]}
    for panel in curve_panels(curves.values()):
        if without.issuperset(panel.keys):
            continue
        drawn = {name for name, table in curves.items() if panel.is_in(table)}
        legend = {m.name: method_color(number) for number, m in methods if drawn & set(m.runs)}
        figure = draw_curve_panel(panel, curves, colors, legend)
        text = f"{panel.title} over the epochs: {' and '.join(legend)}"
        pictures.append(svg_picture(figure, text, panel.healthy))
    return pictures
