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
    if regions:
        return torch.sigmoid(logits.float())
    return torch.softmax(logits, dim=1, dtype=torch.float32)


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


def predicted(probabilities: Tensor, *, regions: bool = False) -> Tensor:
    """Decide for a class per voxel, or for or against every region.

    Args:
        probabilities: (B, C, ...) in [0, 1].
        regions: every channel is a decision of its own.

    Returns:
        The most probable class, (B, 1, ...) int64; with regions p > 0.5, (B, R, ...) bool.
    """
    # max() with indices is several times faster than argmax() on a CPU
    return probabilities > 0.5 if regions else probabilities.max(dim=1, keepdim=True).indices


@torch.no_grad()
def confidence_and_prediction(
    probabilities: Tensor, *, regions: bool = False
) -> tuple[Tensor, Tensor]:
    """Return `confidence` and `predicted`, without gradient, in one pass over the voxels."""
    if regions:
        return confidence(probabilities, regions=True), predicted(probabilities, regions=True)
    highest = probabilities.max(dim=1, keepdim=True)
    return highest.values, highest.indices


def is_single_class(predicted: Tensor, valid: Tensor | None = None) -> Tensor:
    """Tell whether the same is predicted everywhere, which hints at a collapse.

    Args:
        predicted: (B, 1, ...) classes or (B, R, ...) decisions, from `predicted`.
        valid: bool, (B, 1, ...): the voxels that count; None takes all.

    Returns:
        The scalar 1.0 or 0.0 (also where no voxel counts); with regions 1.0 if every channel is
        constant.
    """
    axes = [0, *range(2, predicted.ndim)]
    lowest = highest = predicted.long()
    if valid is not None:
        limits = torch.iinfo(lowest.dtype)
        lowest = lowest.masked_fill(~valid, limits.max)
        highest = highest.masked_fill(~valid, limits.min)
    same = (lowest.amin(axes) >= highest.amax(axes)).all()
    return (same if valid is None else same & valid.any()).float()


def share(mask: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the share of selected voxels (or channels of voxels), in [0, 1].

    Args:
        mask: bool, (B, 1, ...) or, with regions, (B, R, ...).
        valid: bool, (B, 1, ...): the voxels that count; None takes all.
    """
    if valid is None:
        return mask.float().mean()
    return (mask & valid).sum() / (valid.sum() * mask.shape[1]).clamp(min=1)
