from __future__ import annotations

import json
import pickle
import shutil

import blosc2
import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.unlabeled import preprocessing
from nnunetv2_spmc.unlabeled.cases import CASE_ENDINGS
from nnunetv2_spmc.unlabeled.preprocessed_files import (
    exchanged_cases,
    note_files,
    refuse_exchanged,
    sampled_digest,
)
from nnunetv2_spmc.unlabeled.target import find_target
from tests.killed_at import killed_at
from tests.unlabeled import test_preprocessing
from tests.unlabeled.test_preprocessing import UNLABELED, ensure, run

dataset, folder, planned = (
    test_preprocessing.dataset,
    test_preprocessing.folder,
    test_preprocessing.planned,
)


@pytest.fixture
def target(dataset, folder):
    run()
    return find_target(510, "3d_fullres", "nnUNetPlans")


def exchange(folder, one, other):
    for ending in CASE_ENDINGS:
        shutil.copy(folder / f"{other}{ending}", folder / f"{one}{ending}")


def test_untouched_and_copied_files_pass(target, folder):
    assert exchanged_cases(target, UNLABELED) == {}
    moved = folder.with_name("elsewhere")
    shutil.copytree(folder, moved, copy_function=shutil.copyfile)  # other times
    shutil.rmtree(folder)
    moved.rename(folder)
    assert exchanged_cases(target, UNLABELED) == {}


@pytest.mark.parametrize("options", [{}, {"verify": True}])
def test_a_case_that_a_killed_run_made_again_is_its_own(target, folder, options):
    for case in ("u0", "u1"):
        file = folder / f"{case}.b2nd"
        file.write_bytes(file.read_bytes()[:-20])
    killed_at(lambda: run(**options), preprocessing, "note_files")
    file = folder / "u0.b2nd"
    rewrite(file)  # as Blosc2 does not write the same bytes each time
    made = file.stat().st_ino
    run()
    refuse_exchanged(target, UNLABELED)
    assert file.stat().st_ino == made


def rewrite(file):
    """Write the same voxels as other bytes."""
    voxels = blosc2.open(urlpath=str(file), mode="r")[:]
    file.unlink()
    blosc2.asarray(voxels, urlpath=str(file), cparams={"clevel": 1})


def test_verifying_forgets_no_file(target, folder):
    known = json.loads(folder.with_suffix(".json").read_text())["files"]
    run(verify=True)
    assert json.loads(folder.with_suffix(".json").read_text())["files"] == known


def test_a_verification_that_is_killed_forgets_no_file(target, folder, monkeypatch):
    known = json.loads(folder.with_suffix(".json").read_text())["files"]

    class KilledError(Exception):
        pass

    def killed(*_):
        raise KilledError

    monkeypatch.setattr(preprocessing, "note_files", killed)
    with pytest.raises(KilledError):
        run(verify=True)
    assert json.loads(folder.with_suffix(".json").read_text())["files"] == known


def test_a_labeled_case_that_was_made_elsewhere_is_refused_by_a_training(dataset, target, folder):
    """Its voxels and its classes are others than any that this folder or the labeled one has."""
    file = folder / "u1.b2nd"
    voxels = blosc2.open(urlpath=str(file), mode="r")[:]
    file.unlink()
    blosc2.asarray(voxels[:, ::-1].copy(), urlpath=str(file))
    properties = folder / "u1.pkl"
    content = pickle.loads(properties.read_bytes()) | {"class_locations": {1: []}}
    properties.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=r"u1 \(one that was not written here\)"):
        ensure(dataset)


def test_a_case_under_another_name_is_refused(target, folder):
    exchange(folder, "u0", "u2")
    with pytest.raises(DataError, match=r"u0 \(that of u2\); remove them and run nnUNetv2_spmc"):
        refuse_exchanged(target, UNLABELED)


def test_a_labeled_case_under_the_name_of_an_unlabeled_one_is_refused(target, folder):
    labeled = target.labeled_folder
    labeled.mkdir()
    for ending in CASE_ENDINGS:  # as if nnU-Net had preprocessed a case
        shutil.copy(folder / f"u1{ending}", labeled / f"l0{ending}")
    with (labeled / "l0.b2nd").open("r+b") as stream:
        stream.seek(2000)
        stream.write(b"other voxels")
    for ending in CASE_ENDINGS:
        shutil.copy(labeled / f"l0{ending}", folder / f"u1{ending}")
        shutil.copy(labeled / f"l0{ending}", folder / f"new{ending}")
    with pytest.raises(DataError, match=r"u1 \(that of the labeled case l0\)"):
        refuse_exchanged(target, UNLABELED)
    assert list(exchanged_cases(target, ["new"])) == ["new"]


def test_a_case_from_elsewhere_is_refused_by_a_training(dataset, target, folder):
    file = folder / "u1.b2nd"
    voxels = blosc2.open(urlpath=str(file), mode="r")[:]
    file.unlink()
    blosc2.asarray(voxels[:, ::-1].copy(), urlpath=str(file))
    with pytest.raises(DataError, match=r"u1 \(one that was not written here\)"):
        ensure(dataset)
    shutil.rmtree(dataset[0])  # also without the raw data
    with pytest.raises(DataError, match=r"u1 \(one that was not written here\)"):
        ensure(dataset)


def test_a_damaged_case_is_left_to_the_loaders_and_done_again_by_preprocessing(
    dataset, target, folder
):
    file = folder / "u1.b2nd"
    before = file.read_bytes()
    file.write_bytes(before[:200] + b"\xff" * (len(before) - 400) + before[-200:])
    assert ensure(dataset) == UNLABELED
    assert run().redone == ["u1"]
    assert file.read_bytes()[:200] == before[:200]
    assert ensure(dataset) == UNLABELED


def test_preprocessing_does_an_exchanged_case_again(dataset, target, folder):
    before = sampled_digest(folder / "u0.b2nd")
    exchange(folder, "u0", "u2")
    logged = []
    report = run(log=logged.append)
    assert (report.skipped, report.redone) == (["u1", "u2"], ["u0"])
    assert logged[-1] == ("u0 is done again: its preprocessed file is not its own but that of u2.")
    assert sampled_digest(folder / "u0.b2nd") == before
    assert ensure(dataset) == UNLABELED


def test_files_of_an_older_version_are_noted_at_first_sight(target, folder):
    record = folder.with_name(f"{folder.name}.json")
    noted = record.read_text()
    content = noted[: noted.index('  "files"')].rstrip().rstrip(",") + "}"
    record.write_text(content)
    assert exchanged_cases(target, UNLABELED) == {}
    assert record.read_text() == noted


def test_a_case_that_was_made_again_is_noted(target, folder):
    exchange(folder, "u0", "u2")
    note_files(target, ["u0"])
    assert exchanged_cases(target, UNLABELED) == {}


def test_without_raw_data_a_case_of_no_known_scan_is_left_out(dataset, target, folder):
    for ending in CASE_ENDINGS:
        shutil.move(folder / f"u2{ending}", folder / f"stranger{ending}")
    shutil.rmtree(dataset[0])
    logged = []
    assert ensure(dataset, log=logged.append) == ["u0", "u1"]
    assert "imagesUn had no such scan on 2" in logged[0]
    assert "stranger" in logged[0]
