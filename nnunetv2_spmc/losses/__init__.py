"""Loss terms and the label space, as pure functions on tensors.

Shapes: B batch, C classes (or R regions), then one to three spatial axes. Probabilities are
float32, from a softmax over the classes (`regions=False`) or a sigmoid per region (`regions=True`).
"""

from nnunetv2_spmc.losses.cdps import cdps, common_difficulty
from nnunetv2_spmc.losses.confidence import (
    confidence,
    confidence_and_prediction,
    is_single_class,
    one_hot,
    predicted,
    probabilities,
    share,
)
from nnunetv2_spmc.losses.cps import cps
from nnunetv2_spmc.losses.label_space import LabelSpace
from nnunetv2_spmc.losses.masked_mse import Divisor, Reduction, masked_mse
from nnunetv2_spmc.losses.sharpening import SharpeningForm, sharpen
from nnunetv2_spmc.losses.splat import TeachingMode, splat, taught

__all__ = [
    "Divisor",
    "LabelSpace",
    "Reduction",
    "SharpeningForm",
    "TeachingMode",
    "cdps",
    "common_difficulty",
    "confidence",
    "confidence_and_prediction",
    "cps",
    "is_single_class",
    "masked_mse",
    "one_hot",
    "predicted",
    "probabilities",
    "share",
    "sharpen",
    "splat",
    "taught",
]
