"""What the channels of a network and the values of a target mean: classes or regions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nnunetv2_spmc.losses.confidence import (
    confidence,
    confidence_and_prediction,
    one_hot,
    probabilities,
)

if TYPE_CHECKING:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager


@dataclass(frozen=True)
class LabelSpace:
    """Classes (softmax over the channels) or overlapping regions (a sigmoid per channel).

    One place for what differs between the two, so that a loss is written once for both.

    Args:
        channels: C, channels of the logits.
        regions: every channel is a decision of its own.
        ignore_label: value of the voxels that nobody annotated; None where there is none.
    """

    channels: int
    regions: bool = False
    ignore_label: int | None = None

    @classmethod
    def of(cls, label_manager: LabelManager) -> LabelSpace:
        """Read it from nnU-Net's label manager."""
        return cls(
            label_manager.num_segmentation_heads,
            label_manager.has_regions,
            label_manager.ignore_label if label_manager.has_ignore_label else None,
        )

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn logits (B, C, ...) into float32 probabilities of the same shape."""
        return probabilities(logits, regions=self.regions)

    @torch.no_grad()
    def confidence(self, probabilities: Tensor) -> Tensor:
        """Return how sure a branch is, (B, 1, ...), or (B, R, ...) of regions; no gradient."""
        return confidence(probabilities, regions=self.regions)

    def predicted(self, probabilities: Tensor) -> Tensor:
        """Return the class, (B, 1, ...) int64, or the decisions on regions, (B, R, ...) bool."""
        return confidence_and_prediction(probabilities, regions=self.regions)[1]

    def confidence_and_prediction(self, probabilities: Tensor) -> tuple[Tensor, Tensor]:
        """Return `confidence` and `predicted` in one pass over the voxels."""
        return confidence_and_prediction(probabilities, regions=self.regions)

    def one_hot(self, target: Tensor) -> Tensor:
        """Encode a target as (B, C, ...) float32; voxels under the ignore label are all zero.

        Args:
            target: (B, 1, ...) labels; of regions (B, R, ...), or (B, R + 1, ...) where the last
                channel marks the ignored voxels.
        """
        if self.regions:
            return target[:, : self.channels].float()
        return one_hot(target, self.channels)

    def target(self, predicted: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return a prediction in the form of nnU-Net's targets.

        Args:
            predicted: from `predicted`, of whatever resolution.
            valid: bool, (B, 1, ...) at full resolution: the other voxels are put under the ignore
                label, which must exist; None ignores nothing.

        Returns:
            (B, 1, ...) labels; of regions (B, R, ...), with an ignore label (B, R + 1, ...).
        """
        if self.ignore_label is None:
            return predicted
        ignored = torch.zeros_like(predicted[:, :1], dtype=torch.bool)
        if valid is not None:
            shape = predicted.shape[2:]
            ignored = interpolate(valid.float(), shape, mode="nearest-exact") < 0.5
        if self.regions:
            return torch.cat((predicted, ignored), dim=1)
        return predicted.masked_fill(ignored, self.ignore_label)

    def ignored(self, target: Tensor) -> Tensor | None:
        """Return where a target is under the ignore label, bool (B, 1, ...); None without one."""
        if self.ignore_label is None:
            return None
        return target[:, -1:] != 0 if self.regions else target == self.ignore_label
