"""The confirmation of the recipe that the search chose, on test cases and with seeds of its own.

The control and the view control train for as long as the recipe does: their epochs are those of
the recipe times its cost over theirs, from the table `cost` of performance.csv. The share of the
gap is between the control and all labels at the recipe's iterations. The curve over labels and the
training to convergence, in which all three methods have ten times as many iterations, follow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from scipy.stats import t

from benchmarks import long_csv
from benchmarks.accuracy.by_patient import by_method
from benchmarks.accuracy.groups import (
    BASELINE,
    CONFIRMING,
    UPPER_BOUND,
    comparison_of,
    gap_closed,
    metrics_by_run,
    overall,
    table,
)
from benchmarks.accuracy.methods import DATASETS
from benchmarks.long_csv import Row
from nnunetv2_spmc.evaluation.pairs import Pairs, by_patient, interval_of, pair

RECIPE = "nnunet_turns_every2"
SAME_COST = {"control_same_cost": "control", "view_control_same_cost": "turns_view_control"}
NAMES = (BASELINE, UPPER_BOUND, RECIPE, *SAME_COST)
COMPARED = (  # each method with the one that it is measured against
    *((RECIPE, other) for other in (*SAME_COST, BASELINE)),
    ("view_control_same_cost", "control_same_cost"),
)
CONFIRMED = {  # -> title, what a case is
    "acdc": ("ACDC", "patients"),
    "hippocampus": ("Hippocampus", "cases"),
    "la": ("LA", "scans"),
}
CURVE = ("acdc3", "acdc", "acdc14")
CURVE_SEEDS = ("4", "5")  # so that numbers of labels are compared on the same seeds
LONG = (BASELINE, "turns_view_control", RECIPE)  # trained to convergence
LONG_COMPARED = ((RECIPE, LONG[1]), (RECIPE, BASELINE), (LONG[1], BASELINE))
DECIMALS = {"dice": 3, "hd95_mm": 2, "asd_mm": 2}


def confirming(rows: Sequence[Row], dataset: str) -> list[Row]:
    """Return the rows of runs.csv that confirm the recipe on a dataset."""
    return [
        row
        for row in rows
        if row["dataset"] == dataset
        and row["stage"] in ("confirm", "bound")
        and row["name"] in NAMES
        and row["seed"] in CONFIRMING
        and not row["times"]
    ]


def complete(runs: Sequence[Row], needed: Collection[str] = (RECIPE, *SAME_COST)) -> list[Row]:
    """Return the rows of the methods that have all seeds: means compare the same seeds only.

    Nothing without the methods that are needed.
    """
    found = {(row["name"], row["seed"]) for row in runs}
    names = {name for name in NAMES if all((name, seed) in found for seed in CONFIRMING)}
    if not names >= {*needed}:
        return []
    return [row for row in runs if row["name"] in names]


def same_cost_epochs(performance: Sequence[Row], dataset: str, name: str, epochs: int) -> int:
    """Return for how many epochs a control trains, so that it costs as much as the recipe.

    Args:
        performance: rows of performance.csv.
        dataset: key of `DATASETS`; those of the curve over labels cost what `acdc` costs.
        name: of `SAME_COST`.
        epochs: of the recipe.
    """
    costs = {
        key["recipe"]: float(row["value"])
        for row in performance
        if row["table"] == "cost" and row["measure"] == "mean of a training"
        for key in [json.loads(row["key"])]
        if key["dataset"] == ("acdc" if dataset in CURVE else dataset)
    }
    return round(epochs * costs[RECIPE] / costs[SAME_COST[name]])


def detectable(pairs: Pairs) -> float:
    """Return which true mean difference so many patients find with a power of 80 %.

    By a two-sided t test at 5 %. How much seeds scatter is not in it.
    """
    standard_errors = float(t.ppf(0.975, len(pairs) - 1) + t.ppf(0.8, len(pairs) - 1))
    return standard_errors * float(np.std(pairs.differences, ddof=1)) / math.sqrt(len(pairs))


def gap_sentence(runs: Sequence[Row], metrics: Mapping[str, Sequence[Row]]) -> str:
    """Return which share of the gap the recipe closes, with its interval; '' without the gap."""
    dice, patients = by_method(runs, metrics)
    if not {BASELINE, UPPER_BOUND, RECIPE} <= dice.keys():
        return ""
    of_patients = [by_patient(dice[name], patients) for name in (BASELINE, UPPER_BOUND, RECIPE)]
    control, best, reached = (np.array(list(found.values())) for found in of_patients)

    def share(drawn: np.ndarray) -> np.ndarray:
        gap = (best - control)[drawn].mean(axis=1)
        return np.asarray((reached - control)[drawn].mean(axis=1) / gap)

    everyone = np.arange(len(control))[None]
    low, high = interval_of(share, len(control))
    return (
        f"Of the gap, the recipe closes {100 * share(everyone)[0]:.0f} %, with a 95 % interval of "
        f"{100 * low:.0f} to {100 * high:.0f} %."
    )


def bar_table(
    runs: Sequence[Row],
    metrics: Mapping[str, Sequence[Row]],
    unit: str,
    compared: Sequence[tuple[str, str]] = COMPARED,
) -> str:
    """Return the differences between methods, patient by patient, seeds averaged first.

    Args:
        runs: rows of runs.csv.
        metrics: run -> its rows of metrics.csv.
        unit: what a patient is called, "cases" for example.
        compared: each method with the one that it is measured against.
    """
    lines = [
        "| method | minus | metric | mean difference | median | 95 % interval of the mean "
        "| higher on | detectable | left out |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, other in compared:
        for metric, decimals in DECIMALS.items():
            values, patients = by_method(runs, metrics, metric)
            if not {method, other} <= values.keys():
                continue
            pairs = pair(values[method], values[other], patients)
            low, high = (f"{end:+.{decimals}f}" for end in pairs.interval)
            cells = (
                f"{pairs.mean:+.{decimals}f}",
                f"{np.median(pairs.differences):+.{decimals}f}",
                f"{low} to {high}",
                f"{pairs.higher} of {len(pairs)} {unit}",
                f"{detectable(pairs):.{decimals}f}",
                str(pairs.one_sided),
            )
            lines.append(f"| {method} | {other} | {metric} | {' | '.join(cells)} |")
    return "\n".join(lines)


def curve_runs(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """Return dataset of `CURVE` -> seed -> recipe and both controls, where all three are trained.

    Only seeds of `CURVE_SEEDS`. A dataset without any is left out.
    """
    found: dict[str, dict[str, list[Row]]] = {}
    for dataset in CURVE:
        for seed in CURVE_SEEDS:
            own = [
                row
                for row in confirming(rows, dataset)
                if row["seed"] == seed and row["name"] in (RECIPE, *SAME_COST)
            ]
            if len(own) == 1 + len(SAME_COST):
                found.setdefault(dataset, {})[seed] = own
    return found


def curve_table(rows: Sequence[Row], metrics: Mapping[str, Sequence[Row]]) -> str:
    """Return the test Dice of recipe and controls over the number of labeled patients.

    A row for each seed, then one for their mean.
    """
    lines = [
        f"| labeled patients | seeds | {' | '.join(SAME_COST)} | the recipe "
        "| minus control | minus view control |",
        "|---|---|---|---|---|---|---|",
    ]
    for by_seed in curve_runs(rows).values():
        parts = [[seed] for seed in by_seed] + ([[*by_seed]] if len(by_seed) > 1 else [])
        for seeds in parts:
            own = [row for seed in seeds for row in by_seed[seed]]
            values, patients = by_method(own, metrics)
            against = {other: pair(values[RECIPE], values[other], patients) for other in SAME_COST}
            control, views = against.values()
            cells = (
                own[0]["labels"],
                ", ".join(seeds),
                *(f"{np.mean(pairs.theirs):.3f}" for pairs in (control, views)),
                f"{np.mean(control.ours):.3f}",
                *(with_interval(pairs) for pairs in (control, views)),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def long_runs(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of runs.csv that were trained to convergence, in the order of `LONG`."""
    found = [row for row in rows if row["stage"] == "confirm" and row["times"]]
    return sorted(found, key=lambda row: LONG.index(row["name"]))


