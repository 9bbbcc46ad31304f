from __future__ import annotations

import gzip
import re
import struct
import warnings

import nibabel
import numpy as np
import pytest
import SimpleITK

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.nifti_check import check_gzip, check_nifti
from nnunetv2_spmc.raw.nifti_transforms import ScanWarning
from nnunetv2_spmc.raw.scan import check_scan, read_scan


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


SPACING = (2.0, 3.0, 4.0)
DIM, DATATYPE, PIXDIM, OFFSET, SLOPE, UNITS, QUATERNION, SFORM = 40, 70, 76, 108, 112, 123, 256, 280


def whole_nifti(file, *, units=2, sform_code=2, sform=None, qform_code=1, pair=False):
    image_class = nibabel.Nifti1Pair if pair else nibabel.Nifti1Image
    image = image_class(voxels(), None)
    image.header.set_qform(np.diag([*SPACING, 1]), qform_code)
    image.header.set_sform(np.diag([*SPACING, 1]) if sform is None else sform, sform_code)
    image.header["pixdim"][1:4] = SPACING
    image.header["xyzt_units"] = units
    nibabel.save(image_class(voxels(), None, image.header), file)
    return file


def voxels():
    return np.random.default_rng(0).integers(-99, 999, (5, 6, 7)).astype(np.int16)


def with_header(file, place, form, *values):
    """Overwrite a part of the header of a file that is not compressed."""
    content = bytearray(file.read_bytes())
    struct.pack_into(f"<{form}", content, place, *values)
    file.write_bytes(content)
    return file


def refusal(file):
    said = set()
    for function in (check_scan, read_scan):
        with pytest.raises(DataError) as caught:
            function(file)
        said.add(str(caught.value))
    (sentence,) = said
    assert sentence.startswith(str(file))
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("place", "form", "values", "reason"),
    [
        (DATATYPE, "hh", (999, 16), "voxels of datatype 999, which SimpleITK does not read"),
        (DATATYPE, "hh", (1536, 128), r"datatype 1536 \(float128\)"),
        (DATATYPE, "hh", (1, 1), r"datatype 1 \(binary\)"),
        (DATATYPE, "hh", (128, 24), "has 3 values per voxel, expected 1"),
        (DATATYPE, "hh", (2304, 32), "has 4 values per voxel, expected 1"),
        (DATATYPE, "hh", (32, 64), "complex voxels; write their magnitude"),
        (DATATYPE, "hh", (1792, 128), "complex voxels"),
        (DATATYPE, "hh", (2, 16), r"datatype 2 \(uint8\) have 8 bits, its header says 16"),
        (DATATYPE, "hh", (2, 8), "210 bytes more than the header speaks of"),
        (DIM, "hhhh", (3, 32000, 32000, 32000), "is truncated, 65535999999580 bytes are missing"),
        (DIM, "5h", (4, *[32767] * 4), "is truncated, 23055\\d{14} bytes are missing"),
        (DIM, "hhhh", (3, 5, -6, 7), "has a damaged header: 3 axes of 5, -6, 7"),
        (DIM, "hhhh", (3, 5, 0, 7), "has a damaged header"),
        (DIM, "hhhh", (0, 5, 6, 7), "has a damaged header: 0 axes"),
        (DIM, "hhhh", (3, 5, 6, 6), "60 bytes more than the header speaks of"),
        (DIM, "hhhh", (1, 210, 1, 1), "has 210 voxels, expected three axes"),
        (DIM, "6h", (5, 5, 6, 1, 1, 7), "has 7 values per voxel, expected 1"),
        (DIM, "6h", (5, 5, 2, 1, 3, 7), "has 5 x 2 x 1 x 3 x 7 voxels, expected three axes"),
        (OFFSET, "f", (-352,), "has its voxels at byte -352 by its header"),
        (OFFSET, "f", (0,), "at byte 0 by its header"),
        (OFFSET, "f", (348,), "at byte 348 by its header"),
        (OFFSET, "f", (np.nan,), "at byte nan by its header"),
        (OFFSET, "f", (1e30,), "at byte 1e\\+30 by its header"),
        (OFFSET, "f", (1e6,), "is truncated, \\d+ bytes are missing"),
        (SLOPE, "ff", (np.nan, 0), "scl_slope nan and scl_inter 0, which readers take diff"),
        (SLOPE, "ff", (np.inf, 0), "scl_slope inf"),
        (SLOPE, "ff", (1, np.nan), "scl_inter nan"),
        (SLOPE, "ff", (0, 5), "scl_slope 0 and scl_inter 5"),
        (SLOPE, "ff", (1e-30, 0), "scl_slope 1e-30"),
        (SLOPE, "ff", (1e38, 0), "become infinite by its header's factor of 1e\\+38"),
        (PIXDIM, "ff", (1, 0), "has a spacing of 0 x 3 x 4 mm"),
        (PIXDIM, "ff", (1, -2), "has a spacing of -2 x 3 x 4 mm"),
        (PIXDIM, "ff", (1, np.nan), "has a spacing of nan x 3 x 4 mm"),
        (PIXDIM, "ff", (1, np.inf), "has a spacing of inf x 3 x 4 mm"),
        (PIXDIM, "ff", (1, 1e-8), "has a spacing of 1e-08 x 3 x 4 mm"),
        (UNITS, "B", (1,), "has a spacing of 2000 x 3000 x 4000 mm"),
        (SFORM, "f", (np.nan,), "has a damaged sform"),
        (SFORM + 12, "f", (np.inf,), "has a damaged sform"),
        (QUATERNION, "f", (np.nan,), "has a damaged qform"),
        (QUATERNION, "fff", (1, 0.1, 0.1), "has a damaged qform"),
        (PIXDIM, "f", (7,), "has a damaged qform"),
        (344, "4s", (b"abcd",), "no NIfTI file: it does not begin with a header"),
    ],
)
def test_a_header_that_no_reader_doubts_is_refused(tmp_path, place, form, values, reason):
    file = with_header(whole_nifti(tmp_path / "scan.nii"), place, form, *values)
    assert re.search(reason, refusal(file))
    compressed = tmp_path / "compressed.nii.gz"
    compressed.write_bytes(gzip.compress(file.read_bytes()))
    assert re.search(reason, refusal(compressed))


