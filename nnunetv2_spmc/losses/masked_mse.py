"""Mean squared error on selected voxels, in the two readings of the paper's MSE(P * M, Y * M)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Reduction = Literal["all", "masked"]
Divisor = Callable[[Tensor, Tensor], Tensor]  # (selected, valid) entries -> what to divide by


def own_entries(selected: Tensor, _valid: Tensor) -> Tensor:
    """Return the selected entries of this process: the divisor where there is only one."""
    return selected


def masked_mse(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor,
    *,
    reduction: Reduction = "all",
    valid: Tensor | None = None,
    divisor: Divisor = own_entries,
) -> Tensor:
    """Compute MSE(prediction * mask, target * mask), Eq. (6)-(11) and (13)-(19).

    Args:
        prediction: (B, C, ...) probabilities that receive the gradient.
        target: (B, C, ...) targets; pass them detached.
        mask: bool, (B, 1, ...) or (B, C, ...): the selected voxels.
        reduction: "all" divides by all voxels and channels, as the paper writes it; "masked" by the
            selected ones.
        valid: bool, (B, 1, ...): voxels that count at all (outside of the ignore label), by which
            "all" divides. `mask` must be False elsewhere already.
        divisor: what "masked" divides by; a training of several processes counts those of all.

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
        selected = mask.sum() * (channels // mask.shape[1])
        entries = divisor(selected, _valid_entries(prediction, valid))
    return squared_error / torch.where(entries > 0, entries, 1)


def _valid_entries(prediction: Tensor, valid: Tensor | None) -> Tensor:
    if valid is None:
        return torch.full((), prediction.numel(), device=prediction.device)
    return valid.sum() * prediction.shape[1]
