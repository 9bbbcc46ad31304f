from __future__ import annotations

import numpy as np
import pytest
import SimpleITK

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.nifti_check import check_gzip, check_nifti


@pytest.fixture(params=["scan.nii", "scan.nii.gz"])
def file(request, tmp_path):
    return tmp_path / request.param


def write(file, array):
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(file))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_a_whole_file_passes(file, dtype):
    write(file, np.random.default_rng(0).integers(0, 99, (5, 6, 7)).astype(dtype))
    check_nifti(file)


@pytest.mark.parametrize("kept_bytes", [0, 100, -40, -1])
def test_a_truncated_file_is_named(file, kept_bytes):
    write(file, np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32))
    file.write_bytes(file.read_bytes()[:kept_bytes])
    with pytest.raises(DataError, match=rf"{file.name} is truncated"):
        check_nifti(file)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_itk_would_silently_set_to_zero_are_counted(file, value):
    array = np.ones((5, 6, 7), np.float32)
    array[2, 3, 4:6] = value
    write(file, array)
    assert np.isfinite(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))).all()
    with pytest.raises(DataError, match=f"{file.name} has 2 NaN or infinite voxels"):
        check_nifti(file)


def test_a_file_for_which_itk_reads_its_uncompressed_twin_is_refused(tmp_path):
    file, twin = tmp_path / "scan.nii.gz", tmp_path / "scan.nii"
    for value, path in enumerate((file, twin)):
        write(path, np.full((5, 6, 7), value, np.uint8))
    assert SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file))).max() == 1  # not 0
    check_nifti(twin)
    with pytest.raises(DataError, match=f"{file} and {twin} lie side by side"):
        check_nifti(file)


def test_changed_bytes_fail_the_checksum(tmp_path):
    file = tmp_path / "scan.nii.gz"
    write(file, np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32))
    content = bytearray(file.read_bytes())
    content[-8] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        check_nifti(file)


def test_a_written_file_is_checked_to_its_checksum_and_for_its_size(tmp_path):
    file = tmp_path / "scan.nii.gz"
    array = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    write(file, array)
    check_gzip(file, array.nbytes)
    with pytest.raises(DataError, match="is truncated"):
        check_gzip(file, 2 * array.nbytes)
    whole = file.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], whole[:-8] + b"12345678", b"x" + whole[1:]):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"scan\.nii\.gz is (truncated|damaged)"):
            check_gzip(file, array.nbytes)
