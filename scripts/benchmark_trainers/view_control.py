"""The view control: what the views of a method give without any unlabeled scan.

Each step of the supervised control gets a second *labeled* pass: the same patches, seen through the
views of the compared method, at weight 1 from the first step. No unlabeled scan is needed or read.

    export nnUNet_extTrainer=scripts/benchmark_trainers

names these trainers and those of the package. For benchmarks only: nnU-Net drops the modules of
this folder from sys.modules, so that its trainers cannot be pickled for several processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nnunetv2_spmc.methods import *  # noqa: F403
from nnunetv2_spmc.methods import nnUNetTrainerSupervisedControl
from nnunetv2_spmc.training.pasting import draw_boxes

GRADIENT_NORM_LIMIT = 12  # nnU-Net's own


class nnUNetTrainerViewControlBoxes(nnUNetTrainerSupervisedControl):  # noqa: N801
    """A second pass over the patches, each with a box of another labeled patch of the batch."""

    turns = False

    def train_step(self, batch: dict) -> dict:
        """Do one step on both passes; gradients are summed. Returns the loss of the first."""
        images = batch["data"].to(self.device, non_blocking=True)
        target = [scale.to(self.device, non_blocking=True) for scale in as_list(batch["target"])]
        self.optimizer.zero_grad(set_to_none=True)
        losses = []
        for patches, labels in ((images, target), self.second_view(images, target)):
            with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
                outputs = self.network(patches)
                loss = self.loss(
                    outputs, labels if isinstance(batch["target"], list) else labels[0]
                )
            (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()
            losses.append(loss.detach().cpu().numpy())
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM_LIMIT)
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        return {"loss": losses[0]}

    def second_view(self, images: Tensor, target: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Paste boxes and perhaps turn the patches, with their labels at all resolutions."""
        boxes = draw_boxes(images, probability=1)
        number = len(images)
        step = torch.randint(1, max(2, number), (number,))
        other = ((torch.arange(number) + step) % number).to(images.device)  # never the patch itself
        images, *target = (
            torch.where(at_resolution_of(values, boxes), values[other], values)
            for values in (images, *target)
        )
        if self.turns:
            mirror = self.inference_allowed_mirroring_axes or ()
            spacing = self.configuration_manager.spacing
            images, *target = turned([images, *target], spacing, mirror)
        return images, target


class nnUNetTrainerViewControlBoxesTurns(nnUNetTrainerViewControlBoxes):  # noqa: N801
    """Boxes, then one turn by 90, 180 or 270 degrees and flips for all patches of the batch."""

    turns = True


def as_list(target: Any) -> list[Tensor]:
    """Return the targets of all resolutions; one where there is no deep supervision."""
    return list(target) if isinstance(target, list) else [target]


def at_resolution_of(values: Tensor, boxes: Tensor) -> Tensor:
    """Sample boxes (B, 1, ...) as nnU-Net samples its targets of lower resolutions."""
    if boxes.shape[2:] == values.shape[2:]:
        return boxes
    return interpolate(boxes.float(), values.shape[2:], mode="nearest-exact") > 0.5


def turned(
    tensors: Sequence[Tensor], spacing: Sequence[float], mirror_axes: Sequence[int]
) -> list[Tensor]:
    """Turn all tensors (B, channels, ...) alike in one plane, then flip them.

    By 90 degrees only where both axes of the plane have the same patch size and spacing, else by
    180; flips only along `mirror_axes` (0 is the first spatial axis), each with probability 1/2.
    """
    size = tensors[0].shape[2:]
    axes = range(len(size))
    pairs = [(a, b) for a in axes for b in axes if a < b]
    square = [(a, b) for a, b in pairs if size[a] == size[b] and spacing[a] == spacing[b]]
    plane = square[int(torch.randint(len(square), ()))] if square else pairs[-1]
    quarters = int(torch.randint(1, 4, ())) if square else 2
    flips = [2 + axis for axis in mirror_axes if torch.rand(()) < 0.5]
    dims = (2 + plane[0], 2 + plane[1])
    return [torch.rot90(tensor, quarters, dims).flip(flips) for tensor in tensors]
