import json
import os
import shutil
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.common.leftovers import END_OF_NAME, leftovers, temporary_name
from nnunetv2_spmc.common.whole_file import (
    REPLACED_PREFIX,
    WRITING_PREFIX,
    WriteError,
    made_folder,
    whole_file,
    whole_files,
    whole_folder,
    write_json,
    writing,
)
from nnunetv2_spmc.raw.scan import check_scan
from tests.full_disk import file_size_limit
from tests.killed_at import killed_at, of_ended_process


def noise(voxels=64**3):
    """An image that cannot be compressed."""
    return np.random.default_rng(0).integers(0, 60000, (4, 4, voxels // 16)).astype(np.uint16)


def write_silently(path, array=None):
    """SimpleITK raises nothing where the disk is full."""
    sitk.WriteImage(sitk.GetImageFromArray(noise() if array is None else array), str(path))


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def test_what_is_written_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "scan.nii.gz"
    with whole_file(path, check_scan) as temporary:
        write_silently(temporary, noise(160))
        assert not path.exists()
        assert not list(tmp_path.glob("*.nii.gz"))  # nobody may take it for a scan
    assert names_in(tmp_path) == ["scan.nii.gz"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def stop_half_way():
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        stop_half_way()
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["table.csv"]


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_the_limit_of_ulimit_is_named(tmp_path, ending):
    path = tmp_path / f"scan{ending}"
    sentence = rf"scan{ending} could not be written: file too large, the limit .* 100000 bytes"
    with (
        file_size_limit(100_000),
        pytest.raises(WriteError, match=sentence),
        whole_file(path, check_scan) as temporary,
    ):
        write_silently(temporary)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_full_disk_is_named(small_disk, ending):
    path = small_disk.folder / f"scan{ending}"
    sentence = rf"scan{ending} could not be written: no space left on its disk; free some"
    with (
        pytest.raises(WriteError, match=sentence),
        whole_file(path, check_scan) as temporary,
    ):
        write_silently(temporary)
    assert names_in(small_disk.folder) == []
    small_disk.resize(1024)
    with whole_file(path, check_scan) as temporary:
        write_silently(temporary)
    assert names_in(small_disk.folder) == [path.name]


def test_a_disk_that_was_full_before_is_named(small_disk):
    (small_disk.folder / "data").write_bytes(bytes(256 * 1024))
    with (
        pytest.raises(WriteError, match=r"table\.csv could not be written: no space left"),
        whole_file(small_disk.folder / "table.csv") as temporary,
    ):
        temporary.write_text("a" * 10_000)
    assert names_in(small_disk.folder) == ["data"]


def test_a_file_that_is_not_whole_for_no_known_reason_is_not_published(tmp_path, write_volume):
    write_volume(tmp_path / "whole.nii.gz", seed=0)
    half = (tmp_path / "whole.nii.gz").read_bytes()[:100]
    (tmp_path / "whole.nii.gz").unlink()
    with (
        pytest.raises(WriteError, match=r"scan\.nii\.gz could not be written: .* in part only"),
        whole_file(tmp_path / "scan.nii.gz", check_scan) as temporary,
    ):
        temporary.write_bytes(half)
    assert names_in(tmp_path) == []


def test_other_reasons_are_those_of_the_system(tmp_path):
    with (
        pytest.raises(WriteError, match=r"x\.csv could not be written: No such file or directory"),
        whole_file(tmp_path / "absent" / "x.csv") as temporary,
    ):
        temporary.write_text("never")
    assert names_in(tmp_path) == []


def test_what_a_writer_says_itself_is_shown(tmp_path):
    with (
        pytest.raises(WriteError, match=r"x\.csv could not be written: the pen is empty$"),
        whole_file(tmp_path / "x.csv"),
    ):
        raise RuntimeError("Traceback:\nthe pen is empty\n")


def test_finding_the_reason_changes_no_file(tmp_path):
    source = tmp_path / "source"
    source.write_text("precious")
    os.symlink(source, tmp_path / "link")
    with pytest.raises(WriteError), writing(tmp_path / "link", "link"):
        raise RuntimeError
    assert source.read_text() == "precious"
    assert sorted(names_in(tmp_path)) == ["link", "source"]


def test_what_a_killed_process_of_the_same_number_left_does_not_matter(tmp_path):
    leftover = tmp_path / temporary_name(WRITING_PREFIX)
    leftover.mkdir()
    (leftover / "table.csv").write_text("half")
    with whole_file(tmp_path / "table.csv") as temporary:
        temporary.write_text("whole")
    assert names_in(tmp_path) == ["table.csv"]
    assert (tmp_path / "table.csv").read_text() == "whole"


def write_in(folder):
    write_json("whole", folder / "record.json")


def write_several_in(folder):
    with whole_files(folder) as temporary:
        (temporary / "record.json").write_text("whole")


@pytest.mark.parametrize("write", [write_in, write_several_in])
@pytest.mark.parametrize(("module", "name"), [(os, "replace"), (shutil, "rmtree")])
def test_what_a_killed_process_left_goes_when_something_is_written_there(
    tmp_path, write, module, name
):
    killed_at(lambda: write(tmp_path), module, name)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
    write(tmp_path)
    assert names_in(tmp_path) == ["record.json"]


# ---- several files -------------------------------------------------------------------------------


def write_case(folder, text):
    (folder / "maps").mkdir()
    (folder / "maps" / "case.txt").write_text(text)
    (folder / "case.txt").write_text(text)


def test_files_get_their_names_together(tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "other.txt").write_text("other")
    with whole_files(tmp_path) as temporary:
        write_case(temporary, "whole")
        assert not (tmp_path / "case.txt").exists()
    assert (tmp_path / "case.txt").read_text() == "whole"
    assert sorted(names_in(tmp_path / "maps")) == ["case.txt", "other.txt"]
    assert sorted(names_in(tmp_path)) == ["case.txt", "maps"]


def test_the_file_beside_the_subfolders_comes_last(tmp_path):
    (tmp_path / "maps").write_text("a file where a folder should be")
    with (
        pytest.raises(WriteError, match=r"maps/case\.txt could not be written"),
        whole_files(tmp_path) as temporary,
    ):
        write_case(temporary, "whole")
    assert names_in(tmp_path) == ["maps"]


def test_files_of_a_killed_process_of_the_same_number_are_not_published(tmp_path):
    leftover = tmp_path / temporary_name(WRITING_PREFIX)
    leftover.mkdir()
    (leftover / "half.txt").write_text("half")
    with whole_files(tmp_path) as temporary:
        (temporary / "case.txt").write_text("whole")
    assert names_in(tmp_path) == ["case.txt"]


# ---- a folder ------------------------------------------------------------------------------------


def test_a_folder_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "above" / "model"
    with whole_folder(path) as temporary:
        write_case(temporary, "whole")
        assert not path.exists()
    assert (path / "maps" / "case.txt").read_text() == "whole"
    assert names_in(path.parent) == ["model"]
    assert path.stat().st_mode == (tmp_path / "above").stat().st_mode


def test_an_exception_leaves_the_old_folder_and_nothing_else(tmp_path):
    def stop_half_way():
        with whole_folder(tmp_path / "model", overwrite=True) as temporary:
            (temporary / "half.txt").write_text("half")
            raise KeyError

    with whole_folder(tmp_path / "model") as temporary:
        write_case(temporary, "old")
    with pytest.raises(KeyError):
        stop_half_way()
    assert names_in(tmp_path) == ["model"]
    assert (tmp_path / "model" / "case.txt").read_text() == "old"


def test_a_folder_is_replaced_only_if_that_is_asked_for(tmp_path):
    def write(text, **options):
        with whole_folder(tmp_path / "model", **options) as temporary:
            (temporary / text).write_text(text)

    write("old")
    with pytest.raises(WriteError, match="model could not be written: Directory not empty"):
        write("new")
    assert names_in(tmp_path / "model") == ["old"]
    write("new", overwrite=True)
    assert names_in(tmp_path / "model") == ["new"]
    assert names_in(tmp_path) == ["model"]


def test_what_a_killed_run_left_of_a_folder_is_removed(tmp_path):
    ended = tmp_path / of_ended_process(f"{WRITING_PREFIX}model{END_OF_NAME}")
    other = tmp_path / of_ended_process(f"{WRITING_PREFIX}other{END_OF_NAME}")
    for leftover in (ended, other):
        leftover.mkdir()
    with whole_folder(tmp_path / "model"):
        pass
    assert sorted(names_in(tmp_path)) == sorted([other.name, "model"])


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="needs Linux")
def test_the_process_numbers_of_another_container_are_not_ours(tmp_path):
    """Two containers may have the name of their host, and different processes of one number."""
    here, _, _ = temporary_name(WRITING_PREFIX).rpartition("-")
    name = here.removeprefix(WRITING_PREFIX)
    assert name == f"{socket.gethostname()}.{os.stat('/proc/self/ns/pid').st_ino}"
    theirs = tmp_path / f"{WRITING_PREFIX}{socket.gethostname()}.1-999999999"
    ours = tmp_path / of_ended_process(WRITING_PREFIX)
    for leftover in (theirs, ours):
        leftover.mkdir()
    assert list(leftovers(tmp_path, WRITING_PREFIX)) == [ours]


def test_json_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "metrics.json"
    write_json({"dice": 1.0}, path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"dice": float("nan")}, path, allow_nan=False)
    assert json.loads(path.read_text(encoding="utf-8")) == {"dice": 1.0}
    assert names_in(tmp_path) == ["metrics.json"]


@pytest.mark.parametrize("write", [made_folder, whole_folder])
def test_a_failure_takes_the_new_folders_away_and_no_old_one(tmp_path, write):
    (tmp_path / "old").mkdir()
    with pytest.raises(KeyError), write(tmp_path / "old" / "new" / "newer"):
        raise KeyError
    assert names_in(tmp_path) == ["old"]
    assert names_in(tmp_path / "old") == []


def test_a_new_folder_with_something_in_it_stays(tmp_path):

    def stop_half_way():
        with made_folder(tmp_path / "new" / "newer"):
            (tmp_path / "new" / "of another run").touch()
            raise KeyError

    with pytest.raises(KeyError):
        stop_half_way()
    assert names_in(tmp_path / "new") == ["of another run"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(WriteError, match=r"file/new could not be written: Not a directory"),
        made_folder(tmp_path / "file" / "new"),
    ):
        pass


def test_what_is_replaced_goes_with_the_next_run_if_this_one_is_killed(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    with whole_folder(tmp_path / "model", overwrite=True) as temporary:
        (temporary / "new").touch()
    monkeypatch.undo()
    assert names_in(tmp_path / "model") == ["new"]
    assert len(names_in(tmp_path)) == 2
    with whole_folder(tmp_path / "model", overwrite=True):
        pass
    assert names_in(tmp_path) == ["model"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_folder_that_a_killed_run_was_replacing_comes_back(tmp_path, overwrite):
    def write(text):
        with whole_folder(tmp_path / "model", overwrite=overwrite) as temporary:
            (temporary / text).touch()

    def replace():
        with whole_folder(tmp_path / "model", overwrite=True) as temporary:
            (temporary / "never").touch()

    write("old")
    killed_at(replace, os, "replace", call=2)
    assert "model" not in names_in(tmp_path)
    if overwrite:
        write("new")
    else:
        with pytest.raises(WriteError, match="model could not be written: Directory not empty"):
            write("new")
    assert names_in(tmp_path) == ["model"]
    assert names_in(tmp_path / "model") == ["new" if overwrite else "old"]


def test_one_of_several_files_is_named_as_it_will_be_called(tmp_path):
    with (
        file_size_limit(1000),
        pytest.raises(WriteError, match=rf"^{tmp_path}/new/table\.csv could not be written: file"),
        made_folder(tmp_path / "new") as folder,
        whole_files(folder) as several,
        whole_file(several / "table.csv") as temporary,
    ):
        temporary.write_bytes(bytes(2000))
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("write", [whole_file, whole_folder, made_folder])
def test_a_name_that_is_not_utf8_is_refused_before_a_library_dies_of_it(tmp_path, write) -> None:
    with pytest.raises(WriteError, match=r"a\\xff is not UTF-8"), write(tmp_path / "a\udcff"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [".", "/", "..", "results", "results/.", "results/.."])
def test_a_folder_in_place_of_a_file_is_refused_and_keeps_what_it_holds(
    tmp_path, monkeypatch, path
) -> None:
    """'.' and '/' have no name of their own: what is removed in the end must not be they."""
    removed = []
    monkeypatch.setattr("shutil.rmtree", lambda folder, **_: removed.append(Path(folder)))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    with pytest.raises(WriteError, match="is a folder; name a file"), whole_file(Path(path)):
        pytest.fail("nothing may be written")
    assert removed == []


def test_the_only_copy_of_a_folder_with_a_longer_name_stays(tmp_path):
    """A killed run had moved `model-2` aside to replace it; now `model` is replaced."""
    aside = tmp_path / of_ended_process(f"{REPLACED_PREFIX}model-2{END_OF_NAME}")
    aside.mkdir()
    (aside / "weights").write_text("two")
    os.utime(aside, (0, 0))
    for _ in range(2):
        with whole_folder(tmp_path / "model", overwrite=True) as temporary:
            (temporary / "weights").write_text("one")
    assert (aside / "weights").read_text() == "two"
    with pytest.raises(WriteError), whole_folder(tmp_path / "model-2"):
        pass
    assert (tmp_path / "model-2" / "weights").read_text() == "two"


def test_a_folder_that_is_being_replaced_is_as_old_as_its_replacement(tmp_path, monkeypatch):
    model = tmp_path / "model"
    model.mkdir()
    os.utime(model, (0, 0))
    ages = []
    replace = os.replace

    def noted(source, target):
        ages.extend(time.time() - p.stat().st_mtime for p in tmp_path.glob(f"{REPLACED_PREFIX}*"))
        replace(source, target)

    monkeypatch.setattr(os, "replace", noted)
    with whole_folder(model, overwrite=True):
        pass
    assert ages
    assert max(ages) < 3600
