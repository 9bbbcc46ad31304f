"""CPS: cross pseudo supervision on unlabeled scans (Chen et al., CVPR 2021)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cps(student_logits: Tensor, teacher: Tensor, *, regions: bool = False) -> Tensor:
    """Compute the cross-entropy against the hard pseudo-labels of the other branch.

    Args:
        student_logits: (B, C, ...) logits; the only input that receives a gradient.
        teacher: (B, C, ...) probabilities of the other branch.
        regions: binary cross-entropy against p > 0.5 of every region channel.

    Returns:
        The scalar mean over all voxels (and region channels).
    """
    teacher = teacher.detach()
    student_logits = student_logits.float()
    if regions:
        return F.binary_cross_entropy_with_logits(student_logits, (teacher > 0.5).float())
    return F.cross_entropy(student_logits, teacher.argmax(dim=1))
