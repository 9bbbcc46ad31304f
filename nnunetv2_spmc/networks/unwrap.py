"""Look through what training wraps around a network and its output."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

Logits: TypeAlias = Tensor | list[Tensor]  # (B, C, ...); a list under deep supervision


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the module inside of DistributedDataParallel and torch.compile."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    return network._orig_mod if isinstance(network, OptimizedModule) else network


def full_resolution(output: Tensor | list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """Return the full-resolution entry of a deep supervision list, or the tensor itself."""
    return output[0] if isinstance(output, (list, tuple)) else output
