from __future__ import annotations

import pytest

from benchmarks.accuracy.by_patient import (
    by_method,
    differences_table,
    patients_of_methods,
    shares_table,
)
from benchmarks.long_csv import Row


def run(name: str, seed: int, *values: float) -> tuple[Row, list[Row]]:
    """Two scans of each patient, one a tenth better and one a tenth worse than its value."""
    metrics = [
        {
            "case": f"patient{number:03d}_{frame}",
            "unit": f"patient{number:03d}",
            "label": label,
            "dice": str(value + change),
        }
        for number, value in enumerate(values)
        for frame, change in enumerate((0.1, -0.1))
        for label in ("RV", "LV")
    ]
    return {"name": name, "run": f"{name}-seed{seed}"}, metrics


RUNS = [
    run("control", 1, *[0.5, 0.6] * 3),
    run("spmc", 1, *[0.8] * 6),
    run("control", 2, *[0.7, 0.6] * 3),
    run("view_control_boxes", 1, *[0.7] * 6),
]
ROWS = [row for row, _ in RUNS]
METRICS = {row["run"]: metrics for row, metrics in RUNS}


def test_both_scans_of_a_patient_are_one_unit_and_seeds_are_averaged_first() -> None:
    dice = patients_of_methods(*by_method(ROWS[:1], METRICS))["control"]
    assert dice["patient000"] == pytest.approx(0.5)
    assert len(dice) == 6
    both = patients_of_methods(*by_method(ROWS, METRICS))["control"]
    assert list(both.values()) == pytest.approx([0.6] * 6)


def test_differences_and_shares_are_those_of_the_means() -> None:
    dice = by_method(ROWS, METRICS)
    differences = differences_table(*dice)
    assert "| spmc | control | +0.200 | +0.200 to +0.200 | 6 of 6 patients |" in differences
    assert "| spmc | view_control_boxes | +0.100 |" in differences
    assert "control_longer" not in differences  # was not run
    assert "| view_control_boxes | 50 % | 50 to 50 % |" in shares_table(*dice)


def test_runs_on_other_cases_are_refused() -> None:
    other, metrics = run("spmc", 3, 0.5)
    with pytest.raises(ValueError, match="Runs of spmc measured different cases"):
        by_method([*ROWS, other], METRICS | {other["run"]: metrics})
