"""Boxes of labeled patches pasted into unlabeled ones, with their labels.

One half of bidirectional copy-paste (Bai et al., CVPR 2023): it shows the network labeled anatomy
in unlabeled surroundings.
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
    if images.is_cuda:
        boxes = boxes.pin_memory()  # so that the host need not wait for the copy
    return boxes.to(images.device, non_blocking=True)


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
