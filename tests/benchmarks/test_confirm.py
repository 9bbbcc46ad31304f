from __future__ import annotations

import json
import re

import numpy as np
import pytest

from benchmarks import long_csv
from benchmarks.accuracy import pictures
from benchmarks.accuracy.confirm import (
    LONG_COMPARED,
    NAMES,
    RECIPE,
    SAME_COST,
    bar_table,
    complete,
    confirming,
    convergence_table,
    curve_table,
    gap_sentence,
    long_runs,
    same_cost_epochs,
    summary_table,
)
from benchmarks.accuracy.cost import named
from benchmarks.accuracy.groups import CONFIRMING
from benchmarks.accuracy.methods import Run
from benchmarks.accuracy.queue import read_queue
from benchmarks.long_csv import Row
from nnunetv2_spmc.evaluation.pairs import bootstrap_interval

COSTS = {"control": "1.00", "turns_view_control": "2.00", RECIPE: "2.50"}
PERFORMANCE = [
    {
        "table": "cost",
        "key": json.dumps({"dataset": "acdc", "recipe": recipe}),
        "measure": "mean of a training",
        "value": cost,
    }
    for recipe, cost in COSTS.items()
]


def run(name: str, seed: int, *values: float, **changes: str) -> tuple[Row, list[Row]]:
    """A run with the given Dice of its patients; distances are ten times what is missing."""
    row = {"dataset": "acdc", "name": name, "seed": str(seed), "run": f"{name}-seed{seed}"}
    row |= {"stage": "confirm", "times": "", "labels": "7", "chosen_by": ""} | changes
    metrics = [
        {"case": f"case{number}", "unit": f"case{number}", "label": "RV", "dice": str(value)}
        | dict.fromkeys(("hd95_mm", "asd_mm"), str(10 * (1 - value)))
        | {"jaccard": str(value / (2 - value)), "hd95_voxel": "0", "asd_voxel": "0"}
        | {"reference_voxels": "9", "predicted_voxels": "9", "status": "ok"}
        for number, value in enumerate(values)
    ]
    return row, metrics


RUNS = [
    run(RECIPE, 4, *[0.7, 0.8] * 3),
    run(RECIPE, 5, *[0.9, 0.8] * 3),
    *(run("control_same_cost", seed, *[0.6] * 6) for seed in (4, 5)),
    *(run("view_control_same_cost", seed, *[0.7] * 6) for seed in (4, 5, 6)),
    run(RECIPE, 1, *[0.1] * 6),  # a seed of the search
    run(RECIPE, 6, *[0.1] * 6, times="10"),
    run("spmc", 4, *[0.1] * 6),
    run("control", 4, *[0.1] * 6, dataset="la"),
]
ROWS = [row for row, _ in RUNS]
METRICS = {row["run"]: metrics for row, metrics in RUNS}


def test_only_whole_trainings_with_the_seeds_of_the_confirmation_count() -> None:
    assert confirming(ROWS, "acdc") == ROWS[:7]


def test_the_bar_is_paired_by_patient_after_a_mean_over_seeds() -> None:
    table = bar_table(confirming(ROWS, "acdc"), METRICS, "patients")
    ahead = "+0.200 | +0.200 | +0.200 to +0.200 | 6 of 6 patients | 0.000 | 0 |"
    assert f"| {RECIPE} | control_same_cost | dice | {ahead}" in table
    of_views = "view_control_same_cost | hd95_mm | -1.00 | -1.00 | -1.00 to -1.00 | 0 of 6"
    assert f"| {RECIPE} | {of_views}" in table
    assert "| view_control_same_cost | control_same_cost | dice | +0.100 | +0.100 |" in table
    assert "| control | dice" not in table  # was not run


def test_what_the_patients_can_detect_grows_with_their_scatter() -> None:
    runs = [run(RECIPE, 4, *[0.7, 0.9] * 3), run("control_same_cost", 4, *[0.6] * 6)]
    table = bar_table([row for row, _ in runs], {row["run"]: found for row, found in runs}, "scans")
    # of t with 5 degrees of freedom; the standard error of differences 0.1, 0.3
    expected = (2.5706 + 0.9195) * 0.2 * (6 / 5 / 4) ** 0.5 / 6**0.5
    detected = re.search(r"dice.* 6 of 6 scans \| ([\d.]+) \|", table)
    assert detected
    assert float(detected[1]) == pytest.approx(expected, abs=6e-4)


