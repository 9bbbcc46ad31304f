"""CPS: cross pseudo supervision on unlabeled scans (Chen et al., CVPR 2021)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from nnunetv2_spmc.losses.confidence import predicted


def cps(
    student_logits: Tensor,
    teacher: Tensor,
    *,
    regions: bool = False,
    valid: Tensor | None = None,
) -> Tensor:
    """Compute the cross-entropy against the hard pseudo-labels of the other branch.

    Args:
        student_logits: (B, C, ...) logits; the only input that receives a gradient.
        teacher: (B, C, ...) probabilities of the other branch, or what is `predicted` from them.
        regions: binary cross-entropy against p > 0.5 of every region channel.
        valid: bool, (B, 1, ...): the voxels that count; None takes all.

    Returns:
        The scalar mean over the voxels that count (and region channels); 0 when there are none.
    """
    if teacher.is_floating_point():
        teacher = predicted(teacher.detach(), regions=regions)
    student_logits = student_logits.float()
    reduction = "mean" if valid is None else "none"
    if regions:
        loss = F.binary_cross_entropy_with_logits(
            student_logits, teacher.float(), reduction=reduction
        )
        loss = loss if valid is None else loss.mean(dim=1, keepdim=True)
    else:
        loss = F.cross_entropy(student_logits, teacher[:, 0], reduction=reduction)
        loss = loss if valid is None else loss.unsqueeze(1)
    return loss if valid is None else (loss * valid).sum() / valid.sum().clamp(min=1)
