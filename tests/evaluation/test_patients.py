from __future__ import annotations

import json

import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.evaluation.patients import patients_of, patients_of_references

NAME, CASES = "Dataset501_Heart", ["a_1", "a_2", "b_1"]
GROUPS = {"a_1": "a", "a_2": "a", "b_1": "b"}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The dataset in nnUNet_raw and nnUNet_preprocessed."""
    found = []
    for kind in ("raw", "preprocessed"):
        found.append(tmp_path / kind / NAME)
        found[-1].mkdir(parents=True)
        monkeypatch.setenv(f"nnUNet_{kind}", str(found[-1].parent))
    return found


def split(folder, groups=GROUPS):
    (folder / "split.json").write_text(json.dumps({"groups": groups}))


def record(folder, groups=GROUPS):
    content = {"date": "", "groups": groups, "folders": {}}
    (folder / "spmc_scans.json").write_text(json.dumps(content))


def test_patients_are_those_of_split_json(folders):
    split(folders[0])
    record(folders[1], dict.fromkeys(CASES, "another"))
    patients = patients_of(NAME, CASES)
    assert [patients.of(case) for case in CASES] == ["a", "a", "b"]
    assert patients.count(2) == "2 patients"


def test_else_those_of_the_record_beside_the_plans(folders):
    record(folders[1])
    assert patients_of(NAME, CASES).of_case == GROUPS
    split(folders[0], {})
    assert patients_of(NAME, CASES).of_case == GROUPS


def test_else_each_case_is_its_own_patient(folders):
    patients = patients_of(NAME, CASES)
    assert patients.of("a_1") == "a_1"
    assert (patients.are_known, patients.count(1)) == (False, "1 case")


def test_a_case_that_is_not_listed_belongs_to_the_patient_whose_key_begins_its_name(folders):
    split(folders[0], {"a_1": "a"})
    assert patients_of(NAME, CASES).of("a_2") == "a"


@pytest.mark.parametrize("labels", ["labelsTs", "gt_segmentations"])
def test_references_tell_the_dataset_wherever_it_lies(tmp_path, monkeypatch, labels):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    folder = tmp_path / NAME
    folder.mkdir()
    {"labelsTs": split, "gt_segmentations": record}[labels](folder)
    assert patients_of_references(folder / labels, CASES).of_case == GROUPS


def test_references_beside_the_plans_have_the_patients_of_split_json(folders):
    split(folders[0])
    record(folders[1], dict.fromkeys(CASES, "another"))
    assert patients_of_references(folders[1] / "gt_segmentations", CASES).of_case == GROUPS


def test_a_damaged_split_json_is_named(folders):
    (folders[0] / "split.json").write_text("{")
    with pytest.raises(DataError, match=r"split\.json"):
        patients_of(NAME, CASES)
