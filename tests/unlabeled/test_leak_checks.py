from __future__ import annotations

import json
import shutil

import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.unlabeled.leak_checks import (
    check_no_leak,
    check_raw_dataset,
    identical_cases,
    read_groups,
)

DATASET_JSON = {"file_ending": ".nii.gz"}


def test_separate_cases_pass():
    check_no_leak({"a"}, {"b"}, {"c"}, {"d"}, {"a": "1", "b": "1", "c": "2", "d": "3"})


@pytest.mark.parametrize("role", ["labeled", "validation", "test"])
def test_a_case_of_another_role_is_named(role):
    cases = {"labeled": ["a"], "validation": [], "test": []}
    cases[role] = ["a", "x"]
    with pytest.raises(DataError, match=f"unlabeled and at the same time {role}: x"):
        check_no_leak(unlabeled=["b", "x"], groups=None, **cases)


@pytest.mark.parametrize("role", ["validation", "test"])
def test_a_patient_of_an_evaluated_case_is_named(role):
    cases = {"validation": [], "test": [], role: ["p1_late"]}
    with pytest.raises(DataError, match=f"of a patient of a {role} case: p1_early"):
        check_no_leak(
            [], ["p1_early", "p2_early"], groups={"p1_early": "p1", "p1_late": "p1"}, **cases
        )


def test_a_labeled_patient_may_have_unlabeled_cases():
    check_no_leak(["p1_a"], ["p1_b"], [], [], {"p1_a": "p1", "p1_b": "p1"})


def test_allowed_overlap_is_logged():
    logged = []
    check_no_leak([], ["x"], [], ["x"], allow_overlap=True, log=logged.append)
    assert len(logged) == 1
    assert "x" in logged[0]


def test_groups_come_from_split_json(tmp_path):
    assert read_groups(tmp_path) == {}
    (tmp_path / "split.json").write_text(json.dumps({"protocol": "none"}))
    assert read_groups(tmp_path) == {}
    (tmp_path / "split.json").write_text(json.dumps({"groups": {"a": 7}}))
    assert read_groups(tmp_path) == {"a": "7"}


@pytest.mark.parametrize("content", ["{", "[]", '{"groups": ["a"]}'])
def test_a_damaged_split_json_is_an_error(tmp_path, content):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(DataError, match=r"split\.json.*; repair it, or remove it if no patient"):
        read_groups(tmp_path)


@pytest.fixture
def raw_folder(tmp_path):
    for number, folder in enumerate(("imagesTr", "imagesUn", "imagesTs")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}_0000.nii.gz").write_bytes(bytes([number]) * 300_000)
    return tmp_path


def unlabeled_of(folder):
    return {f.name[:-12]: [str(f)] for f in sorted((folder / "imagesUn").iterdir())}


def test_a_copy_under_another_name_is_found(raw_folder):
    check_raw_dataset(raw_folder, DATASET_JSON, unlabeled_of(raw_folder))
    shutil.copy(
        raw_folder / "imagesTs" / "imagesTs_0000.nii.gz", raw_folder / "imagesUn/new_0000.nii.gz"
    )
    with pytest.raises(DataError, match=r"case in imagesTs: new \(= imagesTs\)"):
        check_raw_dataset(raw_folder, DATASET_JSON, unlabeled_of(raw_folder))


def test_labeled_cases_are_found_by_a_dataset_json_that_lists_them(raw_folder):
    listed = {"imagesUn": {"images": ["imagesTr/imagesTr_0000.nii.gz"], "label": ""}}
    with pytest.raises(DataError, match="at the same time labeled: imagesUn"):
        check_raw_dataset(raw_folder, {**DATASET_JSON, "dataset": listed}, unlabeled_of(raw_folder))


def test_one_common_channel_does_not_make_cases_identical(tmp_path):
    for name, content in {"a0": b"zeros", "a1": b"one", "b0": b"zeros", "b1": b"two"}.items():
        (tmp_path / name).write_bytes(content)
    a, b = ([str(tmp_path / f"{case}{channel}") for channel in (0, 1)] for case in "ab")
    assert identical_cases({"a": a}, {"b": b}) == {}
    assert identical_cases({"a": a}, {"b": a}) == {"a": "b"}


def test_files_that_differ_beyond_the_sampled_bytes_are_told_apart(tmp_path):
    content = bytearray(1_000_000)
    (tmp_path / "a").write_bytes(content)
    content[200_000] = 1
    (tmp_path / "b").write_bytes(content)
    assert identical_cases({"a": [str(tmp_path / "a")]}, {"b": [str(tmp_path / "b")]}) == {}
