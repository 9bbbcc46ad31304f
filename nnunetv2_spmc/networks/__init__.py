"""The two-branch network around the planned nnU-Net."""

from nnunetv2_spmc.networks.dual_branch import DualBranchNetwork
from nnunetv2_spmc.networks.feature_noise import FeatureNoise
from nnunetv2_spmc.networks.interpolation_decoder import (
    InterpolationUpsampling,
    interpolation_decoder,
)

__all__ = [
    "DualBranchNetwork",
    "FeatureNoise",
    "InterpolationUpsampling",
    "interpolation_decoder",
]
