from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_spmc.raw.scan_facts import ScanFacts, facts_of_files
from nnunetv2_spmc.raw.voxel_digest import CHUNK, array_digest, rank_chunks, voxel_digest

VOXELS = np.random.default_rng(0).integers(-1000, 2000, (5, 6, 7)).astype(np.int16)


def image_of(array, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1, 2, 3))
    image.SetDirection(direction)
    return image


def ranks_of(values):
    return np.concatenate(list(rank_chunks(np.asarray(values))))


@pytest.mark.parametrize(
    "values",
    [
        np.array([30, -5, 30, 7], np.int16),
        np.array([30, -5, 30, 7], np.float32),
        np.array([0.3, -0.5, 0.3, 0.07]),
        np.array([2**40, -(2**40), 2**40, 0]),
        np.array([np.inf, -1, np.inf, 0], np.float32),
    ],
    ids=["integers", "whole numbers", "fractions", "far apart", "infinite"],
)
def test_ranks_are_dense(values):
    assert ranks_of(values).tolist() == [2, 0, 2, 1]


def test_ranks_of_a_large_array_are_those_of_numpy():
    values = np.random.default_rng(0).normal(size=CHUNK + 10).astype(np.float32)
    np.testing.assert_array_equal(ranks_of(values), np.unique(values, return_inverse=True)[1])


@pytest.mark.parametrize(
    "resaved",
    [
        VOXELS.astype(np.int32),
        VOXELS.astype(np.float32),
        VOXELS.astype(np.float64) + 1024,
        (VOXELS.astype(np.float32) - 300) / np.float32(412.7),
        np.exp(VOXELS / 500.0),
        (VOXELS.astype(np.int32) + 1000).astype(np.uint16),
    ],
    ids=["wider", "float", "offset", "z-scored", "exponential", "unsigned"],
)
def test_another_type_or_an_increasing_rescaling_is_the_same_scan(resaved):
    assert array_digest(resaved) == array_digest(VOXELS)


@given(scale=st.floats(1e-3, 1e3), offset=st.floats(-1e4, 1e4))
def test_linear_rescaling_in_single_precision_is_the_same_scan(scale, offset):
    rescaled = (VOXELS * scale + offset).astype(np.float32)
    if np.unique(rescaled).size == np.unique(VOXELS).size:  # none was rounded to its neighbour
        assert array_digest(rescaled) == array_digest(VOXELS)


@pytest.mark.parametrize("code", ["RAS", "LPI", "SAL", "PIR", "ARS"])
def test_reoriented_voxels_are_the_same_scan(code):
    reoriented = sitk.DICOMOrient(image_of(VOXELS), code)
    assert voxel_digest(reoriented) == voxel_digest(image_of(VOXELS))


def test_spacing_and_origin_do_not_matter():
    image = image_of(VOXELS)
    image.SetSpacing((7, 7, 7))
    image.SetOrigin((-100, 3, 2))
    assert voxel_digest(image) == voxel_digest(image_of(VOXELS))


@pytest.mark.parametrize(
    "other",
    [VOXELS[:, :, ::-1], VOXELS[:-1], VOXELS.reshape(6, 5, 7), -VOXELS],
    ids=["mirrored", "cropped", "reshaped", "inverted"],
)
def test_other_voxels_are_another_scan(other):
    assert array_digest(other) != array_digest(VOXELS)


def test_one_changed_voxel_is_another_scan():
    other = VOXELS.copy()
    other[2, 3, 4] += 5000
    assert array_digest(other) != array_digest(VOXELS)


def test_empty_scans_of_different_values_are_different():
    assert array_digest(np.full((2, 2), 3)) != array_digest(np.full((2, 2), 4))
    assert array_digest(np.full((2, 2), 3, np.uint8)) == array_digest(np.full((2, 2), 3.0))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".tif"])
def test_every_file_format_gives_the_same_digest(tmp_path, ending):
    file = str(tmp_path / f"scan{ending}")
    sitk.WriteImage(image_of(VOXELS), file)
    assert facts_of_files([file]).digests == (voxel_digest(image_of(VOXELS)),)


def test_channels_have_digests_of_their_own(tmp_path):
    files = [str(tmp_path / f"{name}.nii.gz") for name in "ab"]
    for file, array in zip(files, (VOXELS, VOXELS[::-1]), strict=True):
        sitk.WriteImage(image_of(array), file)
    both, swapped = facts_of_files(files).digests, facts_of_files(files[::-1]).digests
    assert both == swapped[::-1]
    assert len(set(both)) == 2


def test_a_file_that_cannot_be_read_is_known_by_its_bytes(tmp_path):
    one, copy, other = (tmp_path / f"{name}_0000.nii.gz" for name in ("one", "copy", "other"))
    one.write_bytes(b"no scan")
    copy.write_bytes(b"no scan")
    other.write_bytes(b"none")
    facts = [facts_of_files([str(file)]) for file in (one, copy, other)]
    assert facts[0] == facts[1] != facts[2]


@pytest.mark.filterwarnings("error")
def test_voxels_that_are_not_finite_cause_no_warning(tmp_path):
    array = VOXELS.astype(np.float32)
    array[0, 0, :3] = np.inf, -np.inf, np.nan
    file = str(tmp_path / "scan.nrrd")
    sitk.WriteImage(image_of(array), file)
    assert np.isfinite(facts_of_files([file]).intensities).all()


def test_facts_survive_json(tmp_path):
    file = str(tmp_path / "scan.nii.gz")
    sitk.WriteImage(image_of(VOXELS), file)
    facts = facts_of_files([file])
    assert ScanFacts.from_json(facts.to_json()) == facts
    assert (facts.orientation, facts.size, facts.spacing_mm) == ("LPS", (7, 6, 5), (1, 2, 3))
    assert facts.intensities[0][10] == pytest.approx(np.median(VOXELS), rel=1e-4)
