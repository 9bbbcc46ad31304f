"""The arrays of a case: image, reference, prediction and the maps of both branches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_spmc.common.errors import DataError, reason_of
from nnunetv2_spmc.inference.case_maps import CaseMaps
from nnunetv2_spmc.inference.map_files import StoredMaps
from nnunetv2_spmc.raw.scan import check_scan
from nnunetv2_spmc.reports.orientation import SliceDisplay, slice_display, with_axes_of
from nnunetv2_spmc.reports.predictions import Predictions
from nnunetv2_spmc.reports.run_files import VALIDATION_FOLDER, AbsentError
from nnunetv2_spmc.reports.run_record import RunRecord
from nnunetv2_spmc.unlabeled.image_checks import reading_problem


@dataclass(frozen=True)
class CaseView:
    """A case of a run; arrays of shape (z, y, x), None where there is nothing to show.

    Args:
        run_name: what the figure calls the run.
        image: first channel.
        reference: labels by a human.
        prediction: labels of the validation.
        confidence: of the main branch.
        common_difficulty: bool.
        spacing_mm: voxel size along z, y, x.
        properties: geometry, as nnU-Net's reader returned it.
        dice: mean over the classes.
        ignore_label: label value of the reference that counts nowhere.
    """

    run_name: str
    image: np.ndarray
    reference: np.ndarray | None
    prediction: np.ndarray
    confidence: np.ndarray | None
    common_difficulty: np.ndarray | None
    spacing_mm: tuple[float, ...]
    properties: dict[str, Any]
    dice: float
    ignore_label: int | None = None

    @cached_property
    def annotated(self) -> np.ndarray | None:
        """The reference with background in place of its ignored voxels."""
        if self.reference is None or self.ignore_label is None:
            return self.reference
        return np.where(self.reference == self.ignore_label, 0, self.reference)

    @cached_property
    def errors(self) -> np.ndarray | None:
        """0 right or ignored, 1 missed, 2 added, 3 another class, as `ERROR_COLORS` names them."""
        if self.reference is None:
            return None
        errors = np.zeros(self.reference.shape, np.uint8)
        wrong = self.prediction != self.reference
        if self.ignore_label is not None:
            wrong &= self.reference != self.ignore_label
        errors[wrong] = 3
        errors[wrong & (self.prediction == 0)] = 1
        errors[wrong & (self.reference == 0)] = 2
        return errors

    @cached_property
    def display(self) -> SliceDisplay:
        """How its slices are drawn."""
        return slice_display(self.properties)


def case_view(
    run: RunRecord,
    case: str,
    *,
    with_maps: bool = True,
    name: str | None = None,
    among: Predictions | None = None,
) -> CaseView:
    """Read a case; its maps, too, or predict it once more where there are none.

    Maps of a validation case are kept in the run's folder, see `Predictions.keep_maps`.

    Args:
        run: the run.
        case: a validation case, or one of `among`.
        with_maps: False predicts nothing: only stored maps are shown.
        name: what to call the run; its own name by default.
        among: the predictions that the case is one of; those of the validation by default.

    Raises:
        AbsentError: the prediction or the image is missing.
        DataError: a file is damaged, or they differ in shape.
    """
    if among is None:
        among = Predictions(run, "validation", run.folder / VALIDATION_FOLDER, run.metrics)
    prediction_file = among.prediction(case)
    if not os.path.lexists(prediction_file):
        raise AbsentError(f"{prediction_file} does not exist; predict it again ({among.remedy}).")
    images, reference_file = among.images(case), among.reference(case)
    reader = run.reader_writer
    image, properties = _read_image(images, reader)
    prediction = _read_segmentation(prediction_file, reader)
    if prediction.shape != image.shape[1:]:
        raise DataError(
            f"{prediction_file} has the shape {prediction.shape}, but {images[0]} has "
            f"{image.shape[1:]}; predict it again ({among.remedy})."
        )
    reference = _read_segmentation(reference_file, reader) if reference_file else None
    maps: CaseMaps | StoredMaps | None = among.stored_maps(case)
    if maps is not None and maps.confidence.shape != prediction.shape:
        maps = None
    if maps is None and with_maps:
        predicted = run.predict(images)
        among.keep_maps(case, predicted)
        maps = predicted
    dice = among.metrics.loc[among.metrics["case"] == case, "dice"].mean()
    return CaseView(
        run_name=name or run.name,
        image=image[0],
        reference=None if reference is None else reference.astype(np.uint8),
        prediction=prediction.astype(np.uint8),
        confidence=maps.confidence if maps else None,
        common_difficulty=maps.common_difficulty if maps else None,
        spacing_mm=tuple(float(size) for size in properties["spacing"]),
        properties=properties,
        dice=float(dice),
        ignore_label=run.ignore_label,
    )


def _read_image(files: Sequence[Path], reader: Any) -> tuple[np.ndarray, dict[str, Any]]:
    for file in files:
        check_scan(file)
    try:
        image, properties = reader.read_images([str(file) for file in files])
    except Exception as error:  # readers raise all kinds
        problem = reading_problem(files, reader)
        raise DataError(problem or f"{files[0]} cannot be read ({reason_of(error)})") from error
    return image, properties


def _read_segmentation(file: Path, reader: Any) -> np.ndarray:
    check_scan(file, kind="label")
    try:
        segmentation: np.ndarray = reader.read_seg(str(file))[0][0]
    except Exception as error:  # readers raise all kinds
        raise DataError(f"{file} cannot be read ({reason_of(error)})") from error
    return segmentation


def on_axes_of(view: CaseView, other: CaseView) -> CaseView:
    """Return a view on the axes of another of the same case: some readers reorient, some do not."""
    arrays = ("image", "reference", "prediction", "confidence", "common_difficulty")
    turned: dict[str, Any] = {
        name: with_axes_of(getattr(view, name), view.properties, other.properties)
        for name in arrays
        if getattr(view, name) is not None
    }
    return replace(view, **turned, spacing_mm=other.spacing_mm, properties=other.properties)
