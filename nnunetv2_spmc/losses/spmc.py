"""SPMC's sum of its terms, Eq. (3)-(19): what it adds to the supervised loss.

L = L_a + L_b with L_a = L_sup,a + beta * L_mse,a + lambda(t) * (L_cps,a + beta * L_rp,a), where a
is the main and b the auxiliary branch. L_sup is nnU-Net's own loss and lambda(t) the trainer's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nnunetv2_spmc.common.setting_checks import check_types, require, require_within
from nnunetv2_spmc.losses.cdps import cdps, common_difficulty
from nnunetv2_spmc.losses.confidence import share
from nnunetv2_spmc.losses.cps import cps
from nnunetv2_spmc.losses.label_space import LabelSpace
from nnunetv2_spmc.losses.masked_mse import Divisor, Reduction, own_entries
from nnunetv2_spmc.losses.sharpening import SharpeningForm, sharpen
from nnunetv2_spmc.losses.splat import TeachingMode, splat, taught

Pair = tuple[Tensor, Tensor]  # of the main and of the auxiliary branch
Terms = tuple[Tensor, dict[str, Tensor]]  # a loss, and scalars to log
PseudoLoss = Callable[[str, Tensor], Tensor]  # of a branch by what is predicted for it


@dataclass(frozen=True)
class SPMCSettings:
    """Settings of SPMC: the paper's, read literally, but for those that are marked as ours."""

    tau: float = 0.7  # a voxel is suspicious at confidence <= tau, trusted above; BraTS: 0.65
    beta: float = 0.5  # weight of the mean squared errors, Eq. (3)-(5)
    temperature: float = 0.1  # T of the sharpening, Eq. (12)
    sharpening: SharpeningForm = "binary"
    trust_on: Literal["sharpened", "raw"] = "sharpened"  # the teacher's confidence, against tau
    teaching: TeachingMode = "high-to-low"  # the others: table 5
    reduction: Reduction = "masked"  # ours: mean over the selected; the paper: "all"
    cdps: bool = True  # table 4
    splat: bool = True  # table 4
    noise: float = 0.3  # amplitude r of the feature noise, Eq. (1)-(2)
    noise_levels: Literal["all", "bottleneck"] = "all"
    shared_encoder: bool = True
    pseudo_loss: Literal["cross-entropy", "nnunet"] = "cross-entropy"  # L_cps; or nnU-Net's own
    teacher: Literal["other", "mean"] = "other"  # mean: of both branches' probabilities

    def __post_init__(self) -> None:
        """Check types and ranges of all fields."""
        require_within(self, "beta", 0, 10**6)
        check_types(self)
        require(0 <= self.tau <= 1, "tau", self.tau, "in [0, 1]")
        expected = "in (0, 1], and not below 1e-6"
        require(1e-6 <= self.temperature <= 1, "temperature", self.temperature, expected)
        require(0 <= self.noise < 1, "noise", self.noise, "in [0, 1)")


def labeled_terms(
    logits: Pair,
    target: Tensor,
    space: LabelSpace,
    settings: SPMCSettings,
    divisor: Divisor = own_entries,
) -> Terms:
    """Compute beta * L_mse of both branches on labeled voxels (CDPS), Eq. (6)-(11).

    Args:
        logits: of the main and of the auxiliary branch, (B, C, ...) at full resolution.
        target: labels at full resolution, as `LabelSpace.one_hot` takes them.
        space: what channels and labels mean.
        settings: of SPMC.
        divisor: see `masked_mse`.
    """
    main, auxiliary = (space.probabilities(of_branch) for of_branch in logits)
    ignored = space.ignored(target)
    valid = None if ignored is None else ~ignored
    mask = common_difficulty(
        space.confidence(main), space.confidence(auxiliary), settings.tau, valid
    )
    loss, values = torch.zeros((), device=main.device), {}
    if settings.cdps:
        values["cdps_main"], values["cdps_auxiliary"] = cdps(
            main,
            auxiliary,
            space.one_hot(target),
            mask,
            reduction=settings.reduction,
            valid=valid,
            divisor=divisor,
        )
        loss = settings.beta * (values["cdps_main"] + values["cdps_auxiliary"])
    values["common_difficulty_labeled"] = share(mask, valid)
    return loss, values


