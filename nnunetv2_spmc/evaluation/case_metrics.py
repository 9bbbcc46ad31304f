"""The metrics of one case: pure functions on label maps.

Where a class is in neither reference nor prediction there is nothing to measure: no metric. Where
it is in one of the two only, Dice and Jaccard are 0 and there is no distance: a failure. Neither is
ever a good score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from nnunetv2_spmc.evaluation.classes import Classes
from nnunetv2_spmc.evaluation.surface_distances import UNDEFINED, bounding_box, surface_metrics

OVERLAPS = ("dice", "jaccard")  # higher is better
DISTANCES = ("hd95_mm", "asd_mm", "hd95_voxel", "asd_voxel")  # lower is better
METRICS = (*OVERLAPS, *DISTANCES)
Status = Literal["ok", "both_empty", "prediction_empty", "reference_empty"]
STATUSES: tuple[Status, ...] = get_args(Status)
IGNORED = -1  # in no class


@dataclass(frozen=True)
class ClassMetrics:
    """One class of one case, a row of metrics.csv; NaN where a metric is not defined."""

    case: str
    label: str
    dice: float
    jaccard: float
    hd95_mm: float
    asd_mm: float
    hd95_voxel: float
    asd_voxel: float
    reference_voxels: int
    predicted_voxels: int
    status: Status

    @property
    def is_failure(self) -> bool:
        """Whether the class is in one of the two masks only."""
        return self.status in ("prediction_empty", "reference_empty")

    def value(self, metric: str) -> float:
        """Return a metric by its name."""
        return float(getattr(self, metric))


def case_metrics(
    case: str,
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float],
    classes: Classes,
) -> list[ClassMetrics]:
    """Return the metrics of each class of a case.

    Args:
        case: Its identifier.
        reference: Integer label map of any number of dimensions.
        prediction: Integer label map of the same shape.
        spacing_mm: One voxel size per axis.
        classes: Voxels under their ignore label in the reference are taken out of both maps.
    """
    if classes.ignore is not None:
        ignored = reference == classes.ignore
        reference, prediction = (np.where(ignored, IGNORED, m) for m in (reference, prediction))
    foreground = (reference > 0) | (prediction > 0)
    if foreground.any():  # what lies around it is in no class
        box = bounding_box(foreground)
        reference, prediction = reference[box], prediction[box]
    return [
        _class_metrics(
            case, label, np.isin(reference, values), np.isin(prediction, values), spacing_mm
        )
        for label, values in classes.values.items()
    ]


def _class_metrics(
    case: str,
    label: str,
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing_mm: Sequence[float],
) -> ClassMetrics:
    in_reference, in_prediction, in_both = (
        int(np.count_nonzero(mask)) for mask in (reference, prediction, reference & prediction)
    )
    total = in_reference + in_prediction
    distances = UNDEFINED
    status: Status = "ok"
    if not total:
        status = "both_empty"
    elif not in_prediction:
        status = "prediction_empty"
    elif not in_reference:
        status = "reference_empty"
    else:
        distances = surface_metrics(prediction, reference, spacing_mm)
    return ClassMetrics(
        case=case,
        label=label,
        dice=2 * in_both / total if total else np.nan,
        jaccard=in_both / (total - in_both) if total else np.nan,
        **distances._asdict(),
        reference_voxels=in_reference,
        predicted_voxels=in_prediction,
        status=status,
    )
