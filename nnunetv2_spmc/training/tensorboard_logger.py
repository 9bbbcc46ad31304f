"""Curves in TensorBoard, in addition to nnU-Net's own loggers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.errors import SPMCError

ENABLED_VARIABLE = "nnUNet_tensorboard_enabled"  # named like nnU-Net's nnUNet_wandb_enabled


class MissingPackageError(SPMCError, ImportError):
    """A package that is not installed with this one is needed."""


class TensorBoardLogger:
    """A logger for nnU-Net's MetaLogger; it writes into the folder "tensorboard" of the run.

    Raises:
        MissingPackageError: tensorboard is not installed.
    """

    def __init__(self, output_folder: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingPackageError(
                f"{ENABLED_VARIABLE}=1 needs tensorboard, which is not installed: "
                "pip install tensorboard, or unset the variable."
            ) from error
        self.writer = SummaryWriter(str(Path(output_folder) / "tensorboard"))

    def update_config(self, config: dict[str, Any]) -> None:
        """Write a part of the configuration, plans or settings for example, as text."""
        for name, content in config.items():
            text = json.dumps(content, indent=2, default=str)
            self.writer.add_text(name, f"```\n{text}\n```")

    def log(self, key: str, value: Any, step: int) -> None:
        """Add a point to a curve; the time stamps of the epochs are left out."""
        if not key.endswith("timestamps"):
            self.writer.add_scalar(key, value, step)
            self.writer.flush()

    def log_summary(self, key: str, value: Any) -> None:
        """Write a value of the whole run, such as the Dice of the final validation."""
        self.writer.add_scalar(key, value)
        self.writer.flush()
