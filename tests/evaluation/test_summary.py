from __future__ import annotations

import json

import numpy as np
import pytest

from nnunetv2_spmc.evaluation.case_metrics import METRICS, ClassMetrics
from nnunetv2_spmc.evaluation.metrics_csv import read_metrics_csv, write_metrics_csv
from nnunetv2_spmc.evaluation.summary import mean_and_std, summarize_classes, summarize_mean
from nnunetv2_spmc.evaluation.text_table import mean_and_std_text, number, text_table


def row(case, label, dice, distance=np.nan, status="ok"):
    return ClassMetrics(case, label, dice, dice / 2, *[distance] * 4, 10, 10, status)


def failed(case, label):
    return row(case, label, 0.0, status="prediction_empty")


def empty(case, label):
    return row(case, label, np.nan, status="both_empty")


ROWS = [
    row("a", "RV", 0.8, 2.0),
    row("a", "LV", 0.9, 1.0),
    failed("b", "RV"),
    row("b", "LV", 0.5, 3.0),
    empty("c", "RV"),
    row("c", "LV", 0.7, 5.0),
]


def test_a_failure_lowers_the_overlap_and_has_no_distance() -> None:
    summary = summarize_classes(ROWS)["RV"]
    assert summary.metrics["dice"] == (pytest.approx(0.4), pytest.approx(0.8 / 2**0.5), 2)
    mean, std, n = summary.metrics["hd95_mm"]
    assert (mean, n) == (2.0, 1)
    assert np.isnan(std)
    assert (summary.both_empty, summary.failures) == (1, 1)


def test_the_mean_over_classes_is_that_of_the_class_means() -> None:
    summary = summarize_mean(ROWS)
    assert summary.metrics["dice"].mean == pytest.approx((0.4 + 0.7) / 2)
    assert summary.metrics["dice"].std == pytest.approx(np.std([0.85, 0.25, 0.7], ddof=1))
    assert summary.metrics["dice"].n == 3
    assert (summary.both_empty, summary.failures) == (1, 1)


def test_a_class_that_always_fails_leaves_no_mean_distance() -> None:
    summary = summarize_mean([failed("a", "RV"), row("a", "LV", 0.9, 1.0)])
    assert summary.metrics["dice"].mean == pytest.approx(0.45)
    assert np.isnan(summary.metrics["asd_mm"].mean)


def test_a_class_in_no_case_is_left_out_of_the_mean() -> None:
    summary = summarize_mean([empty("a", "RV"), row("a", "LV", 0.9, 1.0)])
    assert summary.metrics["dice"].mean == 0.9
    assert summary.metrics["asd_mm"].mean == 1.0


def test_undefined_numbers_are_null_in_json() -> None:
    content = summarize_classes([failed("a", "RV")])["RV"].as_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == {
        **{metric: {"mean": 0, "std": None, "n": 1} for metric in METRICS[:2]},
        **{metric: {"mean": None, "std": None, "n": 0} for metric in METRICS[2:]},
        "both_empty": 0,
        "failures": 1,
    }


def test_an_undefined_value_can_make_the_mean_undefined() -> None:
    assert mean_and_std([1.0, np.nan]).mean == 1.0
    assert np.isnan(mean_and_std([1.0, np.nan], skip_undefined=False).mean)


def test_the_csv_gives_back_every_digit(tmp_path) -> None:
    rows = [row("a", "RV", 1 / 3, 2**0.5), empty("b, c", "RV")]
    write_metrics_csv(tmp_path / "metrics.csv", rows)
    again = read_metrics_csv(tmp_path / "metrics.csv")
    np.testing.assert_equal([vars(r) for r in again], [vars(r) for r in rows])
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


def test_the_table_is_aligned_and_undefined_numbers_are_dashes() -> None:
    cells = [mean_and_std_text(0.9, 0.02, "dice"), mean_and_std_text(4.2, np.nan, "hd95_mm")]
    assert cells == ["0.900 +- 0.020", "4.20"]
    assert number(np.nan, "dice") == "-"
    assert number(0.01234, "dice", sign=True) == "+0.0123"
    assert text_table(["a", "class"], [["1234", "b"]]).splitlines() == [
        "| a    | class |",
        "|------|-------|",
        "| 1234 | b     |",
    ]
