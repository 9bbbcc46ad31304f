"""The report as one self-contained HTML page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.style

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.reports import report_tables as tables
from nnunetv2_spmc.reports.case_figure import DIFFICULTY_COLOR, LABEL_COLORS, draw_case
from nnunetv2_spmc.reports.html import asset, png_picture, svg_picture, write_html
from nnunetv2_spmc.reports.niivue import NIIVUE_VERSION, find_niivue
from nnunetv2_spmc.reports.plots import draw_curves, draw_metric_boxes
from nnunetv2_spmc.reports.report import Report
from nnunetv2_spmc.reports.viewer_volumes import viewer_case

BOX_METRICS = ("dice", "hd95_mm", "asd_mm")


def write_page(report: Report, path: Path, *, title: str, with_viewer: bool = True) -> None:
    """Write the page whole or not at all.

    Args:
        report: from `gather_report`; gets a note if the viewer cannot be had.
        path: the HTML file.
        title: its heading.
        with_viewer: whether to embed the viewer and its volumes.
    """
    viewer = _viewer(report) if with_viewer and report.cases else None
    with matplotlib.style.context("default"):
        pictures = _pictures(report)
    write_html(
        "report.html.jinja",
        path,
        title=title,
        notes=report.notes,
        run_names=list(report.runs),
        record_rows=tables.record_rows(report),
        setting_rows=tables.setting_rows(report),
        metrics_remark=tables.metrics_remark(report),
        metric_titles=tables.metric_titles(report),
        metric_rows=tables.metric_rows(report),
        case_rows=tables.case_rows(report),
        legend=_legend(report),
        viewer=viewer,
        footer=f"Made by nnUNetv2_spmc_report with {tables.made_with()}.",
        **pictures,
    )


def _pictures(report: Report) -> dict[str, Any]:
    names = " and ".join(report.runs)
    boxes = [
        svg_picture(
            draw_metric_boxes(report.metrics, metric), f"{title} of the validation cases, by class"
        )
        for metric, title in zip(report.shown_metrics, tables.metric_titles(report), strict=True)
        if metric in BOX_METRICS
    ]
    cases = [
        png_picture(draw_case(case, views, report.class_names), _case_text(case, views))
        for case, views in report.cases.items()
    ]
    tables_of_curves = {name: run.curves for name, run in report.runs.items()}
    curves = svg_picture(draw_curves(tables_of_curves), f"Curves over the epochs of {names}")
    return {"box_figures": boxes, "case_figures": cases, "curves": curves}


def _case_text(case: str, views: list[Any]) -> str:
    scores = ", ".join(f"{view.run_name} {view.dice:.3f}" for view in views)
    return f"{case}, mean Dice: {scores}"


def _viewer(report: Report) -> dict[str, str] | None:
    """Return what the viewer needs, or None and a note if NiiVue cannot be had."""
    try:
        niivue = find_niivue().read_text(encoding="utf-8")
    except DataError as error:
        report.notes.append(f"The page has no interactive viewer: {error}")
        return None
    data = {
        "cases": [viewer_case(case, views) for case, views in report.cases.items()],
        "labelColors": LABEL_COLORS,
        "difficultyColor": DIFFICULTY_COLOR,
    }
    return {
        # "<" could end the script element, or begin a comment in it
        "data": json.dumps(data).replace("<", "\\u003c"),
        "niivue": niivue,
        "script": asset("viewer.js"),
        "version": NIIVUE_VERSION,
        "license": asset("NIIVUE-LICENSE.txt"),
    }


def _legend(report: Report) -> list[tuple[str, str]]:
    classes = [
        (name, LABEL_COLORS[number % len(LABEL_COLORS)])
        for number, name in enumerate(report.class_names)
    ]
    return [*classes, ("common difficulty", DIFFICULTY_COLOR)]
