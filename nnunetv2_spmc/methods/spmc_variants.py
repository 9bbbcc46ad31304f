"""The paper's own settings of SPMC, ablations as in its tables 4 and 5, and a quick look.

The ablations are of our default, where the paper's are of its own settings; `_cpsOnly` is of these.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from nnunetv2_spmc.methods.spmc import nnUNetTrainerSPMC

# What the paper states, and its literal reading where it leaves a choice; not tau, which differs
# between its datasets, nor the encoder, about which its text and its equations disagree.
PAPER: dict[str, Any] = {
    "lambda_max": 0.1,
    "ramp_start": 0.0,
    "ramp_end": 1.0,
    "unlabeled_every": 1,
    "views": "same",
    "paste_from": "nothing",
    "turns": False,
    "flips": False,
    "labeled_views": 0.0,
    "viewed_pass": "never",
    "beta": 0.5,
    "temperature": 0.1,
    "sharpening": "binary",
    "trust_on": "sharpened",
    "teaching": "high-to-low",
    "reduction": "all",
    "cdps": True,
    "splat": True,
    "noise": 0.3,
    "noise_levels": "all",
    "pseudo_loss": "cross-entropy",
    "teacher": "other",
}


class nnUNetTrainerSPMC_smoke(nnUNetTrainerSPMC):
    """Two epochs of five iterations, to see that everything runs."""

    default_settings = replace(
        nnUNetTrainerSPMC.default_settings,
        epochs=2,
        iterations_per_epoch=5,
        validation_iterations=2,
    )


class nnUNetTrainerSPMC_paper(nnUNetTrainerSPMC):
    """The paper's method, read literally, whatever the defaults of this package are."""

    fixed_settings: ClassVar[dict[str, Any]] = PAPER


class nnUNetTrainerSPMC_noCDPS(nnUNetTrainerSPMC):
    """Table 4: without the correction of common-difficulty voxels."""

    fixed_settings: ClassVar[dict[str, Any]] = {"cdps": False}


class nnUNetTrainerSPMC_noSPLAT(nnUNetTrainerSPMC):
    """Table 4: without the teaching of suspicious voxels."""

    fixed_settings: ClassVar[dict[str, Any]] = {"splat": False}


class nnUNetTrainerSPMC_noNoise(nnUNetTrainerSPMC):
    """Table 4: without feature noise in the auxiliary branch."""

    fixed_settings: ClassVar[dict[str, Any]] = {"noise": 0.0}


class nnUNetTrainerSPMC_cpsOnly(nnUNetTrainerSPMC):
    """Table 4, first row: the paper's two branches with cross pseudo supervision alone."""

    fixed_settings: ClassVar[dict[str, Any]] = PAPER | {
        "noise": 0.0,
        "cdps": False,
        "splat": False,
    }


class nnUNetTrainerSPMC_noUnlabeled(nnUNetTrainerSPMC):
    """Both branches, noise and CDPS on the labeled cases; unlabeled cases are not touched."""

    fixed_settings: ClassVar[dict[str, Any]] = {"lambda_max": 0.0}


class nnUNetTrainerSPMC_ordinaryToLow(nnUNetTrainerSPMC):
    """Table 5: suspicious voxels are taught by every voxel of the other branch."""

    fixed_settings: ClassVar[dict[str, Any]] = {"teaching": "ordinary-to-low"}


class nnUNetTrainerSPMC_highToOrdinary(nnUNetTrainerSPMC):
    """Table 5: trusted voxels teach every voxel of the other branch."""

    fixed_settings: ClassVar[dict[str, Any]] = {"teaching": "high-to-ordinary"}


class nnUNetTrainerSPMC_separateEncoders(nnUNetTrainerSPMC):
    """Two independent networks, as the text of the paper describes them."""

    fixed_settings: ClassVar[dict[str, Any]] = {"shared_encoder": False}
