"""Which geometry of a scan is believed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nnunetv2_spmc.common.errors import DataError

# From one nanometre, of electron microscopes, to below a metre: nnU-Net's own 999 for the missing
# axis of a picture is the largest in use.
MIN_SPACING_MM, MAX_SPACING_MM = 1e-6, 1000
SHEAR_TOLERANCE = 5e-3  # cosine of the angle between two axes; header noise is far below


def check_spacing(file: Path | str, spacing_mm: Sequence[float]) -> None:
    """Raise DataError unless voxels have a size that can be."""
    if not all(MIN_SPACING_MM <= size < MAX_SPACING_MM for size in spacing_mm):  # NaN is not
        raise DataError(
            f"{file} has a spacing of {' x '.join(f'{size:g}' for size in spacing_mm)} mm, "
            f"expected {MIN_SPACING_MM:g} to {MAX_SPACING_MM} mm; correct its header"
        )


def check_placement(file: Path, direction: Sequence[float], origin: Sequence[float]) -> None:
    """Raise DataError unless the axes are finite, and in 3D at right angles and of length 1.

    Those of a plane may be what two of three axes leave.

    Args:
        file: for the message.
        direction: direction cosines, row by row.
        origin: position of the first voxel.
    """
    num_axes = len(origin)
    axes = np.reshape(direction, (num_axes, num_axes))
    if not (np.isfinite(axes).all() and np.isfinite(origin).all()):
        raise DataError(f"{file} has an origin or a direction that is NaN; correct its header")
    if num_axes > 2 and np.abs(axes.T @ axes - np.eye(num_axes)).max() > SHEAR_TOLERANCE:
        raise DataError(
            f"{file} has axes that are not at right angles or not of length 1, its direction is "
            f"{tuple(np.round(axes.ravel(), 4).tolist())}; resample it, or correct its header"
        )
