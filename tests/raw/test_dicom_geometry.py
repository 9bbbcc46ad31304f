from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import RTDoseStorage

from nnunetv2_spmc.raw.cases import ConversionError
from nnunetv2_spmc.raw.dicom import DicomSeries
from tests.raw.dicom_series import AXIAL, random_slices, write_enhanced, write_slices

OBLIQUE = (*(0.6, 0.8, 0.0), *(-0.48, 0.36, 0.8))
NORMAL = np.cross(OBLIQUE[:3], OBLIQUE[3:])


def read(folder: Path) -> sitk.Image:
    return DicomSeries(folder).read()


def write_depths(folder: Path, depths: Sequence[float], **header: Any) -> None:
    positions = [(0, 0, depth) for depth in depths]
    write_slices(folder, random_slices(len(positions)), positions=positions, **header)


def assert_same_volume(image: sitk.Image, truth: Path, folder: Path) -> None:
    """Compare voxels and affine, whatever the order in which either stores its axes."""
    sitk.WriteImage(image, str(folder / "image.nii.gz"))
    found, expected = (
        nibabel.as_closest_canonical(nibabel.load(file))
        for file in (folder / "image.nii.gz", truth)
    )
    np.testing.assert_allclose(found.affine, expected.affine, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(expected.dataobj))


@pytest.mark.supported("DICOM series", "oblique slices, in any order of files")
def test_oblique_slices_lie_where_their_headers_put_them(tmp_path) -> None:
    voxels = random_slices(4)
    first = np.array((-10.5, 20.25, 7.0))
    order = [2, 0, 3, 1]
    write_slices(
        tmp_path,
        voxels,
        positions=[np.round(first + 2.5 * k * NORMAL, 6) for k in order],
        ImageOrientationPatient=list(OBLIQUE),
        PixelSpacing=[0.75, 0.5],  # between rows, between columns
    )
    image = read(tmp_path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), voxels[np.argsort(order)])
    np.testing.assert_allclose(image.GetSpacing(), (0.5, 0.75, 2.5), rtol=1e-6)
    np.testing.assert_allclose(image.GetOrigin(), first, rtol=0, atol=1e-6)
    expected = np.column_stack([OBLIQUE[:3], OBLIQUE[3:], NORMAL])
    np.testing.assert_allclose(np.reshape(image.GetDirection(), (3, 3)), expected, atol=1e-9)


def test_a_real_series_equals_its_truth(shared_data, tmp_path) -> None:
    image = read(shared_data / "odd" / "dicom_plain")
    assert_same_volume(image, shared_data / "odd" / "dicom_plain_truth.nii.gz", tmp_path)


def test_a_real_series_with_a_slope_for_each_slice_equals_its_truth(shared_data, tmp_path) -> None:
    image = read(shared_data / "odd" / "dicom_slope_per_slice")
    assert_same_volume(image, shared_data / "odd" / "dicom_slope_per_slice_truth.nii.gz", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dicom_gantry_tilt", r"tilted gantry: .* 1\.21 mm .* 14\.0 degrees"),
        ("dicom_enhanced_several_volumes", "several volumes: 32 images at 8 positions, 4 at each"),
        ("dicom_mixed_orientations", "2 orientations"),
        ("dicom_rgb", "3 values per voxel"),
    ],
)
def test_real_series_that_are_no_volume_are_refused(shared_data, name, message) -> None:
    with pytest.raises(ConversionError, match=message):
        read(shared_data / "odd" / name)


@pytest.mark.supported("DICOM series", "a tilted gantry", refused=True)
@pytest.mark.parametrize("degrees", [-20, 1, 15])
def test_a_tilted_gantry_is_refused_with_its_angle(tmp_path, degrees) -> None:
    angle = np.radians(degrees)
    tilted = (*(1, 0, 0), *(0, round(np.cos(angle), 8), round(np.sin(angle), 8)))
    write_depths(tmp_path, [5 * k for k in range(4)], ImageOrientationPatient=list(tilted))
    with pytest.raises(ConversionError, match=rf"tilted gantry: .*of {abs(degrees)}\.0 degrees"):
        read(tmp_path)


