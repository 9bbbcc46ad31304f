"""The forward passes of a step: what the student sees, and the loss of both kinds of patches.

One step, `nnUNetTrainerSemiSupervised.train_step`:

1. The patches go to the device; before the ramp-up without the unlabeled ones.
2. Unlabeled pass: `pseudo_labels` from the teacher's patches, without gradient; the view moves
   images, pseudo-labels and valid voxels; forward; `unlabeled_loss` times lambda(t); backward.
3. Labeled pass: forward; `labeled_loss`, and `unlabeled_loss` of the voxels under the ignore label;
   backward. (A method's `passes` may say otherwise.) Before these, with `viewed_pass`: the labeled
   patches as the views show them.
4. Gradients are clipped, the optimizer steps, and `after_step` follows if fp16 did not skip it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from nnunetv2_spmc.networks.unwrap import full_resolution
from nnunetv2_spmc.training.step import (
    Labeled,
    Loss,
    Outputs,
    Pass,
    Step,
    Unlabeled,
    branch_values,
    labeled_through,
    on_device,
    seen_through,
)
from nnunetv2_spmc.training.voxel_shares import unlabeled_voxel_shares, weight_of_process

if TYPE_CHECKING:
    from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised as Trainer


def step_of(trainer: Trainer, batch: Mapping[str, Any]) -> Step:
    """Bring a batch to the device; without unlabeled patches before the ramp-up."""
    weight = trainer.ramp_up_weight()
    labeled = on_device([batch["data"], batch["target"]], trainer.device)
    images, target = trainer.labeled_view(*labeled)
    ignored = None
    if trainer.learns_from_ignored and weight > 0:
        ignored = trainer.label_space.ignored(full_resolution(target))
    unlabeled = None
    if weight > 0 and "unlabeled" in batch:
        drawn = on_device(batch["unlabeled"], trainer.device)
        unlabeled = Unlabeled(drawn["data"], weak=drawn.get("weak"), valid=drawn.get("valid"))
    return Step(Labeled(images, target, ignored), unlabeled, weight, trainer.iteration)


def viewed_passes(trainer: Trainer, step: Step) -> list[Pass]:
    """Return what comes before the passes of a method: a viewed one where the settings ask for it.

    It has labeled patches only.
    """
    when = trainer.settings.viewed_pass
    if when == "always" or (when == "between" and step.unlabeled is None):
        return [partial(viewed_pass, trainer, step)]
    return []


def both_passes(trainer: Trainer, step: Step) -> Sequence[Pass]:
    """Return the pass over unlabeled patches, if there are any, and that over labeled ones."""
    share, ignored_share = unlabeled_voxel_shares(
        step.unlabeled, step.labeled.ignored, is_ddp=trainer.is_ddp
    )
    labeled = partial(labeled_pass, trainer, step, ignored_share)
    if step.unlabeled is None:
        return [labeled]
    return [partial(unlabeled_pass, trainer, step, share), labeled]


def unlabeled_pass(trainer: Trainer, step: Step, share: Tensor | float = 1.0) -> Loss:
    """Pass unlabeled patches through the network; `share` is their part of unlabeled voxels."""
    unlabeled, before = student_view(trainer, step)
    outputs = trainer.joint_network(unlabeled.images)
    loss, values = trainer.unlabeled_loss(outputs, unlabeled)
    values |= before or _values_of_branches(trainer, unlabeled, outputs)
    share = share * weight_of_process(unlabeled, is_ddp=trainer.is_ddp)
    return step.weight * share * loss, {key: share * value for key, value in values.items()}


def labeled_pass(trainer: Trainer, step: Step, ignored_share: Tensor | float = 0.0) -> Loss:
    """Pass labeled patches through the network; what is ignored in them counts as unlabeled."""
    labeled = step.labeled
    outputs = trainer.joint_network(labeled.images)
    loss, values = trainer.labeled_loss(outputs, labeled)
    if labeled.ignored is not None:
        unlabeled = Unlabeled(labeled.images, valid=labeled.ignored)
        own_loss, own = trainer.unlabeled_loss(outputs, unlabeled)
        own |= _values_of_branches(trainer, unlabeled, outputs)
        share = ignored_share * weight_of_process(unlabeled, is_ddp=trainer.is_ddp)
        loss = loss + step.weight * share * own_loss
        values |= {key: share * value for key, value in own.items()}
    return loss, values


def viewed_pass(trainer: Trainer, step: Step) -> Loss:
    """Pass labeled patches through the network as the views show them, at weight 1."""
    view = trainer.views.draw_labeled(step.labeled.images)
    images, target = labeled_through(view, step.labeled.images, step.labeled.target)
    loss, values = trainer.labeled_loss(trainer.joint_network(images), Labeled(images, target))
    return loss, {"viewed_main": values["supervised_main"]}


def student_view(trainer: Trainer, step: Step) -> tuple[Unlabeled, dict[str, Tensor]]:
    """Make pseudo-labels, then show the patches and these through the view of the student.

    Returns:
        The patches as the student sees them, and values to log of what the teachers predict.
    """
    assert step.unlabeled is not None
    unlabeled = step.unlabeled._replace(pseudo=_pseudo_labels(trainer, step.unlabeled))
    values = _values_of_branches(trainer, unlabeled)
    if trainer.views.change_patches:
        view = trainer.views.draw(unlabeled.images, len(step.labeled.images))
        unlabeled = seen_through(
            view, unlabeled, step.labeled, trainer.label_space, trainer.labels_as_pseudo_labels
        )
    return unlabeled, values


@torch.no_grad()
def _pseudo_labels(trainer: Trainer, unlabeled: Unlabeled) -> dict[str, Tensor]:
    # in evaluation mode there is no feature noise, and no running statistics move
    trainer.joint_network.eval()
    pseudo = trainer.pseudo_labels(unlabeled)
    trainer.joint_network.train()
    # weights that autocast has cast here have no gradient: older PyTorch would take them for the
    # pass that follows, too
    torch.clear_autocast_cache()
    return pseudo


@torch.no_grad()
def _values_of_branches(
    trainer: Trainer, unlabeled: Unlabeled, outputs: Outputs = None
) -> dict[str, Tensor]:
    """Return agreement and collapse of what the branches teach, or of their outputs."""
    pseudo = unlabeled.pseudo
    probabilities = {branch: pseudo[branch] for branch in trainer.branches if branch in pseudo}
    if outputs is not None:
        probabilities = trainer.branch_probabilities(outputs)
    predicted = {b: trainer.label_space.predicted(p) for b, p in probabilities.items()}
    return branch_values(predicted, unlabeled.valid) if predicted else {}
