from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut
from pydicom.uid import MPEG2MPML, JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from nnunetv2_spmc.raw.cases import ConversionError
from nnunetv2_spmc.raw.dicom import DicomSeries
from tests.raw.dicom_series import random_slices, write_enhanced, write_slices


def read(folder: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(DicomSeries(folder).read())


def read_by_pydicom(folder: Path) -> np.ndarray:
    slices = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    slices.sort(key=lambda s: np.dot(s.ImagePositionPatient, np.cross(*axes(s))))
    return np.stack([apply_modality_lut(s.pixel_array, s) for s in slices])


def axes(image: Dataset) -> list[np.ndarray]:
    return np.split(np.array(image.ImageOrientationPatient, float), 2)


@pytest.mark.supported("DICOM series", "slope and intercept of each slice, any bit depth and sign")
@pytest.mark.parametrize("name", ["dicom_plain", "dicom_slope_per_slice"])
def test_every_slice_of_a_real_series_equals_pydicoms_reading(shared_data, name) -> None:
    folder = shared_data / "odd" / name
    np.testing.assert_array_equal(read(folder), read_by_pydicom(folder))


@pytest.mark.supported("DICOM series", "slope and intercept of each slice, any bit depth and sign")
@pytest.mark.parametrize(
    ("stored", "bits", "slope", "intercept", "expected"),
    [
        (np.uint8, 8, 1, 0, np.uint8),
        (np.uint16, 12, 1, 0, np.uint16),
        (np.int16, 12, 1, 0, np.int16),
        (np.uint16, 12, 1, -1024, np.int16),
        (np.uint16, 16, 1, -1024, np.int32),
        (np.int16, 16, 2, 0, np.int32),
        (np.uint16, 12, -1, 0, np.int16),
        (np.uint32, 32, 1, 0, np.uint32),
        (np.uint32, 32, 1, -1, np.int64),
        (np.int32, 32, 1, 0, np.int32),
        (np.int16, 16, 0.1, -7.3, np.float64),
        (np.uint8, 8, 1, 0.5, np.float64),
    ],
)
def test_values_are_exact_in_the_smallest_type(
    tmp_path, stored, bits, slope, intercept, expected
) -> None:
    voxels = random_slices(3, stored, bits)
    scale = {"RescaleSlope": slope, "RescaleIntercept": intercept}
    write_slices(tmp_path, voxels, BitsStored=bits, **scale)
    values = read(tmp_path)
    assert values.dtype == expected
    np.testing.assert_array_equal(values, voxels * np.float64(slope) + intercept)
    np.testing.assert_array_equal(values, read_by_pydicom(tmp_path))


@pytest.mark.parametrize(
    ("slopes", "intercepts"),
    [((1, 0.5, 0.25), (0, 0, 0)), ((1, 2, 3), (0, -1024, 5)), ((1, 1, 1e5), (0, 0.125, 0))],
)
def test_each_slice_has_its_own_slope_and_intercept(tmp_path, slopes, intercepts) -> None:
    voxels = random_slices(3, bits=16)
    each = [
        {"RescaleSlope": slope, "RescaleIntercept": intercept}
        for slope, intercept in zip(slopes, intercepts, strict=True)
    ]
    write_slices(tmp_path, voxels, each=each)
    expected = voxels * np.reshape(slopes, (3, 1, 1)) + np.reshape(intercepts, (3, 1, 1))
    np.testing.assert_array_equal(read(tmp_path), expected)


def test_slices_may_differ_in_sign(tmp_path) -> None:
    each = [{"PixelRepresentation": k} for k in (0, 1, 0)]
    voxels = random_slices(3, bits=16)
    write_slices(tmp_path, voxels, each=each)
    values = read(tmp_path)
    for k, dtype in enumerate((np.uint16, np.int16, np.uint16)):
        np.testing.assert_array_equal(values[k], voxels[k].view(dtype))


def test_frames_have_their_own_slope(tmp_path) -> None:
    voxels = random_slices(3)
    each = [{"RescaleSlope": s, "RescaleIntercept": i} for s, i in ((0.5, 1), (0.25, 2), (3, 0))]
    positions = [(0, 0, 3 * k) for k in (1, 2, 0)]
    write_enhanced(tmp_path / "a.dcm", voxels, positions=positions, each=each)
    expected = np.stack([3 * voxels[2], 0.5 * voxels[0] + 1, 0.25 * voxels[1] + 2])
    np.testing.assert_array_equal(read(tmp_path), expected)


def test_the_slope_that_all_frames_share_is_applied(tmp_path) -> None:
    voxels = random_slices(3)
    write_enhanced(
        tmp_path / "a.dcm",
        voxels,
        positions=[(0, 0, 3 * k) for k in range(3)],
        shared={"RescaleSlope": 2, "RescaleIntercept": -7},
    )
    np.testing.assert_array_equal(read(tmp_path), 2.0 * voxels - 7)


def test_a_table_of_values_is_looked_up(tmp_path) -> None:
    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = (np.arange(256, dtype=np.uint16) * 97).tobytes()
    table.ModalityLUTType = "US"
    write_slices(tmp_path, random_slices(3, np.uint8), ModalityLUTSequence=[table])
    values = read(tmp_path)
    np.testing.assert_array_equal(values, random_slices(3).astype(np.int64) * 97)
    np.testing.assert_array_equal(values, read_by_pydicom(tmp_path))


@pytest.mark.parametrize(
    "header", [{"PhotometricInterpretation": "MONOCHROME1"}, {"PixelPaddingValue": 255}]
)
def test_hints_for_the_screen_change_no_values(tmp_path, header) -> None:
    voxels = random_slices(3)
    write_slices(tmp_path, voxels, **header)
    np.testing.assert_array_equal(read(tmp_path), voxels)


def test_voxels_of_floating_point_numbers_are_read(tmp_path) -> None:
    voxels = np.random.default_rng(0).normal(size=(3, 6, 8)).astype(np.float32)
    each = [{"FloatPixelData": image.tobytes()} for image in voxels]
    none = dict.fromkeys(("PixelData", "PixelRepresentation", "BitsStored", "HighBit"))
    write_slices(tmp_path, voxels, each=[{**none, **entry} for entry in each], RescaleSlope=0.3)
    np.testing.assert_array_equal(read(tmp_path), voxels.astype(np.float64) * 0.3)


def test_voxels_of_one_bit_are_read(tmp_path) -> None:
    voxels = np.random.default_rng(0).integers(0, 2, (3, 6, 8)).astype(np.uint8)
    write_enhanced(
        tmp_path / "a.dcm",
        voxels,
        positions=[(0, 0, 3 * k) for k in range(3)],
        BitsAllocated=1,
        BitsStored=1,
        PixelData=np.packbits(voxels, bitorder="little").tobytes(),
    )
    np.testing.assert_array_equal(read(tmp_path), voxels)


def test_a_sign_that_is_not_extended_is_that_of_the_last_bit_in_use(tmp_path) -> None:
    voxels = random_slices(3, np.int16, 12)
    write_slices(tmp_path, voxels & 0xFFF, BitsStored=12)
    np.testing.assert_array_equal(read(tmp_path), voxels)


def test_values_in_the_upper_bits_are_moved_down(tmp_path) -> None:
    voxels = random_slices(3, np.int16, 12)
    write_slices(tmp_path, voxels << 4, BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(read(tmp_path), voxels)


def test_an_overlay_above_the_values_is_cut_off(tmp_path) -> None:
    voxels = random_slices(3, bits=12)
    write_slices(tmp_path, voxels | 0x8000, BitsStored=12)
    for file in tmp_path.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.add_new(0x60000100, "US", 16)
        dataset.add_new(0x60000102, "US", 15)
        dataset.save_as(file)
    np.testing.assert_array_equal(read(tmp_path), voxels)


def test_values_that_need_more_bits_than_stated_are_refused(tmp_path) -> None:
    write_slices(tmp_path, random_slices(3, bits=14), BitsStored=12)
    with pytest.raises(ConversionError, match=r"001\.dcm .* more than the 12 bits"):
        read(tmp_path)


def test_a_slope_of_zero_is_refused(tmp_path) -> None:
    each = [{"RescaleSlope": slope, "RescaleIntercept": 0} for slope in (1, 0, 1)]
    write_slices(tmp_path, random_slices(3), each=each)
    with pytest.raises(ConversionError, match=r"002\.dcm states a RescaleSlope of 0"):
        read(tmp_path)


@pytest.mark.supported("DICOM series", "color images", refused=True)
@pytest.mark.parametrize(
    ("samples", "photometric"), [(3, "RGB"), (3, "YBR_FULL"), (1, "PALETTE COLOR")]
)
def test_colors_are_refused(tmp_path, samples, photometric) -> None:
    header = {"SamplesPerPixel": samples, "PhotometricInterpretation": photometric}
    write_slices(tmp_path, random_slices(samples, np.uint8), **header)
    with pytest.raises(ConversionError, match=rf"001\.dcm has 3 values per voxel \({photometric}"):
        read(tmp_path)


ENCODED = {"JPEG": JPEGLosslessSV1, "JPEG2000": JPEG2000Lossless}


def compress(file: Path, compressor: str) -> None:
    """Replace the voxels of a file by what GDCM's encoder, or pydicom's, makes of them."""
    dataset = pydicom.dcmread(file)
    if compressor == "RLE":
        dataset.compress(RLELossless)
    else:
        writer = sitk.ImageFileWriter()
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.SetImageIO("GDCMImageIO")
        copy = file.parent.parent / "compressed.dcm"
        writer.SetFileName(str(copy))
        writer.Execute(sitk.GetImageFromArray(dataset.pixel_array))
        other = pydicom.dcmread(copy)
        assert other.file_meta.TransferSyntaxUID == ENCODED[compressor]
        dataset.file_meta.TransferSyntaxUID = other.file_meta.TransferSyntaxUID
        dataset["PixelData"] = other["PixelData"]
        for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
            assert dataset[keyword] == other[keyword]
    dataset.save_as(file, enforce_file_format=True)


@pytest.mark.supported("DICOM series", "RLE, JPEG, JPEG-LS and JPEG 2000 compression")
@pytest.mark.parametrize("compressor", ["RLE", "JPEG", "JPEG2000"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_compressed_slices_have_the_values_of_plain_ones(tmp_path, compressor, dtype) -> None:
    bits = 8 * np.dtype(dtype).itemsize
    each = [{"RescaleSlope": s, "RescaleIntercept": i} for s, i in ((0.5, 3), (0.25, -7), (2, 0))]
    write_slices(tmp_path / "a", random_slices(3, dtype, bits, (32, 40)), each=each)
    expected = read(tmp_path / "a")
    for file in (tmp_path / "a").iterdir():
        compress(file, compressor)
    np.testing.assert_array_equal(read(tmp_path / "a"), expected)


@pytest.mark.supported("DICOM series", "RLE, JPEG, JPEG-LS and JPEG 2000 compression")
@pytest.mark.parametrize(
    "encoding", ["jpeg_ls_lossless", "jp2klossless", "RLE", "bigendian", "implicit", "expb"]
)
def test_one_slice_has_the_same_values_in_every_encoding(tmp_path, encoding) -> None:
    files = [f"MR_small_{encoding}.dcm", "MR_small.dcm"]  # pydicom's own
    encoded, plain = (pydicom.data.get_testdata_file(file, download=False) for file in files)
    shutil.copy(encoded, tmp_path)
    np.testing.assert_array_equal(read(tmp_path)[0], pydicom.dcmread(plain).pixel_array)


@pytest.mark.parametrize("compressor", ["RLE", "JPEG", "JPEG2000"])
def test_compressed_frames_have_their_own_slope(tmp_path, compressor) -> None:
    (tmp_path / "a").mkdir()
    file = write_enhanced(
        tmp_path / "a" / "a.dcm",
        random_slices(3, bits=16, shape=(32, 40)),
        positions=[(0, 0, 3 * k) for k in (1, 2, 0)],
        each=[{"RescaleSlope": s, "RescaleIntercept": 1} for s in (0.5, 0.25, 2)],
    )
    expected = read(tmp_path / "a")
    compress(file, compressor)
    np.testing.assert_array_equal(read(tmp_path / "a"), expected)


@pytest.mark.parametrize("compressor", ["RLE", "JPEG", "JPEG2000"])
def test_a_truncated_compressed_slice_is_an_error(tmp_path, compressor) -> None:
    last = write_slices(tmp_path / "a", random_slices(3, bits=12, shape=(32, 40)))[-1]
    compress(last, compressor)
    last.write_bytes(last.read_bytes()[:-200])
    with pytest.raises(ConversionError, match=r"003\.dcm is truncated or damaged"):
        read(tmp_path / "a")


@pytest.mark.supported("DICOM series", "compression that cannot be decoded", refused=True)
def test_a_syntax_that_cannot_be_decoded_is_named(tmp_path) -> None:
    (tmp_path / "a").mkdir()
    for file in write_slices(tmp_path / "a", random_slices(3, shape=(32, 40))):
        compress(file, "JPEG2000")
        dataset = pydicom.dcmread(file)
        dataset.file_meta.TransferSyntaxUID = MPEG2MPML
        dataset.save_as(file)
    with pytest.raises(
        ConversionError, match=r"001\.dcm .*compressed as MPEG2 Main Profile.*dcm2niix"
    ):
        read(tmp_path / "a")
