"""How much the unlabeled voxels of unlabeled and of labeled patches weigh."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def unlabeled_voxel_shares(
    unlabeled: Tensor | None, where: Tensor | None, ignored: Tensor | None, *, is_ddp: bool
) -> tuple[Tensor | float, Tensor | float]:
    """Weigh the means over both kinds of patches so that all unlabeled voxels count alike.

    With several processes the weights make the mean over the processes, which
    DistributedDataParallel takes, the mean over the voxels of all of them.

    Args:
        unlabeled: (B, channels, ...) unlabeled patches, if there are any.
        where: bool, (B, 1, ...): their unlabeled voxels; None takes all.
        ignored: bool, (B, 1, ...): the unlabeled voxels of labeled patches, if they are used.
        is_ddp: whether there are several processes.

    Returns:
        The weights of the two means; they sum to 1 in a single process. They count the patches as
        drawn, before a method pastes anything into them.
    """
    given = [tensor for tensor in (unlabeled, ignored) if tensor is not None]
    if not given or (ignored is None and not is_ddp):
        return 1.0, 0.0
    counts = torch.zeros(2, device=given[0].device)
    if unlabeled is not None:
        counts[0] = unlabeled[:, 0].numel() if where is None else where.sum()
    if ignored is not None:
        counts[1] = ignored.sum()
    everywhere = counts.sum()
    processes = 1
    if is_ddp:
        dist.all_reduce(everywhere)
        processes = dist.get_world_size()
    share, ignored_share = processes * counts / everywhere.clamp(min=1)
    return share, ignored_share
