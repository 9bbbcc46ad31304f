"""How large a scan becomes in the spacing of the plans, before memory is asked for that."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunetv2_spmc.common.errors import DataError

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

GIBIBYTE = 2**30
# Per voxel: nnU-Net keeps each channel as float32, and resamples one at a time, and the mask, as
# float64.
BYTES_OF_CHANNEL, BYTES_BESIDE = 4, 16
LIMITS_OF_CONTAINERS = (  # Linux' control groups, of version 2 and 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def check_resampled_size(
    data: np.ndarray,
    properties: dict[str, Any],
    plans_manager: PlansManager,
    configuration_manager: ConfigurationManager,
) -> str:
    """Raise DataError if an image of shape (C, X, Y, Z) outgrows the memory when it is resampled.

    Returns:
        The resampling in words, for the case that less memory was free than there is.
    """
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

    axes = plans_manager.transpose_forward
    spacing = [float(properties["spacing"][axis]) for axis in axes]
    target = [float(number) for number in configuration_manager.spacing]
    target = [*spacing[: len(spacing) - len(target)], *target]  # 2d leaves the slices as they are
    available: float = memory_bytes() or math.inf

    def resampled(size: Sequence[int]) -> tuple[list[int], int]:
        shape = compute_new_shape([size[axis] for axis in axes], spacing, target).tolist()
        return shape, math.prod(shape) * (BYTES_OF_CHANNEL * len(data) + BYTES_BESIDE)

    shape, needed = resampled(data.shape[1:])
    if needed > available:
        shape, needed = resampled(_nonzero_box(data))  # to which nnU-Net crops
    words = (
        f"its spacing of {_numbers(spacing)} mm makes {_numbers(shape)} voxels of it at the plans' "
        f"{_numbers(target)} mm"
    )
    if needed > available:
        raise DataError(
            f"{words}, which need {needed / GIBIBYTE:.0f} GB of memory where there are "
            f"{available / GIBIBYTE:.0f} GB; correct the spacing in the header if it is wrong, or "
            "leave the case out"
        )
    return words


def memory_bytes() -> int | None:
    """Return the memory of this computer, or of the container; None where nothing tells."""
    try:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    for file in LIMITS_OF_CONTAINERS:
        text = file.read_text().strip() if file.is_file() else ""
        found += [int(text)] if text.isdecimal() else []
    return min(found)


def _nonzero_box(data: np.ndarray) -> list[int]:
    """Return the size of the box around all voxels that are not 0 in some channel."""
    sizes = []
    for axis in range(1, data.ndim):
        others = tuple(other for other in range(data.ndim) if other != axis)
        used = np.flatnonzero(np.any(data, axis=others))
        sizes.append(int(used[-1] - used[0] + 1) if used.size else data.shape[axis])
    return sizes


def _numbers(values: Any) -> str:
    return " x ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
