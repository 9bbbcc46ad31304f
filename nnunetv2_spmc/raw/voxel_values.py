"""What the values of a scan's voxels must be: finite in single precision, and not all the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from nnunetv2_spmc.common.errors import DataError

Kind = Literal["image", "label"]
LARGEST = float(np.finfo(np.float32).max)  # nnU-Net calculates in single precision


@dataclass
class ValueRange:
    """The smallest and the largest value of voxels that come block by block.

    Attributes:
        low: smallest finite value.
        high: largest finite value.
        bad: number of values that are NaN or infinite, in single precision.
    """

    low: float = np.inf
    high: float = -np.inf
    bad: int = 0

    def add(self, values: np.ndarray) -> None:
        """Take in the next block."""
        if not values.size:
            return
        low, high = values.min(), values.max()
        if values.dtype.kind == "f" and not (low >= -LARGEST and high <= LARGEST):
            finite = values[np.abs(values) <= LARGEST]  # NaN is not
            self.bad += values.size - finite.size
            if not finite.size:
                return
            low, high = finite.min(), finite.max()
        self.low, self.high = min(self.low, low.item()), max(self.high, high.item())

    def check(self, name: str, kind: Kind, slope: float = 1, inter: float = 0) -> None:
        """Raise DataError unless the voxels, multiplied and shifted, can be trained on.

        Args:
            name: the file, for the message.
            kind: a label may have one value only, an image may not.
            slope: the header's factor.
            inter: what the header adds to the product.
        """
        if self.bad:
            raise DataError(
                f"{name} has {self.bad} NaN or infinite voxels; replace them by a sensible value"
            )
        ends = [float(value) * slope + inter for value in (self.low, self.high)]
        if max(map(abs, ends)) > LARGEST:
            raise DataError(
                f"{name} has voxels that become infinite by its header's factor of {slope:g}; "
                "correct the factor, or get it again"
            )
        if kind == "label" or np.float32(ends[0]) != np.float32(ends[1]):
            return
        if self.low == self.high:
            raise DataError(
                f"{name} is constant, all its voxels are {ends[0]:g}; get it again, or remove it"
            )
        raise DataError(
            f"{name} has voxels from {ends[0]!r} to {ends[1]!r}, which nnU-Net's single precision "
            "cannot tell apart; shift or scale them"
        )


def check_values(array: np.ndarray, name: str, kind: Kind) -> None:
    """Raise DataError if a voxel is NaN or infinite, or if an image has one value only."""
    values = ValueRange()
    values.add(array)
    values.check(name, kind)
