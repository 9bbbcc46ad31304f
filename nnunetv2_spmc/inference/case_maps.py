"""What both branches say about a case, voxel by voxel, on the grid of its images."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_spmc.common.errors import DataError, reason_of
from nnunetv2_spmc.inference.trained_model import TrainedModel
from nnunetv2_spmc.losses import common_difficulty, confidence
from nnunetv2_spmc.raw.scan import check_scan
from nnunetv2_spmc.unlabeled.image_checks import check_voxels, reading_problem
from nnunetv2_spmc.unlabeled.resampled_size import check_resampled_size

NO_MEMORY = "there was not enough memory"
SUSPICIOUS_MAIN, SUSPICIOUS_SECOND = 1, 2  # values in the map; 3: suspicious in both


@dataclass(frozen=True)
class CaseMaps:
    """Maps of one case, all of shape (z, y, x), the axis order of nnU-Net's readers.

    Args:
        segmentation: labels by the main branch, as nnUNetv2_predict writes them.
        confidence: float32 in [0, 1] of the main branch: the largest class probability; with
            regions the smallest max(p, 1 - p) over the regions.
        entropy: float32 in [0, 1] of the main branch: entropy of the class probabilities over its
            largest possible value; with regions the mean over the regions.
        second: labels by the second branch; None for a model without one.
        second_name: the name of that branch, "auxiliary" in SPMC; empty without one.
        second_confidence: float32 in [0, 1] of the second branch; None without one.
        suspicious: uint8, 1 where the main branch is unsure (confidence <= tau), 2 where the
            second one is, 3 where both are; with regions unsure of any region. None without tau.
        common_difficulty: bool, suspicious in both branches (with regions: of the same region).
            None for a model with one branch, or without tau.
        properties: geometry, as nnU-Net's reader returned it.
    """

    segmentation: np.ndarray
    confidence: np.ndarray
    entropy: np.ndarray
    second: np.ndarray | None
    second_name: str
    second_confidence: np.ndarray | None
    suspicious: np.ndarray | None
    common_difficulty: np.ndarray | None
    properties: dict[str, Any]


def predict_case(model: TrainedModel, images: Sequence[Path], tau: float | None = None) -> CaseMaps:
    """Predict a case with both branches by nnU-Net's sliding window, Gaussian weighted.

    Args:
        model: from `load_model`.
        images: one file per channel, in order.
        tau: suspicious at confidence <= tau; None takes the threshold of the training.

    Raises:
        DataError: the number of images is wrong, one cannot be read, is damaged or has NaN or
            infinite voxels, or the prediction is NaN.
    """
    tau = model.tau if tau is None else tau
    data, properties = _preprocessed(model, images)
    regions = model.main.label_manager.has_regions
    segmentation, probabilities = _predict(model.main, images[0], data, properties)
    main = confidence(probabilities[None], regions=regions)
    entropy = normalized_entropy(probabilities, regions=regions)
    del probabilities
    second_segmentation = suspicious = difficult = second = None
    if model.second is not None:
        second_segmentation, probabilities = _predict(model.second, images[0], data, properties)
        second = confidence(probabilities[None], regions=regions)
        del probabilities
    if tau is not None:
        suspicious = SUSPICIOUS_MAIN * _any_region(main <= tau).astype(np.uint8)
        if second is not None:
            suspicious |= SUSPICIOUS_SECOND * _any_region(second <= tau).astype(np.uint8)
            difficult = _any_region(common_difficulty(main, second, tau))
    return CaseMaps(
        segmentation=segmentation,
        confidence=_least(main),
        entropy=entropy,
        second=second_segmentation,
        second_name=model.second_name,
        second_confidence=None if second is None else _least(second),
        suspicious=suspicious,
        common_difficulty=difficult,
        properties=properties,
    )


def normalized_entropy(probabilities: torch.Tensor, *, regions: bool) -> np.ndarray:
    """Return the entropy of (C, ...) probabilities, 0 for a certain voxel, 1 for a blind guess."""
    if not regions:
        return (torch.special.entr(probabilities).sum(dim=0) / np.log(len(probabilities))).numpy()
    both = torch.special.entr(probabilities) + torch.special.entr(1 - probabilities)
    return (both.mean(dim=0) / np.log(2)).numpy()


def _preprocessed(
    model: TrainedModel, images: Sequence[Path]
) -> tuple[torch.Tensor, dict[str, Any]]:
    predictor = model.main
    data, properties = _read(model, images)
    preprocessor = predictor.configuration_manager.preprocessor_class(verbose=False)
    try:
        resampling = check_resampled_size(
            data, properties, predictor.plans_manager, predictor.configuration_manager
        )
    except DataError as error:
        raise DataError(f"{images[0]}: {error}") from None
    try:
        data, _, properties = preprocessor.run_case_npy(
            data,
            None,
            properties,
            predictor.plans_manager,
            predictor.configuration_manager,
            predictor.dataset_json,
        )
    except MemoryError:
        raise DataError(f"{images[0]}: {NO_MEMORY}: {resampling}") from None
    except Exception as error:  # what preprocessors and resampling raise on odd images
        raise DataError(f"{images[0]} cannot be preprocessed: {reason_of(error)}.") from error
    return torch.from_numpy(np.asarray(data, dtype=np.float32)), properties


def _read(model: TrainedModel, images: Sequence[Path]) -> tuple[np.ndarray, dict[str, Any]]:
    """Read the channels of a case, (C, z, y, x), as preprocessing for a training does."""
    if len(images) > len(model.channels):
        raise _wrong_channels(model, images, len(images))
    for image in images:
        check_scan(image)
    reader = model.main.plans_manager.image_reader_writer_class()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # readers also print when they raise
            data, properties = reader.read_images([str(path) for path in images])
    except MemoryError as error:
        raise DataError(f"{images[0]} cannot be read: {NO_MEMORY}.") from error
    except Exception as error:  # readers raise all kinds
        problem = reading_problem(images, reader)
        raise DataError(problem or f"{images[0]} cannot be read ({reason_of(error)}).") from error
    try:
        check_voxels(data)
    except DataError as error:
        raise DataError(f"{images[0]} cannot be read: {error}.") from error
    if len(data) != len(model.channels):
        raise _wrong_channels(model, images, len(data))
    return data, properties


def _wrong_channels(model: TrainedModel, images: Sequence[Path], number: int) -> DataError:
    return DataError(
        f"{images[0]} comes with {number} channels, but the model was trained with "
        f"{len(model.channels)} ({', '.join(model.channels)}); give one file per channel."
    )


def _predict(
    predictor: nnUNetPredictor, image: Path, data: torch.Tensor, properties: dict[str, Any]
) -> tuple[np.ndarray, torch.Tensor]:
    """Return labels (z, y, x) and finite probabilities (C, z, y, x) on the image's grid."""
    try:
        logits = predictor.predict_logits_from_preprocessed_data(data).cpu()
    except Exception as error:  # infinite logits, too little memory, odd mirroring axes
        raise DataError(f"{image} cannot be predicted: {reason_of(error)}.") from error
    segmentation, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        predictor.plans_manager,
        predictor.configuration_manager,
        predictor.label_manager,
        properties,
        return_probabilities=True,
    )
    if not np.isfinite(probabilities).all():
        raise DataError(
            f"{image} cannot be predicted: the model gives NaN for it; take another checkpoint "
            "with -chk, or look at the image."
        )
    return segmentation, torch.from_numpy(probabilities)


def _least(confidence: torch.Tensor) -> np.ndarray:
    """Reduce (1, R, ...) confidences to (...): that of the region one is least sure of."""
    return confidence[0].amin(dim=0).numpy()


def _any_region(mask: torch.Tensor) -> np.ndarray:
    """Reduce a (1, R, ...) mask to (...): selected in any region."""
    return mask[0].any(dim=0).numpy()
