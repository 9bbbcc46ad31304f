"""Patients by a pattern, and the hint where a pattern should be given."""

from __future__ import annotations

import re

import pytest

from nnunetv2_spmc.dataset_conversion import patient_names
from nnunetv2_spmc.dataset_conversion.patient_names import grouping_hint, patient_keys
from nnunetv2_spmc.raw.cases import ConversionError


def test_the_first_group_or_the_whole_match_is_the_patient() -> None:
    names = ["p1_a", "p22_b", "q"]
    assert patient_keys(r"^(p\d+)_", names) == ["p1", "p22", None]
    assert patient_keys(r"p\d+", names) == ["p1", "p22", None]
    assert patient_keys(r"q|p(\d+)", names) == ["1", "22", ""]


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "*"])
def test_no_regular_expression_is_an_error(pattern) -> None:
    with pytest.raises(ConversionError, match="not a regular expression"):
        patient_keys(pattern, ["p1"])


@pytest.mark.parametrize("pattern", [r"^(\w+)+-$", r"(a|a)*b$", r"^((\w*)*)*!"])
def test_a_pattern_that_would_match_for_years_is_refused(monkeypatch, pattern) -> None:
    monkeypatch.setattr(patient_names, "MATCH_SECONDS", 1.0)
    with pytest.raises(ConversionError, match=r"takes too long .* nested repetitions"):
        patient_keys(pattern, ["a" * 60 + "_frame"])


@pytest.mark.parametrize(
    "names",
    [
        ["patient001_frame01", "patient001_frame02", "patient002_frame01"],
        ["sub-01_ses-1_T1w", "sub-01_ses-2_T1w", "sub-02_ses-1_T1w", "sub-03"],
        ["BraTS-GLI-00000-000", "BraTS-GLI-00000-001", "BraTS-GLI-00005-000"],
        ["p1_ED", "p1_ES", "p2_ED", "p2_ES"],
        ["s7.t0", "s7.t1", "s8.t0"],
        ["2_pre", "2_post", "3_pre"],
        ["Brats18_TCIA01_131_1", "Brats18_TCIA01_131_2", "Brats18_2013_11_1"],
    ],
)
def test_scans_of_one_patient_get_a_hint_whose_pattern_joins_them(names) -> None:
    hint = grouping_hint(names)
    one, other = sorted(names[:2])
    assert hint.startswith(f"{one} and {other} look like scans of one patient")
    (pattern,) = re.findall(r"--group_by '(.*)'$", hint)
    keys = patient_keys(pattern, names)
    assert None not in keys
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["p1_frame01", "p1_frame02", "p2_frame01"], r"^(.+)_frame\d+"),
        (["sub-01_ses-1_T1w", "sub-01_ses-2_T1w", "sub-02_ses-1_T1w"], r"^(.+)_ses-\d+"),
        (["GLI-00000-000", "GLI-00000-001", "GLI-00005-000"], r"^(.+)-\d+"),
    ],
)
def test_the_pattern_of_the_hint_is_short_where_it_can_be(names, pattern) -> None:
    assert grouping_hint(names).endswith(f"--group_by '{pattern}'")


@pytest.mark.parametrize(
    "names",
    [
        ["case_001", "case_002", "case_003"],
        ["hippocampus_001", "hippocampus_004", "p1_01", "p1_02"],
        ["BraTS20_Training_001", "BraTS20_Training_002"],
        ["BraTS2021_00000", "BraTS2021_00002"],
        ["LUNG1-001", "LUNG1-002"],
        ["06SR5RBREL16DQ6M8LWS", "0RZDK210BSMWAA6467LU"],
        ["1.2.840.113.1", "1.2.840.113.2", "1.2.840.7.1"],
        ["case_0000"],
    ],
)
def test_names_with_running_numbers_get_no_hint(names) -> None:
    assert grouping_hint(names) == ""
