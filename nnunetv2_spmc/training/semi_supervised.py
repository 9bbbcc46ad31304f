"""The base trainer of all semi-supervised methods."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_spmc.data.errors import DataError
from nnunetv2_spmc.data.paired_loader import ignored_voxels
from nnunetv2_spmc.data.unlabeled_cases import raw_dataset_folder
from nnunetv2_spmc.data.withheld_labels import WithheldPatches, withheld_patches
from nnunetv2_spmc.data.worker_pool import signals_deferred
from nnunetv2_spmc.networks.unwrap import full_resolution, unwrapped
from nnunetv2_spmc.training.checkpoint import CheckpointError, read_extra_state
from nnunetv2_spmc.training.epoch_log import Panels, log_lines, log_values, plot_progress
from nnunetv2_spmc.training.memory import explain_out_of_memory, memory_estimate
from nnunetv2_spmc.training.pseudo_label_dice import pseudo_label_dice
from nnunetv2_spmc.training.ramp_up import gaussian_ramp_up, ramp_up_epochs
from nnunetv2_spmc.training.stability import TAKEN, collapse_warnings, steps_noted
from nnunetv2_spmc.training.unlabeled_stream import nnUNetTrainerUnlabeledStream
from nnunetv2_spmc.training.voxel_shares import unlabeled_voxel_shares
from nnunetv2_spmc.training.warm_start import check_pretrained_weights, fill_auxiliary_branch

GRADIENT_NORM_LIMIT = 12  # nnU-Net's own


class nnUNetTrainerSemiSupervised(nnUNetTrainerUnlabeledStream):
    """nnU-Net's trainer with unlabeled patches in every step.

    A method derives from it and says which network it trains (`build_training_network`) and what
    its labeled and its unlabeled part of a step minimize (`labeled_loss`, `unlabeled_loss`). The
    base does the rest: settings, unlabeled data stream, ramp-up, two backward passes, logging,
    checkpoints and resume.

    `self.network` stays the planned network: nnU-Net validates, checkpoints and predicts with it.
    `self.training_network` holds it as its submodule `main`, beside what only training needs.
    """

    main_loss: ClassVar[str] = "supervised_main"
    panels: ClassVar[Panels] = {}  # title -> keys of the values that the losses return

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.training_network: Any = None  # -> initialize
        self.iteration = 0  # steps done, skipped ones too; t of the ramp-up
        self.withheld: WithheldPatches | None = None  # -> on_train_start
        self._main_was_loaded = False  # by -pretrained_weights or from a checkpoint

    # ---- what a method defines -----------------------------------------------------------------

    def build_training_network(self, main: nn.Module) -> nn.Module:
        """Build the network to train around the planned one, which must be its submodule `main`."""
        raise NotImplementedError(f"{type(self).__name__} must say which network it trains.")

    def labeled_loss(
        self, outputs: Any, target: Tensor | list[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a labeled batch.

        Args:
            outputs: what the training network returned for the images of the batch.
            target: (B, 1, ...) labels, or region channels; a list of them under deep supervision.

        Returns:
            The loss to minimize, and scalars to log; among them "supervised_main", nnU-Net's own
            loss of the main branch.
        """
        raise NotImplementedError(f"{type(self).__name__} must define its labeled loss.")

    def unlabeled_loss(
        self, outputs: Any, where: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of unlabeled voxels, before it is weighted by lambda(t).

        Args:
            outputs: what the training network returned for the images of a batch.
            where: bool, (B, 1, ...): the unlabeled voxels; None takes all. Where there are none,
                the loss must be zero, with a valid gradient.

        Returns:
            The loss to minimize, a mean over the unlabeled voxels or those of them that it selects,
            and scalars to log, means too.
            One that is named "single_class_..." is 1 where a branch predicts one class only.
        """
        raise NotImplementedError(f"{type(self).__name__} must define its unlabeled loss.")

    def unlabeled_step(
        self,
        images: Tensor,
        weak: Tensor | None,
        where: Tensor | None,
        labeled: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Pass unlabeled patches through the training network and compute their loss.

        Args:
            images: (B, channels, ...).
            weak: the same patches without intensity augmentation, if `needs_weak_view`.
            where: see `unlabeled_loss`.
            labeled: images and full-resolution target of the labeled patches of the step.
        """
        return self.unlabeled_loss(self.training_network(images), where)

    def branch_logits(self, outputs: Any) -> dict[str, Tensor]:
        """Name the full-resolution logits, (B, C, ...), of each branch for the curves."""
        return {"main": full_resolution(outputs)}

    # ---- set-up --------------------------------------------------------------------------------

    def initialize(self) -> None:
        """Build the planned network as nnU-Net does, then the training network around it."""
        if not Path(self.preprocessed_dataset_folder).is_dir():
            raise DataError(
                f"{self.plans_manager.dataset_name} is not preprocessed for "
                f"{self.configuration_name}: {self.preprocessed_dataset_folder} does not exist; "
                "run nnUNetv2_plan_and_preprocess (or nnUNetv2_preprocess) for this configuration."
            )
        super().initialize()
        main = unwrapped(self.network)
        check_pretrained_weights(main)
        self._watch_loading(main)
        network: Any = self.build_training_network(main).to(self.device)
        extra = [p for name, p in network.named_parameters() if not name.startswith("main.")]
        if extra:
            self.optimizer.add_param_group({"params": extra})
            if hasattr(self.lr_scheduler, "base_lrs"):  # PyTorch's, one per group
                self.lr_scheduler.base_lrs.append(self.initial_lr)
        if self._do_i_compile():
            # labeled and unlabeled batches may differ in size: two static graphs, no dynamic one
            network = torch.compile(network, dynamic=False)
        self.training_network = self.distributed(network) if self.is_ddp else network

    def _watch_loading(self, main: nn.Module) -> None:
        def note(*_: Any) -> None:  # a function, because copies of the network copy bound methods
            self._main_was_loaded = True

        main.register_load_state_dict_post_hook(note)

    def on_train_start(self) -> None:
        """Fill what -pretrained_weights left out, and start with both streams of patches."""
        if not self.was_initialized:
            self.initialize()
        if self._main_was_loaded and self._resumed_from is None:
            self.print_to_log_file(fill_auxiliary_branch(unwrapped(self.training_network)))
        super().on_train_start()
        self._log_memory()
        if self.unlabeled_cases:
            self._look_for_withheld_labels()

    def _log_memory(self) -> None:
        patch = (self.num_input_channels, *self.configuration_manager.patch_size)
        unlabeled = self._unlabeled_batch_size() if self.uses_unlabeled_data else 0
        network = unwrapped(self.training_network)
        text = memory_estimate(network, self.batch_size, unlabeled, patch, self.device)
        self.print_to_log_file(text)

    def _look_for_withheld_labels(self) -> None:
        raw = raw_dataset_folder(self.plans_manager.dataset_name)
        if self.local_rank != 0 or raw is None:
            return
        try:
            self.withheld = withheld_patches(
                raw,
                self.unlabeled_cases,
                self.settings.pseudo_label_cases,
                self.plans_manager,
                self.configuration_manager,
                self.dataset_json,
            )
        except Exception as error:  # readers raise all kinds, and training needs no such label
            self.print_to_log_file(f"No pseudo-label Dice, because of a file in labelsUn: {error}")
        if self.withheld is not None:
            self.print_to_log_file(
                "Pseudo-label Dice is logged on a patch each of these unlabeled cases, whose "
                "labels in labelsUn are not trained on: " + ", ".join(self.withheld.identifiers)
            )

    # ---- one step ------------------------------------------------------------------------------

    def train_step(self, batch: dict) -> dict:
        """Do one optimizer step on a labeled and an unlabeled batch.

        The two parts are passed backward one after the other and their gradients summed: the same
        gradient as one joint pass, at the peak memory of one part. The labeled part comes second
        because it reaches every parameter (deep supervision), as the synchronizing pass of
        DistributedDataParallel must.

        Returns:
            Scalars on the device, detached; they are read once an epoch. And whether the optimizer
            stepped.
        """
        self.optimizer.zero_grad(set_to_none=True)
        images, target = self._to_device(batch["data"]), self._to_device(batch["target"])
        weight = self.ramp_up_weight()
        learns_from_ignored = self.learns_from_ignored and weight > 0
        ignored = self.ignored_voxels(full_resolution(target)) if learns_from_ignored else None
        drawn = batch.get("unlabeled", {}) if weight > 0 else {}
        unlabeled, weak, where = (
            self._to_device(drawn[key]) if key in drawn else None
            for key in ("data", "weak", "unlabeled_voxels")
        )
        share, ignored_share = unlabeled_voxel_shares(unlabeled, where, ignored, is_ddp=self.is_ddp)
        total = torch.zeros((), device=self.device)
        values: dict[str, Tensor] = {}
        if unlabeled is not None:
            total, values = self._unlabeled_pass(
                unlabeled, weak, where, (images, full_resolution(target)), weight * share
            )
        loss, labeled_values, ignored_values = self._labeled_pass(
            images, target, ignored, weight * ignored_share
        )
        taken = self._optimizer_step()
        self.iteration += 1
        for key, value in ignored_values.items():
            values[key] = share * values.get(key, 0.0) + ignored_share * value
        values |= labeled_values | {"total_loss": total + loss}
        self.progress.step(values["total_loss"].item, f", lambda {weight:.2g}")
        return {key: value.detach() for key, value in values.items()} | {TAKEN: taken}

    def _unlabeled_pass(
        self,
        images: Tensor,
        weak: Tensor | None,
        where: Tensor | None,
        labeled: tuple[Tensor, Tensor],
        weight: Tensor | float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with explain_out_of_memory("unlabeled", len(images)), self._without_gradient_sync():
            with self._autocast():
                loss, values = self.unlabeled_step(images, weak, where, labeled)
                loss = weight * loss
            self._backward(loss)
        return loss.detach(), values

    def _labeled_pass(
        self, images: Tensor, target: Any, ignored: Tensor | None, weight: Tensor | float
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        ignored_values: dict[str, Tensor] = {}
        with explain_out_of_memory("labeled", len(images)):
            with self._autocast():
                outputs = self.training_network(images)
                loss, values = self.labeled_loss(outputs, target)
                if ignored is not None:
                    ignored_loss, ignored_values = self.unlabeled_loss(outputs, ignored)
                    loss = loss + weight * ignored_loss
            self._backward(loss)
        return loss.detach(), values, ignored_values

    def ignored_voxels(self, target: Tensor) -> Tensor | None:
        """Return where a target is under the ignore label, bool (B, 1, ...); None without one."""
        if not self.label_manager.has_ignore_label:
            return None
        return ignored_voxels(target, self.label_manager)

    def ramp_up_weight(self, iteration: int | None = None) -> float:
        """Return lambda(t) of an iteration, or of the coming step; 0 in supervised epochs."""
        settings, steps = self.settings, self.num_iterations_per_epoch
        start, end = ramp_up_epochs(self.num_epochs, settings.ramp_start, settings.ramp_end)
        passed = (self.iteration if iteration is None else iteration) - start * steps
        return gaussian_ramp_up(passed, (end - start) * steps, settings.lambda_max)

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
        # what autograd keeps of a pass that was broken off is freed after the interpreter: a crash
        with signals_deferred():
            (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()

    def _optimizer_step(self) -> bool:
        """Clip the gradients and step; return False if the gradient scaler skipped the step."""
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        # one norm per parameter group: clipping jointly would couple the branches' step sizes
        for group in self.optimizer.param_groups:
            torch.nn.utils.clip_grad_norm_(group["params"], GRADIENT_NORM_LIMIT)
        with steps_noted(self.optimizer) as taken:
            if self.grad_scaler is None:
                self.optimizer.step()
            else:
                self.grad_scaler.step(self.optimizer)
                self.grad_scaler.update()
        return bool(taken)

    # ---- epochs --------------------------------------------------------------------------------

    def on_train_epoch_start(self) -> None:
        """Put the auxiliary branch into training mode too; take the step count from the epoch."""
        super().on_train_epoch_start()
        self.training_network.train()
        self.iteration = self.current_epoch * self.num_iterations_per_epoch

    def log_epoch(self, means: dict[str, float]) -> None:
        """Log the means of all values of the steps, lambda(t) and the pseudo-label Dice."""
        for warning in collapse_warnings(means):
            self.print_to_log_file(warning)
        values = dict(means)
        if self.uses_unlabeled_data:
            values["lambda"] = self.ramp_up_weight(self.iteration - 1)  # of the last step
        if self.withheld is not None:
            values |= self._pseudo_label_dice(self.withheld)
        log_values(self.logger, values, self.current_epoch)
        for line in log_lines(self._all_panels(), values):
            self.print_to_log_file(line)

    @torch.no_grad()
    def _pseudo_label_dice(self, withheld: WithheldPatches) -> dict[str, float]:
        network = unwrapped(self.training_network).eval()  # -> on_train_epoch_start
        logits: dict[str, list[Tensor]] = {}
        for image in withheld.images:  # one by one, so that any number fits
            with self._autocast():
                outputs = network(self._to_device(image[None]))
            for branch, output in self.branch_logits(outputs).items():
                logits.setdefault(branch, []).append(output.float().cpu())
        joined = {branch: torch.cat(patches) for branch, patches in logits.items()}
        return pseudo_label_dice(joined, withheld.labels, self.label_manager)

    def on_epoch_end(self) -> None:
        """Draw progress_semi.png beside nnU-Net's progress.png."""
        super().on_epoch_end()
        if self.local_rank == 0:
            path = Path(self.output_folder) / "progress_semi.png"
            plot_progress(self.logger, self._all_panels(), path)

    def _all_panels(self) -> Panels:
        ramp_up = {"ramp-up weight": ("lambda",)} if self.uses_unlabeled_data else {}
        pseudo_labels = {
            "pseudo-label Dice on withheld labels": tuple(
                f"pseudo_label_dice_{branch}" for branch in ("main", "auxiliary")
            )
        }
        return {"total loss": ("total_loss",), **self.panels, **pseudo_labels, **ramp_up}

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
