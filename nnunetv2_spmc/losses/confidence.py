"""From logits to probabilities, confidence and agreement."""

from __future__ import annotations

import torch
from torch import Tensor


def probabilities(logits: Tensor, *, regions: bool = False) -> Tensor:
    """Turn logits into float32 probabilities, also under autocast.

    Args:
        logits: (B, C, ...) of any floating type.
        regions: sigmoid per channel (overlapping regions) instead of softmax over the channels.

    Returns:
        (B, C, ...) float32 in [0, 1].
    """
    logits = logits.float()
    return torch.sigmoid(logits) if regions else torch.softmax(logits, dim=1)


def confidence(probabilities: Tensor, *, regions: bool = False) -> Tensor:
    """Measure how sure a branch is of each voxel.

    Args:
        probabilities: (B, C, ...) in [0, 1].
        regions: every channel is a decision of its own.

    Returns:
        The largest class probability, (B, 1, ...) in [1/C, 1]; with regions max(p, 1 - p) of every
        channel, (B, R, ...) in [0.5, 1].
    """
    if regions:
        return torch.maximum(probabilities, 1 - probabilities)
    return probabilities.amax(dim=1, keepdim=True)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Encode a label map as float32 channels.

    Args:
        labels: (B, 1, ...) of any type with integer values. Values outside [0, num_classes), such
            as an ignore label, become all-zero voxels.
        num_classes: C.

    Returns:
        (B, C, ...) float32, 1 where the voxel is of the class and 0 elsewhere.
    """
    classes = torch.arange(num_classes, device=labels.device, dtype=labels.dtype)
    return (labels == classes.view(1, -1, *[1] * (labels.ndim - 2))).float()


def agreement(main: Tensor, auxiliary: Tensor, *, regions: bool = False) -> Tensor:
    """Compute the share of voxels to which both branches assign the same class.

    Args:
        main: (B, C, ...) probabilities of the main branch.
        auxiliary: (B, C, ...) probabilities of the auxiliary branch.
        regions: compare every region channel on its own.

    Returns:
        A scalar in [0, 1].
    """
    if regions:
        return ((main > 0.5) == (auxiliary > 0.5)).float().mean()
    return (main.argmax(dim=1) == auxiliary.argmax(dim=1)).float().mean()
