"""Random numbers that a resumed run repeats."""

from __future__ import annotations

import random

import numpy as np
import torch


class Seeds:
    """Seeds for the streams of random numbers of a training.

    Args:
        seed: of the settings; None draws fresh ones.
    """

    def __init__(self, seed: int | None) -> None:
        self.seed = seed

    def sequence(self, *stream: int) -> np.random.SeedSequence:
        """Return seeds of their own for a stream, which numbers name."""
        return np.random.SeedSequence(None if self.seed is None else [self.seed, *stream])

    def everything(self, *stream: int) -> None:
        """Seed Python, NumPy and PyTorch for a stream, if there is a seed."""
        if self.seed is not None:
            (seed,) = self.sequence(*stream).generate_state(1)
            random.seed(int(seed))
            np.random.seed(seed)
            torch.manual_seed(int(seed))
