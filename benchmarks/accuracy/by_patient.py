"""Differences between methods by patient: both scans of a patient are one unit, seeds come first.

Intervals are 95 % bootstrap percentile intervals over patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from benchmarks.long_csv import Row
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
WITHOUT_UNLABELED = ("control_longer", "view_control_boxes", "view_control_boxes_turns")


def dice_by_patient(metrics: Sequence[Row]) -> dict[str, float]:
    """Return patient -> mean Dice over scans and classes, from the rows of a run."""
    values: dict[str, list[float]] = {}
    for row in metrics:
        values.setdefault(row["unit"], []).append(float(row["dice"]))
    return {patient: float(np.nanmean(dice)) for patient, dice in sorted(values.items())}


def methods_by_patient(
    runs: Sequence[Row], metrics: Mapping[str, Sequence[Row]]
) -> dict[str, dict[str, float]]:
    """Return method -> patient -> Dice, the mean over its seeds.

    Args:
        runs: rows of runs.csv.
        metrics: run -> its rows of metrics.csv.

    Raises:
        ValueError: runs measured different patients.
    """
    ordered = sorted(runs, key=lambda row: row["name"])
    found: dict[str, dict[str, float]] = {}
    for name, of_name in groupby(ordered, key=lambda row: row["name"]):
        seeds = [dice_by_patient(metrics[row["run"]]) for row in of_name]
        first = next(iter(found.values()), seeds[0])
        if any(seed.keys() != first.keys() for seed in seeds):
            raise ValueError(f"Runs of {name} measured different patients.")
        found[name] = {p: float(np.mean([seed[p] for seed in seeds])) for p in first}
    return found


def resampled(number: int) -> np.ndarray:
    """Return draws of patients with replacement, (resamples, patients)."""
    return np.random.default_rng(BOOTSTRAP_SEED).integers(0, number, (RESAMPLES, number))


def difference(dice: Mapping[str, Mapping[str, float]], method: str, other: str) -> np.ndarray:
    """Return the paired differences, (patients,)."""
    return np.array([value - dice[other][patient] for patient, value in dice[method].items()])


def differences_table(dice: Mapping[str, Mapping[str, float]]) -> str:
    """Return the paired differences in Dice by patient."""
    lines = [
        "| method | minus | Dice | 95 % interval over patients | better on |",
        "|---|---|---|---|---|",
    ]
    for method, other in COMPARED:
        if not {method, other} <= dice.keys():
            continue
        values = difference(dice, method, other)
        means = values[resampled(len(values))].mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        better = f"{(values > 0).sum()} of {len(values)} patients"
        cells = (method, other, f"{values.mean():+.3f}", f"{low:+.3f} to {high:+.3f}", better)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shares_table(dice: Mapping[str, Mapping[str, float]]) -> str:
    """Return which part of SPMC's gain over the control others reach without unlabeled scans."""
    gain = difference(dice, METHOD, CONTROL)
    draws = resampled(len(gain))
    lines = [
        "| without any unlabeled scan | share of the gain | 95 % interval over patients |",
        "|---|---|---|",
    ]
    for method in WITHOUT_UNLABELED:
        if method in dice:
            values = difference(dice, method, CONTROL)
            shares = values[draws].mean(axis=1) / gain[draws].mean(axis=1)
            low, high = np.percentile(shares, [2.5, 97.5])
            share = values.mean() / gain.mean()
            cells = (method, f"{100 * share:.0f} %", f"{100 * low:.0f} to {100 * high:.0f} %")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
