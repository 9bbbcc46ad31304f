"""Boxes of other patches pasted into unlabeled ones.

From unlabeled patches: CutMix (Yun et al., ICCV 2019), with the pseudo-labels in the same boxes
(French et al., BMVC 2020; cross pseudo supervision: Chen et al., CVPR 2021). From labeled patches,
with their labels: copy-paste as in Bai et al., CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SHARE_OF_PATCH = (0.15, 0.5)  # that a box covers, drawn uniformly


def draw_boxes(images: Tensor, probability: float) -> Tensor:
    """Draw at most one box in each patch, with the proportions of the patch.

    Args:
        images: (B, channels, ...), for their shape and device.
        probability: of a patch to get a box.

    Returns:
        Bool, (B, 1, ...), True inside the boxes.
    """
    boxes = torch.zeros(len(images), 1, *images.shape[2:], dtype=torch.bool)
    for box in boxes[:, 0]:
        if torch.rand(()) < probability:
            box[_random_box(box.shape)] = True
    return boxes.to(images.device, non_blocking=True)


def other_patches(batch: int) -> Tensor:
    """Return for each patch the index of another one, each used once, (B,).

    The only patch of a batch gets itself.
    """
    order = torch.randperm(batch)
    return torch.empty_like(order).scatter_(0, order, order.roll(1))


def paste(boxes: Tensor, values: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """Take the values inside the boxes from others of the same shapes, (B, channels, ...)."""
    return [torch.where(boxes, o, v) for v, o in zip(values, others, strict=True)]


def _random_box(shape: torch.Size) -> tuple[slice, ...]:
    share = torch.empty(()).uniform_(*SHARE_OF_PATCH).item()
    box = []
    for size in shape:
        length = max(1, round(size * share ** (1 / len(shape))))
        start = int(torch.randint(size - length + 1, ()))
        box.append(slice(start, start + length))
    return tuple(box)
