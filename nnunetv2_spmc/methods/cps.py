"""Cross pseudo supervision (Chen et al., CVPR 2021): two networks teach each other hard labels."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from nnunetv2_spmc.losses import cps
from nnunetv2_spmc.networks import TwinNetwork
from nnunetv2_spmc.networks.unwrap import Logits, full_resolution
from nnunetv2_spmc.training.epoch_log import Panels
from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised
from nnunetv2_spmc.training.step import Loss, Unlabeled


class nnUNetTrainerCPS(nnUNetTrainerSemiSupervised):
    """Train two networks from different weights on each other's predictions.

    L = L_sup,a + L_sup,b + lambda(t) * (CE(a, argmax b) + CE(b, argmax a)) on unlabeled patches;
    the first network, `main`, predicts.
    """

    branches = ("main", "second")
    panels: ClassVar[Panels] = {"loss terms": ("cps_main", "cps_second")}

    @staticmethod
    def training_network(main: nn.Module, settings: Any) -> nn.Module:
        """Add a second network of the same plans to the planned one."""
        return TwinNetwork(main)

    def pseudo_labels(self, unlabeled: Unlabeled) -> dict[str, Tensor]:
        """Return the probabilities of both networks, if the student sees another patch."""
        if not self.views.differ:
            return {}
        return self.branch_probabilities(self.joint_network(unlabeled.for_teacher))

    def unlabeled_loss(self, outputs: tuple[Logits, Logits], unlabeled: Unlabeled) -> Loss:
        """Compute the cross-entropy of each network against the other one's hard labels."""
        logits = dict(zip(self.branches, map(full_resolution, outputs), strict=True))
        teachers = unlabeled.pseudo or {
            branch: self.label_space.probabilities(of_branch.detach())
            for branch, of_branch in logits.items()
        }
        regions = self.label_space.regions
        values = {
            f"cps_{student}": cps(
                logits[student], teachers[teacher], regions=regions, valid=unlabeled.valid
            )
            for student, teacher in (("main", "second"), ("second", "main"))
        }
        return values["cps_main"] + values["cps_second"], values
