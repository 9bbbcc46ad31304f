"""The base trainer of all semi-supervised methods."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn
from torch import distributed as dist
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_spmc.data.errors import DataError
from nnunetv2_spmc.data.leak_checks import check_no_leak, read_groups
from nnunetv2_spmc.data.paired_loader import (
    PairedDataLoader,
    UnlabeledDataLoader,
    single_process_loading,
)
from nnunetv2_spmc.data.unlabeled_cases import raw_dataset_folder, test_cases, unlabeled_folder
from nnunetv2_spmc.data.unlabeled_preprocessing import ensure_unlabeled_preprocessed
from nnunetv2_spmc.training.checkpoint import CheckpointError, read_extra_state
from nnunetv2_spmc.training.epoch_log import Panels, log_lines, log_values, plot_progress
from nnunetv2_spmc.training.ramp_up import gaussian_ramp_up
from nnunetv2_spmc.training.scheduled import nnUNetTrainerScheduled
from nnunetv2_spmc.training.settings import SemiSupervisedSettings, require

GRADIENT_NORM_LIMIT = 12  # nnU-Net's own


class nnUNetTrainerSemiSupervised(nnUNetTrainerScheduled):
    """nnU-Net's trainer with unlabeled patches in every step.

    A method derives from it and says which network it trains (`build_training_network`) and what
    its labeled and its unlabeled part of a step minimize (`labeled_loss`, `unlabeled_loss`). The
    base does the rest: settings, unlabeled data stream, ramp-up, two backward passes, logging,
    checkpoints and resume.

    `self.network` stays the planned network: nnU-Net validates, checkpoints and predicts with it.
    `self.training_network` holds it as its submodule `main`, beside what only training needs.
    """

    default_settings: ClassVar[SemiSupervisedSettings] = SemiSupervisedSettings()
    panels: ClassVar[Panels] = {}  # title -> keys of the values that the losses return

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        # refuse before nnU-Net creates the output folder
        if PlansManager(plans).get_configuration(configuration).previous_stage_name is not None:
            raise NotImplementedError(
                f"{type(self).__name__} cannot train the configuration {configuration}: unlabeled "
                "cases have no segmentation of the previous stage; use 3d_fullres or 3d_lowres."
            )
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.training_network: Any = None  # -> initialize
        self.unlabeled_cases: list[str] = []
        self.iteration = 0  # optimizer steps done; t of the ramp-up

    # ---- what a method defines -----------------------------------------------------------------

    def build_training_network(self, main: nn.Module) -> nn.Module:
        """Build the network to train around the planned one, which must be its submodule `main`."""
        raise NotImplementedError(f"{type(self).__name__} must say which network it trains.")

    def labeled_loss(
        self, images: Tensor, target: Tensor | list[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a labeled batch.

        Args:
            images: (B, channels, ...) on the device.
            target: (B, 1, ...) labels, or region channels; a list of them under deep supervision.

        Returns:
            The loss to minimize, and scalars to log; among them "supervised_main", nnU-Net's own
            loss of the main branch.
        """
        raise NotImplementedError(f"{type(self).__name__} must define its labeled loss.")

    def unlabeled_loss(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of an unlabeled batch, before it is weighted by lambda(t).

        Args:
            images: (B, channels, ...) on the device.

        Returns:
            The loss to minimize, and scalars to log.
        """
        raise NotImplementedError(f"{type(self).__name__} must define its unlabeled loss.")

    # ---- set-up --------------------------------------------------------------------------------

    @property
    def uses_unlabeled_data(self) -> bool:
        """Whether unlabeled patches are loaded at all."""
        return self.settings.lambda_max > 0

    def initialize(self) -> None:
        """Build the planned network as nnU-Net does, then the training network around it."""
        if not Path(self.preprocessed_dataset_folder).is_dir():
            raise DataError(
                f"{self.plans_manager.dataset_name} is not preprocessed for "
                f"{self.configuration_name}: {self.preprocessed_dataset_folder} does not exist; "
                "run nnUNetv2_plan_and_preprocess (or nnUNetv2_preprocess) for this configuration."
            )
        super().initialize()
        network: Any = self.build_training_network(unwrapped(self.network)).to(self.device)
        extra = [p for name, p in network.named_parameters() if not name.startswith("main.")]
        if extra:
            self.optimizer.add_param_group({"params": extra})
        if self._do_i_compile():
            # labeled and unlabeled batches may differ in size: two static graphs, no dynamic one
            network = torch.compile(network, dynamic=False)
        if self.is_ddp:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
            network = DistributedDataParallel(network, device_ids=[self.local_rank])
        self.training_network = network

    def on_train_start(self) -> None:
        """Check and find everything before nnU-Net starts to load data."""
        if not self.was_initialized:
            self.initialize()
        if self.uses_unlabeled_data:
            self.unlabeled_cases = self._find_unlabeled_cases()
        super().on_train_start()
        if self.uses_unlabeled_data:
            self.print_to_log_file(
                f"Each step: {self.batch_size} labeled and {self._unlabeled_batch_size()} "
                f"unlabeled patches; {len(self.unlabeled_cases)} unlabeled cases."
            )

    def _find_unlabeled_cases(self) -> list[str]:
        return ensure_unlabeled_preprocessed(
            self.plans_manager.dataset_name,
            self.plans_manager,
            self.configuration_name,
            self.dataset_json,
            self.preprocessed_dataset_folder,
            allowed_to_run=not self.is_ddp,
            log=self.print_to_log_file,
            num_processes=max(1, get_allowed_n_proc_DA()),
            allow_overlap=self.settings.allow_overlap,
        )

    # ---- data ----------------------------------------------------------------------------------

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """Split the labeled cases as nnU-Net does; refuse unlabeled ones that leak into them."""
        train, validation = super().get_tr_and_val_datasets()
        if self.unlabeled_cases:
            raw = raw_dataset_folder(self.plans_manager.dataset_name)
            if raw is None:
                self.print_to_log_file(
                    "nnUNet_raw has no such dataset: unlabeled cases are not compared with test "
                    "cases, nor with the patients of validation cases."
                )
            check_no_leak(
                labeled=self.dataset_class.get_identifiers(self.preprocessed_dataset_folder),
                unlabeled=self.unlabeled_cases,
                validation=[] if self.fold == "all" else validation.identifiers,
                test=test_cases(raw, self.dataset_json["file_ending"]) if raw else [],
                groups=read_groups(raw) if raw else None,
                allow_overlap=self.settings.allow_overlap,
                log=self.print_to_log_file,
            )
        return train, validation

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Pair nnU-Net's labeled loader with an unlabeled one, then start workers on the pair."""
        with single_process_loading():
            augmenters = super().get_dataloaders()
        train, validation = (augmenter.data_loader for augmenter in augmenters)
        if self.uses_unlabeled_data:
            folder = unlabeled_folder(self.preprocessed_dataset_folder)
            dataset = infer_dataset_class(str(folder))(str(folder), list(self.unlabeled_cases))
            train = PairedDataLoader(
                train,
                UnlabeledDataLoader(
                    dataset, self._unlabeled_batch_size(), train, self.label_manager
                ),
            )
        # mirrors the end of nnUNetTrainer.get_dataloaders (nnunetv2 2.8.1); differs in: seeds
        workers = get_allowed_n_proc_DA()
        validation_workers = min(workers, max(1, workers // 2))
        return (
            self._started(train, workers, max(6, workers // 2), stream=0),
            self._started(validation, validation_workers, max(3, workers // 4), stream=1),
        )

    def _started(self, loader: Any, workers: int, num_cached: int, stream: int) -> Any:
        if workers == 0:
            augmenter = SingleThreadedAugmenter(loader, None)
        else:
            sequence = self.seed_sequence(2, self.local_rank, self.current_epoch, stream)
            seeds = sequence.generate_state(workers)
            augmenter = NonDetMultiThreadedAugmenter(
                loader,
                None,
                num_processes=workers,
                num_cached=num_cached,
                seeds=[int(seed) for seed in seeds],
                pin_memory=self.device.type == "cuda",
                wait_time=0.002,
            )
        next(augmenter)  # start the workers now, so that their errors come before training
        return augmenter

    def _unlabeled_batch_size(self) -> int:
        requested = self.settings.unlabeled_batch_size
        if requested is None:
            return self.batch_size
        if not self.is_ddp:
            return requested
        world_size, rank = dist.get_world_size(), dist.get_rank()
        expected = f"at least 1 per GPU, so {world_size}"
        require(requested >= world_size, "unlabeled_batch_size", requested, expected)
        return requested // world_size + (rank < requested % world_size)

    # ---- one step ------------------------------------------------------------------------------

    def train_step(self, batch: dict) -> dict:
        """Do one optimizer step on a labeled and an unlabeled batch.

        The two parts are passed backward one after the other and their gradients summed: the same
        gradient as one joint pass, at the peak memory of one part. The labeled part comes second
        because it reaches every parameter (deep supervision), as the synchronizing pass of
        DistributedDataParallel must.

        Returns:
            Scalars on the device, detached; they are read once an epoch.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total: Tensor | float = 0.0
        values: dict[str, Tensor] = {}
        weight = self.ramp_up_weight()
        if weight > 0:
            with self._without_gradient_sync():
                images = self._to_device(batch["unlabeled"]["data"])
                with self._autocast():
                    loss, values = self.unlabeled_loss(images)
                self._backward(weight * loss)
            total = weight * loss.detach()
        images, target = self._to_device(batch["data"]), self._to_device(batch["target"])
        with self._autocast():
            loss, labeled_values = self.labeled_loss(images, target)
        self._backward(loss)
        self._optimizer_step()
        self.iteration += 1
        values |= labeled_values
        values["total_loss"] = total + loss
        return {key: value.detach() for key, value in values.items()}

    def ramp_up_weight(self, iteration: int | None = None) -> float:
        """Return lambda(t) of an iteration, or of the coming step."""
        iteration = self.iteration if iteration is None else iteration
        total = self.num_epochs * self.num_iterations_per_epoch
        return gaussian_ramp_up(iteration, total, self.settings.lambda_max)

    def _to_device(self, data: Any) -> Any:
        if isinstance(data, list):
            return [self._to_device(item) for item in data]
        return data.to(self.device, non_blocking=True)

    def _autocast(self) -> AbstractContextManager:
        return torch.autocast("cuda") if self.device.type == "cuda" else nullcontext()

    def _without_gradient_sync(self) -> AbstractContextManager:
        network = self.training_network
        is_distributed = isinstance(network, DistributedDataParallel)
        return network.no_sync() if is_distributed else nullcontext()

    def _backward(self, loss: Tensor) -> None:
        (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()

    def _optimizer_step(self) -> None:
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        # one norm per parameter group: clipping jointly would couple the branches' step sizes
        for group in self.optimizer.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], GRADIENT_NORM_LIMIT)
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()

    # ---- epochs --------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Put the auxiliary branch into training mode too; take the step count from the epoch."""
        super().on_train_epoch_start()
        self.training_network.train()
        self.iteration = self.current_epoch * self.num_iterations_per_epoch

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """Average the values of all steps and processes, then log them."""
        keys = list(train_outputs[0])
        means = torch.stack([torch.stack([o[key].float() for key in keys]) for o in train_outputs])
        means = means.mean(dim=0)
        if self.is_ddp:
            dist.all_reduce(means)
            means /= dist.get_world_size()
        values = dict(zip(keys, means.tolist(), strict=True))
        # nnU-Net's own curve stays what it is with the stock trainer: the loss of the main branch
        super().on_train_epoch_end([{"loss": np.array(values["supervised_main"])}])
        if self.uses_unlabeled_data:
            values["lambda"] = self.ramp_up_weight(self.iteration - 1)  # of the last step
        log_values(self.logger, values, self.current_epoch)
        for line in log_lines(self._all_panels(), values):
            self.print_to_log_file(line)

    def on_epoch_end(self) -> None:
        """Draw progress_semi.png beside nnU-Net's progress.png."""
        super().on_epoch_end()
        if self.local_rank == 0:
            path = Path(self.output_folder) / "progress_semi.png"
            plot_progress(self.logger, self._all_panels(), path)

    def _all_panels(self) -> Panels:
        ramp_up = {"ramp-up weight": ("lambda",)} if self.uses_unlabeled_data else {}
        return {"total loss": ("total_loss",), **self.panels, **ramp_up}

    # ---- checkpoints ---------------------------------------------------------------------------

    def extra_state(self) -> dict[str, Any]:
        """Return settings, unlabeled cases and the auxiliary branch; the main one is nnU-Net's."""
        weights = self._auxiliary_weights().items()
        return super().extra_state() | {
            "unlabeled_cases": list(self.unlabeled_cases),
            "auxiliary_weights": {key: value.cpu() for key, value in weights},
        }

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Load a checkpoint of this trainer, for --c and --val.

        Raises:
            CheckpointError: the checkpoint has no auxiliary branch, or one that does not fit.
        """
        stored = read_extra_state(Path(filename_or_checkpoint)).get("auxiliary_weights", {})
        if not self.was_initialized:
            self.initialize()
        here = {key: value.shape for key, value in self._auxiliary_weights().items()}
        there = {key: value.shape for key, value in stored.items()}
        different = sorted(key for key in {*here, *there} if here.get(key) != there.get(key))
        if different:
            raise CheckpointError(
                f"The auxiliary branch in {filename_or_checkpoint} has another architecture (first "
                f"difference: {different[0]}): use the settings and plans of that run."
            )
        super().load_checkpoint(filename_or_checkpoint)
        unwrapped(self.training_network).load_state_dict(stored, strict=False)
        del self._resumed_from["auxiliary_weights"]

    def _auxiliary_weights(self) -> dict[str, Tensor]:
        weights = unwrapped(self.training_network).state_dict()
        return {key: value for key, value in weights.items() if not key.startswith("main.")}

    def changes_since(self, state: Mapping[str, Any]) -> list[str]:
        """Describe in what this run differs from the one that wrote the state."""
        changes = super().changes_since(state)
        before, now = set(state["unlabeled_cases"]), set(self.unlabeled_cases)
        if before != now:
            changes.append(
                f"unlabeled cases: {len(before - now)} gone, {len(now - before)} new, such as "
                f"{min(before ^ now)}"
            )
        return changes


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the module inside of DistributedDataParallel and torch.compile."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    return network._orig_mod if isinstance(network, OptimizedModule) else network
