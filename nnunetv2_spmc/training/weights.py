"""What the training network has besides the planned one: its parts, in and out of checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nnunetv2_spmc.training.checkpoint import CheckpointError, read_extra_state

MAIN_PREFIX = "main."


def part_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return the state of a training network without that of its submodule `main`."""
    weights = network.state_dict()
    return {key: value for key, value in weights.items() if not key.startswith(MAIN_PREFIX)}


def optimize_parts(network: nn.Module, optimizer: Optimizer, scheduler: LRScheduler) -> None:
    """Add the parts that require a gradient to an optimizer, in a parameter group of their own."""
    parts = [
        parameter
        for name, parameter in network.named_parameters()
        if not name.startswith(MAIN_PREFIX) and parameter.requires_grad
    ]
    if not parts:
        return
    optimizer.add_param_group({"params": parts})
    if hasattr(scheduler, "base_lrs"):  # PyTorch's have one per group; nnU-Net's own has none
        scheduler.base_lrs.append(scheduler.base_lrs[0])


def load_parts(network: nn.Module, path: Path, *, after: Callable[[str], None]) -> dict[str, Any]:
    """Load the parts from a checkpoint of this package, after what nnU-Net loads.

    Args:
        network: the training network.
        path: the checkpoint.
        after: nnU-Net's load_checkpoint; called only when the parts fit.

    Returns:
        All that this package stored in it.

    Raises:
        CheckpointError: the checkpoint has other parts than the network.
    """
    state = read_extra_state(path)
    stored = state.get("parts", {})
    here = {key: value.shape for key, value in part_weights(network).items()}
    there = {key: value.shape for key, value in stored.items()}
    different = sorted(key for key in {*here, *there} if here.get(key) != there.get(key))
    if different:
        raise CheckpointError(
            f"The training network in {path} has another architecture (first difference: "
            f"{different[0]}): use the trainer, settings and plans of that run."
        )
    after(str(path))
    network.load_state_dict(stored, strict=False)
    return state
