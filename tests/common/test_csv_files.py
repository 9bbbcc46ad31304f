import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_spmc.common.csv_files import as_cell, from_cell, write_csv
from nnunetv2_spmc.evaluation.case_metrics import ClassMetrics
from nnunetv2_spmc.evaluation.metrics_csv import read_metrics_csv, write_metrics_csv


@pytest.mark.parametrize("name", ["=1+1", "+case", "-case", "@SUM(A1)", "\t=1", "\r=1", "'=1"])
def test_a_name_is_no_formula(name):
    assert as_cell(name) == f"'{name}"


@pytest.mark.parametrize("value", [-0.5, -3, 1e-9, None, "case-1", "a=b", "", "'tis"])
def test_numbers_and_other_names_stay_as_they_are(value):
    assert as_cell(value) is value


@given(st.text("'=+-@\t\ra1", max_size=6))
def test_every_name_comes_back(name):
    assert from_cell(as_cell(name)) == name


def test_a_file_has_quoted_names_and_plain_numbers(tmp_path):
    write_csv(tmp_path / "a.csv", ["case", "dice"], [{"case": "-1", "dice": -1}])
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["case", "dice"], ["'-1", "-1"]]


def test_metrics_of_a_case_with_such_a_name_are_read_back(tmp_path):
    row = ClassMetrics("=cmd|'/C calc'!A0", "+liver", 0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 9, 9, "ok")
    write_metrics_csv(tmp_path / "metrics.csv", [row])
    assert "\n'=cmd|" in (tmp_path / "metrics.csv").read_text()
    assert read_metrics_csv(tmp_path / "metrics.csv") == [row]
