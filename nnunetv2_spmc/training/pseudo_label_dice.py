"""How good the pseudo-labels are where labels were withheld: for curves, never for training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor


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
