"""What nnU-Net's readers return of a case: whether it can be used, and why there is nothing."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_spmc.common.errors import DataError, reason_of
from nnunetv2_spmc.raw.reader import VOLUME_ENDINGS


def check_image(data: np.ndarray, num_channels: int, files: Sequence[str | Path]) -> None:
    """Raise DataError unless an image of shape (C, X, Y, Z) can be trained on."""
    if len(data) != num_channels:
        raise DataError(f"{files[0]} comes with {len(data)} channels, expected {num_channels}")
    check_voxels(data)
    if not data.any():
        raise DataError("all voxels are zero")


def check_voxels(data: np.ndarray) -> None:
    """Raise DataError if an image of shape (C, X, Y, Z) is empty, or has NaN or infinite voxels."""
    if not data.size:
        raise DataError(f"the image has no voxels, its shape is {data.shape[1:]}")
    for channel, values in enumerate(data):
        if not is_finite(values):
            raise DataError(
                f"channel {channel:04d} has {int((~np.isfinite(values)).sum())} NaN or infinite "
                "voxels; replace them by a sensible value"
            )


def is_finite(values: np.ndarray) -> bool:
    """Whether no voxel is NaN or infinite."""
    # Minimum and maximum carry NaN and infinity without a mask as large as the image.
    return bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def check_same_place(files: Sequence[str | Path]) -> None:
    """Raise DataError if the channels of a case lie elsewhere by their headers.

    nnU-Net's readers compare shape and spacing, and stack the voxels.
    """
    from nnunetv2_spmc.raw.checks import geometry_difference
    from nnunetv2_spmc.raw.scan import read_header

    if len(files) < 2 or not str(files[0]).lower().endswith(VOLUME_ENDINGS):
        return
    try:
        first, *others = [read_header(Path(file)) for file in files]
    except DataError:  # the reader of the plans may read it nevertheless, or says why not
        return
    for file, header in zip(files[1:], others, strict=True):
        if geometry_difference(header, first, on_grid=True):
            continue  # the reader will say so
        if difference := geometry_difference(header, first):
            raise DataError(
                f"{file} has {difference} in {Path(files[0]).name}, so its voxels would lie in the "
                "wrong place; resample the channels onto one grid"
            )


def reading_problem(files: Sequence[str | Path], reader: Any) -> str | None:
    """Say in one line why the files of a case cannot be read together, None if they can.

    Args:
        files: The channels of the case.
        reader: One of nnU-Net's readers.
    """
    grids = {}
    for file in files:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # readers also print when they raise
                data, properties = reader.read_images([str(file)])
        except Exception as error:  # readers raise all kinds
            return f"{file} cannot be read ({reason_of(error)})"
        spacing = tuple(round(float(s), 4) for s in properties["spacing"])
        if len(data) != 1 and len(files) > 1:
            return f"{file} holds {len(data)} images, expected one per channel"
        grids[Path(file).name] = f"shape {data.shape[1:]}, spacing {spacing}"
    if len(set(grids.values())) > 1:
        described = "; ".join(f"{name} has {grid}" for name, grid in grids.items())
        return f"the channels of {files[0]} do not share a grid: {described}"
    return None
