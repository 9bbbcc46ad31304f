"""Smooth noise, from which synthetic scans have their shapes, textures and bias fields."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], width: float = 1 / 8
) -> np.ndarray:
    """Return Gaussian noise of mean 0 and standard deviation 1, smooth over a share of each side.

    Args:
        rng: Source of all randomness.
        shape: Of the noise.
        width: Standard deviation of the filter, as a share of each side.
    """
    noise = gaussian_filter(rng.normal(size=shape), [width * side for side in shape], mode="wrap")
    return np.asarray((noise - noise.mean()) / noise.std())
