"""A training step on tensors without data: what it needs is counted, nothing is computed."""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from nnunetv2_spmc.losses.masked_mse import own_entries
from nnunetv2_spmc.networks.unwrap import unwrapped
from nnunetv2_spmc.training.passes import step_of, viewed_passes

if TYPE_CHECKING:
    from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised

META = torch.device("meta")


@dataclass(frozen=True)
class StepCount:
    """What a step needs.

    Attributes:
        passes: Bytes of each pass at its peak: its patches, what autograd keeps of network and
            losses, and what is there for a moment only.
        operations: Multiplications and additions of the convolutions, forward and backward.
    """

    passes: tuple[int, ...]
    operations: int


class Counter(TorchDispatchMode):
    """Counts the bytes of the tensors of a device that are alive, and the operations.

    Args:
        device: the kind of device, "meta" for tensors without data.
    """

    def __init__(self, device: str = META.type) -> None:
        super().__init__()
        self.device = device
        self.bytes = self.peak = self.operations = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation of PyTorch, and count what it makes."""
        kwargs = kwargs or {}
        if function is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return 1  # such as the number of voxels that are not ignored: there are some
        made = function(*args, **kwargs)
        if (count := flop_registry.get(function._overloadpacket)) is not None:
            self.operations += count(*args, **kwargs, out_val=made)
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.device.type == self.device:
                self._add(tensor.untyped_storage())
        self.peak = max(self.peak, self.bytes)
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._sizes:
            self._sizes[storage._cdata] = storage.nbytes()
            self.bytes += storage.nbytes()
            weakref.finalize(storage, self._remove, storage._cdata)

    def _remove(self, storage: int) -> None:
        self.bytes -= self._sizes.pop(storage)


def count_step(
    trainer: nnUNetTrainerSemiSupervised, labeled: int, unlabeled: int, dtype: torch.dtype
) -> StepCount:
    """Count what a step needs when the unsupervised terms have their full weight.

    Args:
        trainer: it stays as it is.
        labeled: labeled patches of a step.
        unlabeled: unlabeled patches of a step; 0 for none.
        dtype: type of the activations: float16 under autocast on CUDA.
    """
    twin = _without_data(trainer, dtype)
    for parameter in twin.joint_network.parameters():  # not what a pass adds
        parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
    peaks = []
    with torch.compiler.set_stance("force_eager"), Counter() as counter:
        step = step_of(twin, batch_without_data(trainer, labeled, unlabeled, dtype))
        for run in (*viewed_passes(twin, step), *twin.passes(step)):
            counter.peak = counter.bytes
            loss, values = run()
            loss.backward()
            del loss, values
            peaks.append(counter.peak)
    return StepCount(tuple(peaks), counter.operations)


def _without_data(trainer: nnUNetTrainerSemiSupervised, dtype: torch.dtype) -> Any:
    """Return a copy of a trainer, whose network has no data, in one process."""
    twin: Any = copy.copy(trainer)
    twin.joint_network = network_without_data(unwrapped(trainer.joint_network), dtype)
    if dtype != torch.float32:  # autocast computes the losses in float32
        twin.joint_network.register_forward_hook(
            lambda _module, _images, logits: tree_map_only(Tensor, Tensor.float, logits)
        )
    twin.device, twin.is_ddp, twin.divisor = META, False, own_entries
    twin.iteration = trainer.num_epochs * trainer.num_iterations_per_epoch  # at full weight
    twin._do_i_compile = trainer._do_i_compile  # by the trainer's device
    return twin


def network_without_data(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy of a network on the meta device, in training mode."""
    tensors: list[Tensor] = [*network.parameters(), *network.buffers()]
    without_data: dict[int, Any] = {
        id(t): nn.Parameter(t.detach().to(META, dtype), t.requires_grad)
        if isinstance(t, nn.Parameter)
        else t.to(META)
        for t in tensors
    }
    return copy.deepcopy(network, without_data).train()


def batch_without_data(
    trainer: nnUNetTrainerSemiSupervised, labeled: int, unlabeled: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Return a batch as the loaders make them, without data."""
    size = trainer.configuration_manager.patch_size
    labels = trainer.label_manager
    channels, kind = 1, torch.int16
    if labels.has_regions:
        channels, kind = len(labels.foreground_regions) + labels.has_ignore_label, torch.bool
    scales = trainer._get_deep_supervision_scales() or [[1.0] * len(size)]
    target = [
        torch.empty(
            labeled,
            channels,
            *(round(n * factor) for n, factor in zip(size, scale, strict=True)),
            dtype=kind,
            device=META,
        )
        for scale in scales
    ]

    def images(number: int) -> Tensor:
        shape = (number, trainer.num_input_channels, *size)
        return torch.empty(shape, dtype=dtype, device=META)

    batch: dict[str, Any] = {"data": images(labeled), "target": target}
    if not trainer.enable_deep_supervision:
        batch["target"] = target[0]
    if unlabeled:
        batch["unlabeled"] = {"data": images(unlabeled)}
        if trainer.views.weak_to_strong:
            batch["unlabeled"]["weak"] = images(unlabeled)
        if trainer.learns_from_ignored:
            shape = (unlabeled, 1, *size)
            batch["unlabeled"]["valid"] = torch.empty(shape, dtype=torch.bool, device=META)
    return batch
