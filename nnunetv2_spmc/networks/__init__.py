"""Networks around the planned nnU-Net, which is the submodule `main` of all of them."""

from nnunetv2_spmc.networks.dual_branch import DualBranchNetwork
from nnunetv2_spmc.networks.ema_teacher import EMATeacherNetwork
from nnunetv2_spmc.networks.feature_noise import FeatureNoise
from nnunetv2_spmc.networks.interpolation_decoder import (
    InterpolationUpsampling,
    interpolation_decoder,
)
from nnunetv2_spmc.networks.main_network import MainNetwork
from nnunetv2_spmc.networks.twin_network import TwinNetwork

__all__ = [
    "DualBranchNetwork",
    "EMATeacherNetwork",
    "FeatureNoise",
    "InterpolationUpsampling",
    "MainNetwork",
    "TwinNetwork",
    "interpolation_decoder",
]
