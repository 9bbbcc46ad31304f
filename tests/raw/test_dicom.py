from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.raw.cases import ConversionError
from nnunetv2_spmc.raw.dicom import DicomSeries
from tests.raw.dicom_series import (
    random_slices,
    write_enhanced,
    write_slices,
    write_without_image,
)


def read(folder: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(DicomSeries(folder).read())


def test_a_series_below_the_folder_is_read_in_order_of_position(tmp_path) -> None:
    voxels = random_slices(3)
    write_slices(tmp_path / "case" / "deeper", voxels, positions=[(0, 0, z) for z in (6, -3, 1.5)])
    np.testing.assert_array_equal(read(tmp_path / "case"), voxels[[1, 2, 0]])
    assert DicomSeries(tmp_path / "case").read().GetSpacing() == (1, 1, 4.5)


def test_a_series_can_be_sent_to_a_worker_and_is_named_by_its_folder(tmp_path) -> None:
    series = pickle.loads(pickle.dumps(DicomSeries(tmp_path)))
    assert str(series) == str(tmp_path)


@pytest.mark.supported("DICOM series", "two series in one folder", refused=True)
def test_several_series_are_named(tmp_path) -> None:
    write_slices(tmp_path, random_slices(2), series="1.2.3.4", name="a{}")
    write_slices(tmp_path, random_slices(3), series="1.2.3.5", name="b{}", SeriesDescription="late")
    with pytest.raises(
        ConversionError, match=r"2 DICOM series \(1\.2\.3\.4 .* 2 files; 1\.2\.3\.5 .*late 3 files"
    ):
        read(tmp_path)


def test_a_folder_without_dicom_is_an_error(tmp_path) -> None:
    write_without_image(tmp_path / "structures.dcm")
    with pytest.raises(ConversionError, match="no DICOM series"):
        read(tmp_path)


@pytest.mark.supported(
    "DICOM series", "DICOMDIR, notes and objects without an image, next to a series"
)
@pytest.mark.parametrize("name", ["DICOMDIR", "structures.dcm", "notes.txt", "Thumbs.db"])
def test_what_is_no_image_is_passed_over(tmp_path, name) -> None:
    voxels = random_slices(3)
    write_slices(tmp_path, voxels)
    if name in ("notes.txt", "Thumbs.db"):
        (tmp_path / name).write_text("hello")
    else:
        write_without_image(tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path), voxels)


@pytest.mark.parametrize("name", ["004.dcm", "IM5.IMA"])
@pytest.mark.parametrize("content", [b"", b"not DICOM", None])
def test_a_file_named_like_a_slice_that_is_none_is_an_error(tmp_path, name, content) -> None:
    """Else the volume would lack its last slice, and nobody would know."""
    write_slices(tmp_path, random_slices(3))
    if content is None:
        (tmp_path / name).symlink_to(tmp_path / "nothing")
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConversionError, match=rf"1 file named like DICOM images .*\({name}\)"):
        read(tmp_path)


def test_a_file_without_ending_that_is_no_slice_among_such_slices_is_an_error(tmp_path) -> None:
    write_slices(tmp_path, random_slices(3), name="IM{:04d}")
    (tmp_path / "IM0004").touch()
    with pytest.raises(ConversionError, match="IM0004"):
        read(tmp_path)


@pytest.mark.supported("DICOM series", "truncated files", refused=True)
@pytest.mark.parametrize("kept", [140, 300, 420, -400, -90, -1])
def test_a_truncated_slice_is_an_error(tmp_path, kept) -> None:
    """GDCM leaves it out without a word."""
    last = write_slices(tmp_path, random_slices(3, shape=(16, 20)))[-1]
    last.write_bytes(last.read_bytes()[:kept])
    with pytest.raises(ConversionError, match=r"003\.dcm is truncated or damaged"):
        read(tmp_path)


@pytest.mark.parametrize("keyword", ["Rows", "Columns"])
def test_a_size_is_believed_only_as_far_as_the_file_is_long(tmp_path, keyword) -> None:
    write_slices(tmp_path, random_slices(3), **{keyword: 65535})
    with pytest.raises(ConversionError, match=r"001\.dcm is truncated .*65535.* in a file of"):
        read(tmp_path)


def test_a_damaged_number_in_a_header_is_an_error(tmp_path) -> None:
    file = write_slices(tmp_path, random_slices(3), PixelSpacing=[1.25, 1.25])[1]
    file.write_bytes(file.read_bytes().replace(rb"1.25\1.25", rb"1.x5\1.25"))
    with pytest.raises(ConversionError, match=r"002\.dcm is truncated or damaged"):
        read(tmp_path)


def test_files_without_preamble_are_read(tmp_path) -> None:
    voxels = random_slices(3)
    for file in write_slices(tmp_path, voxels):
        file.write_bytes(file.read_bytes()[132:])
    np.testing.assert_array_equal(read(tmp_path), voxels)


def test_a_file_that_begins_with_the_same_bytes_is_passed_over(tmp_path) -> None:
    voxels = random_slices(3)
    write_slices(tmp_path, voxels)
    (tmp_path / "values.raw").write_bytes(np.full(100, 8, np.uint16).tobytes())
    np.testing.assert_array_equal(read(tmp_path), voxels)


@pytest.mark.supported("DICOM series", "several multi-frame files in one folder", refused=True)
def test_two_multi_frame_files_are_several_volumes(tmp_path) -> None:
    for name, first in (("a.dcm", 0), ("bb.dcm", 12)):  # one above the other
        positions = [(0, 0, first + 3 * k) for k in range(4)]
        write_enhanced(tmp_path / name, random_slices(4), positions=positions)
    with pytest.raises(ConversionError, match=r"several volumes: 2 files .*a\.dcm and bb\.dcm"):
        read(tmp_path)


def test_the_parts_of_a_concatenation_are_one_volume(tmp_path) -> None:
    voxels = random_slices(6)
    for name, part in (("a.dcm", slice(0, 6, 2)), ("bb.dcm", slice(1, 6, 2))):
        positions = [(0, 0, 3 * k) for k in range(6)][part]
        write_enhanced(tmp_path / name, voxels[part], positions=positions, ConcatenationUID="1.7")
    np.testing.assert_array_equal(read(tmp_path), voxels)


def test_a_copy_of_a_slice_is_an_error(tmp_path) -> None:
    file = write_slices(tmp_path, random_slices(4))[2]
    shutil.copy(file, tmp_path / "copy.dcm")
    with pytest.raises(ConversionError, match=r"same image twice \(003\.dcm and copy\.dcm\)"):
        read(tmp_path)
