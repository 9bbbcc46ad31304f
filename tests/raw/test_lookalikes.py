from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from nnunetv2_spmc.raw.lookalikes import lookalike_warnings, lookalikes
from nnunetv2_spmc.raw.thumbnails import SIDE, thumbnail


def anatomy(seed, shape=(40, 48, 56)):
    """A bright body that all have, with structures of its own."""
    random = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    body = np.exp(-2 * sum(axis**2 for axis in axes))
    texture = ndimage.gaussian_filter(random.normal(size=shape), 2.5)
    return (900 * body + 8000 * texture).astype(np.int16)


def picture(array):
    return thumbnail(sitk.GetImageFromArray(array))


SCAN = anatomy(0)
OTHERS = {f"other{seed}": picture(anatomy(seed)) for seed in range(1, 8)}


@pytest.mark.parametrize(
    "copy",
    [
        SCAN + np.random.default_rng(1).normal(0, 60, SCAN.shape),
        ndimage.zoom(SCAN.astype(np.float32), 0.7, order=1),
        np.minimum(SCAN, 1000) // 40,
        SCAN[4:, :, :],
        SCAN[2:-2, 4:, :-5],
        SCAN[:-4, 2:-2, 5:],
        np.pad(SCAN, 3, mode="edge"),
        np.roll(SCAN, 5, axis=2)[:, :, 5:],
    ],
    ids=[
        "noised",
        "resampled",
        "grey levels",
        "cropped",
        "cropped all",
        "other end",
        "wider",
        "cut",
    ],
)
def test_a_changed_copy_looks_alike_and_other_scans_do_not(copy):
    pictures = {"scan": picture(SCAN), "copy": picture(np.asarray(copy, np.float32)), **OTHERS}
    ((one, other, value),) = lookalikes(pictures)
    assert (one, other) == ("copy", "scan")
    assert 0.88 <= value <= 1


def test_a_scan_whose_field_of_view_moved_by_a_tenth_looks_alike():
    large = anatomy(0, (50, 60, 70))
    one, other = large[:45, 6:60, :63], large[5:50, 0:54, 7:]
    assert len(lookalikes({"one": picture(one), "other": picture(other), **OTHERS})) == 1


def test_a_reoriented_copy_looks_alike():
    image = sitk.GetImageFromArray(SCAN + 10 * np.random.default_rng(1).normal(size=SCAN.shape))
    pictures = {"a": thumbnail(image), "b": thumbnail(sitk.DICOMOrient(image, "RAS"))}
    assert lookalikes(pictures)[0][2] > 0.99


def test_only_pairs_with_new_scans_are_compared():
    pictures = {"a": picture(SCAN), "b": picture(SCAN), "c": picture(SCAN + 1)}
    assert len(lookalikes(pictures)) == 3
    assert {pair[:2] for pair in lookalikes(pictures, ["b"])} == {("a", "b"), ("b", "c")}
    assert lookalikes(pictures, []) == []


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 5, 6)), np.full((4, 5, 6), np.nan), np.ones((1, 1, 1)), np.ones((3, 2))],
    ids=["zeros", "NaN", "a voxel", "2D"],
)
def test_scans_without_structure_look_like_nothing(array):
    made = picture(array)
    assert made.shape == (SIDE,) * 3
    assert lookalikes({"a": made, "b": made, "c": picture(SCAN)}) == []


def test_a_picture_in_colors_has_no_thumbnail():
    assert thumbnail(sitk.GetImageFromArray(np.zeros((8, 9, 3)), isVector=True)) is None


PAIRS = [("a1", "b1", 0.95), ("a1", "a2", 0.91)]


def test_without_patient_keys_the_warning_says_how_to_state_them():
    for patients in ({}, {"a1": "a1", "b1": "b1", "a2": "a2"}):
        (warning,) = lookalike_warnings(PAIRS, patients)
        assert (
            "a1 and b1 (0.95), a1 and a2 (0.91); probably one patient: use --group_by." in warning
        )


def test_pairs_of_one_patient_are_not_warned_of():
    patients = {"a1": "a", "a2": "a", "b1": "b"}
    (warning,) = lookalike_warnings(PAIRS, patients)
    assert "a1 and b1 (0.95)" in warning
    assert "a2" not in warning
    assert "different patient keys" in warning
    assert lookalike_warnings(PAIRS[1:], patients) == []


def real_pictures(files):
    return {f.name.split(".")[0]: thumbnail(sitk.ReadImage(str(f))) for f in sorted(files)}


def test_two_patients_of_la_look_alike(shared_data):
    pairs = lookalikes(real_pictures((shared_data / "la_half" / "images").glob("*.nii.gz")))
    assert [p[:2] for p in pairs] == [("0RZDK210BSMWAA6467LU", "CMPXO4J23G58J53Q98SZ")]


def test_two_patients_of_acdc_look_alike(shared_data):
    files = (shared_data / "acdc128" / "training").glob("*/*_frame??.nii.gz")
    pictures = real_pictures(files)
    patients = {name: name.split("_")[0] for name in pictures}
    pairs = [p for p in lookalikes(pictures) if patients[p[0]] != patients[p[1]]]
    assert {(patients[a], patients[b]) for a, b, _ in pairs} == {("patient074", "patient076")}
