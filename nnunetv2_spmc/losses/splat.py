"""SPLAT, soft pseudo-label assisted teaching, Eq. (13)-(19).

Trusted voxels of one branch teach suspicious voxels of the other.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from nnunetv2_spmc.losses.masked_mse import Divisor, Reduction, masked_mse, own_entries

TeachingMode = Literal["high-to-low", "ordinary-to-low", "high-to-ordinary"]


def taught(
    student_confidence: Tensor,
    teacher_confidence: Tensor,
    tau: float,
    *,
    mode: TeachingMode = "high-to-low",
) -> Tensor:
    """Select the voxels of the student that the teacher corrects, Eq. (13)-(19) and table 5.

    Args:
        student_confidence: (B, 1, ...) or, with regions, (B, R, ...).
        teacher_confidence: same shape, of the sharpened (literal) or the raw probabilities.
        tau: suspicious is <= tau, trusted is > tau.
        mode: "high-to-low" asks for a trusted teacher and a suspicious student (the method);
            "ordinary-to-low" drops the trust of the teacher, "high-to-ordinary" the suspicion of
            the student.

    Returns:
        Bool mask of the shape of the confidences, without gradient.
    """
    suspicious = student_confidence <= tau
    trusted = teacher_confidence > tau
    if mode == "ordinary-to-low":
        return suspicious
    if mode == "high-to-ordinary":
        return trusted
    return torch.logical_and(suspicious, trusted)


def splat(
    student: Tensor,
    soft_pseudo_label: Tensor,
    mask: Tensor,
    *,
    reduction: Reduction = "all",
    valid: Tensor | None = None,
    divisor: Divisor = own_entries,
) -> Tensor:
    """Pull the student toward the soft pseudo-label of the other branch, Eq. (13)-(19).

    Args:
        student: (B, C, ...) probabilities; the only input that receives a gradient.
        soft_pseudo_label: (B, C, ...) sharpened probabilities of the other branch.
        mask: bool, from `taught`.
        reduction: see `masked_mse`.
        valid: see `masked_mse`.
        divisor: see `masked_mse`.

    Returns:
        The scalar loss; exactly 0 when no voxel is selected.
    """
    return masked_mse(
        student, soft_pseudo_label.detach(), mask, reduction=reduction, valid=valid, divisor=divisor
    )
