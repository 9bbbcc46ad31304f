"""Differences between methods by patient: both scans of a patient are one unit, seeds come first.

The comparison is the package's own, with its intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import numpy as np

from benchmarks.long_csv import Row
from nnunetv2_spmc.evaluation.pairs import (
    Place,
    Values,
    by_patient,
    interval_of,
    mean_of,
    over_seeds,
    pair,
)
from nnunetv2_spmc.evaluation.patients import Patients

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


def recorded_patients(metrics: Iterable[Row]) -> Patients:
    """Return whose the cases are, as the rows of metrics.csv say."""
    return Patients({row["case"]: row["unit"] for row in metrics}, are_known=True)


def values_of(metrics: Sequence[Row], metric: str) -> Values:
    """Return a metric of the cases of a run, from its rows of metrics.csv."""
    found: dict[Place, dict[str, float]] = {}
    for row in metrics:
        found.setdefault(("", row["case"]), {})[row["label"]] = float(row[metric])
    return found


def by_method(
    runs: Sequence[Row], metrics: Mapping[str, Sequence[Row]], metric: str = "dice"
) -> tuple[dict[str, Values], Patients]:
    """Return method -> metric of the cases, the mean over its seeds; and whose the cases are.

    Args:
        runs: rows of runs.csv.
        metrics: run -> its rows of metrics.csv.
        metric: a column of metrics.csv.

    Raises:
        ValueError: runs measured different cases.
    """
    ordered = sorted(runs, key=lambda row: row["name"])
    patients = recorded_patients(row for run in ordered for row in metrics[run["run"]])
    found: dict[str, Values] = {}
    for name, of_name in groupby(ordered, key=lambda row: row["name"]):
        seeds = [values_of(metrics[row["run"]], metric) for row in of_name]
        first = next(iter(found.values()), seeds[0])
        if any(seed.keys() != first.keys() for seed in seeds):
            raise ValueError(f"Runs of {name} measured different cases.")
        found[name] = over_seeds(seeds)
    return found, patients


def patients_of_methods(
    dice: Mapping[str, Values], patients: Patients
) -> dict[str, dict[str, float]]:
    """Return method -> patient -> Dice."""
    return {name: by_patient(values, patients) for name, values in dice.items()}


def differences_table(dice: Mapping[str, Values], patients: Patients) -> str:
    """Return the paired differences in Dice by patient."""
    lines = [
        "| method | minus | Dice | 95 % interval over patients | better on |",
        "|---|---|---|---|---|",
    ]
    for method, other in COMPARED:
        if not {method, other} <= dice.keys():
            continue
        pairs = pair(dice[method], dice[other], patients)
        low, high = pairs.interval
        better = f"{pairs.higher} of {patients.count(len(pairs))}"
        cells = (method, other, f"{pairs.mean:+.3f}", f"{low:+.3f} to {high:+.3f}", better)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def shares_table(dice: Mapping[str, Values], patients: Patients) -> str:
    """Return which part of SPMC's gain over the control others reach without unlabeled scans."""
    gain = pair(dice[METHOD], dice[CONTROL], patients).differences
    lines = [
        "| without any unlabeled scan | share of the gain | 95 % interval over patients |",
        "|---|---|---|",
    ]
    for method in WITHOUT_UNLABELED:
        if method not in dice:
            continue
        values = pair(dice[method], dice[CONTROL], patients).differences

        def share(drawn: np.ndarray, values: np.ndarray = values) -> np.ndarray:
            return values[drawn].mean(axis=1) / gain[drawn].mean(axis=1)

        low, high = interval_of(share, len(gain))
        reached = f"{100 * mean_of(values) / mean_of(gain):.0f} %"
        cells = (method, reached, f"{100 * low:.0f} to {100 * high:.0f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
