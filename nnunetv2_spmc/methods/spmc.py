"""SPMC: suspicious pixel mutual correction.

Each term has a module in `losses/` (cdps, sharpening, splat, cps), `losses/spmc.py` sums them, the
base trainer multiplies by lambda(t), and the network is `networks/dual_branch.py`: this is wiring.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from nnunetv2_spmc.common.setting_checks import SettingsError
from nnunetv2_spmc.losses.spmc import SPMCSettings, labeled_terms, unlabeled_terms
from nnunetv2_spmc.networks import DualBranchNetwork
from nnunetv2_spmc.networks.unwrap import Logits, full_resolution
from nnunetv2_spmc.training.epoch_log import Panels
from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised
from nnunetv2_spmc.training.settings import TrainingSettings
from nnunetv2_spmc.training.step import Labeled, Loss, Unlabeled


class nnUNetTrainerSPMC(nnUNetTrainerSemiSupervised):
    """Train nnU-Net on labeled and unlabeled scans with SPMC."""

    branches = ("main", "auxiliary")
    default_settings = TrainingSettings(  # ours; the paper's are those of nnUNetTrainerSPMC_paper
        lambda_max=1.0,
        ramp_start=0.1,
        ramp_end=0.3,
        unlabeled_every=2,
        views="weak-to-strong",
        paste_from="labeled",
        turns=True,
    )
    default_method_settings = SPMCSettings(pseudo_loss="nnunet")
    method_settings: SPMCSettings
    panels: ClassVar[Panels] = {
        "loss terms": (
            "cdps_main",
            "cdps_auxiliary",
            "cps_main",
            "cps_auxiliary",
            "splat_main",
            "splat_auxiliary",
        ),
        "share of voxels": (
            "suspicious_main",
            "suspicious_auxiliary",
            "common_difficulty_labeled",
            "common_difficulty_unlabeled",
            "taught_main",
            "taught_auxiliary",
        ),
    }

    @staticmethod
    def training_network(main: nn.Module, settings: SPMCSettings) -> nn.Module:
        """Add the auxiliary branch to the planned network, Eq. (1)-(2)."""
        return DualBranchNetwork(
            main,
            shared_encoder=settings.shared_encoder,
            noise=settings.noise,
            noise_levels=settings.noise_levels,
        )

    def initialize(self) -> None:
        """Refuse a sharpening over classes where there are regions, which overlap."""
        if self.label_manager.has_regions and self.method_settings.sharpening == "softmax":
            raise SettingsError(
                f"The setting sharpening is 'softmax', but {self.plans_manager.dataset_name} has "
                "regions, which overlap: leave it at 'binary'."
            )
        super().initialize()

    def labeled_loss(self, outputs: tuple[Logits, Logits], labeled: Labeled) -> Loss:
        """Compute L_sup + beta * L_mse of both branches, Eq. (3)-(11)."""
        supervised, values = super().labeled_loss(outputs, labeled)
        main, auxiliary = map(full_resolution, outputs)
        correction, terms = labeled_terms(
            (main, auxiliary),
            full_resolution(labeled.target),
            self.label_space,
            self.method_settings,
            self.divisor,
        )
        return supervised + correction, values | terms

    def pseudo_labels(self, unlabeled: Unlabeled) -> dict[str, Tensor]:
        """Return the probabilities of both branches, if the student sees another patch."""
        if not self.views.differ:
            return {}
        return self.branch_probabilities(self.joint_network(unlabeled.for_teacher))

    def unlabeled_loss(self, outputs: tuple[Logits, Logits], unlabeled: Unlabeled) -> Loss:
        """Compute L_cps + beta * L_rp of both branches, Eq. (3)-(5), (12)-(19)."""
        main, auxiliary = map(full_resolution, outputs)
        pseudo = unlabeled.pseudo

        def nnunets(branch: str, predicted: Tensor) -> Tensor:
            target = self.label_space.target(predicted, unlabeled.valid)
            return self.nnunet_loss(self.of_branches(outputs)[branch], target)

        return unlabeled_terms(
            (main, auxiliary),
            (pseudo["main"], pseudo["auxiliary"]) if pseudo else None,
            unlabeled.valid,
            self.label_space,
            self.method_settings,
            self.divisor,
            nnunets if self.method_settings.pseudo_loss == "nnunet" else None,
        )
