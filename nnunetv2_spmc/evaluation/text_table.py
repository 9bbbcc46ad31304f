"""Tables for the screen, in markdown so that they can be pasted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunetv2_spmc.evaluation.case_metrics import OVERLAPS

TITLES = {
    "dice": "Dice",
    "jaccard": "Jaccard",
    "hd95_mm": "HD95 mm",
    "asd_mm": "ASD mm",
    "hd95_voxel": "HD95 voxel",
    "asd_voxel": "ASD voxel",
}


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned markdown table."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in (header, *rows)
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def number(value: float, metric: str, *, sign: bool = False) -> str:
    """Return '0.893' for an overlap, '4.21' for a distance, '-' where undefined.

    With a sign, for differences, an overlap has one digit more: '+0.0123'.
    """
    if np.isnan(value):
        return "-"
    if sign:
        return f"{value:+.{4 if metric in OVERLAPS else 2}f}"
    return f"{value:.{3 if metric in OVERLAPS else 2}f}"


def mean_and_std_text(mean: float, std: float, metric: str) -> str:
    """Return '0.893 +- 0.021', the mean alone where there is no standard deviation."""
    return number(mean, metric) + (f" +- {number(std, metric)}" if not np.isnan(std) else "")
