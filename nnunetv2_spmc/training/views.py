"""Views: what a patch looks like to the student, and how everything that belongs to it follows.

Between the teacher's and the student's patch lie intensity augmentation (drawn by the loader),
boxes of other patches, turns and flips. A view is drawn apart from being applied, so that it can
be replayed, and it moves images and whatever is known per voxel alike. Boxes of labeled patches are
one half of bidirectional copy-paste (Bai et al., CVPR 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nnunetv2_spmc.training.settings import TrainingSettings

SHARE_OF_PATCH = (0.15, 0.5)  # that a box covers, drawn uniformly


class Box(NamedTuple):
    """One box in each patch of a batch, and the patches that fill them."""

    inside: Tensor  # bool, (B, 1, ...)
    source: Tensor  # (B,): which of the other patches fills the box of a patch
    labeled: bool  # the others are the labeled patches, not those of the same batch


class Turn(NamedTuple):
    """A turn in a plane and flips, for all patches of a batch or the chosen ones."""

    plane: tuple[int, int]  # spatial axes
    quarters: int  # turns by 90 degrees
    flipped: tuple[int, ...]  # spatial axes
    chosen: Tensor | None = None  # bool, (B,); None turns all patches

    def __call__(self, values: Tensor) -> Tensor:
        """Turn (B, channels, ...), of whatever resolution."""
        turned = torch.rot90(values, self.quarters, [2 + axis for axis in self.plane])
        turned = turned.flip([2 + axis for axis in self.flipped])
        if self.chosen is None:
            return turned
        return torch.where(self.chosen.view(-1, *[1] * (values.ndim - 1)), turned, values)


class View(NamedTuple):
    """What happens to the patches of a batch: boxes are pasted, then all is turned."""

    boxes: tuple[Box, ...] = ()
    turn: Turn | None = None

    def paste(self, values: Tensor, labeled: Tensor | None = None) -> Tensor:
        """Fill the boxes of (B, channels, ...) from the same batch or from labeled patches.

        Args:
            values: of the patches, of whatever resolution.
            labeled: the same of the labeled patches; needed where a box comes from these.
        """
        for box in self.boxes:
            others = values
            if box.labeled:
                assert labeled is not None, "boxes of labeled patches need these"
                others = labeled
            values = torch.where(_sampled(box.inside, values), others[box.source], values)
        return values

    def move(self, values: Tensor) -> Tensor:
        """Turn and flip (B, channels, ...), of whatever resolution."""
        return values if self.turn is None else self.turn(values)

    def apply(self, values: Tensor, labeled: Tensor | None = None) -> Tensor:
        """Paste, then turn and flip."""
        return self.move(self.paste(values, labeled))


@dataclass(frozen=True)
class Views:
    """Which views the patches of a training get; draws them.

    Args:
        weak_to_strong: the teacher sees patches without intensity augmentation, which the loader
            draws; otherwise those of the student.
        paste_from: where boxes in unlabeled patches come from: "nothing", "labeled", "unlabeled" or
            "both". Boxes in labeled patches always come from other labeled ones.
        paste_probability: of a patch to get a box.
        turns: patches are turned.
        flip_axes: spatial axes along which they may be flipped. With turns, only all of them do: a
            turn by 180 degrees and a flip along one axis of its plane are a flip along the other.
        spacing: mm per spatial axis.
    """

    weak_to_strong: bool
    paste_from: str
    paste_probability: float
    turns: bool
    flip_axes: tuple[int, ...]
    spacing: tuple[float, ...]

    @classmethod
    def of(
        cls, settings: TrainingSettings, mirror_axes: Sequence[int], spacing: Sequence[float]
    ) -> Views:
        """Take the views that settings ask for, with flips along the axes of mirroring."""
        return cls(
            weak_to_strong=settings.views == "weak-to-strong",
            paste_from=settings.paste_from,
            paste_probability=settings.paste_probability,
            turns=settings.turns,
            flip_axes=tuple(mirror_axes) * settings.flips,
            spacing=tuple(spacing),
        )

    @property
    def differ(self) -> bool:
        """Whether teacher and student see different patches."""
        return self.weak_to_strong or self.change_patches

    @property
    def change_patches(self) -> bool:
        """Whether there is anything but intensity augmentation."""
        return self.paste_from != "nothing" or self.turns or bool(self.flip_axes)

    def draw(self, images: Tensor, num_labeled: int) -> View:
        """Draw the view of unlabeled patches.

        Args:
            images: (B, channels, ...).
            num_labeled: how many labeled patches there are to take boxes from.
        """
        boxes = []
        if self.paste_from in ("unlabeled", "both"):
            boxes.append(self._box(images, len(images), labeled=False))
        if self.paste_from in ("labeled", "both"):
            boxes.append(self._box(images, num_labeled, labeled=True))
        return View(tuple(boxes), self._turn(images))

    def draw_labeled(self, images: Tensor, share: float = 1.0) -> View:
        """Draw the view of labeled patches, with boxes of other labeled patches.

        Args:
            images: (B, channels, ...).
            share: of the patches that are seen through it, each by its own draw.
        """
        chosen = None if share == 1 else (torch.rand(len(images)) < share).to(images.device)
        number = {"nothing": 0, "both": 2}.get(self.paste_from, 1)
        boxes = [self._box(images, len(images), labeled=False) for _ in range(number)]
        if chosen is not None:
            shaped = chosen.view(-1, *[1] * (images.ndim - 1))
            boxes = [box._replace(inside=box.inside & shaped) for box in boxes]
        return View(tuple(boxes), self._turn(images, chosen))

    def _box(self, images: Tensor, others: int, *, labeled: bool) -> Box:
        inside = draw_boxes(images, self.paste_probability)
        return Box(
            inside, draw_source(len(images), others, images.device, same=not labeled), labeled
        )

    def _turn(self, images: Tensor, chosen: Tensor | None = None) -> Turn | None:
        if not self.turns and not self.flip_axes:
            return None
        size = images.shape[2:]
        may_flip = not self.turns or len(set(self.flip_axes)) == len(size)
        flip_axes = self.flip_axes if may_flip else ()
        return draw_turn(size, self.spacing, flip_axes, turns=self.turns, chosen=chosen)


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


def draw_source(patches: int, others: int, device: torch.device, *, same: bool) -> Tensor:
    """Draw for each patch which of the others fills its box.

    Args:
        patches: how many patches there are.
        others: how many there are to draw from.
        device: of the patches.
        same: both are the same patches; then no patch fills its own box, unless it is the only one.
    """
    if not same:
        return torch.randint(others, (patches,), device=device)
    ahead = torch.randint(1, max(2, others), (patches,), device=device)
    return (torch.arange(patches, device=device) + ahead) % others


def draw_turn(
    patch_size: Sequence[int],
    spacing: Sequence[float],
    flip_axes: Sequence[int],
    *,
    turns: bool,
    chosen: Tensor | None = None,
) -> Turn:
    """Draw a turn in one plane, and flips.

    By 90, 180 or 270 degrees in a plane whose axes have the same patch size and spacing, else by
    180. A flip exchanges left and right, a turn does not.

    Args:
        patch_size: voxels per spatial axis.
        spacing: mm per spatial axis.
        flip_axes: spatial axes along which to flip, each with probability 1/2.
        turns: without, patches are only flipped.
        chosen: see `Turn`.
    """
    planes = list(combinations(range(len(patch_size)), 2))
    plane, quarters = planes[-1], 0
    if turns:
        plane = planes[int(torch.randint(len(planes), ()))]
        a, b = plane
        is_square = patch_size[a] == patch_size[b] and spacing[a] == spacing[b]
        quarters = int(torch.randint(1, 4, ())) if is_square else 2
    flipped = tuple(axis for axis in flip_axes if torch.rand(()) < 0.5)
    return Turn(plane, quarters, flipped, chosen)


def _random_box(shape: torch.Size) -> tuple[slice, ...]:
    share = torch.empty(()).uniform_(*SHARE_OF_PATCH).item()
    box = []
    for size in shape:
        length = max(1, round(size * share ** (1 / len(shape))))
        start = int(torch.randint(size - length + 1, ()))
        box.append(slice(start, start + length))
    return tuple(box)


def _sampled(inside: Tensor, values: Tensor) -> Tensor:
    """Sample boxes at the resolution of values as nnU-Net samples its targets."""
    if inside.shape[2:] == values.shape[2:]:
        return inside
    return interpolate(inside.float(), values.shape[2:], mode="nearest-exact") > 0.5
