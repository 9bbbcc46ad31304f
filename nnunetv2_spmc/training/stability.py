"""Which steps of an epoch count, what must stop a training, and what is said about it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.optim import Optimizer

from nnunetv2_spmc.common.errors import SPMCError
from nnunetv2_spmc.training.checkpoint import BEST, LATEST

SINGLE_CLASS_PREFIX = "single_class_"
TAKEN = "taken"  # among what a step returns: whether the optimizer stepped
FEWEST_STEPS = 10  # before skipped ones are too many


class DivergedError(SPMCError, RuntimeError):
    """A loss term or the weights became NaN or infinite, or nearly no step could be taken."""


@contextmanager
def steps_noted(optimizer: Optimizer) -> Iterator[list[bool]]:
    """Note every step that the optimizer takes; a gradient scaler skips it where fp16 overflowed.

    The scaler knows by then, so nothing waits for the device. A fused optimizer is called in any
    case and asks on the device itself; only then does this wait.

    Yields:
        One True per step that was taken: false as a whole if there was none.
    """
    noted: list[bool] = []

    def note(stepped: Optimizer, *_: Any) -> None:
        overflowed = getattr(stepped, "found_inf", None)  # where the scaler tells a fused optimizer
        if overflowed is None or not overflowed.item():
            noted.append(True)

    handle = optimizer.register_step_post_hook(note)
    try:
        yield noted
    finally:
        handle.remove()


@dataclass(frozen=True)
class EpochValues:
    """What the steps of an epoch returned.

    Args:
        steps: (steps, keys), of this process; 0 in skipped steps.
        means: per key, over the steps that were taken by all processes; NaN if none was.
        taken: steps that were taken, per process.
        weights_are_finite: in all processes.
    """

    steps: Tensor
    means: dict[str, float]
    taken: float
    weights_are_finite: bool

    @property
    def skipped(self) -> float:
        """Steps that were skipped, per process."""
        return len(self.steps) - self.taken


def average(
    outputs: Sequence[Mapping[str, Any]], optimizer: Optimizer, device: torch.device
) -> EpochValues:
    """Average what the steps of an epoch returned, over those that were taken.

    The values are read here, once an epoch, because reading them in the step would make it wait
    for the device. All processes get the same, so that what depends on it is decided alike.

    Args:
        outputs: what each step returned: scalars, averaged over the steps that have them, and
            `TAKEN`; a step that does not say it was taken.
        optimizer: holds the weights.
        device: where processes exchange values.
    """
    keys = [key for key in dict.fromkeys(key for o in outputs for key in o) if key != TAKEN]
    taken = torch.tensor([output.get(TAKEN, True) for output in outputs], device=device)
    rows = [
        torch.stack([torch.as_tensor(o.get(key, 0.0)).float().to(device) for key in keys])
        for o in outputs
    ]
    steps = torch.where(taken[:, None], torch.stack(rows), 0.0)
    has = torch.tensor([[key in output for key in keys] for output in outputs], device=device)
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    finite = torch.stack([weight.detach().isfinite().all() for weight in weights]).all()
    flags = torch.stack([taken.sum(), ~finite.to(device)]).float()
    sums = torch.cat([steps.sum(dim=0), (has & taken[:, None]).sum(dim=0), flags])
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(sums)
        sums /= dist.get_world_size()
    *sums_of_keys, number, broken = sums.tolist()
    totals, counts = sums_of_keys[: len(keys)], sums_of_keys[len(keys) :]
    kept = [i for i, count in enumerate(counts) if count or not number]
    keys, steps = [keys[i] for i in kept], steps[:, kept]
    means = [totals[i] / counts[i] if counts[i] else math.nan for i in kept]
    return EpochValues(steps, dict(zip(keys, means, strict=True)), number, broken == 0)


class DivergenceCheck:
    """Stop a training that cannot go on, before an epoch is written into any checkpoint.

    A skipped step is normal: the gradient scaler finds its scale so. But more than half of the
    last steps, counted over whole epochs and at least ten steps, are no search any more.

    Args:
        folder: where the checkpoints are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._recent: list[tuple[float, int]] = []  # (skipped, all) steps of the last epochs

    def __call__(self, values: EpochValues, epoch: int) -> None:
        """Check an epoch.

        Raises:
            DivergedError: a step that was taken was not finite, or too many were skipped.
        """
        self._recent.append((values.skipped, len(values.steps)))
        while sum(number for _, number in self._recent[1:]) >= FEWEST_STEPS:
            del self._recent[0]
        broken = [key for key, mean in values.means.items() if not math.isfinite(mean)]
        if values.taken and broken:
            self._stop(_first_broken(values, broken, epoch), _LOWER_RATE)
        if not values.weights_are_finite:
            self._stop(f"the weights became NaN or infinite in epoch {epoch}", _LOWER_RATE)
        skipped, number = map(sum, zip(*self._recent, strict=True))
        if number >= FEWEST_STEPS and skipped > number / 2:
            what = f"{skipped:g} of the last {number} steps were skipped, up to epoch {epoch}"
            self._stop(f"{what}: their gradients were NaN or infinite at any scale", _LOOK_AT_DATA)

    def _stop(self, what: str, advice: str) -> None:
        kept = [name for name in (LATEST, BEST) if (self.folder / name).is_file()]
        way = (
            f"Kept from before it in {self.folder}: {' and '.join(kept)}; go on with --c"
            if kept
            else "There is no checkpoint from before it: start again"
        )
        raise DivergedError(f"Training stopped because {what}. {way}, {advice}")


_LOWER_RATE = (
    "with a smaller initial_lr (set nnUNet_spmc_allow_changed=1 to continue with it) or after "
    "looking for NaN or extreme voxels in the images."
)
_LOOK_AT_DATA = (
    "after looking for NaN or extreme voxels in the images, which no gradient scale makes up for; "
    "if there are none, with a smaller initial_lr (set nnUNet_spmc_allow_changed=1 to continue "
    "with it)."
)


def _first_broken(values: EpochValues, broken: Sequence[str], epoch: int) -> str:
    """Say which terms became NaN or infinite first; terms rather than their sum."""
    keys = list(values.means)
    local = ~values.steps[:, [keys.index(key) for key in broken]].isfinite()
    if local.any():
        step = int(local.any(dim=1).nonzero()[0])
        first = [key for key, found in zip(broken, local[step].tolist(), strict=True) if found]
        where = f"at step {step} of epoch {epoch}"
    else:
        first, where = list(broken), f"in epoch {epoch}, in another process"
    terms = [key for key in first if key != "total_loss"] or first
    return f"{', '.join(terms)} became NaN or infinite {where}"


def skipped_line(values: EpochValues, scale: float) -> str:
    """Say how many steps of an epoch were skipped, and the gradient scale that is left."""
    return (
        f"{values.skipped:g} of {len(values.steps)} steps were skipped because gradients "
        f"overflowed in fp16; the gradient scale is now {scale:g}."
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
