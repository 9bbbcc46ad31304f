from __future__ import annotations

import gzip
import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.unlabeled.leak_checks import (
    check_no_leak,
    check_raw_dataset,
    identical_cases,
    read_groups,
)
from nnunetv2_spmc.unlabeled.overlap import patient_of

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


@pytest.fixture
def scans(tmp_path):
    """A raw dataset of one real scan in each folder."""
    for number, folder in enumerate(("imagesTr", "imagesUn", "imagesTs")):
        (tmp_path / folder).mkdir()
        array = np.random.default_rng(number).integers(-500, 900, (6, 8, 10)).astype(np.int16)
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((1, 1, 2))
        sitk.WriteImage(image, str(tmp_path / folder / f"{folder}_0000.nii.gz"))
    return tmp_path


def recompressed(source, target):
    target.write_bytes(gzip.compress(gzip.decompress(source.read_bytes()), 1, mtime=1))


def as_float(source, target):
    sitk.WriteImage(sitk.Cast(sitk.ReadImage(str(source)), sitk.sitkFloat32), str(target))


def shifted_values(source, target):
    sitk.WriteImage(sitk.ReadImage(str(source)) + 1024, str(target))


def normalized(source, target):
    sitk.WriteImage(sitk.Normalize(sitk.ReadImage(str(source))), str(target))


def reoriented(source, target):
    sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(source)), "RAS"), str(target))


def other_spacing(source, target):
    image = sitk.ReadImage(str(source))
    image.SetSpacing((3, 3, 3))
    sitk.WriteImage(image, str(target))


@pytest.mark.parametrize("folder", ["imagesTr", "imagesTs"])
@pytest.mark.parametrize(
    "save", [recompressed, as_float, shifted_values, normalized, reoriented, other_spacing]
)
def test_a_copy_that_was_saved_differently_is_found(scans, folder, save):
    save(scans / folder / f"{folder}_0000.nii.gz", scans / "imagesUn" / "new_0000.nii.gz")
    with pytest.raises(DataError, match=rf"case in {folder}: new \(= {folder}\)"):
        check_raw_dataset(scans, DATASET_JSON, unlabeled_of(scans))


def test_copies_of_labeled_and_test_cases_are_named_together(scans):
    for folder in ("imagesTr", "imagesTs"):
        as_float(scans / folder / f"{folder}_0000.nii.gz", scans / f"imagesUn/{folder}_0000.nii.gz")
    (scans / "imagesUn" / "imagesTr_0000.nii.gz").rename(scans / "imagesUn" / "x_0000.nii.gz")
    (scans / "imagesUn" / "imagesTs_0000.nii.gz").rename(scans / "imagesUn" / "y_0000.nii.gz")
    with pytest.raises(
        DataError,
        match=r"^Some cases are unlabeled with the same images as a case in imagesTs: "
        r"y \(= imagesTs\); .* in imagesTr: x \(= imagesTr\)\. Take them out",
    ):
        check_raw_dataset(scans, DATASET_JSON, unlabeled_of(scans))


@pytest.mark.parametrize("name", ["t_0000.nii", "t_0000.mha", "t.nrrd", "t_0000.NRRD"])
def test_a_test_scan_with_another_ending_than_the_datasets_counts(scans, name):
    image = sitk.ReadImage(str(scans / "imagesUn" / "imagesUn_0000.nii.gz"))
    file = scans / "imagesTs" / name.lower()
    sitk.WriteImage(image, str(file))
    file.rename(scans / "imagesTs" / name)
    with pytest.raises(DataError, match=r"case in imagesTs: imagesUn \(= t\)"):
        check_raw_dataset(scans, DATASET_JSON, unlabeled_of(scans))


def test_names_that_differ_in_case_only_are_one_name():
    with pytest.raises(DataError, match=r"at the same time test: Scan1 \(= SCAN1\)"):
        check_no_leak([], ["Scan1"], [], ["SCAN1"])


def test_a_case_that_split_json_does_not_state_belongs_to_the_patient_its_name_begins_with():
    groups = {"p07_early": "p07", "p08_early": "p08", "alone": "alone", "p07_b_1": "p07_b"}
    assert patient_of("p07_late", groups) == "p07"
    assert patient_of("p07_b_2", groups) == "p07_b"
    assert patient_of("p071_late", groups) is None
    assert patient_of("alone_2", groups) is None  # no patient key, but a case
    with pytest.raises(DataError, match="of a patient of a test case: p07_late"):
        check_no_leak([], ["p07_late", "p09_late"], [], ["p07_early"], groups)


def test_a_patient_whose_entry_was_taken_out_of_split_json_is_remembered(scans):
    split = scans / "split.json"
    split.write_text(json.dumps({"groups": {"imagesUn": "p", "other": "p"}}))
    check_raw_dataset(scans, DATASET_JSON, unlabeled_of(scans), record_folder=scans)
    split.write_text(json.dumps({"groups": {"imagesTs": "p"}}))
    with pytest.raises(DataError, match="of a patient of a test case: imagesUn"):
        check_raw_dataset(scans, DATASET_JSON, unlabeled_of(scans), record_folder=scans)
