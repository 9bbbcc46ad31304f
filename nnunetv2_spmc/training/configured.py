"""What all trainers of this package share: settings, views of labeled patches, seed, resume."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn
from torch.amp import GradScaler

from nnunetv2_spmc import __version__
from nnunetv2_spmc.common.errors import SPMCError
from nnunetv2_spmc.common.leftovers import remove_leftovers
from nnunetv2_spmc.common.signals import interrupts_blocked, signals_deferred
from nnunetv2_spmc.common.whole_file import WRITING_PREFIX
from nnunetv2_spmc.loading.case_files import reading_as_data
from nnunetv2_spmc.loading.watched import WatchedDataset
from nnunetv2_spmc.losses import LabelSpace
from nnunetv2_spmc.networks.unwrap import unwrapped
from nnunetv2_spmc.raw.label_definition import label_warnings
from nnunetv2_spmc.training.as_data import plain, read_as_data
from nnunetv2_spmc.training.checkpoint import (
    BEST,
    LATEST,
    check_method,
    check_resumed_weights,
    extra_state_of,
    read_resumable,
    unreadable,
    write_with_own_state,
)
from nnunetv2_spmc.training.commands import how_to_predict, labeled_preprocessing
from nnunetv2_spmc.training.few_labels import ensure_fold_exists, remove_other_predictions
from nnunetv2_spmc.training.labeled_cases import naming_unreadable, watch_labeled, watched
from nnunetv2_spmc.training.planned_files import check_planned
from nnunetv2_spmc.training.processes import device_of_process, distributed, limit_threads
from nnunetv2_spmc.training.progress import Progress, validation_lines
from nnunetv2_spmc.training.resuming import check_resumed, go_on
from nnunetv2_spmc.training.seeds import Seeds
from nnunetv2_spmc.training.settings import (
    NoSettings,
    Resolved,
    TrainingSettings,
    describe_settings,
    register_method,
    resolve_settings,
)
from nnunetv2_spmc.training.stability import (
    TAKEN,
    DivergenceCheck,
    average,
    skipped_line,
    steps_noted,
)
from nnunetv2_spmc.training.step import Target, labeled_through
from nnunetv2_spmc.training.stopping import says_how_to_go_on
from nnunetv2_spmc.training.tensorboard_logger import ENABLED_VARIABLE, TensorBoardLogger
from nnunetv2_spmc.training.views import Views
from nnunetv2_spmc.training.warm_start import (
    check_pretrained_weights,
    has_seen_validation_cases,
    source_of_weights,
)
from nnunetv2_spmc.training.weight_average import WeightAverage
from nnunetv2_spmc.unlabeled.plans_check import check_training


class nnUNetTrainerConfigured(nnUNetTrainer):
    """nnU-Net's trainer with settings, which a resumed run must share.

    A method derives from it, sets its defaults, may add settings of its own (a dataclass) and fix
    what its name promises. Its block of settings has its name without "nnUNetTrainer".
    """

    default_settings: ClassVar[TrainingSettings] = TrainingSettings()
    default_method_settings: ClassVar[Any] = NoSettings()
    fixed_settings: ClassVar[Mapping[str, Any]] = {}
    method: ClassVar[str] = ""  # the name of the method, whose variants share its settings
    main_loss: ClassVar[str] = "loss"  # among what a step returns: nnU-Net's own loss
    is_ddp: bool
    device: torch.device
    network: Any
    dataset_class: Any
    grad_scaler: GradScaler | None
    _best_ema: float | None

    def __init_subclass__(cls, *, base: bool = False, **options: Any) -> None:
        """Register a method, which a class is that derives from no other one and is no base."""
        super().__init_subclass__(**options)
        settings = type(cls.default_method_settings)
        inherited = getattr(super(cls, cls), "default_method_settings", None)
        if not base and (not cls.method or settings is not type(inherited)):
            cls.method = cls.__name__.removeprefix("nnUNetTrainer")
            register_method(cls.method, settings)

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        # before nnU-Net creates the output folder, so that a refusal leaves nothing behind
        check_planned(plans, configuration, dataset_json)
        check_training(plans, configuration, dataset_json)
        resolved = self.resolved_settings(dataset_json)
        super().__init__(plans, configuration, fold, dataset_json, device)
        limit_threads(self.device)
        if self.is_ddp:
            self.device = device_of_process(device)
            self.grad_scaler = self.grad_scaler if device.type == "cuda" else None
        self._resolved, self.method_settings = resolved, resolved.method
        self.settings = settings = resolved.training
        self.seeds = Seeds(settings.seed)
        self.num_epochs = settings.epochs
        self.num_iterations_per_epoch = settings.iterations_per_epoch
        self.num_val_iterations_per_epoch = settings.validation_iterations
        self.initial_lr, self.save_every = settings.initial_lr, settings.save_every
        if self.local_rank == 0 and self.logger._is_logger_enabled(ENABLED_VARIABLE):
            self.logger.loggers.append(TensorBoardLogger(self.output_folder))
        disable = True if self.local_rank else None
        self.progress = Progress(settings, self.print_to_log_file, self.clock, disable=disable)
        self.check_divergence = DivergenceCheck(Path(self.output_folder))
        self.resumed_from: dict[str, Any] | None = None  # -> load_checkpoint
        self.resumed_file = Path()
        self.pretrained_weights = source_of_weights()
        self._saved_at = self.clock()  # checkpoint_latest.pth
        self.average = WeightAverage(settings.average_last, settings.epochs)
        self.validation_cases: list[str] = []  # -> do_split
        self._validated: Path | None = None  # folder that nnU-Net is about to fill and to measure
        self._labeled: tuple[WatchedDataset, ...] = ()  # -> get_tr_and_val_datasets
        # in its final validation nnU-Net starts workers, then calls do_split: open between the two
        self._workers_start = ExitStack()

    @classmethod
    def resolved_settings(
        cls, dataset_json: Mapping[str, Any], environment: Mapping[str, str] = os.environ
    ) -> Resolved:
        """Return the settings of a training on a dataset, from all sources, or raise as they do."""
        defaults, fixed = (cls.default_settings, cls.default_method_settings), cls.fixed_settings
        return resolve_settings(*defaults, cls.method, dataset_json, environment, fixed=fixed)

    @property
    def flat_settings(self) -> dict[str, Any]:
        """All settings of this training by name, as the log and the checkpoint hold them."""
        return self._resolved.flat()

    @property
    def label_space(self) -> LabelSpace:
        """What the channels of the network mean."""
        return LabelSpace.of(self.label_manager)

    @property
    def views(self) -> Views:
        """What lies between the patches of teacher and student in this training."""
        mirror_axes = self.inference_allowed_mirroring_axes or ()
        return Views.of(self.settings, mirror_axes, self.configuration_manager.spacing)

    @property
    def trained_network(self) -> nn.Module:
        """All that is trained."""
        return unwrapped(self.network)

    def initialize(self) -> None:
        """Seed the weights, initialize as nnU-Net does, and write the settings into the log."""
        self.seeds.everything(0)
        # nnU-Net distributes to the GPU of the global rank only: do it after the initialization
        is_ddp, self.is_ddp = self.is_ddp, False
        super().initialize()
        if is_ddp:
            self.is_ddp = True
            self._set_batch_size_and_oversample()
            self.loss = self._build_loss()
            self.network = distributed(self.network, self.device)
        self.dataset_class = reading_as_data(self.dataset_class)
        check_pretrained_weights(unwrapped(self.network))
        flat = self.flat_settings
        text = "Settings:\n" + describe_settings(flat, self._resolved.origins)
        self.print_to_log_file(text, add_timestamp=False)
        for note in (*self._resolved.notes, *label_warnings(self.dataset_json)):
            self.print_to_log_file(note)
        dataset_name, source = self.plans_manager.dataset_name, self.pretrained_weights
        if seen := has_seen_validation_cases(source, dataset_name, self.fold):
            self.print_to_log_file(f"WARNING: {seen}.")
        self.logger.update_config({"spmc": flat})

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:  # noqa: N802
        """Configure augmentation as nnU-Net does; without mirroring if the settings say so."""
        *others, mirror_axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if not self.settings.mirroring:
            mirror_axes = self.inference_allowed_mirroring_axes = None
        return *others, mirror_axes

    def do_split(self) -> tuple[list[str], list[str]]:
        """Split the labeled cases as nnU-Net does, also where it finds too few of them."""
        base, folder = self.preprocessed_dataset_folder_base, self.preprocessed_dataset_folder
        cases = infer_dataset_class(folder).get_identifiers(folder)
        ensure_fold_exists(Path(base), cases, self.fold, log=self.print_to_log_file)
        train, validation = super().do_split()
        self.validation_cases[:] = validation  # in place: validation_lines holds the list already
        if self._validated is not None:
            ending = self.dataset_json["file_ending"]
            remove_other_predictions(self._validated, ending, validation, self.print_to_log_file)
        self._workers_start.close()
        return train, validation

    def get_tr_and_val_datasets(self) -> tuple[WatchedDataset, ...]:
        """Split the labeled cases as nnU-Net does; refuse damaged ones, watch over the others."""
        datasets = super().get_tr_and_val_datasets()
        folder, command = Path(self.preprocessed_dataset_folder), labeled_preprocessing(self)
        self._labeled = watch_labeled(datasets, folder, command)
        return self._labeled

    def run_training(self) -> None:
        """Train; when a signal comes, say how to go on."""
        with says_how_to_go_on(self), naming_unreadable(lambda: self._labeled):
            super().run_training()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate as nnU-Net does, with a line a minute; when a signal comes, say how to go on."""
        folder, ending = Path(self.output_folder, "validation"), self.dataset_json["file_ending"]
        self._validated = None if self.local_rank else folder
        lines = validation_lines(folder, ending, self.validation_cases, self.print_to_log_file)
        with (
            says_how_to_go_on(self, is_validating=True),
            nullcontext() if self.local_rank else lines,
            self._workers_start,
            naming_unreadable(self._validation_dataset, any_of_them=True),
        ):
            self._workers_start.enter_context(signals_deferred())
            self._workers_start.enter_context(interrupts_blocked())
            super().perform_actual_validation(save_probabilities)

    def _validation_dataset(self) -> list[WatchedDataset]:
        dataset = self.dataset_class(self.preprocessed_dataset_folder, self.validation_cases)
        return [watched(dataset, labeled_preprocessing(self))]

    def on_train_start(self) -> None:
        """Refuse to continue a run under other settings, then start as nnU-Net does."""
        if not self.was_initialized:
            self.initialize()
        self.check_resumed_settings()
        if self.local_rank == 0:
            remove_leftovers(Path(self.output_folder), WRITING_PREFIX)
        super().on_train_start()
        self._saved_at = self.clock()
        go_on(self)

    def on_train_epoch_start(self) -> None:
        """Seed the epoch, so that a resumed run goes on as the uninterrupted one would have."""
        self.seeds.everything(1, self.local_rank, self.current_epoch)
        super().on_train_epoch_start()
        self.progress.start_epoch(self.current_epoch)

    def train_step(self, batch: dict) -> dict:
        """Do nnU-Net's step; say whether it was taken, and how far the training is."""
        images, target = self.labeled_view(batch["data"], batch["target"])
        with steps_noted(self.optimizer) as taken:
            values = super().train_step(batch | {"data": images, "target": target})
        self.progress.step(values["loss"].item)
        return values | {TAKEN: bool(taken)}

    def labeled_view(self, images: Tensor, target: Target) -> tuple[Tensor, Target]:
        """Show labeled patches through the views, if the settings ask for it."""
        share = self.settings.labeled_views
        if share == 0 or not self.views.change_patches:
            return images, target
        return labeled_through(self.views.draw_labeled(images, share), images, target)

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """Average over the steps that were taken and log it; stop if the training diverged."""
        self.progress.end_steps()
        values = average(train_outputs, self.optimizer, self.device)
        self.check_divergence(values, self.current_epoch)
        if values.skipped and self.grad_scaler is not None:
            self.print_to_log_file(skipped_line(values, self.grad_scaler.get_scale()))
        super().on_train_epoch_end([{"loss": np.array(values.means[self.main_loss])}])
        self.log_epoch(values.means)

    def log_epoch(self, means: dict[str, float]) -> None:
        """Log more than nnU-Net does of what the steps of an epoch returned, on average."""

    def validation_step(self, batch: dict) -> dict:
        """Do nnU-Net's step; say how far the validation of the epoch is."""
        outputs: dict = super().validation_step(batch)
        self.progress.validation_step()
        return outputs

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        """Log as nnU-Net does, in plain numbers: those that a resumed run reads again."""
        super().on_validation_epoch_end(val_outputs)
        self.logger.load_checkpoint(plain(self.logger.get_checkpoint()))

    def on_epoch_end(self) -> None:
        """Finish the epoch as nnU-Net does; write the checkpoints that the settings ask for."""
        self.average.add(self.trained_network, self.current_epoch + 1)
        super().on_epoch_end()  # counts the epoch
        every, minutes = self.settings.keep_every, self.settings.save_minutes
        if every and self.current_epoch % every == 0:
            self._save_epoch(f"checkpoint_epoch_{self.current_epoch}.pth")
        # only the first process writes, so that they need not agree on the time
        is_due = minutes and self.clock() - self._saved_at >= 60 * minutes
        if is_due and self.current_epoch < self.num_epochs:
            self._save_epoch(LATEST)

    def _save_epoch(self, name: str) -> None:
        self.current_epoch -= 1  # as in nnU-Net's on_train_end
        self.save_checkpoint(str(Path(self.output_folder) / name))
        self.current_epoch += 1

    def on_train_end(self) -> None:
        """Finish as nnU-Net does, with averaged weights if asked for; say how to predict."""
        if done := self.average.fill(self.trained_network):
            self.print_to_log_file(done)
        super().on_train_end()
        self.print_to_log_file(how_to_predict(self), add_timestamp=False)

    @staticmethod
    def clock() -> float:
        """Return monotonic seconds; a method, so that tests can replace it."""
        return time.monotonic()

    # ---- checkpoints ---------------------------------------------------------------------------

    def extra_state(self) -> dict[str, Any]:
        """Return what the checkpoint holds in addition to nnU-Net's own content."""
        average = self.average.state()
        state = {
            "version": __version__,
            "method": self.method,
            "settings": self.flat_settings,
            "pretrained_weights": self.pretrained_weights,
        }
        return state | ({"average": average} if average else {})

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's checkpoint with our state under a key of its own, whole or not at all."""
        if Path(filename).name == LATEST:
            self._saved_at = self.clock()
            self._save_best()
        buffer = io.BytesIO()
        super().save_checkpoint(buffer)
        if buffer.getbuffer().nbytes > 0:  # not another rank, nor --disable_checkpointing
            write_with_own_state(buffer, self.extra_state(), Path(filename))

    def _save_best(self) -> None:
        """Write checkpoint_best.pth now if this epoch is the best, not after the latest as nnU-Net.

        The latest would know of the best before this epoch only: a training that goes on from it
        would take a worse epoch for the best, or never write this one.
        """
        curve = self.logger.get_value("ema_fg_dice", step=None)
        if curve and (self._best_ema is None or curve[-1] > self._best_ema):
            self._best_ema = curve[-1]
            self.print_to_log_file(f"Yayy! New best EMA pseudo Dice: {np.round(curve[-1], 4)}")
            self.save_checkpoint(str(Path(self.output_folder) / BEST))

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Load a checkpoint of this trainer, for --c and --val.

        Raises:
            CheckpointError: it comes from another kind of trainer, is damaged, does not fit, or has
                NaN in its weights.
            ForeignCodeError: it is more than data.
        """
        file = Path(filename_or_checkpoint)
        checkpoint = read_resumable(file)
        state = extra_state_of(checkpoint, file)
        check_method(state, self.method, file)
        try:
            with read_as_data():
                super().load_checkpoint(filename_or_checkpoint)
        except SPMCError:
            raise
        except (EOFError, KeyError, RuntimeError, UnpicklingError, ValueError) as error:
            raise unreadable(file, error) from error
        check_resumed_weights(checkpoint, file)
        self.average.load(state.get("average", {}), self.trained_network)
        self.resumed_from = {key: state[key] for key in state.keys() - {"parts", "average"}}
        self.resumed_file = file
        self.pretrained_weights = state.get("pretrained_weights", "")

    def check_resumed_settings(self) -> None:
        """Refuse to continue a run under settings that change more than its schedule."""
        check_resumed(self)
