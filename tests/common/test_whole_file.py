import os

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.common.leftovers import temporary_name
from nnunetv2_spmc.common.whole_file import WRITING_PREFIX, WriteError, whole_file, writing
from nnunetv2_spmc.raw.nifti_check import check_scan
from tests.full_disk import file_size_limit


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
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(WriteError, match=r"folder could not be written: Is a directory"),
        whole_file(tmp_path / "folder") as temporary,
    ):
        temporary.write_text("a file where a folder is")
    assert names_in(tmp_path) == ["folder"]


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
