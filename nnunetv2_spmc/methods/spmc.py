"""SPMC: suspicious pixel mutual correction, and its ablations.

Eq. (3)-(5): L = L_a + L_b with L_a = L_sup,a + beta * L_mse,a + lambda(t) * (L_cps,a +
beta * L_rp,a), where a is the main and b the auxiliary branch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from nnunetv2_spmc import losses
from nnunetv2_spmc.losses import Reduction, SharpeningForm, TeachingMode
from nnunetv2_spmc.networks import DualBranchNetwork
from nnunetv2_spmc.networks.dual_branch import Logits
from nnunetv2_spmc.networks.feature_noise import NoiseLevels
from nnunetv2_spmc.networks.unwrap import full_resolution, unwrapped
from nnunetv2_spmc.training.epoch_log import Panels
from nnunetv2_spmc.training.memory import recomputed
from nnunetv2_spmc.training.pasting import draw_boxes, paste
from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised
from nnunetv2_spmc.training.settings import SemiSupervisedSettings, require

TrustOn = Literal["sharpened", "raw"]
Views = Literal["same", "weak-to-strong"]
PasteFrom = Literal["nothing", "labeled"]
CHOICES = {
    "reduction": get_args(Reduction),
    "trust_on": get_args(TrustOn),
    "sharpening": get_args(SharpeningForm),
    "teaching": get_args(TeachingMode),
    "noise_levels": get_args(NoiseLevels),
    "views": get_args(Views),
    "paste_from": get_args(PasteFrom),
}


@dataclass(frozen=True)
class SPMCSettings(SemiSupervisedSettings):
    """Settings of SPMC: the paper's, read literally, but for those that are marked as ours."""

    lambda_max: float = 1.0  # ours; the paper: 0.1
    ramp_start: float = 0.1  # ours; the paper: 0
    ramp_end: float = 0.3  # ours; the paper: 1
    tau: float = 0.7  # a voxel is suspicious at confidence <= tau, trusted above; BraTS: 0.65
    beta: float = 0.5  # weight of the mean squared errors, Eq. (3)-(5)
    temperature: float = 0.1  # T of the sharpening, Eq. (12)
    sharpening: SharpeningForm = "binary"
    trust_on: TrustOn = "sharpened"  # which confidence of the teacher is compared with tau
    teaching: TeachingMode = "high-to-low"  # table 5
    reduction: Reduction = "masked"  # ours: mean over selected voxels; the paper: "all"
    cdps: bool = True  # table 4
    splat: bool = True  # table 4
    noise: float = 0.3  # amplitude r of the feature noise, Eq. (1)-(2)
    noise_levels: NoiseLevels = "all"
    shared_encoder: bool = True
    views: Views = "weak-to-strong"  # ours: pseudo-labels from patches with untouched intensities
    paste_from: PasteFrom = "labeled"  # ours: boxes of labeled patches in unlabeled ones
    paste_probability: float = 1.0  # of an unlabeled patch to get a box

    def __post_init__(self) -> None:
        """Check types and ranges of all fields."""
        super().__post_init__()
        require(0 <= self.tau <= 1, "tau", self.tau, "in [0, 1]")
        require(self.beta >= 0, "beta", self.beta, "at least 0")
        require(0 < self.temperature <= 1, "temperature", self.temperature, "in (0, 1]")
        require(0 <= self.noise < 1, "noise", self.noise, "in [0, 1)")
        probability = self.paste_probability
        require(0 < probability <= 1, "paste_probability", probability, "in (0, 1]")
        for key, choices in CHOICES.items():
            value = getattr(self, key)
            require(value in choices, key, value, f"one of {', '.join(choices)}")