@pytest.mark.parametrize("slope", [(0, 0), (1, 0), (2, -5), (-1, 0), (0.001, 3)])
def test_a_factor_in_the_header_is_applied(tmp_path, slope):
    file = with_header(whole_nifti(tmp_path / "scan.nii"), SLOPE, "ff", *slope)
    check_scan(file)
    array = SimpleITK.GetArrayFromImage(read_scan(file)).T
    factor, summand = slope if any(slope) else (1, 0)
    np.testing.assert_allclose(array, voxels() * float(factor) + summand, rtol=1e-6)


def test_micrometres_are_read_as_millimetres(tmp_path):
    file = whole_nifti(tmp_path / "scan.nii", units=3)
    check_scan(file)
    np.testing.assert_allclose(read_scan(file).GetSpacing(), np.array(SPACING) / 1000)


@pytest.mark.parametrize("code", [(1, 2), (2, 1), (1, 1), (4, 4)])
def test_an_sform_and_a_qform_that_differ_by_noise_say_nothing(tmp_path, code):
    near = np.diag([*SPACING, 1]) + np.eye(4, k=3) * 0.01
    file = whole_nifti(tmp_path / "a.nii", qform_code=code[0], sform_code=code[1], sform=near)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_scan(file)
        read_scan(file)


@pytest.mark.parametrize(
    ("codes", "counts"),
    [((1, 1), "sform"), ((2, 1), "sform"), ((1, 2), "qform"), ((4, 4), "qform")],
)
def test_of_an_sform_and_a_qform_that_differ_it_is_said_which_one_counts(tmp_path, codes, counts):
    moved = np.diag([*SPACING, 1])
    moved[:3, 3] = 30, 40, 0
    file = whole_nifti(tmp_path / "a.nii", qform_code=codes[0], sform_code=codes[1], sform=moved)
    with pytest.warns(ScanWarning, match=rf"differ by up to 50 mm; the {counts} counts"):
        check_scan(file)
    with pytest.warns(ScanWarning, match=rf"the {counts} counts"):
        image = read_scan(file)
    assert image.GetOrigin() == ((-30, -40, 0) if counts == "sform" else (0, 0, 0))


