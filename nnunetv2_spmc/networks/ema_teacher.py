"""A teacher whose weights are a moving average of the student's (Tarvainen & Valpola, 2017)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from nnunetv2_spmc.networks.unwrap import Logits


class EMATeacherNetwork(nn.Module):
    """The planned nnU-Net, `main`, and a `teacher` that follows it and gets no gradient.

    Args:
        main: the planned nnU-Net.
    """

    def __init__(self, main: nn.Module) -> None:
        super().__init__()
        self.main = main
        self.teacher = copy.deepcopy(main).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> EMATeacherNetwork:
        """Set the mode of the student; the teacher only ever answers."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, images: Tensor) -> Logits:
        """Compute the logits of the student."""
        return self.main(images)

    @torch.no_grad()
    def follow(self, steps: int, decay: float) -> None:
        """Move the teacher: teacher = a * teacher + (1 - a) * student, a = min(1 - 1/(t+1), decay).

        Args:
            steps: t, steps taken before this one; at 0 the teacher becomes the student.
            decay: the largest share that stays, in [0, 1).
        """
        kept = min(1 - 1 / (steps + 1), decay)
        weights = zip(self.teacher.parameters(), self.main.parameters(), strict=True)
        for teacher, student in weights:
            teacher.lerp_(student, 1 - kept)
        statistics = zip(self.teacher.buffers(), self.main.buffers(), strict=True)
        for of_teacher, of_student in statistics:
            of_teacher.copy_(of_student)