def test_the_share_of_the_gap_has_an_interval_over_patients() -> None:
    reached = [0.7, 0.8] * 3
    found = [
        run("control", 4, *[0.6] * 6),
        run("all_labels", 4, *[0.9] * 6),
        run(RECIPE, 4, *reached),
    ]
    rows, metrics = [row for row, _ in found], {row["run"]: own for row, own in found}
    low, high = (end / 0.3 for end in bootstrap_interval(np.array(reached) - 0.6))
    assert gap_sentence(rows, metrics) == (
        "Of the gap, the recipe closes 50 %, with a 95 % interval of "
        f"{100 * low:.0f} to {100 * high:.0f} %."
    )
    assert gap_sentence(rows[1:], metrics) == ""


def test_distances_of_masks_that_one_method_left_empty_are_counted() -> None:
    runs = [run(RECIPE, 4, *[0.7] * 6), run("control_same_cost", 4, *[0.6] * 6)]
    runs[1][1][0]["hd95_mm"] = "nan"
    table = bar_table([row for row, _ in runs], {row["run"]: own for row, own in runs}, "scans")
    rows = {line.split(" | ")[2]: line for line in table.splitlines() if f"| {RECIPE}" in line}
    assert rows["hd95_mm"].endswith("| 0 of 5 scans | 0.00 | 1 |")
    assert rows["dice"].endswith("| 0 |")


def test_the_curve_has_a_row_for_each_number_of_labels_with_all_three_methods() -> None:
    lines = curve_table(ROWS, METRICS).splitlines()
    assert len(lines) == 5
    assert lines[2].startswith("| 7 | 4 | 0.600 | 0.700 | 0.750 | +0.150 ")
    assert lines[3].startswith("| 7 | 5 | 0.600 | 0.700 | 0.850 | +0.250 ")
    assert lines[4].startswith("| 7 | 4, 5 | 0.600 | 0.700 | 0.800 | +0.200 (+0.200 to +0.200) |")


def test_the_curve_leaves_out_seeds_that_a_control_lacks() -> None:
    dice = {RECIPE: 0.5, "control_same_cost": 0.3, "view_control_same_cost": 0.4}
    few = [run(n, 5, *[dice[n]] * 6, dataset="acdc3", labels="3", run=f"few-{n}") for n in dice]
    few.append(run(RECIPE, 4, *[0.9] * 6, dataset="acdc3", labels="3", run="alone"))
    rows, metrics = ROWS + [row for row, _ in few], METRICS | {r["run"]: own for r, own in few}
    lines = curve_table(rows, metrics).splitlines()
    assert lines[2].startswith("| 3 | 5 | 0.300 | 0.400 | 0.500 | +0.200 (+0.200 to +0.200) |")
    assert lines[3].startswith("| 7 | 4 |")


def long_run(name: str, dice: float) -> tuple[Row, list[Row], list[Row]]:
    """A run to convergence that reaches this Dice at its end, after one point less at half."""
    changes = {"times": "2", "epochs": "30", "iterations": "3000", "run": f"long-{name}"}
    row, metrics = run(name, 4, *[dice] * 6, **changes)
    times = [{"run": row["run"], "epochs": "15", "test_dice": str(dice - 0.01)}]
    return row, metrics, [*times, {"run": row["run"], "epochs": "30", "test_dice": str(dice)}]


def test_the_curve_to_convergence_has_a_column_for_each_time() -> None:
    found = [long_run(RECIPE, 0.8), long_run("control", 0.6), long_run("turns_view_control", 0.7)]
    runs = long_runs([*ROWS[:4], *(row for row, _, _ in found)])
    assert convergence_table(runs, [at for _, _, times in found for at in times]).splitlines() == [
        "| iterations | 1,500 | 3,000 |",
        "|---|---|---|",
        "| control | 0.590 | 0.600 |",
        "| turns_view_control | 0.690 | 0.700 |",
        f"| {RECIPE} | 0.790 | 0.800 |",
    ]
    table = bar_table(runs, {r["run"]: own for r, own, _ in found}, "patients", LONG_COMPARED)
    assert f"| {RECIPE} | turns_view_control | dice | +0.100 |" in table
    assert f"| {RECIPE} | control | dice | +0.200 |" in table
    assert "| turns_view_control | control | dice | +0.100 |" in table


