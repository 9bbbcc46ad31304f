"""Mean Teacher (Tarvainen & Valpola, NeurIPS 2017): agree with the average of your own past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nnunetv2_spmc.common.setting_checks import check_types, require, require_within
from nnunetv2_spmc.losses import masked_mse
from nnunetv2_spmc.networks import EMATeacherNetwork
from nnunetv2_spmc.networks.unwrap import Logits, full_resolution, unwrapped
from nnunetv2_spmc.training.epoch_log import Panels
from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised
from nnunetv2_spmc.training.step import Loss, Step, Unlabeled


@dataclass(frozen=True)
class MeanTeacherSettings:
    """Settings of Mean Teacher, as the semi-supervised literature of these datasets has them."""

    ema_decay: float = 0.99  # share of the teacher that stays at a step
    input_noise: float = 0.1  # standard deviation on the teacher's images; cut off at twice that

    def __post_init__(self) -> None:
        """Check types and ranges of all fields."""
        require_within(self, "input_noise", 0, 10**6)
        check_types(self)
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "in [0, 1)")


def image_noise(images: Tensor, scale: float) -> Tensor:
    """Draw normal noise of a standard deviation, cut off at twice that."""
    return (scale * torch.randn_like(images)).clamp(-2 * scale, 2 * scale)


class nnUNetTrainerMeanTeacher(nnUNetTrainerSemiSupervised):
    """Train a student whose predictions agree with those of its moving average.

    L = L_sup + lambda(t) * mean (P_student - P_teacher)^2 on unlabeled patches; the student
    predicts.
    """

    default_method_settings = MeanTeacherSettings()
    method_settings: MeanTeacherSettings
    panels: ClassVar[Panels] = {"loss terms": ("consistency",)}

    @staticmethod
    def training_network(main: nn.Module, settings: Any) -> nn.Module:
        """Add the teacher to the planned network."""
        return EMATeacherNetwork(main)

    def pseudo_labels(self, unlabeled: Unlabeled) -> dict[str, Tensor]:
        """Ask the teacher."""
        return {"teacher": self._teacher_probabilities(unlabeled.for_teacher)}

    @torch.no_grad()
    def _teacher_probabilities(self, images: Tensor) -> Tensor:
        """Return the teacher's probabilities for images with noise of its own."""
        noisy = images + image_noise(images, self.method_settings.input_noise)
        network: Any = unwrapped(self.joint_network)
        logits = full_resolution(network.teacher(noisy))
        return self.label_space.probabilities(logits)

    def unlabeled_loss(self, outputs: Logits, unlabeled: Unlabeled) -> Loss:
        """Compute the mean squared difference of the probabilities of student and teacher."""
        student = self.label_space.probabilities(full_resolution(outputs))
        teacher = unlabeled.pseudo.get("teacher")
        if teacher is None:  # voxels under the ignore label of labeled patches
            teacher = self._teacher_probabilities(unlabeled.images)
        valid = unlabeled.valid
        mask = torch.ones_like(student[:, :1], dtype=torch.bool) if valid is None else valid
        loss = masked_mse(student, teacher, mask, valid=valid)
        return loss, {"consistency": loss}

    def after_step(self, step: Step) -> None:
        """Let the teacher follow the student."""
        network: Any = unwrapped(self.joint_network)
        network.follow(self.steps_taken, self.method_settings.ema_decay)
