"""Differences between methods by patient: both scans of a patient are one unit, seeds come first.

Imported by benchmark_tables.py. Intervals are 95 % bootstrap percentile intervals over patients.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from nnunetv2_spmc.evaluation.comparison import BOOTSTRAP_SEED, RESAMPLES

CONTROL, METHOD = "control", "spmc"
COMPARED = (  # method, against which
    ("control_again", CONTROL),
    ("control_longer", CONTROL),
    ("view_control_boxes", CONTROL),
    ("view_control_boxes_turns", CONTROL),
    (METHOD, CONTROL),
    (METHOD, "control_longer"),
    (METHOD, "view_control_boxes"),
    (METHOD, "view_control_boxes_turns"),
)


def dice_by_patient(metrics: Path) -> dict[str, float]:
    """Return patient -> mean Dice over scans and classes, from the metrics.csv of a run."""
    values: dict[str, list[float]] = {}
    with metrics.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            patient = re.sub(r"_frame\d+$", "", row["case"])
            values.setdefault(patient, []).append(float(row["dice"]))
    return {patient: float(np.nanmean(dice)) for patient, dice in sorted(values.items())}


def methods_by_patient(folder: Path, rows: Sequence[Mapping[str, str]]) -> dict[str, np.ndarray]:
    """Return method -> Dice of each patient, the mean over its seeds."""
    ordered = sorted(rows, key=lambda row: (row["method"], row["seed"]))
    found = {}
    for method, runs in groupby(ordered, key=lambda row: row["method"]):
        seeds = [dice_by_patient(folder / row["folder"] / "metrics.csv") for row in runs]
        if any(seed.keys() != seeds[0].keys() for seed in seeds):
            raise ValueError(f"Runs of {method} measured different patients.")
        found[method] = np.mean([list(seed.values()) for seed in seeds], axis=0)
    return found


def resampled(number: int) -> np.ndarray:
    """Return draws of patients with replacement, (resamples, patients)."""
    return np.random.default_rng(BOOTSTRAP_SEED).integers(0, number, (RESAMPLES, number))


def interval(values: np.ndarray) -> str:
    low, high = np.percentile(values, [2.5, 97.5])
    return f"{low:+.3f} to {high:+.3f}"


def differences_table(folder: Path, rows: Sequence[Mapping[str, str]]) -> str:
    """Return the paired differences in Dice by patient."""
    dice = methods_by_patient(folder, rows)
    lines = [
        "| method | minus | Dice | 95 % interval over patients | better on |",
        "|---|---|---|---|---|",
    ]
    for method, other in COMPARED:
        if not {method, other} <= dice.keys():
            continue
        values = dice[method] - dice[other]
        means = values[resampled(len(values))].mean(axis=1)
        better = f"{(values > 0).sum()} of {len(values)} patients"
        cells = (method, other, f"{values.mean():+.3f}", interval(means), better)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shares_table(folder: Path, rows: Sequence[Mapping[str, str]]) -> str:
    """Return which part of SPMC's gain over the control others reach without unlabeled scans."""
    dice = methods_by_patient(folder, rows)
    gain = dice[METHOD] - dice[CONTROL]
    draws = resampled(len(gain))
    lines = [
        "| without any unlabeled scan | share of the gain | 95 % interval over patients |",
        "|---|---|---|",
    ]
    for method in ("control_longer", "view_control_boxes", "view_control_boxes_turns"):
        if method in dice:
            values = dice[method] - dice[CONTROL]
            shares = values[draws].mean(axis=1) / gain[draws].mean(axis=1)
            low, high = np.percentile(shares, [2.5, 97.5])
            share = values.mean() / gain.mean()
            cells = (method, f"{100 * share:.0f} %", f"{100 * low:.0f} to {100 * high:.0f} %")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