def test_rounded_headers_are_no_tilt(tmp_path) -> None:
    rounded = np.round(OBLIQUE + np.float64(2e-4), 4)  # a drift of half a pixel over 200 slices
    positions = [np.round(1.5 * k * NORMAL, 3) for k in range(200)]
    write_slices(
        tmp_path,
        random_slices(200),
        positions=positions,
        ImageOrientationPatient=rounded.tolist(),
    )
    image = read(tmp_path)
    assert image.GetSpacing()[2] == pytest.approx(1.5, rel=1e-4)
    matrix = np.reshape(image.GetDirection(), (3, 3))
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), rtol=0, atol=1e-12)


def test_a_slice_beside_the_others_is_named(tmp_path) -> None:
    positions = [(0, 0, 0), (0, 0, 3), (2, 0, 6), (0, 0, 9)]
    write_slices(tmp_path, random_slices(4), positions=positions)
    with pytest.raises(ConversionError, match=r"003\.dcm lies 2 mm to the side of 001\.dcm"):
        read(tmp_path)


@pytest.mark.supported(
    "DICOM series", "several time points, echoes or b-values in one series", refused=True
)
@pytest.mark.parametrize(
    ("keyword", "shown"),
    [
        ("TemporalPositionIdentifier", r"time point \(1, 2\)"),
        ("EchoTime", r"echo time \(1, 2\)"),
        ("AcquisitionNumber", r"acquisition \(1, 2\)"),
        ("InstanceNumber", r"001\.dcm and 002\.dcm; convert it"),  # says nothing
    ],
)
def test_several_volumes_are_counted(tmp_path, keyword, shown) -> None:
    each = [{keyword: 1 + k % 4} for k in range(20)]
    write_depths(tmp_path, [2.5 * (k // 4) for k in range(20)], each=each)
    with pytest.raises(
        ConversionError, match="several volumes: 20 images at 5 positions, 4 at each"
    ) as caught:
        read(tmp_path)
    assert "missing" not in str(caught.value)
    caught.match(shown)


def test_all_images_at_one_position_are_several_volumes(tmp_path) -> None:
    write_depths(tmp_path, [5, 5, 5])
    with pytest.raises(ConversionError, match="several volumes: 3 images at 1 position, 3 at each"):
        read(tmp_path)


@pytest.mark.supported("DICOM series", "missing slices, unequal distances", refused=True)
@pytest.mark.parametrize(
    ("depths", "message"),
    [
        ((0, 3, 9, 12), r"1 slice is missing .*6 mm between 002\.dcm and 003\.dcm"),
        ((0, 3, 6, 18), r"3 slices are missing .*12 mm between 003\.dcm and 004\.dcm"),
        ((0, 3, 9), "1 slice is missing"),
        ((0, -3, -9, -12), r"1 slice is missing .*between 003\.dcm and 002\.dcm"),
        ((0, 3, 9, 15, 18, 21), r"2 slices are missing"),
    ],
)
def test_missing_slices_are_counted_and_placed(tmp_path, depths, message) -> None:
    write_depths(tmp_path, depths)
    with pytest.raises(ConversionError, match=message):
        read(tmp_path)


@pytest.mark.supported("DICOM series", "missing slices, unequal distances", refused=True)
@pytest.mark.parametrize(
    "depths",
    [
        (0, 3, 6, 10.2, 13.2),
        (0, 1, 4, 7, 10),
        # Each gap is near the usual one, and yet the slices in the middle are far from their place.
        np.cumsum([1.0] * 20 + [1.08] * 20),
    ],
)
def test_unequal_distances_are_refused(tmp_path, depths) -> None:
    write_depths(tmp_path, np.round(depths, 4).tolist())
    with pytest.raises(ConversionError, match="are not at equal distances"):
        read(tmp_path)


def test_jitter_of_the_table_is_tolerated(tmp_path) -> None:
    jitter = np.random.default_rng(0).uniform(-0.04, 0.04, 30)
    write_depths(tmp_path, np.round(np.arange(30) + jitter, 4).tolist())
    assert read(tmp_path).GetSpacing()[2] == pytest.approx(1, abs=0.01)


@pytest.mark.supported("DICOM series", "mixed sizes, orientations, spacings", refused=True)
@pytest.mark.parametrize(
    ("localizer", "message"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "2 orientations"),
        ({"PixelSpacing": [2, 2]}, r"2 pixel spacings, .*1 with \(2, 2\) such as 003\.dcm"),
        (
            {"Rows": 4, "Columns": 12},
            r"2 sizes, .*3 with \(8, 6\) such as 001\.dcm; 1 with \(12, 4\) such as 003\.dcm",
        ),
    ],
)
def test_a_localizer_among_the_slices_is_named(tmp_path, localizer, message) -> None:
    each = [localizer if k == 2 else {} for k in range(4)]
    write_depths(tmp_path, [0, 3, 6, 9], each=each)
    with pytest.raises(ConversionError, match=message):
        read(tmp_path)


@pytest.mark.supported("DICOM series", "without position, orientation or spacing", refused=True)
@pytest.mark.parametrize(
    "keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
)
def test_an_unknown_place_is_refused(tmp_path, keyword) -> None:
    write_depths(tmp_path, [0, 3, 6], ImagerPixelSpacing=[0.5, 0.5], **{keyword: None})
    with pytest.raises(ConversionError, match=rf"001\.dcm does not say .*: {keyword} is missing"):
        read(tmp_path)


@pytest.mark.parametrize("spacing", [[0, 1], [1, -1]])
def test_an_impossible_pixel_spacing_is_refused(tmp_path, spacing) -> None:
    write_depths(tmp_path, [0, 3, 6], PixelSpacing=spacing)
    with pytest.raises(ConversionError, match=r"001\.dcm is truncated or damaged"):
        read(tmp_path)


def test_directions_that_are_not_perpendicular_are_refused(tmp_path) -> None:
    write_depths(tmp_path, [0, 3, 6], ImageOrientationPatient=[1, 0, 0, 0.5, 0.866, 0])
    with pytest.raises(ConversionError, match=r"001\.dcm .*perpendicular"):
        read(tmp_path)


@pytest.mark.supported("DICOM series", "a single slice, if it says how thick it is")
@pytest.mark.parametrize(
    ("header", "thickness"), [({}, 3), ({"SpacingBetweenSlices": 4.5}, 4.5)], ids=["own", "spacing"]
)
def test_a_single_slice_has_the_thickness_of_its_header(tmp_path, header, thickness) -> None:
    write_depths(tmp_path, [7], **header)
    image = read(tmp_path)
    assert image.GetSize() == (8, 6, 1)
    assert image.GetSpacing() == (1, 1, thickness)


def test_a_single_slice_of_unknown_thickness_is_refused(tmp_path) -> None:
    write_depths(tmp_path, [7], SliceThickness=None)
    with pytest.raises(ConversionError, match=r"001\.dcm is a single slice .* how thick"):
        read(tmp_path)


@pytest.mark.supported("DICOM series", "enhanced multi-frame files")
def test_frames_are_placed_by_their_own_positions(tmp_path) -> None:
    voxels = random_slices(5)
    order = [3, 0, 4, 1, 2]
    positions = [np.round((1, 2, 3) + 2.5 * k * NORMAL, 6) for k in order]
    write_enhanced(
        tmp_path / "a.dcm",
        voxels,
        positions=positions,
        shared={"ImageOrientationPatient": list(OBLIQUE), "PixelSpacing": [0.75, 0.5]},
    )
    image = read(tmp_path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), voxels[np.argsort(order)])
    np.testing.assert_allclose(image.GetSpacing(), (0.5, 0.75, 2.5), rtol=1e-5)
    np.testing.assert_allclose(image.GetOrigin(), (1, 2, 3), atol=1e-6)
    np.testing.assert_allclose(image.GetDirection()[2::3], NORMAL, atol=1e-9)


def test_what_a_frame_says_counts_more_than_what_all_share(tmp_path) -> None:
    each = [{"ImageOrientationPatient": list(OBLIQUE)}] * 3
    positions = [(2 * k * NORMAL).tolist() for k in range(3)]
    write_enhanced(tmp_path / "a.dcm", random_slices(3), positions=positions, each=each)
    np.testing.assert_allclose(read(tmp_path).GetDirection()[2::3], NORMAL, atol=1e-9)


@pytest.mark.supported("DICOM series", "several volumes in one multi-frame file", refused=True)
@pytest.mark.parametrize("slowest", ["time", "position"])
def test_frames_of_several_volumes_are_refused(tmp_path, slowest) -> None:
    time, place = np.divmod(np.arange(32), 8)
    if slowest == "position":
        place, time = np.divmod(np.arange(32), 4)
    write_enhanced(
        tmp_path / "a.dcm",
        random_slices(32),
        positions=[(0, 0, 3.5 * int(k)) for k in place],
        each=[{"TemporalPositionIndex": int(t) + 1} for t in time],
    )
    with pytest.raises(
        ConversionError, match=r"32 images at 8 positions, 4 at each.*time point \(1, 2\)"
    ):
        read(tmp_path)


def test_frames_that_differ_in_kind_say_so(tmp_path) -> None:
    each = [{"FrameType": ["DERIVED", kind]} for kind in ("WATER", "FAT")] * 4
    positions = [(0, 0, 3 * (k // 2)) for k in range(8)]
    write_enhanced(tmp_path / "a.dcm", random_slices(8), positions=positions, each=each)
    with pytest.raises(ConversionError, match=r"image type \(DERIVED/WATER, DERIVED/FAT\)"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("number", "message"),
    [(3, "states 4 frames and describes 3"), (5, "states 4 frames and describes 5")],
)
def test_frames_that_are_not_described_are_an_error(tmp_path, number, message) -> None:
    positions = [(0, 0, 3 * k) for k in range(number)]
    write_enhanced(tmp_path / "a.dcm", random_slices(4), positions=positions)
    with pytest.raises(ConversionError, match=message):
        read(tmp_path)


def test_frames_without_a_position_each_are_refused(tmp_path) -> None:
    voxels = random_slices(4)
    write_slices(tmp_path, voxels[:1], NumberOfFrames=4, PixelData=voxels.tobytes())
    with pytest.raises(ConversionError, match=r"4 frames and does not say where each .*dcm2niix"):
        read(tmp_path)


def test_a_dose_is_placed_and_scaled_by_its_own_header(tmp_path) -> None:
    voxels = random_slices(4)
    write_slices(
        tmp_path,
        voxels[:1],
        SOPClassUID=RTDoseStorage,
        NumberOfFrames=4,
        PixelData=voxels.tobytes(),
        GridFrameOffsetVector=[0, 2.5, 5, 7.5],
        DoseGridScaling=0.25,
    )
    image = read(tmp_path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), 0.25 * voxels)
    assert image.GetSpacing() == (1, 1, 2.5)


def test_slices_of_nuclear_medicine_are_placed_by_their_detector(tmp_path) -> None:
    voxels = random_slices(4)
    detector = Dataset()
    detector.ImagePositionPatient, detector.ImageOrientationPatient = [1, 2, 3], list(AXIAL)
    write_slices(
        tmp_path,
        voxels[:1],
        NumberOfFrames=4,
        PixelData=voxels.tobytes(),
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        DetectorInformationSequence=[detector],
        SliceVector=[1, 2, 3, 4],
        SpacingBetweenSlices=-2,
    )
    image = read(tmp_path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), voxels[::-1])
    assert (image.GetSpacing(), image.GetOrigin()) == ((1, 1, 2), (1, 2, -3))


@pytest.mark.supported("DICOM series", "mosaics", refused=True)
def test_a_mosaic_is_refused(tmp_path) -> None:
    write_slices(tmp_path, random_slices(2), ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"])
    with pytest.raises(ConversionError, match=r"001\.dcm is a mosaic.*dcm2niix"):
        read(tmp_path)


def test_a_mosaic_is_known_by_its_number_of_images(tmp_path) -> None:
    block = Dataset()
    private = block.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    private.add_new(0x0A, "US", 9)
    file = write_slices(tmp_path, random_slices(1))[0]
    dataset = pydicom.dcmread(file)
    dataset.update(block)
    dataset.save_as(file)
    with pytest.raises(ConversionError, match="is a mosaic"):
        read(tmp_path)
