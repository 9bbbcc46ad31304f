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
            selected ones. With several processes each divides by its part of those selected in all
            of them, so that the mean over the processes is that over the voxels.
        valid: bool, (B, 1, ...): voxels that count at all (outside of the ignore label). They must
            be excluded from `mask` already; here they only set the divisor of "all".

    Returns:
        A scalar; exactly 0 with a valid gradient when nothing is selected.
    """
    error = (prediction - target).mul_(mask.to(prediction.dtype))  # a bool factor is slow on CPUs
    # a norm is one pass forward and one backward, its gradient 0 where the error is 0; of lines,
    # because a float32 norm of millions of voxels is off by 1e-4 on CPUs
    squared_error = torch.linalg.vector_norm(error, dim=-1).square().sum()
    channels = prediction.shape[1]
    if valid is None:
        entries = torch.full((), prediction.numel(), device=mask.device)
    else:
        entries = valid.sum() * channels
    if reduction == "masked":
        entries = _selected(mask.sum() * (channels // mask.shape[1]), entries)
    return squared_error / torch.where(entries > 0, entries, 1)


def _selected(selected: Tensor, entries: Tensor) -> Tensor:
    """Return the number of selected entries; of several processes, this one's part of all."""
    if not (dist.is_available() and dist.is_initialized()):
        return selected
    everywhere = torch.stack([selected, entries])
    dist.all_reduce(everywhere)
    return entries * everywhere[0] / everywhere[1].clamp(min=1)