def unlabeled_terms(
    logits: Pair,
    teachers: Pair | None,
    valid: Tensor | None,
    space: LabelSpace,
    settings: SPMCSettings,
    divisor: Divisor = own_entries,
    pseudo_loss: PseudoLoss | None = None,
) -> Terms:
    """Compute L_cps + beta * L_rp of both branches on unlabeled voxels, Eq. (3)-(5), (12)-(19).

    Args:
        logits: of the main and of the auxiliary branch, (B, C, ...) at full resolution.
        teachers: (B, C, ...) probabilities of the main and the auxiliary branch, from which the
            other one learns; None takes those of the logits.
        valid: bool, (B, 1, ...): the voxels that count; None takes all.
        space: what channels mean.
        settings: of SPMC.
        divisor: see `masked_mse`.
        pseudo_loss: L_cps of a branch, "main" or "auxiliary", against predictions, from
            `LabelSpace.predicted`; None takes the paper's cross-entropy.
    """
    # cast once, so that the gradients of all terms are summed in float32
    main_logits, auxiliary_logits = (of_branch.float() for of_branch in logits)
    main, auxiliary = space.probabilities(main_logits), space.probabilities(auxiliary_logits)
    (main_confidence, main_label), (auxiliary_confidence, auxiliary_label) = (
        space.confidence_and_prediction(probabilities) for probabilities in (main, auxiliary)
    )
    main_teacher, auxiliary_teacher = (main, auxiliary) if teachers is None else teachers
    if settings.teacher == "mean":
        mean = (main_teacher.detach() + auxiliary_teacher.detach()) / 2
        main_teacher, auxiliary_teacher = teachers = (mean, mean)
    if teachers is not None:
        main_label, auxiliary_label = (space.predicted(teacher) for teacher in teachers)
    if pseudo_loss is None:
        values = {
            "cps_main": cps(main_logits, auxiliary_label, regions=space.regions, valid=valid),
            "cps_auxiliary": cps(auxiliary_logits, main_label, regions=space.regions, valid=valid),
        }
    else:
        values = {
            "cps_main": pseudo_loss("main", auxiliary_label),
            "cps_auxiliary": pseudo_loss("auxiliary", main_label),
        }
    loss = values["cps_main"] + values["cps_auxiliary"]
    with torch.no_grad():
        mask = common_difficulty(main_confidence, auxiliary_confidence, settings.tau)
        values["suspicious_main"] = share(main_confidence <= settings.tau, valid)
        values["suspicious_auxiliary"] = share(auxiliary_confidence <= settings.tau, valid)
        values["common_difficulty_unlabeled"] = share(mask, valid)
    if settings.splat:
        for branch, student, confidence, teacher in (
            ("main", main, main_confidence, auxiliary_teacher),
            ("auxiliary", auxiliary, auxiliary_confidence, main_teacher),
        ):
            values[f"splat_{branch}"], values[f"taught_{branch}"] = _teach(
                student, confidence, teacher, valid, space, settings, divisor
            )
        loss = loss + settings.beta * (values["splat_main"] + values["splat_auxiliary"])
    return loss, values


def _teach(
    student: Tensor,
    confidence: Tensor,
    teacher: Tensor,
    valid: Tensor | None,
    space: LabelSpace,
    settings: SPMCSettings,
    divisor: Divisor,
) -> tuple[Tensor, Tensor]:
    """Return L_rp of one branch, Eq. (13)-(19), and the share of the voxels it is taught."""
    with torch.no_grad():
        soft_pseudo_label = sharpen(teacher, settings.temperature, form=settings.sharpening)
        trusted = soft_pseudo_label if settings.trust_on == "sharpened" else teacher
        mask = taught(confidence, space.confidence(trusted), settings.tau, mode=settings.teaching)
        taught_share = share(mask, valid)
        mask = mask if valid is None else mask & valid
    loss = splat(
        student,
        soft_pseudo_label,
        mask,
        reduction=settings.reduction,
        valid=valid,
        divisor=divisor,
    )
    return loss, taught_share