def convergence_table(runs: Sequence[Row], times: Sequence[Row]) -> str:
    """Return the test Dice of the long runs over their iterations.

    Args:
        runs: of `long_runs`; each measured as often as the others.
        times: the rows of over_time.csv.
    """
    measured = {row["run"]: [at for at in times if at["run"] == row["run"]] for row in runs}
    per_epoch = int(runs[0]["iterations"]) // int(runs[0]["epochs"])
    steps = [per_epoch * int(at["epochs"]) for at in measured[runs[0]["run"]]]
    header = ["iterations", *(f"{count:,}" for count in steps)]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for row in runs:
        dice = (f"{float(at['test_dice']):.3f}" for at in measured[row["run"]])
        lines.append(f"| {row['name']} | {' | '.join(dice)} |")
    return "\n".join(lines)


def with_interval(pairs: Pairs) -> str:
    """Return the mean difference with its interval."""
    low, high = pairs.interval
    return f"{pairs.mean:+.3f} ({low:+.3f} to {high:+.3f})"


def summary_table(rows: Sequence[Row], metrics: Mapping[str, Sequence[Row]]) -> str:
    """Return the mean Dice of the test scans, a row for each dataset whose recipe is compared."""
    shown = {BASELINE: BASELINE} | {
        name: f"{name.removesuffix('_same_cost').replace('_', ' ')}, same minutes"
        for name in SAME_COST
    }
    shown |= {RECIPE: "SPMC", UPPER_BOUND: "all labels"}
    header = ["dataset", "labeled + unlabeled", *shown.values(), "gap closed"]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for dataset, (title, unit) in CONFIRMED.items():
        runs, data = complete(confirming(rows, dataset)), DATASETS[dataset]
        if not runs:
            continue
        means = overall(comparison_of(runs, metrics))
        closed = gap_closed(means, RECIPE)
        cells = [
            title,
            f"{data.few} + {data.all - data.few} {unit}",
            *(f"{means[n].metrics['dice'].mean:.3f}" if n in means else "-" for n in shown),
            "-" if closed is None else f"{100 * closed:.0f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def confirmation_tables() -> dict[str, str]:
    """Return what stands between the markers of the report on the confirmation."""
    rows, metrics = long_csv.read("runs"), metrics_by_run()
    found = {
        "runs.csv: in short": summary_table(rows, metrics),
        "runs.csv: curve over labels": curve_table(rows, metrics),
    }
    fewest = [row for own in curve_runs(rows).get(CURVE[0], {}).values() for row in own]
    found["runs.csv: fewest labels"] = bar_table(fewest, metrics, "patients")
    for dataset, (_, unit) in CONFIRMED.items():
        runs = complete(confirming(rows, dataset), needed=(RECIPE,))
        content = "Not complete yet."
        if runs:
            means = table(runs, overall(comparison_of(runs, metrics)))
            parts = (means, gap_sentence(runs, metrics), bar_table(runs, metrics, unit))
            content = "\n\n".join(filter(None, parts))
        found[f"runs.csv: confirm {dataset}"] = content
    long, content = long_runs(rows), "Not complete yet."
    if {row["name"] for row in long} == {*LONG}:
        differences = bar_table(long, metrics, "patients", LONG_COMPARED)
        content = f"{convergence_table(long, long_csv.read('over_time'))}\n\n{differences}"
    return found | {"over_time.csv: to convergence": content}
