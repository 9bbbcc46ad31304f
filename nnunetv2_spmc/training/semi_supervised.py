"""The base trainer of all semi-supervised methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nnunetv2_spmc.loading.paired_loader import single_process_loading
from nnunetv2_spmc.loading.watched import cases_named
from nnunetv2_spmc.networks import MainNetwork
from nnunetv2_spmc.networks.unwrap import Logits, full_resolution, unwrapped
from nnunetv2_spmc.training.backward import clip_and_step, run_passes
from nnunetv2_spmc.training.checkpoint import refuse_to_resume
from nnunetv2_spmc.training.configured import nnUNetTrainerConfigured
from nnunetv2_spmc.training.epoch_log import Panels, plot_epochs, write_epoch
from nnunetv2_spmc.training.memory import recomputed, what_a_step_needs
from nnunetv2_spmc.training.passes import both_passes, step_of, viewed_passes
from nnunetv2_spmc.training.processes import distributed, entries_of_all_processes
from nnunetv2_spmc.training.pseudo_label_dice import PseudoLabelDice
from nnunetv2_spmc.training.ramp_up import ramp_up_weight
from nnunetv2_spmc.training.stability import TAKEN
from nnunetv2_spmc.training.step import (
    Labeled,
    Loss,
    Outputs,
    Pass,
    Step,
    Target,
    Unlabeled,
    merged,
    of_resolutions,
)
from nnunetv2_spmc.training.unlabeled_stream import UnlabeledStream, refuse_cascade
from nnunetv2_spmc.training.warm_start import fill_parts, watch_loading
from nnunetv2_spmc.training.weights import load_parts, optimize_parts, part_weights


class nnUNetTrainerSemiSupervised(nnUNetTrainerConfigured, base=True):
    """nnU-Net's trainer with unlabeled patches in its steps.

    A method derives from it and defines some of the hooks below. The base does the rest: settings,
    unlabeled data stream, views, ramp-up, backward passes, logging, checkpoints, resume. What a
    step does stands at the top of `training/passes.py`.

    `self.network` stays the planned network: nnU-Net validates, checkpoints and predicts with it.
    `self.joint_network` holds it as its submodule `main`, with what only training needs.
    """

    branches: ClassVar[tuple[str, ...]] = ("main",)  # what `joint_network` returns, in this order
    main_loss: ClassVar[str] = "supervised_main"
    panels: ClassVar[Panels] = {}  # title -> keys of the values that the losses return
    divisor = staticmethod(entries_of_all_processes)  # for means over selected voxels

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 (nnU-Net's signature)
    ) -> None:
        refuse_cascade(plans, configuration, type(self).__name__)  # before nnU-Net makes a folder
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.joint_network: Any = None  # -> initialize
        self.stream = UnlabeledStream(self)
        self.iteration = 0  # steps done, skipped ones too
        self.steps_taken = 0  # without those that fp16 skipped
        self.withheld: PseudoLabelDice | None = None  # -> on_train_start
        self._main_was_loaded: Callable[[], bool] = lambda: False  # -> initialize

    # ---- what a method defines -----------------------------------------------------------------

    @staticmethod
    def training_network(main: nn.Module, settings: Any) -> nn.Module:
        """Build the network to train around the planned one, which must be its submodule `main`.

        It maps (B, channels, ...) images to the logits of its branches: one, or a tuple of them.
        `settings` are the method's.
        """
        return MainNetwork(main)

    def labeled_loss(self, outputs: Outputs, labeled: Labeled) -> Loss:
        """Compute the loss of labeled patches; here nnU-Net's own, summed over the branches.

        Returns:
            The loss to minimize, and scalars to log, among them "supervised_main", nnU-Net's own.
        """
        values = {
            f"supervised_{branch}": self.nnunet_loss(output, labeled.target)
            for branch, output in self.of_branches(outputs).items()
        }
        main, *others = values.values()
        return sum(others, main), values

    def pseudo_labels(self, unlabeled: Unlabeled) -> dict[str, Tensor]:
        """Return what a teacher predicts for unlabeled patches, before a view is applied to them.

        Called without gradient and with the training network in evaluation mode.

        Returns:
            Name -> probabilities, (B, C, ...), for `unlabeled_loss`. Those under the name of a
            branch are counted in the curves.
        """
        return {}

    def labels_as_pseudo_labels(self, name: str, target: Tensor) -> Tensor:
        """Return what labels in a pasted box are among the pseudo-labels of a name: one-hot.

        A method whose pseudo-labels hold something other than probabilities, such as an
        uncertainty, says here what that is where labels are known, in as many channels. `target`
        holds labels at their resolution, as `LabelSpace.one_hot` takes them.
        """
        return self.label_space.one_hot(target)

    def unlabeled_loss(self, outputs: Outputs, unlabeled: Unlabeled) -> Loss:
        """Compute the loss of unlabeled voxels, before it is weighted by lambda(t).

        Args:
            outputs: of the training network.
            unlabeled: the patches. Voxels of labeled patches that are under the ignore label come
                here with the outputs of the labeled pass and without pseudo-labels. Where no voxel
                is valid the loss must be zero, with a valid gradient.

        Returns:
            The loss to minimize, a mean over the valid voxels or those of them that it selects, and
            scalars to log, means too.
        """
        raise NotImplementedError(f"{type(self).__name__} must define its unlabeled loss.")

    def passes(self, step: Step) -> Sequence[Pass]:
        """Return the forward passes of a step; the base passes their losses backward in turn.

        The gradients are summed: that of one joint pass, at the peak memory of one part. Under
        DistributedDataParallel only the last pass synchronizes.
        """
        return both_passes(self, step)

    def after_step(self, step: Step) -> None:
        """Do what follows an optimizer step; not called after one that fp16 skipped."""

    @property
    def uses_unlabeled_data(self) -> bool:
        """Whether there are unsupervised terms, so that unlabeled cases are looked for."""
        return self.settings.lambda_max > 0

    # ---- what a method may use -----------------------------------------------------------------

    def nnunet_loss(self, outputs: Logits, target: Target) -> Tensor:
        """Compute nnU-Net's own loss: Dice and cross-entropy, deep supervision, ignore label.

        Args:
            outputs: logits of one branch, (B, C, ...), a list of them under deep supervision.
            target: nnU-Net's target for them, or its full resolution alone, (B, 1, ...) labels or
                region channels, from which those of lower resolutions are sampled.
        """
        target = of_resolutions(target, outputs)
        if self._do_i_compile():  # it may take another graph when it is computed again
            return self.loss(outputs, target)
        return recomputed(self.loss, outputs, target)

    def of_branches(self, outputs: Outputs) -> dict[str, Logits]:
        """Name what the training network returned."""
        if len(self.branches) == 1:
            return {self.branches[0]: outputs}
        return dict(zip(self.branches, outputs, strict=True))

    def branch_probabilities(self, outputs: Outputs) -> dict[str, Tensor]:
        """Return the probabilities of the branches, (B, C, ...) at full resolution."""
        return {
            branch: self.label_space.probabilities(full_resolution(output))
            for branch, output in self.of_branches(outputs).items()
        }

    # ---- set-up --------------------------------------------------------------------------------

    @property
    def learns_from_ignored(self) -> bool:
        """Whether voxels under the ignore label of labeled cases count as unlabeled ones."""
        wanted = self.uses_unlabeled_data and self.settings.learn_from_ignored
        return wanted and self.label_manager.has_ignore_label

    @property
    def trained_network(self) -> nn.Module:
        """The training network, with the planned one inside."""
        return unwrapped(self.joint_network)

    def initialize(self) -> None:
        """Build the planned network as nnU-Net does, then the training network around it."""
        self.stream.check_labeled_cases()
        super().initialize()
        main = unwrapped(self.network)
        network: Any = self.training_network(main, self.method_settings).to(self.device)
        self._main_was_loaded = watch_loading(main)
        optimize_parts(network, self.optimizer, self.lr_scheduler)
        if self._do_i_compile():
            # labeled and unlabeled batches may differ in size: two static graphs, no dynamic one
            network = torch.compile(network, dynamic=False)
        self.joint_network = distributed(network, self.device) if self.is_ddp else network

    def on_train_start(self) -> None:
        """Find the unlabeled cases, fill what -pretrained_weights left out, start both streams."""
        if not self.was_initialized:
            self.initialize()
        self.check_resumed_settings()
        if self.uses_unlabeled_data:
            self.stream.find_cases()
        if self.resumed_from is not None:
            if changes := self.stream.changes(self.resumed_from["unlabeled_cases"]):
                refuse_to_resume(changes, self.print_to_log_file)
        elif self._main_was_loaded():
            self.print_to_log_file(fill_parts(unwrapped(self.joint_network)))
        super().on_train_start()
        for sentence in what_a_step_needs(self):
            self.print_to_log_file(sentence)
        if self.stream.cases:
            self.withheld = PseudoLabelDice.of(self)

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """Split the labeled cases as nnU-Net does; refuse unlabeled ones that leak into them."""
        train, validation = super().get_tr_and_val_datasets()
        self.stream.check_leaks(validation.identifiers, train.identifiers)
        return train, validation

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Pair nnU-Net's labeled loader with an unlabeled one, then start workers on the pair."""
        with single_process_loading(), cases_named():
            augmenters = super().get_dataloaders()
        train, validation = (augmenter.data_loader for augmenter in augmenters)
        return self.stream.start(self.stream.paired(train), validation)

    def train_step(self, batch: dict) -> dict:
        """Do one optimizer step on a labeled and an unlabeled batch.

        Returns scalars on the device, which are read once an epoch, and whether it was taken.
        """
        self.optimizer.zero_grad(set_to_none=True)
        step = step_of(self, self.stream.hand_out(batch))
        viewed, network = viewed_passes(self, step), self.joint_network
        results = run_passes(
            [*viewed, *self.passes(step)],
            step,
            network,
            self.autocast,
            self.grad_scaler,
            viewed=len(viewed),
        )
        taken = self._optimizer_step()
        if taken:
            self.after_step(step)
            self.steps_taken += 1
        self.iteration += 1
        values = merged(results)
        note = f", lambda {step.weight:.2g}" if self.uses_unlabeled_data else ""
        self.progress.step(values["total_loss"].item, note)
        return {key: value.detach() for key, value in values.items()} | {TAKEN: taken}

    def _optimizer_step(self) -> bool:
        return clip_and_step(self.optimizer, self.grad_scaler)

    def ramp_up_weight(self, iteration: int | None = None) -> float:
        """Return lambda(t) of an iteration, or of the coming step; 0 in supervised epochs."""
        iteration = self.iteration if iteration is None else iteration
        steps = self.num_iterations_per_epoch
        return ramp_up_weight(iteration, self.num_epochs, steps, self.settings)

    def autocast(self) -> AbstractContextManager:
        """Return the context of forward passes: fp16 on CUDA."""
        return torch.autocast("cuda") if self.device.type == "cuda" else nullcontext()

    def on_train_epoch_start(self) -> None:
        """Put the whole training network into training mode; take the step count from the epoch."""
        super().on_train_epoch_start()
        self.joint_network.train()
        self.iteration = self.current_epoch * self.num_iterations_per_epoch
        self.stream.start_epoch()

    def log_epoch(self, means: dict[str, float]) -> None:
        """Log the means of all values of the steps, lambda(t) and the pseudo-label Dice."""
        values = dict(means)
        if self.uses_unlabeled_data:
            values["lambda"] = self.ramp_up_weight(self.iteration - 1)  # of the last step
        if self.withheld is not None:
            values |= self.withheld.measure()
        write_epoch(self, values)

    def on_epoch_end(self) -> None:
        """Draw progress_semi.png, next to nnU-Net's progress.png."""
        super().on_epoch_end()
        plot_epochs(self)

    def on_train_end(self) -> None:
        """Finish as nnU-Net does; list what was left out."""
        super().on_train_end()
        if left_out := self.stream.left_out():
            self.print_to_log_file(left_out)

    def extra_state(self) -> dict[str, Any]:
        """Return settings, unlabeled cases and all but the main branch, which is nnU-Net's."""
        parts = part_weights(unwrapped(self.joint_network)).items()
        return super().extra_state() | {
            "unlabeled_cases": list(self.stream.cases),
            "overlap": self.stream.overlap,
            "steps_taken": self.steps_taken,
            "parts": {key: value.cpu() for key, value in parts},
        }

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Load a checkpoint of this trainer, for --c and --val, or raise a CheckpointError."""
        if not self.was_initialized:
            self.initialize()
        path, network = Path(filename_or_checkpoint), unwrapped(self.joint_network)
        self.steps_taken = load_parts(network, path, after=super().load_checkpoint)["steps_taken"]
