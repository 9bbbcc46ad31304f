from __future__ import annotations

import pytest

from benchmarks.accuracy.groups import Group, comparison_of, gap_closed, overall, table


def run(name: str, seed: int, dice: float, **changes: str) -> tuple[dict[str, str], list]:
    """A run in which every case has the given Dice."""
    row = {"dataset": "acdc", "name": name, "seed": str(seed), "run": f"{name}-{seed}"}
    row |= {"epochs": "30", "configuration": "2d_small", "chosen_by": "", "mean_dice": str(dice)}
    row |= {"validation_dice": str(dice - 0.1), "seconds": str(10 * seed)}
    numbers = dict.fromkeys(("jaccard", "hd95_mm", "asd_mm", "hd95_voxel", "asd_voxel"), "0.5")
    numbers |= {"dice": str(dice), "reference_voxels": "9", "predicted_voxels": "9"}
    metrics = [
        {"case": f"case{i}", "unit": f"case{i}", "label": label, "status": "ok", **numbers}
        for i in range(6)
        for label in ("RV", "LV")
    ]
    return row | changes, metrics


RUNS = [
    run("control", 1, 0.58),
    run("control", 2, 0.62),
    run("all_labels", 1, 0.8, chosen_by="all"),
    run("spmc", 1, 0.7),
    run("spmc", 2, 0.8),
    run("annotate_random1", 1, 0.6, chosen_by="random1"),
    run("annotate_random2", 1, 0.7, chosen_by="random2"),
]
ROWS = [row for row, _ in RUNS]
METRICS = {row["run"]: metrics for row, metrics in RUNS}


def test_gap_closed_is_measured_between_the_means_of_control_and_all_labels() -> None:
    runs = Group("acdc", 30, ("control", "all_labels", "spmc")).runs(ROWS)
    means = overall(comparison_of(runs, METRICS))
    assert gap_closed(means, "spmc") == pytest.approx(0.75)
    assert "| 75 % | 0.650 | 15 |" in table(runs, means)  # share, validation, seconds
    del means["all_labels"]
    assert gap_closed(means, "spmc") is None


def test_draws_of_random_patients_are_like_seeds() -> None:
    runs = Group("acdc", 30, ("control", "all_labels", "annotate_random")).runs(ROWS)
    means = overall(comparison_of(runs, METRICS))
    assert means["annotate_random"].seeds == 2
    assert gap_closed(means, "annotate_random") == pytest.approx(0.25)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": "60"},
        {"dataset": "la"},
        {"configuration": "2d"},
        {"mean_dice": ""},
        {"seed": "4"},
    ],
)
def test_only_runs_of_the_same_vehicle_compare(changes: dict[str, str]) -> None:
    row, _ = run("spmc", 3, 0.9)
    group = Group("acdc", 30, ("spmc",))
    assert len(group.runs([row])) == 1
    assert group.runs([row | changes]) == []


def test_the_longer_control_compares_with_runs_of_a_quarter_of_its_length() -> None:
    row, _ = run("control_longer", 1, 0.7, epochs="120")
    group = Group("acdc", 30, ("control_longer",))
    assert len(group.runs([row])) == 1
    assert group.runs([row | {"epochs": "30"}]) == []
