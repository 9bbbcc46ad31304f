from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from medpy.metric.binary import asd, dc, hd95, jc

from nnunetv2_spmc.evaluation.case_metrics import DISTANCES, case_metrics
from nnunetv2_spmc.evaluation.classes import Classes

ORGANS = Classes({"liver": (1,), "tumour": (2,)}, frozenset({0, 1, 2}), ignore=None)
REGIONS = Classes({"whole": (1, 2), "core": (2,)}, frozenset({0, 1, 2}), ignore=None)
WITH_IGNORE = Classes({"liver": (1,), "tumour": (2,)}, frozenset({0, 1, 2}), ignore=3)
SPACING = (3.0, 1.0, 1.5)
LABEL_MAPS = arrays(np.int32, (4, 5, 6), elements=st.integers(0, 2))


def measured(reference, prediction, classes=ORGANS, spacing=SPACING):
    rows = case_metrics("case", reference, prediction, spacing, classes)
    return {row.label: row for row in rows}


def assert_equals_medpy(row, reference, prediction):
    assert row.status == "ok"
    assert row.dice == dc(prediction, reference)
    assert row.jaccard == jc(prediction, reference)
    assert row.hd95_mm == pytest.approx(hd95(prediction, reference, SPACING), rel=1e-12)
    assert row.asd_mm == pytest.approx(asd(prediction, reference, SPACING), rel=1e-12)
    assert row.hd95_voxel == pytest.approx(hd95(prediction, reference), rel=1e-12)
    assert row.asd_voxel == pytest.approx(asd(prediction, reference), rel=1e-12)
    assert row.reference_voxels == reference.sum()
    assert row.predicted_voxels == prediction.sum()


@settings(max_examples=50, deadline=None)
@given(LABEL_MAPS, LABEL_MAPS)
def test_every_class_has_the_metrics_of_medpy(reference, prediction) -> None:
    for label, row in measured(reference, prediction).items():
        masks = [np.isin(m, ORGANS.values[label]) for m in (reference, prediction)]
        if all(mask.any() for mask in masks):
            assert_equals_medpy(row, *masks)
        else:
            assert row.status != "ok"


def test_a_region_is_the_union_of_its_labels() -> None:
    generator = np.random.default_rng(0)
    reference, prediction = generator.integers(0, 3, (2, 4, 5, 6))
    rows = measured(reference, prediction, REGIONS)
    assert_equals_medpy(rows["whole"], reference > 0, prediction > 0)
    assert_equals_medpy(rows["core"], reference == 2, prediction == 2)


def test_voxels_under_the_ignore_label_are_left_out() -> None:
    generator = np.random.default_rng(0)
    reference, prediction = generator.integers(0, 4, (4, 5, 6)), generator.integers(0, 3, (4, 5, 6))
    ignored = reference == 3
    row = measured(reference, prediction, WITH_IGNORE)["tumour"]
    assert_equals_medpy(row, reference == 2, (prediction == 2) & ~ignored)
    changed = np.where(ignored, 2 - prediction, prediction)
    assert measured(reference, changed, WITH_IGNORE)["tumour"] == row


@pytest.mark.parametrize(
    ("reference_label", "predicted_label", "status", "overlap"),
    [
        (1, 1, "both_empty", np.nan),
        (2, 1, "prediction_empty", 0.0),
        (1, 2, "reference_empty", 0.0),
    ],
)
def test_an_empty_mask_is_never_rewarded(reference_label, predicted_label, status, overlap) -> None:
    reference, prediction = np.zeros((2, 3, 3), np.int32)
    reference[1, 1], prediction[1, 1] = reference_label, predicted_label
    row = measured(reference, prediction, spacing=(1.0, 1.0))["tumour"]
    assert row.status == status
    assert row.is_failure == (status != "both_empty")
    np.testing.assert_equal([row.dice, row.jaccard], [overlap, overlap])
    assert all(np.isnan(row.value(metric)) for metric in DISTANCES)


def test_a_case_of_background_alone_has_nothing_to_measure() -> None:
    rows = measured(np.zeros((2, 3), int), np.zeros((2, 3), int), spacing=(1.0, 1.0))
    assert {row.status for row in rows.values()} == {"both_empty"}
