"""The findings as text for the terminal and as JSON."""

from __future__ import annotations

import json
import textwrap
from typing import Any

from nnunetv2_spmc import __version__
from nnunetv2_spmc.doctor.examination import Examination
from nnunetv2_spmc.doctor.finding import SEVERITIES, Finding, worst, worst_first

MOST_COLUMNS = 100
GAP = "  "


def as_text(examination: Examination, columns: int = 80) -> str:
    """Return a table, worst first; commands stand on lines of their own, in full.

    Args:
        examination: what was found.
        columns: width of the terminal.
    """
    findings = worst_first(examination.findings)
    width = min(columns, MOST_COLUMNS)
    first = max(map(len, SEVERITIES))
    second = min(19, max((len(f.check) for f in findings), default=0))
    lines = [line for f in findings for line in _lines(f, first, second, width)]
    return "\n".join([*lines, *_sites(examination), "", summary(examination)])


def _lines(finding: Finding, first: int, second: int, width: int) -> list[str]:
    indent = " " * (first + len(GAP) + second + len(GAP))
    head = f"{finding.severity.ljust(first)}{GAP}{finding.check.ljust(second)}{GAP}"
    texts = [finding.what, finding.examples, finding.advice]
    lines = []
    for text in filter(None, texts):
        lines += textwrap.wrap(
            text,
            max(width - len(indent), 30),
            break_long_words=False,  # paths and commands stay in one piece, to be copied
            break_on_hyphens=False,
        )
    shown = [f"{indent}{line}" for line in lines]
    if len(finding.check) > second:
        shown.insert(0, head.rstrip())
    else:
        shown[0] = f"{head}{lines[0]}"
    if finding.command:
        shown.append(f"{' ' * (first + len(GAP))}> {finding.command}")
    return shown


def _sites(examination: Examination) -> list[str]:
    if not examination.sites:
        return []
    rows = [("medians of scans", "labeled", "unlabeled"), *examination.sites]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = [
        GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return ["", *table]


def summary(examination: Examination) -> str:
    """Return how many findings there are of each kind, in a line."""
    what = examination.dataset or "This installation"
    counts = []
    for severity in SEVERITIES[:-1]:
        number = sum(f.severity == severity for f in examination.findings)
        if number:
            counts.append(f"{number} {severity}{'s' * (number > 1)}")
    fine = sum(f.severity == "ok" for f in examination.findings)
    return f"{what}: {', '.join(counts) or 'nothing to complain of'}, {fine} ok."


def as_json(examination: Examination) -> str:
    """Return everything as JSON.

    It has "version", "dataset" (null without one), "worst", "findings" (worst first, with "check",
    "severity", "what", "cases", "advice" and "command") and "sites" ("property", "labeled" and
    "unlabeled").
    """
    names = ("property", "labeled", "unlabeled")
    content: dict[str, Any] = {
        "version": __version__,
        "dataset": examination.dataset or None,
        "worst": worst(examination.findings),
        "findings": [finding.to_json() for finding in worst_first(examination.findings)],
        "sites": [dict(zip(names, row, strict=True)) for row in examination.sites],
    }
    return json.dumps(content, indent=2)
