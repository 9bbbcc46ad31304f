from __future__ import annotations

import json
import os

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.unlabeled import scan_record
from nnunetv2_spmc.unlabeled.leak_checks import check_raw_dataset
from nnunetv2_spmc.unlabeled.scan_record import (
    RECORD_FILE,
    read_scan_record,
    update_scan_record,
)

FOLDERS = ("imagesTr", "imagesUn", "imagesTs")


def write_scan(file, seed):
    array = np.random.default_rng(seed).integers(0, 999, (4, 6, 8)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(file))


@pytest.fixture
def cases(tmp_path):
    """Folder -> identifier -> files: two scans in each folder of a raw dataset."""
    found = {}
    for number, folder in enumerate(FOLDERS):
        (tmp_path / folder).mkdir()
        found[folder] = {}
        for case in "ab":
            file = tmp_path / folder / f"{case}{number}_0000.nii.gz"
            write_scan(file, 10 * number + ord(case))
            found[folder][f"{case}{number}"] = [str(file)]
    return found


@pytest.fixture
def reads(monkeypatch):
    """The files that are read from now on."""
    read = []
    facts_of_files = scan_record.facts_of_files

    def noting(files):
        read.extend(os.path.basename(file) for file in files)
        return facts_of_files(files)

    monkeypatch.setattr(scan_record, "facts_of_files", noting)
    return read


def test_only_new_and_changed_scans_are_read_again(tmp_path, cases, reads):
    update_scan_record(tmp_path, cases, {})
    assert len(reads) == 6
    reads.clear()
    update_scan_record(tmp_path, cases, {})
    assert reads == []
    write_scan(tmp_path / "imagesTs" / "a2_0000.nii.gz", 77)
    write_scan(tmp_path / "imagesTs" / "c2_0000.nii.gz", 78)
    cases["imagesTs"]["c2"] = [str(tmp_path / "imagesTs" / "c2_0000.nii.gz")]
    before = read_scan_record(tmp_path)
    after = update_scan_record(tmp_path, cases, {})
    assert sorted(reads) == ["a2_0000.nii.gz", "c2_0000.nii.gz"]
    assert before.digests("imagesTs")["a2"] != after.digests("imagesTs")["a2"]
    assert before.digests("imagesTs")["b2"] == after.digests("imagesTs")["b2"]


def test_a_record_is_read_as_it_was_written(tmp_path, cases):
    written = update_scan_record(tmp_path, cases, {"a0": "p"})
    read = read_scan_record(tmp_path)
    assert read == written
    assert read.facts("imagesTr")["a0"].size == (8, 6, 4)
    assert len(read.date) == len("2026-11-24 14:05")


def test_scans_that_are_gone_leave_the_record_but_those_of_absent_folders_stay(tmp_path, cases):
    update_scan_record(tmp_path, cases, {})
    del cases["imagesUn"]
    del cases["imagesTr"]["a0"]
    record = update_scan_record(tmp_path, cases, {})
    assert sorted(record.digests("imagesTr")) == ["b0"]
    assert sorted(record.digests("imagesUn")) == ["a1", "b1"]


def test_patient_keys_that_split_json_lost_are_remembered(tmp_path, cases):
    update_scan_record(tmp_path, cases, {"a1": "p", "a2": "p"})
    assert update_scan_record(tmp_path, cases, {"a2": "q"}).groups == {"a1": "p", "a2": "q"}
    assert update_scan_record(tmp_path, cases, {}).groups == {}


def test_an_interrupted_comparison_goes_on_where_it_stopped(tmp_path, cases, reads, monkeypatch):
    monkeypatch.setattr(scan_record, "SAVED_AFTER", 2)
    noting = scan_record.facts_of_files

    def interrupted(files):
        if files == cases["imagesUn"]["b1"]:
            raise KeyboardInterrupt
        return noting(files)

    monkeypatch.setattr(scan_record, "facts_of_files", interrupted)
    with pytest.raises(KeyboardInterrupt):
        update_scan_record(tmp_path, cases, {})
    monkeypatch.setattr(scan_record, "facts_of_files", noting)
    reads.clear()
    update_scan_record(tmp_path, cases, {})
    assert "a0_0000.nii.gz" not in reads
    assert "a2_0000.nii.gz" in reads


@pytest.mark.parametrize("content", ["{", "[]", '{"date": "", "groups": {}, "folders": {"a": 1}}'])
def test_a_damaged_record_is_made_once_more(tmp_path, cases, content):
    (tmp_path / RECORD_FILE).write_text(content)
    assert read_scan_record(tmp_path) is None
    update_scan_record(tmp_path, cases, {})
    assert len(json.loads((tmp_path / RECORD_FILE).read_text())["folders"]) == 3


def test_without_room_for_the_record_the_comparison_works(tmp_path, cases):
    logged = []
    nowhere = tmp_path / "absent"
    record = update_scan_record(nowhere, cases, {}, log=logged.append)
    assert len(record.digests("imagesTr")) == 2
    assert len(logged) == 1
    assert f"{RECORD_FILE} could not be written" in logged[0]


def test_a_dataset_without_images_of_test_cases_forgets_them(tmp_path, cases):
    dataset_json = {"file_ending": ".nii.gz"}
    check_raw_dataset(tmp_path, dataset_json, cases["imagesUn"], record_folder=tmp_path)
    for files in cases["imagesTs"].values():
        os.unlink(files[0])
    (tmp_path / "imagesTs").rmdir()
    check_raw_dataset(tmp_path, dataset_json, cases["imagesUn"], record_folder=tmp_path)
    assert read_scan_record(tmp_path).digests("imagesTs") == {}
