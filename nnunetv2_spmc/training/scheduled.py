"""What the supervised control and the semi-supervised trainers share: settings, seed, resume."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_spmc import __version__
from nnunetv2_spmc.training.checkpoint import (
    CHECKPOINT_KEY,
    CheckpointError,
    read_extra_state,
    write_whole,
)
from nnunetv2_spmc.training.settings import (
    ScheduleSettings,
    changed_settings,
    describe_settings,
    resolve_settings,
)

ALLOW_CHANGED_VARIABLE = "nnUNet_spmc_allow_changed"


class nnUNetTrainerScheduled(nnUNetTrainer):
    """nnU-Net's trainer with a schedule and a seed from settings, which a resumed run must share.

    A subclass may fix settings (`fixed_settings`) that its name promises; the dataset and the
    environment cannot change those.
    """

    default_settings: ClassVar[ScheduleSettings] = ScheduleSettings()
    fixed_settings: ClassVar[Mapping[str, Any]] = {}

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        # before nnU-Net creates the output folder, so that a refusal leaves nothing behind
        defaults = replace(self.default_settings, **self.fixed_settings)
        settings, origins = resolve_settings(defaults, dataset_json, fixed=self.fixed_settings)
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.settings: Any = settings
        self.setting_origins = origins
        self.num_epochs = settings.epochs
        self.num_iterations_per_epoch = settings.iterations_per_epoch
        self.num_val_iterations_per_epoch = settings.validation_iterations
        self.initial_lr = settings.initial_lr
        self.save_every = settings.save_every
        self._resumed_from: Any = None  # -> load_checkpoint

    def initialize(self) -> None:
        """Seed the weights, initialize as nnU-Net does, and write the settings into the log."""
        self.seed_everything(0)
        super().initialize()
        self.print_to_log_file(
            "Settings:\n" + describe_settings(self.settings, self.setting_origins),
            add_timestamp=False,
        )
        self.logger.update_config({"spmc": asdict(self.settings)})

    def on_train_start(self) -> None:
        """Refuse to continue a run under other settings, then start as nnU-Net does."""
        if not self.was_initialized:
            self.initialize()
        self.check_resumed_run()
        # patches and noise: other ones for every process and for every resumed part of a run
        self.seed_everything(1, self.local_rank, self.current_epoch)
        super().on_train_start()

    def seed_everything(self, *stream: int) -> None:
        """Seed Python, NumPy and PyTorch from the seed of the settings, if there is one."""
        if self.settings.seed is not None:
            (seed,) = self.seed_sequence(*stream).generate_state(1)
            random.seed(int(seed))
            np.random.seed(seed)
            torch.manual_seed(int(seed))

    def seed_sequence(self, *stream: int) -> np.random.SeedSequence:
        """Return seeds of their own for a stream of random numbers; without a seed, fresh ones."""
        seed = self.settings.seed
        return np.random.SeedSequence(None if seed is None else [seed, *stream])

    # ---- checkpoints ---------------------------------------------------------------------------

    def extra_state(self) -> dict[str, Any]:
        """Return what the checkpoint holds beside nnU-Net's own content."""
        return {"version": __version__, "settings": asdict(self.settings)}

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's checkpoint with our state under a key of its own, whole or not at all."""
        buffer = io.BytesIO()
        super().save_checkpoint(buffer)
        if buffer.getbuffer().nbytes == 0:  # another rank, or --disable_checkpointing
            return
        buffer.seek(0)
        checkpoint = torch.load(buffer, map_location="cpu", weights_only=False)
        checkpoint[CHECKPOINT_KEY] = self.extra_state()
        write_whole(checkpoint, Path(filename))

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Load a checkpoint of this trainer, for --c and --val.

        Raises:
            CheckpointError: it comes from another kind of trainer.
        """
        state = read_extra_state(Path(filename_or_checkpoint))
        super().load_checkpoint(filename_or_checkpoint)
        self._resumed_from = state

    def check_resumed_run(self) -> None:
        """Compare the run to continue with this one.

        Raises:
            CheckpointError: they differ and the environment does not allow it.
        """
        if self._resumed_from is None:
            return
        changes = self.changes_since(self._resumed_from)
        if not changes:
            return
        message = "The run to continue was started differently: " + "; ".join(changes) + "."
        if os.environ.get(ALLOW_CHANGED_VARIABLE, "0") != "1":
            raise CheckpointError(
                f"{message} Restore what it had, or set {ALLOW_CHANGED_VARIABLE}=1 to go on anyway."
            )
        self.print_to_log_file(f"{message} Going on because {ALLOW_CHANGED_VARIABLE}=1.")

    def changes_since(self, state: Mapping[str, Any]) -> list[str]:
        """Describe in what this run differs from the one that wrote the state."""
        return changed_settings(state["settings"], asdict(self.settings))