def test_an_sform_that_shears_does_not_count_where_there_is_a_qform(tmp_path):
    shear = np.diag([*SPACING, 1]) + np.eye(4, k=1)
    file = whole_nifti(tmp_path / "a.nii", qform_code=1, sform_code=1, sform=shear)
    with pytest.warns(ScanWarning, match="the qform counts"):
        assert read_scan(file).GetDirection() == (-1, 0, 0, 0, -1, 0, 0, 0, 1)
    alone = whole_nifti(tmp_path / "b.nii", qform_code=0, sform_code=1, sform=shear)
    assert "axes are not at right angles" in refusal(alone)


def test_an_sform_that_shears_by_noise_is_left_to_nibabel(tmp_path):
    noise = np.diag([*SPACING, 1]) + np.eye(4, k=1) * 0.002
    file = whole_nifti(tmp_path / "a.nii", qform_code=0, sform_code=1, sform=noise)
    check_scan(file)
    with pytest.raises(DataError, match=r"not quite at right angles, .* after set_qform"):
        read_scan(file)
    image = nibabel.load(file)
    image.set_qform(image.affine)
    image.set_sform(image.get_qform())
    nibabel.save(image, tmp_path / "b.nii")
    assert read_scan(tmp_path / "b.nii").GetSize() == (5, 6, 7)


def test_an_sform_of_other_voxel_sizes_than_the_spacing_is_refused(tmp_path):
    file = whole_nifti(tmp_path / "a.nii", sform_code=1, sform=np.diag([2, 3, 5, 1]))
    assert "sform has voxels of 2 x 3 x 5 mm, its pixdim 2 x 3 x 4 mm" in refusal(file)


def test_a_qfac_of_0_is_1_by_the_standard(tmp_path):
    file = with_header(whole_nifti(tmp_path / "scan.nii"), PIXDIM, "f", 0)
    check_scan(file)
    assert read_scan(file).GetDirection() == (-1, 0, 0, 0, -1, 0, 0, 0, 1)


def test_a_quaternion_that_is_too_long_by_rounding_is_read(tmp_path):
    file = whole_nifti(tmp_path / "scan.nii", sform_code=0)
    with_header(file, QUATERNION, "fff", 1.00001, 0, 0)
    check_scan(file)
    np.testing.assert_allclose(read_scan(file).GetDirection(), (-1, 0, 0, 0, 1, 0, 0, 0, -1))


def test_an_ending_that_does_not_fit_to_the_compression_is_named(tmp_path):
    content = whole_nifti(tmp_path / "scan.nii").read_bytes()
    plain, zipped = tmp_path / "plain.nii.gz", tmp_path / "zipped.nii"
    plain.write_bytes(content)
    zipped.write_bytes(gzip.compress(content))
    assert "not compressed by gzip; compress it, or name it .nii" in refusal(plain)
    assert "is compressed by gzip; name it .nii.gz" in refusal(zipped)


@pytest.mark.parametrize("image_class", [nibabel.AnalyzeImage, nibabel.Spm2AnalyzeImage])
def test_analyze_files_are_read(tmp_path, image_class):
    file = tmp_path / "scan.hdr"
    nibabel.save(image_class(voxels(), np.diag([*SPACING, 1])), file)
    check_scan(file)
    image = read_scan(file)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).T, voxels())
    assert image.GetSpacing() == SPACING


@pytest.mark.parametrize("names", [("A.HDR", "A.IMG"), ("A.HDR", "A.img"), ("a.hdr", "a.IMG")])
def test_capitals_of_a_pair_do_not_matter(tmp_path, names):
    whole_nifti(tmp_path / "scan.hdr", pair=True).rename(tmp_path / names[0])
    (tmp_path / "scan.img").rename(tmp_path / names[1])
    check_scan(tmp_path / names[0])
    image = read_scan(tmp_path / names[0])
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).T, voxels())


def test_a_header_of_a_pair_that_claims_to_hold_the_voxels_is_refused(tmp_path):
    file = with_header(whole_nifti(tmp_path / "a.hdr", pair=True), 344, "4s", b"n+1\0")
    assert "no NIfTI file" in refusal(file)
