"""How much the unlabeled voxels of unlabeled and of labeled patches weigh, in each process."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist

from nnunetv2_spmc.training.step import Unlabeled


def unlabeled_voxel_shares(
    unlabeled: Unlabeled | None, ignored: Tensor | None, *, is_ddp: bool
) -> tuple[Tensor | float, Tensor | float]:
    """Weigh the means over both kinds of patches so that all unlabeled voxels count alike.

    Args:
        unlabeled: the unlabeled patches, if there are any.
        ignored: bool, (B, 1, ...): the unlabeled voxels of labeled patches, if they are used.
        is_ddp: whether there are several processes.

    Returns:
        The weights of the two means; they sum to 1. They count the patches as drawn, before
        anything is pasted into them.
    """
    if ignored is None:
        return 1.0, 0.0
    counts = torch.zeros(2, device=ignored.device)
    if unlabeled is not None:
        counts[0] = _number(unlabeled)
    counts[1] = ignored.sum()
    if is_ddp:
        dist.all_reduce(counts)
    share, ignored_share = counts / counts.sum().clamp(min=1)
    return share, ignored_share


def weight_of_process(unlabeled: Unlabeled, *, is_ddp: bool) -> Tensor | float:
    """Weigh a mean over the valid voxels of this process.

    The mean over the processes, which DistributedDataParallel takes, is then the mean over the
    valid voxels of all of them.
    """
    if not is_ddp:
        return 1.0
    number = torch.zeros((), device=unlabeled.images.device) + _number(unlabeled)
    everywhere = number.clone()
    dist.all_reduce(everywhere)
    return dist.get_world_size() * number / everywhere.clamp(min=1)


def _number(unlabeled: Unlabeled) -> Tensor | int:
    valid = unlabeled.valid
    return unlabeled.images[:, 0].numel() if valid is None else valid.sum()
