"""The warm-up of the unsupervised terms."""

from __future__ import annotations

import math

from nnunetv2_spmc.training.settings import TrainingSettings


def gaussian_ramp_up(iteration: int, total_iterations: int, maximum: float) -> float:
    """Compute lambda(t) = maximum * exp(-5 (1 - t / t_max)^2), in Eq. (3)-(5).

    Args:
        iteration: t, optimizer steps done since the ramp-up began; negative before that.
        total_iterations: t_max, iterations of the ramp-up; 0 for none.
        maximum: lambda_max, reached at t >= t_max.

    Returns:
        The weight of the unsupervised terms; exp(-5) * maximum at t = 0, and 0 before.
    """
    if iteration < 0:
        return 0.0
    progress = min(iteration / total_iterations, 1.0) if total_iterations else 1.0
    return maximum * math.exp(-5.0 * (1.0 - progress) ** 2)


def ramp_up_weight(
    iteration: int, num_epochs: int, steps: int, settings: TrainingSettings
) -> float:
    """Return lambda for an iteration of a training with these epochs and steps per epoch."""
    start, end = ramp_up_epochs(num_epochs, settings.ramp_start, settings.ramp_end)
    return gaussian_ramp_up(iteration - start * steps, (end - start) * steps, settings.lambda_max)


def ramp_up_epochs(num_epochs: int, start: float, end: float) -> tuple[int, int]:
    """Return the epochs in which the ramp-up starts and ends; it starts in the last at the latest.

    Args:
        num_epochs: epochs of the training.
        start: share of the epochs before the ramp-up.
        end: share of the epochs after which the weight is at its maximum.
    """
    first = min(round(start * num_epochs), num_epochs - 1)
    return first, max(round(end * num_epochs), first)
