"""The report as one self-contained HTML page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.style

from nnunetv2_spmc.common.colors import CLASS_COLORS, DIFFICULTY_COLOR, class_color
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.reports import report_tables as tables
from nnunetv2_spmc.reports.content import Log, Report
from nnunetv2_spmc.reports.html import asset, write_html
from nnunetv2_spmc.reports.niivue import NIIVUE_VERSION, find_niivue
from nnunetv2_spmc.reports.page_pictures import (
    case_blocks,
    classes_remark,
    confidence_bar,
    page_figures,
)
from nnunetv2_spmc.reports.viewer_volumes import viewer_case


def write_page(
    report: Report, path: Path, *, title: str, with_viewer: bool = True, log: Log = print
) -> None:
    """Write the page whole or not at all.

    Args:
        report: from `gather_report`; gets a note if the viewer cannot be had.
        path: the HTML file.
        title: its heading.
        with_viewer: whether to embed the viewer and its volumes.
        log: receives a line per step that takes time.
    """
    log("Drawing the page")
    viewer = _viewer(report) if with_viewer and report.cases else None
    with matplotlib.style.context("default"):
        figures, cases = page_figures(report), case_blocks(report)
    write_html(
        "report.html.jinja",
        path,
        title=title,
        judged_by=report.judged_by,
        classes_remark=classes_remark(report),
        kind=report.kind,
        answers=report.answers,
        notes=report.notes,
        run_names=list(report.runs),
        several_methods=len(report.methods) > 1,
        record_rows=tables.record_rows(report),
        setting_rows=tables.setting_rows(report),
        metrics_remark=tables.metrics_remark(report),
        metric_titles=tables.metric_titles(report),
        metric_rows=tables.metric_rows(report),
        case_rows=tables.case_rows(report),
        cases=cases,
        confidence_bar=confidence_bar(),
        viewer=viewer,
        viewer_legend=_viewer_legend(report),
        print_script=asset("print.js"),
        footer=f"Made by nnUNetv2_spmc_report with {tables.made_with()}.",
        **figures,
    )


def _viewer(report: Report) -> dict[str, str] | None:
    """Return what the viewer needs, or None and a note if NiiVue cannot be had."""
    try:
        niivue = find_niivue().read_text(encoding="utf-8")
    except DataError as error:
        report.notes.append(f"The page has no interactive viewer: {error}")
        return None
    data = {
        "cases": [viewer_case(case, views) for case, views in report.cases.items()],
        "labelColors": CLASS_COLORS,
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


def _viewer_legend(report: Report) -> list[tuple[str, str]]:
    classes: list[Any] = [(name, class_color(value)) for value, name in report.class_names.items()]
    return [*classes, ("common difficulty", DIFFICULTY_COLOR)]