class nnUNetTrainerSPMC(nnUNetTrainerSemiSupervised):
    """Train nnU-Net on labeled and unlabeled scans with SPMC."""

    default_settings: ClassVar[SPMCSettings] = SPMCSettings()
    settings: SPMCSettings
    panels: ClassVar[Panels] = {
        "supervised loss": ("supervised_main", "supervised_auxiliary"),
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
        "agreement of the branches": ("agreement",),
    }

    def build_training_network(self, main: nn.Module) -> DualBranchNetwork:
        """Put the auxiliary branch beside the planned network."""
        return DualBranchNetwork(
            main,
            shared_encoder=self.settings.shared_encoder,
            noise=self.settings.noise,
            noise_levels=self.settings.noise_levels,
        )

    def labeled_loss(
        self, outputs: tuple[Logits, Logits], target: Tensor | list[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute L_sup + beta * L_mse of both branches, Eq. (3)-(11)."""
        main_logits, auxiliary_logits = outputs
        # a compiled loss may take another graph when it is computed again
        supervised = self.loss if self._do_i_compile() else partial(recomputed, self.loss)
        values = {
            "supervised_main": supervised(main_logits, target),
            "supervised_auxiliary": supervised(auxiliary_logits, target),
        }
        loss = values["supervised_main"] + values["supervised_auxiliary"]
        main, auxiliary = self._probabilities(main_logits), self._probabilities(auxiliary_logits)
        labels = self._one_hot(full_resolution(target))
        ignored = self.ignored_voxels(full_resolution(target))
        valid = None if ignored is None else ~ignored
        mask = losses.common_difficulty(
            self._confidence(main), self._confidence(auxiliary), self.settings.tau, valid
        )
        if self.settings.cdps:
            values["cdps_main"], values["cdps_auxiliary"] = losses.cdps(
                main, auxiliary, labels, mask, reduction=self.settings.reduction, valid=valid
            )
            loss = loss + self.settings.beta * (values["cdps_main"] + values["cdps_auxiliary"])
        values["common_difficulty_labeled"] = losses.share(mask)
        return loss, values

    @property
    def needs_weak_view(self) -> bool:
        """Whether pseudo-labels come from patches without intensity augmentation."""
        return self.settings.views == "weak-to-strong"

    def unlabeled_step(
        self,
        images: Tensor,
        weak: Tensor | None,
        where: Tensor | None,
        labeled: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Let the branches teach each other on the weak view, before boxes are pasted in."""
        pastes = self.settings.paste_from != "nothing"
        if weak is None and not pastes:
            return super().unlabeled_step(images, weak, where, labeled)
        teachers = self._pseudo_probabilities(images if weak is None else weak)
        main, auxiliary = (self._prediction(teacher) for teacher in teachers)
        unlabeled = self._branch_values(main, auxiliary, where)
        if pastes:
            images, teachers, where = self._paste(images, teachers, where, labeled)
        loss, values = self.unlabeled_loss(self.training_network(images), where, teachers)
        return loss, values | unlabeled  # pasted boxes say nothing about the branches

    def _paste(
        self,
        images: Tensor,
        teachers: tuple[Tensor, Tensor],
        where: Tensor | None,
        labeled: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor | None]:
        """Paste boxes of labeled patches and their labels; where neither is ignored."""
        boxes = draw_boxes(images, self.settings.paste_probability)
        labeled_images, target = labeled
        source = torch.randint(len(labeled_images), (len(images),), device=images.device)
        labels, ignored = self._one_hot(target), self.ignored_voxels(target)
        others = [other[source] for other in (labeled_images, labels, labels)]
        mixed, main, auxiliary = paste(boxes, (images, *teachers), others)
        if where is not None or ignored is not None:
            where = torch.ones_like(boxes) if where is None else where
            inside = torch.ones_like(boxes) if ignored is None else ~ignored[source]
            where = torch.where(boxes, inside, where)
        return mixed, (main, auxiliary), where

    @torch.no_grad()
    def _pseudo_probabilities(self, images: Tensor) -> tuple[Tensor, Tensor]:
        network: Any = unwrapped(self.training_network)
        network.feature_noise.eval()
        main, auxiliary = self.training_network(images)
        network.feature_noise.train()
        # weights that autocast has cast here have no gradient: older PyTorch would take them for
        # the pass that follows, too
        torch.clear_autocast_cache()
        return self._probabilities(main), self._probabilities(auxiliary)

    def _prediction(self, probabilities: Tensor) -> Tensor:
        regions = self.label_manager.has_regions
        return losses.confidence_and_prediction(probabilities, regions=regions)[1]

    @staticmethod
    def _branch_values(main: Tensor, auxiliary: Tensor, where: Tensor | None) -> dict[str, Tensor]:
        """Say how far the predictions agree, and whether a branch predicts a single class."""
        return {
            "agreement": losses.share(main == auxiliary, where),
            "single_class_main": losses.is_single_class(main, where),
            "single_class_auxiliary": losses.is_single_class(auxiliary, where),
        }

    def unlabeled_loss(
        self,
        outputs: tuple[Logits, Logits],
        where: Tensor | None = None,
        teachers: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute L_cps + beta * L_rp of both branches, Eq. (3)-(5), (12)-(19).

        Args:
            outputs: logits of the main and the auxiliary branch.
            where: bool, (B, 1, ...): the unlabeled voxels; None takes all.
            teachers: (B, C, ...) probabilities of the main and the auxiliary branch, from which
                the other one learns; None takes those of the outputs, and says how far they agree.
        """
        # cast once, so that the gradients of all terms are summed in float32
        main_logits, auxiliary_logits = (full_resolution(logits).float() for logits in outputs)
        main, auxiliary = self._probabilities(main_logits), self._probabilities(auxiliary_logits)
        regions = self.label_manager.has_regions
        (main_confidence, main_class), (auxiliary_confidence, auxiliary_class) = (
            losses.confidence_and_prediction(p, regions=regions) for p in (main, auxiliary)
        )
        main_teacher, auxiliary_teacher = (main, auxiliary) if teachers is None else teachers
        main_label, auxiliary_label = main_class, auxiliary_class
        if teachers is not None:
            main_label, auxiliary_label = (self._prediction(teacher) for teacher in teachers)
        values = {
            "cps_main": losses.cps(main_logits, auxiliary_label, regions=regions, where=where),
            "cps_auxiliary": losses.cps(auxiliary_logits, main_label, regions=regions, where=where),
        }
        loss = values["cps_main"] + values["cps_auxiliary"]
        with torch.no_grad():
            tau = self.settings.tau
            mask = losses.common_difficulty(main_confidence, auxiliary_confidence, tau)
            values["suspicious_main"] = losses.share(main_confidence <= tau, where)
            values["suspicious_auxiliary"] = losses.share(auxiliary_confidence <= tau, where)
            values["common_difficulty_unlabeled"] = losses.share(mask, where)
            if teachers is None:
                values |= self._branch_values(main_class, auxiliary_class, where)
        if self.settings.splat:
            main_splat, main_taught = self._splat(main, main_confidence, auxiliary_teacher, where)
            auxiliary_splat, auxiliary_taught = self._splat(
                auxiliary, auxiliary_confidence, main_teacher, where
            )
            values |= {"splat_main": main_splat, "splat_auxiliary": auxiliary_splat}
            values |= {"taught_main": main_taught, "taught_auxiliary": auxiliary_taught}
            loss = loss + self.settings.beta * (main_splat + auxiliary_splat)
        return loss, values

    def branch_logits(self, outputs: tuple[Logits, Logits]) -> dict[str, Tensor]:
        """Name the full-resolution logits, (B, C, ...), of each branch for the curves."""
        main, auxiliary = map(full_resolution, outputs)
        return {"main": main, "auxiliary": auxiliary}

    def _splat(
        self, student: Tensor, confidence: Tensor, teacher: Tensor, where: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        settings = self.settings
        with torch.no_grad():
            soft_pseudo_label = losses.sharpen(
                teacher, settings.temperature, form=settings.sharpening
            )
            trusted = soft_pseudo_label if settings.trust_on == "sharpened" else teacher
            mask = losses.taught(
                confidence, self._confidence(trusted), settings.tau, mode=settings.teaching
            )
            taught_share = losses.share(mask, where)
            mask = mask if where is None else mask & where
        loss = losses.splat(
            student, soft_pseudo_label, mask, reduction=settings.reduction, valid=where
        )
        return loss, taught_share

    def _probabilities(self, logits: Logits) -> Tensor:
        return losses.probabilities(full_resolution(logits), regions=self.label_manager.has_regions)

    @torch.no_grad()
    def _confidence(self, probabilities: Tensor) -> Tensor:
        return losses.confidence(probabilities, regions=self.label_manager.has_regions)

    def _one_hot(self, target: Tensor) -> Tensor:
        """Encode nnU-Net's target, without its channel of ignored voxels if there are regions."""
        if not self.label_manager.has_regions:
            return losses.one_hot(target, self.label_manager.num_segmentation_heads)
        return target[:, : self.label_manager.num_segmentation_heads].float()


class nnUNetTrainerSPMC_smoke(nnUNetTrainerSPMC):
    """Two epochs of five iterations, to see that everything runs."""

    default_settings = SPMCSettings(epochs=2, iterations_per_epoch=5, validation_iterations=2)


class nnUNetTrainerSPMC_paper(nnUNetTrainerSPMC):
    """The paper's method, read literally, whatever the defaults of this package are."""

    fixed_settings: ClassVar[dict[str, Any]] = {
        "lambda_max": 0.1,
        "ramp_start": 0.0,
        "ramp_end": 1.0,
        "views": "same",
        "paste_from": "nothing",
        "beta": 0.5,
        "temperature": 0.1,
        "sharpening": "binary",
        "trust_on": "sharpened",
        "teaching": "high-to-low",
        "reduction": "all",
        "cdps": True,
        "splat": True,
        "noise": 0.3,
        "noise_levels": "all",
    }


class nnUNetTrainerSPMC_noCDPS(nnUNetTrainerSPMC):
    """Table 4: without the correction of common-difficulty voxels."""

    fixed_settings: ClassVar[dict[str, Any]] = {"cdps": False}


class nnUNetTrainerSPMC_noSPLAT(nnUNetTrainerSPMC):
    """Table 4: without the teaching of suspicious voxels."""

    fixed_settings: ClassVar[dict[str, Any]] = {"splat": False}


class nnUNetTrainerSPMC_noNoise(nnUNetTrainerSPMC):
    """Table 4: without feature noise in the auxiliary branch."""

    fixed_settings: ClassVar[dict[str, Any]] = {"noise": 0.0}


class nnUNetTrainerSPMC_cpsOnly(nnUNetTrainerSPMC):
    """Table 4, first row: two branches with cross pseudo supervision and nothing else."""

    fixed_settings: ClassVar[dict[str, Any]] = {"noise": 0.0, "cdps": False, "splat": False}


class nnUNetTrainerSPMC_noUnlabeled(nnUNetTrainerSPMC):
    """Both branches, noise and CDPS on the labeled cases; unlabeled cases are not touched."""

    fixed_settings: ClassVar[dict[str, Any]] = {"lambda_max": 0.0}


class nnUNetTrainerSPMC_ordinaryToLow(nnUNetTrainerSPMC):
    """Table 5: suspicious voxels are taught by every voxel of the other branch."""

    fixed_settings: ClassVar[dict[str, Any]] = {"teaching": "ordinary-to-low"}


class nnUNetTrainerSPMC_highToOrdinary(nnUNetTrainerSPMC):
    """Table 5: trusted voxels teach every voxel of the other branch."""

    fixed_settings: ClassVar[dict[str, Any]] = {"teaching": "high-to-ordinary"}


class nnUNetTrainerSPMC_separateEncoders(nnUNetTrainerSPMC):
    """Two independent networks, as the text of the paper describes them."""

    fixed_settings: ClassVar[dict[str, Any]] = {"shared_encoder": False}
