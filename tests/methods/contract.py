"""What every method promises. A method is put to all of it by one line in METHODS."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from nnunetv2_spmc import methods
from nnunetv2_spmc.losses import cps
from nnunetv2_spmc.networks import FeatureNoise, MainNetwork
from nnunetv2_spmc.networks.unwrap import full_resolution, unwrapped
from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised
from nnunetv2_spmc.training.views import Box, View, Views

IGNORE = 3
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
CLASSES = {"background": 0, "organ": 1, "core": 2}
LABELS = {  # what the contract is checked on
    "labels": CLASSES,
    "regions": REGIONS,
    "ignore": CLASSES | {"ignore": IGNORE},
    "regions_ignore": REGIONS | {"ignore": IGNORE},
}


@dataclass(frozen=True)
class Method:
    """A trainer, and the settings with which the contract is checked.

    Args:
        trainer: its class.
        settings: of it.
        teacher: the submodule of the training network that is a moving average of `main` with
            a setting `ema_decay`; empty where there is none.
        pseudo_by_nnunets_loss: pseudo-labels with boxes go through nnU-Net's own loss. With an
            ignore label its cross-entropy is a mean over the valid voxels of a process alone, so
            that several processes do not step exactly as one.
    """

    trainer: type
    settings: dict[str, Any] = field(default_factory=dict)
    teacher: str = ""
    pseudo_by_nnunets_loss: bool = False

    @property
    def name(self) -> str:
        return self.trainer.__name__.removeprefix("nnUNetTrainer")


METHODS = [
    Method(methods.nnUNetTrainerSPMC, pseudo_by_nnunets_loss=True),
    Method(methods.nnUNetTrainerSPMC, {"pseudo_loss": "cross-entropy", "teacher": "mean"}),
    Method(methods.nnUNetTrainerSPMC_paper),
    Method(methods.nnUNetTrainerCPS),
    Method(methods.nnUNetTrainerMeanTeacher, teacher="teacher"),
    Method(methods.nnUNetTrainerFilterMatch),
    Method(methods.nnUNetTrainerWeakToStrong, pseudo_by_nnunets_loss=True),
    Method(methods.nnUNetTrainerViewControl),
    Method(methods.nnUNetTrainerViewControl, {"turns": False, "flips": True}),
]


class BankNetwork(MainNetwork):
    """The planned network, a bank, and a head that the unlabeled pass alone trains."""

    bank: Tensor

    def __init__(self, main: nn.Module) -> None:
        super().__init__(main)
        self.register_buffer("bank", torch.full((5,), 0.5))
        self.head = nn.Linear(1, 1)


class nnUNetTrainerMemoryBank(nnUNetTrainerSemiSupervised):  # noqa: N801
    """No method of the literature: what the methods of the package do not need of the base yet.

    A bank of confidences, filled after each step, weighs the unlabeled loss.
    """

    @staticmethod
    def training_network(main: nn.Module, settings: Any) -> nn.Module:
        return BankNetwork(main)

    def unlabeled_loss(self, outputs: Any, unlabeled: Any) -> Any:
        network: Any = unwrapped(self.joint_network)
        teacher = self.branch_probabilities(outputs)["main"].detach()
        self.confidence = teacher.amax(1).mean()
        if self.is_ddp:  # so that all processes have one bank
            dist.all_reduce(self.confidence)
            self.confidence /= dist.get_world_size()
        logits = full_resolution(outputs)
        loss = cps(logits, teacher, regions=self.label_space.regions, valid=unlabeled.valid)
        mean = network.bank.mean().clone()
        return (1 + mean) * loss * network.head(mean[None]).exp().sum(), {"bank": mean}

    def after_step(self, step: Any) -> None:
        if step.unlabeled is not None:
            network: Any = unwrapped(self.joint_network)
            network.bank.copy_(network.bank.roll(1))
            network.bank[0] = self.confidence


EXAMPLES = [*METHODS, Method(nnUNetTrainerMemoryBank)]


def dataset_json(labels: str, planned: dict[str, Any]) -> dict[str, Any]:
    """The dataset.json of the phantom with other labels."""
    return planned | {"labels": LABELS[labels], "regions_class_order": [1, 2]}


def batch_of(trainer: Any, labeled: int = 2, unlabeled: int = 2) -> dict[str, Any]:
    """A batch as the loaders make it; a third of each patch is ignored where there is a label.

    It is the same third, also after boxes are pasted: nnU-Net's own loss is a mean over the voxels
    of a process, whose mean over processes is that over all voxels only where all have as many.
    """
    generator = torch.Generator().manual_seed(0)
    size = trainer.configuration_manager.patch_size
    space = trainer.label_space
    full = torch.randint(0, 3, (labeled, 1, *size), generator=generator)
    images = full.float() + 0.3 * torch.randn(full.shape, generator=generator)
    ignored = (torch.rand(full[:1].shape, generator=generator) < 1 / 3).expand_as(full)
    if space.regions:
        full = torch.cat([full >= 1, full == 2, *([ignored] if space.ignore_label else [])], 1)
    elif space.ignore_label:
        full = full.masked_fill(ignored, space.ignore_label)
    target = [
        nn.functional.interpolate(
            full.float(), [round(n * s) for n, s in zip(size, scale, strict=True)]
        ).short()
        for scale in trainer._get_deep_supervision_scales()
    ]
    other = torch.randint(0, 3, (unlabeled, 1, *size), generator=generator).float()
    strong = other + 0.3 * torch.randn(other.shape, generator=generator)
    drawn = {"data": strong} | ({"weak": other} if trainer.views.weak_to_strong else {})
    return {"data": images, "target": target, "unlabeled": drawn}


def ready(trainer: Any) -> Any:
    """Prepare a trainer for a step of its last epoch, with every view that it may draw."""
    trainer.initialize()
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    trainer.current_epoch = trainer.num_epochs - 1
    trainer.joint_network.train()
    at_full_weight(trainer)
    return trainer


def gradients_of_a_step(trainer: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
    """Do a step; return the gradients before they are clipped."""
    gradients = {}
    step = trainer._optimizer_step

    def noted() -> bool:
        named = unwrapped(trainer.joint_network).named_parameters()
        gradients.update({n: p.grad.clone() for n, p in named if p.grad is not None})
        return step()

    trainer._optimizer_step = noted
    trainer.train_step(batch)
    trainer._optimizer_step = step
    return gradients


def at_full_weight(trainer: Any) -> None:
    """Let the unsupervised terms weigh as much as they ever do."""
    trainer.iteration = trainer.num_epochs * trainer.num_iterations_per_epoch


def without_chance(patch: Any) -> None:
    """Make the feature noise and the noise on images the same for every patch of every process."""

    def pattern(shape: tuple[int, ...]) -> Tensor:
        return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))

    def perturb(self: FeatureNoise, feature: Tensor) -> Tensor:
        noise = self.amplitude * (2 * pattern(tuple(feature[0].shape)) - 1)
        return feature * (1 + noise)

    def image_noise(images: Tensor, scale: float) -> Tensor:
        return (scale * (2 * pattern(tuple(images[0].shape)) - 1)).expand_as(images)

    patch.setattr(FeatureNoise, "_perturb", perturb)
    patch.setattr("nnunetv2_spmc.methods.mean_teacher.image_noise", image_noise)


def joined(views: list[View], others: int) -> View:
    """The view of a joint batch, of which each process has a part of the same size.

    Args:
        views: of the processes; turned alike.
        others: how many patches each process has from which boxes are taken.
    """
    boxes = []
    for parts in zip(*(view.boxes for view in views), strict=True):
        source = torch.cat([part.source + rank * others for rank, part in enumerate(parts)])
        inside = torch.cat([part.inside for part in parts])
        boxes.append(Box(inside, source, parts[0].labeled))
    return View(tuple(boxes), views[0].turn)


def replayed(patch: Any, view: View | None) -> None:
    """Let the view be this one instead of a draw."""
    if view is not None:
        patch.setattr(Views, "draw", lambda *_: view)
        patch.setattr(Views, "draw_labeled", lambda *_: view)
