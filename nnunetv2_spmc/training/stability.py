"""What must stop a training, or be said about it, at the end of an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

SINGLE_CLASS_PREFIX = "single_class_"


class DivergedError(RuntimeError):
    """A loss term became NaN or infinite."""


def check_finite(
    means: Mapping[str, float], keys: Sequence[str], steps: Tensor, epoch: int, folder: Path
) -> None:
    """Stop before an epoch with a NaN or infinite value is written into any checkpoint.

    The values of all steps are read here, once an epoch, because reading them in the step would
    make it wait for the device.

    Args:
        means: the value of each key, averaged over the steps of the epoch and all processes.
        keys: the names of the columns of `steps`; terms before their sum.
        steps: (steps, keys), the values of this process.
        epoch: the current epoch.
        folder: where the checkpoints are.

    Raises:
        DivergedError: a value is not finite; names the first such term and the kept checkpoint.
    """
    broken = [key for key in keys if not math.isfinite(means[key])]
    if not broken:
        return
    local = ~steps[:, [keys.index(key) for key in broken]].isfinite()
    if local.any():
        step = int(local.any(dim=1).nonzero()[0])
        first = [key for key, found in zip(broken, local[step].tolist(), strict=True) if found]
        where = f"at step {step} of epoch {epoch}"
    else:
        first, where = broken, f"in epoch {epoch}, in another process"
    kept = [
        name
        for name in ("checkpoint_latest.pth", "checkpoint_best.pth")
        if (folder / name).is_file()
    ]
    advice = (
        f"Kept from before it in {folder}: {' and '.join(kept)}; go on with --c"
        if kept
        else "There is no checkpoint from before it: start anew"
    )
    terms = [key for key in first if key != "total_loss"] or first
    raise DivergedError(
        f"Training stopped because {', '.join(terms)} became NaN or infinite {where}. {advice}, "
        "with a smaller initial_lr (set nnUNet_spmc_allow_changed=1 to continue with it) or after "
        "looking for NaN or extreme voxels in the images."
    )


def collapse_warnings(means: Mapping[str, float]) -> list[str]:
    """Return a warning per branch that predicted a single class in every step of an epoch."""
    return [
        f"WARNING: the {key.removeprefix(SINGLE_CLASS_PREFIX)} branch predicted a single class in "
        "all unlabeled patches of this epoch. If that goes on, its pseudo-labels teach nothing: "
        "lower lambda_max, or look at the labels and images."
        for key, value in means.items()
        if key.startswith(SINGLE_CLASS_PREFIX) and value > 1 - 1e-6
    ]
