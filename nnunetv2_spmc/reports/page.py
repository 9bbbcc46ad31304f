"""The report as one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.whole_file import made_folder, whole_file
from nnunetv2_spmc.reports import report_tables as tables
from nnunetv2_spmc.reports.case_figure import DIFFICULTY_COLOR, LABEL_COLORS, draw_case
from nnunetv2_spmc.reports.niivue import NIIVUE_VERSION, find_niivue
from nnunetv2_spmc.reports.plots import draw_curves, draw_metric_boxes
from nnunetv2_spmc.reports.report import Report
from nnunetv2_spmc.reports.viewer_volumes import viewer_case

ASSETS = Path(__file__).parent / "assets"
BOX_METRICS = ("dice", "hd95_mm", "asd_mm")


@dataclass(frozen=True)
class Picture:
    """A figure on the page: data URI and the text that says what it shows."""

    source: str
    text: str


def write_page(report: Report, path: Path, *, title: str, with_viewer: bool = True) -> None:
    """Write the page whole or not at all.

    Args:
        report: from `gather_report`; gets a note if the viewer cannot be had.
        path: the HTML file.
        title: its heading.
        with_viewer: whether to embed the viewer and its volumes.
    """
    viewer = _viewer(report) if with_viewer and report.cases else None
    environment = Environment(
        loader=FileSystemLoader(ASSETS, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    with matplotlib.style.context("default"):
        pictures = _pictures(report)
    content = environment.get_template("report.html.jinja").render(
        title=title,
        css=_asset("report.css"),
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
    with made_folder(path.parent), whole_file(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def _pictures(report: Report) -> dict[str, Any]:
    names = " and ".join(report.runs)
    boxes = [
        _svg(
            draw_metric_boxes(report.metrics, metric), f"{title} of the validation cases, by class"
        )
        for metric, title in zip(report.shown_metrics, tables.metric_titles(report), strict=True)
        if metric in BOX_METRICS
    ]
    cases = [
        _png(draw_case(case, views, report.class_names), _case_text(case, views))
        for case, views in report.cases.items()
    ]
    tables_of_curves = {name: run.curves for name, run in report.runs.items()}
    curves = _svg(draw_curves(tables_of_curves), f"Curves over the epochs of {names}")
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
        "script": _asset("viewer.js"),
        "version": NIIVUE_VERSION,
        "license": _asset("NIIVUE-LICENSE.txt"),
    }


def _legend(report: Report) -> list[tuple[str, str]]:
    classes = [
        (name, LABEL_COLORS[number % len(LABEL_COLORS)])
        for number, name in enumerate(report.class_names)
    ]
    return [*classes, ("common difficulty", DIFFICULTY_COLOR)]


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _svg(figure: Figure, text: str) -> Picture:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return Picture(_data_uri("image/svg+xml", buffer.getvalue()), text)


def _png(figure: Figure, text: str) -> Picture:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return Picture(_data_uri("image/png", buffer.getvalue()), text)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