def test_the_picture_has_both_curves(tmp_path, monkeypatch) -> None:
    figures = []
    monkeypatch.setattr(pictures, "save", lambda figure, path: figures.append(figure))
    long = [long_run(name, dice) for name, dice in (("control", 0.6), (RECIPE, 0.8))]
    rows = [row | {"mean_dice": "0.5"} for row in ROWS[:7]] + [row for row, _, _ in long]
    times = [at for _, _, own in long for at in own]
    pictures.draw_confirmation(rows, times, tmp_path / "picture.png")
    labels, iterations = figures[0].axes
    names = [line.get_label() for line in labels.lines]
    assert names == [
        f"{name}, seed {seed}" for seed in (4, 5) for name in ("SPMC", "control", "view control")
    ]
    assert list(labels.lines[0].get_xdata()) == [7]
    spmc, control = sorted(iterations.lines, key=lambda line: -line.get_ydata()[-1])
    assert list(spmc.get_xdata()) == [1500, 3000]
    assert spmc.get_color() == labels.lines[0].get_color()
    assert control.get_color() == labels.lines[1].get_color()


def test_the_controls_train_for_as_long_as_the_recipe_costs() -> None:
    epochs = [same_cost_epochs(PERFORMANCE, "acdc3", name, 30) for name in SAME_COST]
    assert epochs == [75, 38]


def test_trainings_at_the_same_cost_have_the_epochs_that_the_measured_costs_ask_for() -> None:
    asked = [Run.of_row(row) for row in long_csv.read("runs")] + read_queue()
    recipe = {run.dataset: run.epochs for run in asked if run.name == RECIPE and not run.times}
    for run in asked:
        if run.name in SAME_COST:
            epochs = recipe[run.dataset]
            expected = same_cost_epochs(long_csv.read("performance"), run.dataset, run.name, epochs)
            assert run.epochs == expected, run.run


def test_a_method_is_shown_once_it_has_all_its_seeds() -> None:
    runs = [run(name, int(seed), 0.5)[0] for name in NAMES for seed in CONFIRMING]
    assert complete(runs) == runs
    for left in runs:
        shown = complete([row for row in runs if row is not left])
        if left["name"] in (RECIPE, *SAME_COST):  # there is nothing to say without these
            assert shown == []
            rest = complete([row for row in runs if row is not left], needed=())
            assert rest == [row for row in runs if row["name"] != left["name"]]
        else:
            assert shown == [row for row in runs if row["name"] != left["name"]]


def test_the_summary_has_what_is_complete_and_the_gap_at_the_steps_of_the_recipe() -> None:
    dice = {"control": 0.5, "all_labels": 0.9, RECIPE: 0.8}
    dice |= {"control_same_cost": 0.6, "view_control_same_cost": 0.7}
    found = [
        run(name, int(seed), *[dice[name]] * 6, **columns)
        for name in NAMES
        for seed in CONFIRMING
        for columns in [{"chosen_by": "all"} if name == "all_labels" else {}]
    ]
    rows, metrics = [row for row, _ in found], {row["run"]: own for row, own in found}
    lines = summary_table(rows, metrics).splitlines()
    assert lines[2:] == [
        "| ACDC | 7 + 63 patients | 0.500 | 0.600 | 0.700 | 0.800 | 0.900 | 75 % |"
    ]
    assert summary_table(rows[1:], metrics).splitlines()[2:] == [
        "| ACDC | 7 + 63 patients | - | 0.600 | 0.700 | 0.800 | 0.900 | - |"
    ]
    assert rows[-1]["name"] == "view_control_same_cost"
    assert len(summary_table(rows[:-1], metrics).splitlines()) == 2


def test_costs_are_measured_on_the_small_plans_of_the_dataset_that_is_asked_for() -> None:
    found = named("la", RECIPE)
    assert (found.dataset, found.configuration) == ("la", "3d_fullres_small")
    with pytest.raises(ValueError, match=r"runs.csv and queue.csv have no run nothing"):
        named("la", "nothing")


def test_the_report_says_in_how_many_earlier_runs_the_test_cases_were_measured() -> None:
    rows, measured = long_csv.read("runs"), {row["run"] for row in long_csv.read("metrics")}
    earlier = {
        dataset: sum(
            row["dataset"] == dataset and row["run"] in measured and row["seed"] not in CONFIRMING
            for row in rows
        )
        for dataset in ("acdc", "la", "hippocampus")
    }
    assert earlier == {"acdc": 50, "la": 27, "hippocampus": 0}
    text = (long_csv.RESULTS / "2026-11-29-confirmation.md").read_text(encoding="utf-8")
    assert "Fifty earlier rows of runs.csv measured the ten test patients" in text
    assert "27 the ten test scans of LA" in text
