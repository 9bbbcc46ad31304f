"""FilterMatch (Ordi117/nnFilterMatch, arXiv 2509.19746): one network, hard labels, turned patches.

Its filter of unlabeled cases is left out: the paper does not show that it helps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nnunetv2_spmc.common.setting_checks import check_types, require
from nnunetv2_spmc.training.passes import student_view
from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised
from nnunetv2_spmc.training.settings import TrainingSettings
from nnunetv2_spmc.training.step import Loss, Pass, Step, Unlabeled
from nnunetv2_spmc.training.views import Views


@dataclass(frozen=True)
class FilterMatchSettings:
    """Settings of FilterMatch."""

    flips_after: float = 1 / 3  # share of the epochs before patches are flipped, too

    def __post_init__(self) -> None:
        """Check types and ranges of all fields."""
        check_types(self)
        require(0 <= self.flips_after <= 1, "flips_after", self.flips_after, "in [0, 1]")


class nnUNetTrainerFilterMatch(nnUNetTrainerSemiSupervised):
    """Train the planned network on its own hard labels of patches that it then sees turned.

    Labeled and unlabeled patches are one batch for nnU-Net's own loss, so that lambda(t) only
    switches the unlabeled ones on, after a share of supervised epochs.
    """

    default_settings = TrainingSettings(
        lambda_max=1.0, ramp_start=20 / 300, ramp_end=20 / 300, turns=True, flips=True
    )
    default_method_settings = FilterMatchSettings()
    method_settings: FilterMatchSettings

    @property
    def learns_from_ignored(self) -> bool:
        """No: voxels under the ignore label have no view to be seen through."""
        return False

    @property
    def views(self) -> Views:
        """Turns from the start, flips later."""
        if self.current_epoch >= self.method_settings.flips_after * self.num_epochs:
            return super().views
        return replace(super().views, flip_axes=())

    def pseudo_labels(self, unlabeled: Unlabeled) -> dict[str, Tensor]:
        """Return the probabilities at each resolution of deep supervision."""
        return probabilities_of_scales(self, unlabeled)

    def passes(self, step: Step) -> Sequence[Pass]:
        """Do one pass over labeled and unlabeled patches alike."""
        if step.unlabeled is None:
            return super().passes(step)
        return [lambda: one_batch(self, step)]


def probabilities_of_scales(
    trainer: nnUNetTrainerSemiSupervised, unlabeled: Unlabeled
) -> dict[str, Tensor]:
    """Return the network's probabilities at each resolution of deep supervision, "main" first."""
    outputs: Any = trainer.joint_network(unlabeled.for_teacher)
    scales = outputs if isinstance(outputs, list) else [outputs]
    return {
        f"scale {i}" if i else "main": trainer.label_space.probabilities(scale)
        for i, scale in enumerate(scales)
    }


def one_batch(trainer: nnUNetTrainerSemiSupervised, step: Step) -> Loss:
    """Compute nnU-Net's own loss of labeled and, through the view, unlabeled patches together."""
    seen, values = student_view(trainer, step)
    given: Any = step.labeled.target
    scales = given if isinstance(given, list) else [given]
    space, target = trainer.label_space, []
    for of_labeled, pseudo in zip(scales, seen.pseudo.values(), strict=True):
        labels = space.target(space.predicted(pseudo), seen.valid)
        target.append(torch.cat((of_labeled, labels.to(of_labeled.dtype))))
    outputs = trainer.joint_network(torch.cat((step.labeled.images, seen.images)))
    loss = trainer.nnunet_loss(outputs, target if isinstance(given, list) else target[0])
    return loss, values | {"supervised_main": loss}
