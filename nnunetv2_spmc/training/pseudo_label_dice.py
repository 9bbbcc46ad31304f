"""How good the pseudo-labels are where labels were withheld: for curves, never for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor

from nnunetv2_spmc.common.nnunet_folders import raw_dataset_folder
from nnunetv2_spmc.networks.unwrap import full_resolution, unwrapped
from nnunetv2_spmc.unlabeled.withheld_labels import WithheldPatches, withheld_patches

if TYPE_CHECKING:
    from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised


@dataclass(frozen=True)
class PseudoLabelDice:
    """Measures, once an epoch, the Dice of what each branch would teach on withheld labels."""

    trainer: nnUNetTrainerSemiSupervised
    patches: WithheldPatches

    @classmethod
    def of(cls, trainer: nnUNetTrainerSemiSupervised) -> PseudoLabelDice | None:
        """Look for labels in labelsUn; None where there are none, or in another process."""
        raw = raw_dataset_folder(trainer.plans_manager.dataset_name)
        if trainer.local_rank != 0 or raw is None:
            return None
        try:
            patches = withheld_patches(
                raw,
                trainer.stream.cases,
                trainer.settings.pseudo_label_cases,
                trainer.plans_manager,
                trainer.configuration_manager,
                trainer.dataset_json,
                trainer.print_to_log_file,
            )
        except Exception as error:  # readers raise all kinds, and training needs no such label
            trainer.print_to_log_file(
                f"No pseudo-label Dice, because of a file in labelsUn: {error}"
            )
            return None
        if patches is None:
            return None
        trainer.print_to_log_file(
            "Pseudo-label Dice is logged on a patch each of these unlabeled cases, whose labels in "
            "labelsUn are not trained on: " + ", ".join(patches.identifiers)
        )
        return cls(trainer, patches)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Return "pseudo_label_dice_BRANCH" -> Dice; leaves the network in evaluation mode."""
        trainer = self.trainer
        network = unwrapped(trainer.joint_network).eval()
        logits: dict[str, list[Tensor]] = {}
        for image in self.patches.images:  # one by one, so that any number fits
            with trainer.autocast():
                outputs = trainer.of_branches(network(image[None].to(trainer.device)))
            for branch, output in outputs.items():
                logits.setdefault(branch, []).append(full_resolution(output).float().cpu())
        joined = {branch: torch.cat(patches) for branch, patches in logits.items()}
        return pseudo_label_dice(joined, self.patches.labels, trainer.label_manager)


def pseudo_label_dice(
    logits: Mapping[str, Tensor], labels: Tensor, label_manager: LabelManager
) -> dict[str, float]:
    """Compute the Dice of the segmentation that each branch would teach.

    Args:
        logits: branch -> (B, C, ...).
        labels: (B, ...) withheld labels, int64.
        label_manager: the label manager of the plans; voxels under its ignore label do not count.

    Returns:
        "pseudo_label_dice_BRANCH" -> mean over the classes (or regions) that occur in the labels,
        each over all voxels of the batch; NaN where none occurs.
    """
    valid = torch.ones_like(labels, dtype=torch.bool)
    if label_manager.has_ignore_label:
        valid = labels != label_manager.ignore_label
    classes = (
        label_manager.foreground_regions
        if label_manager.has_regions
        else label_manager.foreground_labels
    )
    dice = {}
    for branch, output in logits.items():
        segmentation = torch.stack(
            [label_manager.convert_logits_to_segmentation(patch.float()) for patch in output]
        )
        scores = []
        for members in classes:
            wanted = torch.as_tensor(members, device=labels.device).flatten()
            reference = torch.isin(labels, wanted) & valid
            predicted = torch.isin(segmentation.long(), wanted) & valid
            if reference.any():
                overlap = (reference & predicted).sum()
                scores.append(2 * overlap / (reference.sum() + predicted.sum()))
        mean = torch.stack(scores).mean().item() if scores else float("nan")
        dice[f"pseudo_label_dice_{branch}"] = mean
    return dice
