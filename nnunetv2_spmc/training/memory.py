"""How much memory a step needs, and what to do when the device has less."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.utils.checkpoint import checkpoint

from nnunetv2_spmc.common.errors import SPMCError, reason_of
from nnunetv2_spmc.networks.unwrap import unwrapped
from nnunetv2_spmc.training.dry_run import META, count_step, network_without_data

if TYPE_CHECKING:
    from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised

GIBIBYTE = 1 << 30


class DeviceMemoryError(SPMCError, MemoryError):
    """The device has too little memory for a step."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a step needs, its losses among them; cuDNN and the allocator need some more."""

    parameters: int  # weights, and gradients and momentum of those that learn
    passes: tuple[int, ...]  # what each pass adds at its peak, in their order
    operations: int = 0  # of the convolutions of all passes, forward and backward

    @property
    def peak(self) -> int:
        """The most that is needed at any time."""
        return self.parameters + max(self.passes)


def step_memory(
    trainer: nnUNetTrainerSemiSupervised, labeled: int, unlabeled: int, dtype: torch.dtype
) -> StepMemory:
    """Count what a step needs, by doing it on tensors without data.

    Args:
        trainer: it is not changed.
        labeled: labeled patches of a step.
        unlabeled: unlabeled patches of a step; 0 for none.
        dtype: type of the activations: float16 under autocast on CUDA.
    """
    parameters = sum(
        p.numel() * p.element_size() * (3 if p.requires_grad else 1)
        for p in unwrapped(trainer.joint_network).parameters()
    )
    count = count_step(trainer, labeled, unlabeled, dtype)
    return StepMemory(parameters, count.passes, count.operations)


def activation_bytes(network: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Return the bytes that a forward pass on images of a shape saves for the backward pass."""
    twin = network_without_data(network, dtype)
    own = {parameter.untyped_storage()._cdata for parameter in twin.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage  # kept, so that no other one takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        twin(torch.empty(shape, device=META, dtype=dtype))
    return sum(storage.nbytes() for storage in saved.values())


def recomputed(loss: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Compute a loss, and again in the backward pass, instead of keeping what that needs of it.

    nnU-Net's loss keeps more than three float32 tensors of the size of the logits for each branch:
    with many classes a good part of what the networks keep, while computing it hardly shows.
    """
    result: Tensor = checkpoint(loss, *arguments, use_reentrant=False, preserve_rng_state=False)
    return result


def what_a_step_needs(trainer: nnUNetTrainerSemiSupervised) -> list[str]:
    """Say in a sentence each how many patches a step has, and how much memory it needs."""
    labeled, unlabeled = trainer.batch_size, 0
    sentences = []
    if trainer.uses_unlabeled_data:
        unlabeled = trainer.stream.batch_size
        every = trainer.settings.unlabeled_every
        patches = f"{labeled} labeled and {unlabeled} unlabeled patches"
        if every > 1:
            patches = f"{labeled} labeled patches; one step in {every}: {unlabeled} unlabeled ones"
        sentences.append(f"Each step: {patches}; {len(trainer.stream.cases)} unlabeled cases.")
    sentences += _without_boxes(trainer)
    return [*sentences, memory_estimate(trainer, labeled, unlabeled)]


def _without_boxes(trainer: nnUNetTrainerSemiSupervised) -> list[str]:
    """Warn if a process has no other labeled patch whose boxes it could paste into its own."""
    settings = trainer.settings
    pastes = settings.paste_from != "nothing" and (
        settings.viewed_pass != "never" or settings.labeled_views > 0
    )
    batch_size: int = trainer.configuration_manager.batch_size
    if not pastes or batch_size >= 2 * (dist.get_world_size() if trainer.is_ddp else 1):
        return []
    return [
        "WARNING: a process with one labeled patch in a step has no other one whose boxes it could "
        "paste, so its labeled patches are only turned and flipped; use fewer processes, or plans "
        "with a larger batch."
    ]


def memory_estimate(trainer: nnUNetTrainerSemiSupervised, labeled: int, unlabeled: int) -> str:
    """Say in a sentence what a step with these patches needs, or why that is not known."""
    try:
        memory = step_memory(trainer, labeled, unlabeled, activation_type(trainer.device))
    except Exception as error:  # a method's losses may raise anything without data
        return f"No estimate of the memory that a step needs ({reason_of(error)})."
    viewed = trainer.settings.viewed_pass == "always"
    return describe(memory, labeled, unlabeled, trainer.device, viewed=viewed)


def activation_type(device: torch.device) -> torch.dtype:
    """Return the type of the activations of a training: that of autocast on CUDA."""
    return torch.float16 if device.type == "cuda" else torch.float32


def describe(
    memory: StepMemory, labeled: int, unlabeled: int, device: torch.device, *, viewed: bool = False
) -> str:
    """Say in a sentence what a step with these patches needs, and what the device has.

    `viewed` says that there is a second pass over the labeled ones.
    """
    patches = [f"{labeled} labeled"]
    if unlabeled:
        patches.insert(0, f"{unlabeled} unlabeled")
    sizes, number = [gib(size) for size in memory.passes], len(memory.passes)
    if number == len(patches) and not viewed:
        passes = " and ".join(f"{size} for {of}" for size, of in zip(sizes, patches, strict=True))
    else:  # all kinds in one pass, or several passes over one kind
        over = f"{number} passes over " if number > 1 else ""
        passes = f"{' and '.join(sizes)} for {over}{' and '.join(patches)}"
    order = ", one after the other" if number > 1 else ""
    text = (
        f"Memory of a step, estimated: {gib(memory.parameters)} for weights, gradients and "
        f"momentum, {passes} patches with their losses{order}: {gib(memory.peak)}."
    )
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        text += f" {torch.cuda.get_device_name(device)} has {gib(total)}."
    return text


def gib(number: int) -> str:
    """Return a number of bytes in GiB."""
    return f"{number / GIBIBYTE:.2f} GiB"


@contextmanager
def explain_out_of_memory(labeled: int, unlabeled: int, *, lower: bool = True) -> Iterator[None]:
    """Raise CUDA's out-of-memory error again, with what to lower.

    Args:
        labeled: labeled patches of the step.
        unlabeled: unlabeled patches of the step.
        lower: whether fewer unlabeled patches would help in this pass.

    Raises:
        DeviceMemoryError: CUDA has too little memory.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        remedy = (
            "plan smaller patches or batches (nnUNetv2_plan_experiment -gpu_memory_target GB "
            "-overwrite_plans_name NAME)"
        )
        if lower and unlabeled > 1:
            remedy = f"set unlabeled_batch_size to {unlabeled - 1} or less, {remedy}"
        raise DeviceMemoryError(
            f"The GPU has too little memory for a step of {labeled} labeled and {unlabeled} "
            f"unlabeled patches: {remedy}, or free the GPU of other processes. ({error})"
        ) from error
