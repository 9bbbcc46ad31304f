"""The supervised control: what the labeled cases alone give under the same schedule."""

from __future__ import annotations

from typing import ClassVar

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_spmc.methods.spmc import SPMCSettings
from nnunetv2_spmc.training.semi_supervised import apply_schedule, seed_everything
from nnunetv2_spmc.training.settings import describe_settings, resolve_settings


class nnUNetTrainerSupervisedControl(nnUNetTrainer):
    """Stock nnU-Net with epochs, iterations, learning rate and seed from the same settings.

    It reads the settings of SPMC, so that one environment serves both runs of a comparison, and
    uses those of the schedule alone. Labeled batches, loss, optimizer and augmentation are stock.
    """

    default_settings: ClassVar[SPMCSettings] = SPMCSettings()

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        self.settings, self.setting_origins = resolve_settings(self.default_settings, dataset_json)
        super().__init__(plans, configuration, fold, dataset_json, device)
        apply_schedule(self, self.settings)

    def initialize(self) -> None:
        """Seed, then initialize as nnU-Net does."""
        seed_everything(self.settings.seed)
        super().initialize()
        self.print_to_log_file(
            "Settings (only those of the schedule are used):\n"
            + describe_settings(self.settings, self.setting_origins),
            add_timestamp=False,
        )
