"""Mean squared error on selected voxels, in the two readings of the paper's MSE(P * M, Y * M)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch import distributed as dist

Reduction = Literal["all", "masked"]


def masked_mse(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor,
    *,
    reduction: Reduction = "all",
    valid: Tensor | None = None,
) -> Tensor:
    """Compute MSE(prediction * mask, target * mask), Eq. (6)-(11) and (13)-(19).

    Args:
        prediction: (B, C, ...) probabilities that receive the gradient.
        target: (B, C, ...) targets; pass them detached.
        mask: bool, (B, 1, ...) or (B, C, ...): the selected voxels.
        reduction: "all" divides by all voxels and channels, as the paper writes it; "masked" by the
            selected ones, of all processes: each divides by what its voxels are expected to select.
        valid: bool, (B, 1, ...): voxels that count at all (outside of the ignore label). They must
            be excluded from `mask` already. "all" divides by them, and so does the caller's weight
            of a process in "masked": the mean over processes that are weighed by the number of
            valid voxels is that over the selected voxels of all of them.

    Returns:
        A scalar; exactly 0 with a valid gradient when nothing is selected.
    """
    error = (prediction - target).mul_(mask.to(prediction.dtype))  # a bool factor is slow on CPUs
    # a norm is one pass forward and one backward, its gradient 0 where the error is 0; of lines,
    # because a float32 norm of millions of voxels is off by 1e-4 on CPUs
    squared_error = torch.linalg.vector_norm(error, dim=-1).square().sum()
    channels = prediction.shape[1]
    if reduction == "all":
        entries = _valid_entries(prediction, valid)
    else:
        entries = mask.sum() * (channels // mask.shape[1])
        if dist.is_available() and dist.is_initialized():
            entries = _part_of_process(entries, _valid_entries(prediction, valid))
    return squared_error / torch.where(entries > 0, entries, 1)


def _valid_entries(prediction: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return torch.full((), prediction.numel(), device=prediction.device)
    return valid.sum() * prediction.shape[1]


def _part_of_process(selected: Tensor, valid: Tensor) -> Tensor:
    """Share the selected entries of all processes out by the number of valid ones."""
    everywhere = torch.stack([selected, valid]).float()
    dist.all_reduce(everywhere)
    return valid * (everywhere[0] / everywhere[1].clamp(min=1))
