from __future__ import annotations

import json
import os

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from nnunetv2_spmc.unlabeled import scan_record, thumbnail_record
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


def anatomy(seed):
    random = np.random.default_rng(seed)
    return ndimage.gaussian_filter(random.normal(size=(24, 28, 30)), 2).astype(np.float32)


def write_anatomy(file, array):
    sitk.WriteImage(sitk.GetImageFromArray(array), str(file))
    return [str(file)]


@pytest.fixture
def alike(tmp_path):
    """Folder -> cases, of which t in imagesTs is u of imagesUn with a changed voxel."""
    changed = anatomy(1)
    changed[0, 0, 0] = 9
    arrays = {"imagesTr": {"l": anatomy(0)}, "imagesUn": {"u": anatomy(1)}, "imagesTs": {}}
    arrays["imagesTs"]["t"] = changed
    for folder in arrays:
        (tmp_path / folder).mkdir()
    return {
        folder: {
            i: write_anatomy(tmp_path / folder / f"{i}_0000.nii.gz", array)
            for i, array in arrays[folder].items()
        }
        for folder in arrays
    }


def warnings_of(tmp_path, alike):
    logged = []
    check_raw_dataset(
        tmp_path,
        {"file_ending": ".nii.gz"},
        alike["imagesUn"],
        record_folder=tmp_path,
        log=logged.append,
    )
    return logged


def test_near_duplicates_are_warned_of_at_every_start(tmp_path, alike):
    for _ in range(2):
        (warning,) = warnings_of(tmp_path, alike)
        assert warning.startswith("warning: Scans look alike")
        assert "t and u (1.00); probably one patient: use --group_by" in warning
    (tmp_path / "split.json").write_text(json.dumps({"groups": {"l": "p", "u": "q", "t": "r"}}))
    (warning,) = warnings_of(tmp_path, alike)
    assert "different patient keys" in warning


def test_only_new_scans_are_compared_with_the_others(tmp_path, alike, monkeypatch):
    compared = []
    lookalikes = thumbnail_record.lookalikes

    def noting(pictures, new):
        compared.append((len(pictures), len(new)))
        return lookalikes(pictures, new)

    monkeypatch.setattr(thumbnail_record, "lookalikes", noting)
    warnings_of(tmp_path, alike)
    warnings_of(tmp_path, alike)
    assert compared == [(3, 3)]
    alike["imagesUn"]["v"] = write_anatomy(tmp_path / "imagesUn" / "v_0000.nii.gz", anatomy(5))
    assert len(warnings_of(tmp_path, alike)) == 1
    assert compared == [(3, 3), (4, 1)]


def test_a_scan_that_was_replaced_no_longer_looks_alike(tmp_path, alike):
    assert len(warnings_of(tmp_path, alike)) == 1
    write_anatomy(tmp_path / "imagesTs" / "t_0000.nii.gz", anatomy(8))
    assert warnings_of(tmp_path, alike) == []


def test_without_the_thumbnails_only_the_warnings_are_missing(tmp_path, alike):
    warnings_of(tmp_path, alike)
    (tmp_path / "spmc_thumbnails.npz").write_bytes(b"damaged")
    assert warnings_of(tmp_path, alike) == []
