"""What several processes of one training share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


def entries_of_all_processes(selected: Tensor, valid: Tensor) -> Tensor:
    """Share the selected entries of all processes out by the number of valid ones.

    The caller weighs a process by its valid voxels: the mean over processes so weighed is that over
    the selected voxels of all of them, where a mean of means would count a process with three
    selected voxels like one with thousands.

    Args:
        selected: the number of selected entries of this process.
        valid: the number of those that count at all.

    Returns:
        What the sum over the selected entries of this process is divided by.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return selected
    everywhere = torch.stack([selected, valid]).float()
    dist.all_reduce(everywhere)
    return valid * (everywhere[0] / everywhere[1].clamp(min=1))
