"""The supervised control: what the labeled cases alone give under the same schedule."""

from __future__ import annotations

from typing import ClassVar

from nnunetv2_spmc.methods.spmc import SPMCSettings
from nnunetv2_spmc.training.scheduled import nnUNetTrainerScheduled


class nnUNetTrainerSupervisedControl(nnUNetTrainerScheduled):
    """Stock nnU-Net with epochs, iterations, learning rate and seed from the same settings.

    It reads the settings of SPMC, so that one environment serves both runs of a comparison, and
    uses those of the schedule alone. Labeled batches, loss, optimizer and augmentation are stock.
    """

    default_settings: ClassVar[SPMCSettings] = SPMCSettings()
