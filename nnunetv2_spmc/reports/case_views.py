"""The arrays of a validation case: image, reference, prediction and the maps of both branches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_spmc.common.errors import DataError, reason_of
from nnunetv2_spmc.common.nnunet_folders import PREPROCESSED, RAW, folder_if_set
from nnunetv2_spmc.raw.scan import check_scan
from nnunetv2_spmc.reports.orientation import SliceDisplay, slice_display, with_axes_of
from nnunetv2_spmc.reports.run_files import VALIDATION_FOLDER, AbsentError, read_summary
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

    @cached_property
    def display(self) -> SliceDisplay:
        """How its slices are drawn."""
        return slice_display(self.properties)


def case_view(
    run: RunRecord, case: str, *, with_maps: bool = True, name: str | None = None
) -> CaseView:
    """Read a validation case, and predict it once more for the maps of both branches.

    Args:
        run: the run.
        case: a case in its validation folder.
        with_maps: False leaves confidence and common-difficulty voxels out.
        name: what to call the run; its own name by default.

    Raises:
        AbsentError: the prediction or the image is missing.
        DataError: a file is damaged, or they differ in shape.
    """
    ending = run.dataset_json["file_ending"]
    prediction_file = run.folder / VALIDATION_FOLDER / f"{case}{ending}"
    if not os.path.lexists(prediction_file):
        raise AbsentError(f"{prediction_file} does not exist; validate with nnUNetv2_train --val.")
    images = run.validation_images(case)
    reference_file = reference_of(run, case)
    reader = run.model.main.plans_manager.image_reader_writer_class()
    image, properties = _read_image(images, reader)
    prediction = _read_segmentation(prediction_file, reader)
    if prediction.shape != image.shape[1:]:
        raise DataError(
            f"{prediction_file} has the shape {prediction.shape}, but {images[0]} has "
            f"{image.shape[1:]}; validate anew with nnUNetv2_train --val."
        )
    reference = _read_segmentation(reference_file, reader) if reference_file else None
    maps = run.predict(images) if with_maps else None
    return CaseView(
        run_name=name or run.name,
        image=image[0],
        reference=None if reference is None else reference.astype(np.uint8),
        prediction=prediction.astype(np.uint8),
        confidence=maps.confidence if maps else None,
        common_difficulty=maps.common_difficulty if maps else None,
        spacing_mm=tuple(float(size) for size in properties["spacing"]),
        properties=properties,
        dice=float(run.mean_dice().get(case, np.nan)),
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


def reference_of(run: RunRecord, case: str) -> Path | None:
    """Return the reference segmentation of a validation case, wherever it lies now."""
    name = f"{case}{run.dataset_json['file_ending']}"
    places = [Path(measured["reference_file"]) for measured in read_summary(run.folder)]
    candidates = [path for path in places if path.name == name]
    for variable, folder in ((PREPROCESSED, "gt_segmentations"), (RAW, "labelsTr")):
        root = folder_if_set(variable)
        if root is not None:
            candidates.append(root / run.dataset_name / folder / name)
    return next((path for path in candidates if os.path.lexists(path)), None)
