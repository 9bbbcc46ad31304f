from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.raw.cases import ConversionError
from nnunetv2_spmc.raw.reader import FrameOf4D, H5Volume, ImageFile


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_formats_keep_voxels_and_geometry(tmp_path, write_volume, ending) -> None:
    path = write_volume(tmp_path / f"a{ending}", seed=1, spacing=(1, 2, 3), origin=(4, 5, 6))
    image = ImageFile(path).read()
    expected = np.random.default_rng(1).integers(0, 999, (4, 6, 8))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), expected)
    assert image.GetSpacing() == (1, 2, 3)
    assert image.GetOrigin() == (4, 5, 6)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_truncated_file_is_an_error(tmp_path, write_volume, ending, share) -> None:
    path = write_volume(tmp_path / f"a{ending}", seed=1)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ConversionError, match=f"a{ending}"):
        ImageFile(path).read()


def test_a_nifti_that_was_truncated_before_compression_is_an_error(tmp_path, write_volume) -> None:
    content = write_volume(tmp_path / "a.nii", seed=1).read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(content[:-20]))
    with pytest.raises(ConversionError, match="is truncated"):
        ImageFile(path).read()


def test_a_file_that_is_no_image_is_an_error(tmp_path) -> None:
    path = tmp_path / "a.nrrd"
    path.write_text("not an image")
    with pytest.raises(ConversionError, match=r"Cannot read .*a\.nrrd"):
        ImageFile(path).read()


def test_a_4d_file_with_one_volume_is_read_as_3d(tmp_path) -> None:
    path = tmp_path / "a.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((1, 4, 6, 8), np.int16), False), str(path))
    assert ImageFile(path).read().GetSize() == (8, 6, 4)


def test_4d_and_2d_images_are_refused(tmp_path) -> None:
    for name, shape in (("cine.nrrd", (3, 4, 6, 8)), ("flat.nrrd", (6, 8))):
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros(shape, np.int16), False), tmp_path / name)
    with pytest.raises(ConversionError, match="4D file with 3 volumes"):
        ImageFile(tmp_path / "cine.nrrd").read()
    with pytest.raises(ConversionError, match="2D image"):
        ImageFile(tmp_path / "flat.nrrd").read()


def test_a_frame_of_a_4d_file_keeps_the_spacing_in_space(tmp_path) -> None:
    array = np.arange(3 * 4 * 6 * 8, dtype=np.int16).reshape(3, 4, 6, 8)
    image = sitk.GetImageFromArray(array, False)
    image.SetSpacing((1.5, 1.5, 10, 0.03))
    path = tmp_path / "a_4d.nii.gz"
    sitk.WriteImage(image, str(path))
    frame = FrameOf4D(path, 2).read()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(frame), array[1])
    assert frame.GetSpacing() == (1.5, 1.5, 10)
    with pytest.raises(ConversionError, match="no frame 4"):
        FrameOf4D(path, 4).read()


def test_h5_axes_and_spacing(tmp_path) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "a.h5"
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    with h5py.File(path, "w") as file:
        file["image"] = array
    assert H5Volume(path, "image", (1, 2, 3), "zyx").read().GetSize() == (4, 3, 2)
    xyz = H5Volume(path, "image", (1, 2, 3), "xyz").read()
    assert xyz.GetSize() == (2, 3, 4)
    assert xyz.GetPixel(1, 2, 3) == array[1, 2, 3]
    assert xyz.GetSpacing() == (1, 2, 3)
    with pytest.raises(ConversionError, match="'label'"):
        H5Volume(path, "label", (1, 2, 3), "zyx").read()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_nifti_in_capitals_is_checked_like_any_other(tmp_path, write_volume, ending) -> None:
    whole = write_volume(tmp_path / f"a{ending}", seed=1).rename(tmp_path / f"A{ending.upper()}")
    assert ImageFile(whole).read().GetSize() == (8, 6, 4)
    bad = np.full((4, 5, 6), np.nan, np.float32)
    with_nan = write_volume(tmp_path / f"b{ending}", bad).rename(tmp_path / f"B{ending.upper()}")
    with pytest.raises(ConversionError, match="120 NaN or infinite voxels"):
        ImageFile(with_nan).read()
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(ConversionError, match="is truncated"):
        ImageFile(whole).read()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nan_voxels_of_nifti_files_are_found(tmp_path, value, ending):
    """ITK reads them as zeros, so that the voxels alone do not show it."""
    array = np.ones((4, 5, 6), np.float32)
    array[1, 2, 3] = value
    file = tmp_path / f"image{ending}"
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), file)
    with pytest.raises(ConversionError, match="has 1 NaN or infinite voxels"):
        ImageFile(file).read()


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_an_unreadable_file_comes_with_reason_and_remedy(tmp_path, write_volume, ending) -> None:
    path = write_volume(tmp_path / f"a{ending}", seed=1)
    path.write_bytes(path.read_bytes().replace(b"3", b"x"))
    with pytest.raises(ConversionError, match="get it again, or convert it") as caught:
        ImageFile(path).read()
    assert "No such file" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_complex_voxels_are_refused(tmp_path) -> None:
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 6, 4), np.complex64), np.eye(4)), path)
    with pytest.raises(ConversionError, match="complex"):
        ImageFile(path).read()


