from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from medpy.metric.binary import asd, hd95
from scipy.ndimage import gaussian_filter

from nnunetv2_spmc.evaluation import surface_distances
from nnunetv2_spmc.evaluation.surface_distances import bounding_box, surface, surface_metrics

SPACINGS = st.sampled_from([0.625, 1.0, 2.8, 10.0])


def by_medpy(prediction, reference, spacing):
    return (
        hd95(prediction, reference, spacing),
        asd(prediction, reference, spacing),
        hd95(prediction, reference),
        asd(prediction, reference),
    )


def assert_equals_medpy(prediction, reference, spacing):
    ours = surface_metrics(prediction, reference, spacing)
    np.testing.assert_allclose(ours, by_medpy(prediction, reference, spacing), rtol=1e-12)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), shape=array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=7))
def test_random_masks_have_the_distances_of_medpy(data, shape) -> None:
    prediction, reference = (
        data.draw(arrays(bool, shape).filter(lambda mask: mask.any())) for _ in range(2)
    )
    spacing = tuple(data.draw(SPACINGS) for _ in shape)
    assert_equals_medpy(prediction, reference, spacing)


@pytest.mark.parametrize("spacing", [(10.0, 2.8, 2.8), (1.25, 1.25, 1.25)])
def test_blobs_that_touch_the_border_have_the_distances_of_medpy(spacing) -> None:
    generator = np.random.default_rng(0)
    prediction, reference = (
        gaussian_filter(generator.normal(size=(12, 40, 36)), 2.5) > 0 for _ in range(2)
    )
    assert reference[0].any()
    assert prediction[:, :, -1].any()
    assert_equals_medpy(prediction, reference, spacing)


@pytest.mark.parametrize("number", range(3))
def test_real_atria_have_the_distances_of_medpy(shared_data, number) -> None:
    file = sorted((shared_data / "la_half" / "labels").glob("*.nii.gz"))[number]
    image = sitk.ReadImage(str(file))
    reference = sitk.GetArrayFromImage(image) > 0
    noise = gaussian_filter(np.random.default_rng(number).normal(size=reference.shape), 3)
    prediction = gaussian_filter(reference.astype(float), 2) + noise > 0.4
    assert_equals_medpy(prediction, reference, image.GetSpacing()[::-1])


def test_real_hearts_with_thick_slices_have_the_distances_of_medpy(shared_data) -> None:
    folders = sorted((shared_data / "acdc128" / "training").iterdir())[:2]
    for file in (next(folder.glob("*_gt.nii.gz")) for folder in folders):
        image = sitk.ReadImage(str(file))
        labels = sitk.GetArrayFromImage(image)
        for label in (1, 2, 3):
            reference = labels == label
            prediction = np.roll(reference, (1, -3, 2), axis=(0, 1, 2))
            assert_equals_medpy(prediction, reference, image.GetSpacing()[::-1])


@pytest.mark.parametrize("looks_per_voxel", [0, np.inf])
@pytest.mark.parametrize("spacing", [(10.0, 2.8, 2.8), (1.25, 1.25, 1.25)])
def test_far_surfaces_have_the_distances_of_medpy(monkeypatch, looks_per_voxel, spacing) -> None:
    monkeypatch.setattr(surface_distances, "LOOKS_PER_VOXEL", looks_per_voxel)
    generator = np.random.default_rng(0)
    prediction = gaussian_filter(generator.normal(size=(12, 40, 36)), 2.5) > 0
    reference = np.zeros_like(prediction)
    reference[4:6, 3:5, 30:] = True
    assert_equals_medpy(prediction, reference, spacing)


def test_two_voxels_are_as_far_apart_as_their_spacing_says() -> None:
    prediction, reference = np.zeros((2, 4, 4, 9), bool)
    prediction[0, 0, 0] = reference[3, 0, 4] = True
    distances = surface_metrics(prediction, reference, (10.0, 1.0, 10.0))
    assert distances == (50.0, 50.0, 5.0, 5.0)


def test_asd_goes_from_the_prediction_to_the_reference() -> None:
    reference, prediction = np.zeros((2, 1, 11), bool)
    reference[0] = True
    prediction[0, :1] = True
    assert surface_metrics(prediction, reference, (1.0, 1.0)).asd_mm == 0
    assert surface_metrics(reference, prediction, (1.0, 1.0)).asd_mm == 5


def test_equal_masks_are_at_distance_zero() -> None:
    mask = np.zeros((5, 5), bool)
    mask[1:4, 2:] = True
    assert surface_metrics(mask, mask, (1.0, 2.0)) == (0, 0, 0, 0)


def test_an_empty_mask_has_no_distance() -> None:
    empty, full = np.zeros((3, 3), bool), np.ones((3, 3), bool)
    for pair in ((empty, full), (full, empty), (empty, empty)):
        assert np.isnan(surface_metrics(*pair, (1.0, 1.0))).all()


def test_the_surface_has_a_face_neighbour_outside_of_mask_or_image() -> None:
    mask = np.ones((4, 5), bool)
    mask[3, 0] = False
    expected = [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [0, 1, 1, 1, 1]]
    assert np.array_equal(surface(mask), np.array(expected, bool))


def test_the_bounding_box_is_tight() -> None:
    mask = np.zeros((6, 7), bool)
    mask[2, 3] = mask[4, 6] = True
    assert bounding_box(mask) == (slice(2, 5), slice(3, 7))
