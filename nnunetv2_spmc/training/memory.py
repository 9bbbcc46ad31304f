"""How much memory a step needs, and what to do when the device has less."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunetv2_spmc.common.errors import SPMCError
from nnunetv2_spmc.networks.unwrap import unwrapped

if TYPE_CHECKING:
    from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised

GIBIBYTE = 1 << 30


class DeviceMemoryError(SPMCError, MemoryError):
    """The device has too little memory for a step."""


@dataclass(frozen=True)
class StepMemory:
    """Bytes that the network needs in a step; the loss terms and cuDNN need some more."""

    parameters: int  # weights, and gradients and momentum of those that learn
    labeled: int  # activations kept for the backward pass of the labeled patches
    unlabeled: int  # likewise, of the unlabeled patches
    together: bool = False  # both in one pass, not one after the other

    @property
    def peak(self) -> int:
        """The most that is needed at any time."""
        both = (self.labeled, self.unlabeled)
        return self.parameters + (sum(both) if self.together else max(both))


def step_memory(
    network: nn.Module,
    labeled_shape: tuple[int, ...],
    unlabeled_shape: tuple[int, ...],
    dtype: torch.dtype,
    *,
    together: bool = False,
) -> StepMemory:
    """Count what a step keeps, by running the network on tensors without data.

    Args:
        network: the training network, on any device; it is not changed.
        labeled_shape: (B, channels, ...) of the labeled patches.
        unlabeled_shape: likewise of the unlabeled ones; B = 0 for none.
        dtype: type of the activations: float16 under autocast on CUDA.
        together: both kinds of patches are in one pass.
    """
    parameters = sum(
        p.numel() * p.element_size() * (3 if p.requires_grad else 1) for p in network.parameters()
    )
    labeled, unlabeled = (
        activation_bytes(network, shape, dtype) if shape[0] else 0
        for shape in (labeled_shape, unlabeled_shape)
    )
    return StepMemory(parameters, labeled, unlabeled, together)


def activation_bytes(network: nn.Module, shape: tuple[int, ...], dtype: torch.dtype) -> int:
    """Return the bytes that a forward pass on images of a shape saves for the backward pass."""
    tensors: list[Tensor] = [*network.parameters(), *network.buffers()]
    without_data: dict[int, Tensor] = {
        id(t): nn.Parameter(t.detach().to("meta", dtype), t.requires_grad)
        if isinstance(t, nn.Parameter)
        else t.to("meta")
        for t in tensors
    }
    twin = copy.deepcopy(network, dict(without_data)).train()
    own = {parameter.untyped_storage()._cdata for parameter in twin.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage  # kept, so that no other one takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        twin(torch.empty(shape, device="meta", dtype=dtype))
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
        sentences.append(
            f"Each step: {labeled} labeled and {unlabeled} unlabeled patches; "
            f"{len(trainer.stream.cases)} unlabeled cases."
        )
    patch = (trainer.num_input_channels, *trainer.configuration_manager.patch_size)
    network, together = unwrapped(trainer.joint_network), trainer.joint_pass
    return [
        *sentences,
        memory_estimate(network, labeled, unlabeled, patch, trainer.device, together=together),
    ]


def memory_estimate(
    network: nn.Module,
    labeled: int,
    unlabeled: int,
    patch: tuple[int, ...],
    device: torch.device,
    *,
    together: bool = False,
) -> str:
    """Say in a sentence what a step needs, or why that is not known.

    Args:
        network: the training network.
        labeled: labeled patches in a step.
        unlabeled: unlabeled patches in a step; 0 for none.
        patch: (channels, ...), the shape of one.
        device: where it is trained.
        together: both kinds of patches are in one pass.
    """
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    try:
        memory = step_memory(
            network, (labeled, *patch), (unlabeled, *patch), dtype, together=together
        )
    except (RuntimeError, ValueError, NotImplementedError) as error:
        return f"No estimate of the memory that a step needs ({error})."
    return describe(memory, labeled, unlabeled, device)


def describe(memory: StepMemory, labeled: int, unlabeled: int, device: torch.device) -> str:
    """Say in a sentence what a step of so many patches needs, and what the device has."""
    text = (
        f"Memory of a step, estimated: {_gib(memory.parameters)} for weights, gradients and "
        f"momentum, {_gib(memory.labeled)} for {labeled} labeled and {_gib(memory.unlabeled)} for "
        f"{unlabeled} unlabeled patches, "
        f"{'together' if memory.together else 'one after the other'}: {_gib(memory.peak)}, and "
        "some for the losses."
    )
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        text += f" {torch.cuda.get_device_name(device)} has {_gib(total)}."
    return text


def _gib(number: int) -> str:
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