def h5_volume(path: Path, array: np.ndarray, **options) -> H5Volume:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.create_dataset("image", data=array, **options)
    return H5Volume(path, "image", (1, 2, 3), "zyx")


NUMBERS = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "uint16", "int64", "uint64", "float16", ">i2", ">f8"]
)
@pytest.mark.parametrize("options", [{}, {"chunks": (1, 2, 3), "compression": "gzip"}])
def test_an_h5_array_of_any_number_keeps_its_values(tmp_path, dtype, options) -> None:
    array = (NUMBERS / 2).astype(dtype)
    image = h5_volume(tmp_path / "a.h5", array, **options).read()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array)
    assert image.GetSpacing() == (1, 2, 3)


@pytest.mark.parametrize(
    "array", [NUMBERS + 1j, NUMBERS.astype("S2"), NUMBERS.astype("longdouble")]
)
def test_an_h5_array_of_something_else_is_refused(tmp_path, array) -> None:
    with pytest.raises(ConversionError, match=r"a\.h5 \(image\) has values of type .* convert"):
        h5_volume(tmp_path / "a.h5", array).read()


def test_h5_records_texts_and_groups_are_refused(tmp_path) -> None:
    h5py = pytest.importorskip("h5py")
    records = np.zeros((2, 3, 4), [("a", "f4"), ("b", "f4")])
    for array in (records, np.full((2, 3, 4), "text", object)):
        with pytest.raises(ConversionError, match="has values of type"):
            h5_volume(tmp_path / "a.h5", array).read()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("image")
    with pytest.raises(ConversionError, match="is a group of arrays"):
        H5Volume(tmp_path / "a.h5", "image", (1, 2, 3), "zyx").read()


def test_h5_voxels_that_would_be_read_as_zeros_are_missed(tmp_path) -> None:
    h5py = pytest.importorskip("h5py")
    source = h5py.VirtualSource("gone.h5", "image", shape=(2, 3, 4))
    layout = h5py.VirtualLayout((2, 3, 4), "f4")
    layout[:] = source
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("unwritten", (2, 3, 4), "f4")
        file.create_dataset("partly", (2, 3, 4), "f4", chunks=(1, 3, 4))[0] = 1
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("elsewhere", (2, 3, 4), "f4", external="gone.raw")
    for key in ("unwritten", "partly", "virtual", "elsewhere"):
        with pytest.raises(ConversionError, match=rf"a\.h5 \({key}\) is incomplete"):
            H5Volume(tmp_path / "a.h5", key, (1, 2, 3), "zyx").read()


def test_truncated_h5_files_and_nan_in_them_are_found(tmp_path) -> None:
    array = NUMBERS.astype(np.float32)
    array[1, 1, 1] = np.nan
    volume = h5_volume(tmp_path / "a.h5", array)
    with pytest.raises(ConversionError, match="has 1 NaN or infinite voxels"):
        volume.read()
    content = volume.path.read_bytes()
    volume.path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ConversionError, match=r"Cannot read 'image' of .*truncated"):
        volume.read()


def test_frames_of_a_damaged_4d_file_are_refused(tmp_path) -> None:
    path = tmp_path / "a_4d.nii.gz"
    array = np.random.default_rng(0).normal(size=(3, 4, 6, 8)).astype(np.float32)
    array[2, 1, 1, 1] = np.inf
    sitk.WriteImage(sitk.GetImageFromArray(array, False), str(path))
    with pytest.raises(ConversionError, match="has 1 NaN or infinite voxels"):
        FrameOf4D(path, 1).read()
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConversionError, match="is truncated or damaged"):
        FrameOf4D(path, 1).read()
    path.unlink()
    with pytest.raises(ConversionError, match="does not exist"):
        FrameOf4D(path, 1).read()
