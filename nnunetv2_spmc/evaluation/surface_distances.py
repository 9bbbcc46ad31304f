"""HD95 and ASD of two masks, equal to MedPy's `hd95` and `asd` with their default connectivity.

The surface of a mask are its voxels with a face neighbour outside of it; beyond the border of the
image lies background. HD95 is the 95th percentile of the distances from both surfaces to the other
one, taken together. ASD is MedPy's `asd(result, reference)`, called with the prediction first as
the semi-supervised literature does: the mean distance from the surface of the prediction to that
of the reference, and not the other way. It is directed: a prediction that covers a part of the
object exactly has an ASD of 0.

MedPy makes three distance maps of the whole image for these two numbers, and again for each unit.
Here each surface voxel looks for the nearest one of the other surface in a k-d tree, once for both
units where the spacing is isotropic. Surfaces that lie far apart would make that slow; they get a
distance map, inside the box around both masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import KDTree

NEAR = 5  # in voxels along the longest edge; finding what is nearer is always fast
# A voxel of a distance map takes as long as a look at that many voxels in a search.
LOOKS_PER_VOXEL = 30


class SurfaceMetrics(NamedTuple):
    """Distances between two surfaces in both units; all NaN where one mask is empty."""

    hd95_mm: float
    asd_mm: float
    hd95_voxel: float
    asd_voxel: float


UNDEFINED = SurfaceMetrics(np.nan, np.nan, np.nan, np.nan)


def surface_metrics(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> SurfaceMetrics:
    """Return HD95 and ASD of two masks.

    Args:
        prediction: Boolean mask of any number of dimensions.
        reference: Boolean mask of the same shape.
        spacing_mm: One voxel size per axis.
    """
    if not (prediction.any() and reference.any()):
        return UNDEFINED
    box = bounding_box(prediction | reference)
    surfaces = surface(prediction[box]), surface(reference[box])
    unit = (1.0,) * prediction.ndim
    steps = _steps_between(*surfaces, spacing_mm)
    in_mm = _hd95_and_asd(steps, spacing_mm)
    if len(set(spacing_mm)) > 1:  # the nearest voxel is another one in the other unit
        steps = _steps_between(*surfaces, unit)
    return SurfaceMetrics(*in_mm, *_hd95_and_asd(steps, unit))


def bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box that holds all voxels of a mask; it must have one."""
    axes = range(mask.ndim)
    occupied = (mask.any(axis=tuple(other for other in axes if other != axis)) for axis in axes)
    indices = (np.flatnonzero(along_axis) for along_axis in occupied)
    return tuple(slice(int(i[0]), int(i[-1]) + 1) for i in indices)


def surface(mask: np.ndarray) -> np.ndarray:
    """Return the voxels of a mask that have a face neighbour outside of it or of the image."""
    interior = mask.copy()
    for axis in range(mask.ndim):
        inside, neighbours = np.moveaxis(interior, axis, 0), np.moveaxis(mask, axis, 0)
        inside[1:] &= neighbours[:-1]
        inside[:-1] &= neighbours[1:]
        inside[0] = inside[-1] = False
    return mask & ~interior


def _steps_between(
    prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    return _steps(prediction, reference, spacing), _steps(reference, prediction, spacing)


def _steps(start: np.ndarray, goal: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return from each voxel of one mask the way to the nearest of another, (axes, N) in voxels."""
    size = np.asarray(spacing, dtype=np.float64)
    starts, goals = np.argwhere(start), np.argwhere(goal)
    tree = KDTree(goals * size)
    _, found = tree.query(starts * size, distance_upper_bound=NEAR * size.max())
    is_far = found == len(goals)
    found[is_far] = 0
    nearest = goals[found]
    far = starts[is_far]
    # at worst the search for a far one looks at all goals
    if len(far) * len(goals) > LOOKS_PER_VOXEL * goal.size:
        indices = distance_transform_edt(
            ~goal, sampling=spacing, return_distances=False, return_indices=True
        )
        position = tuple(far.T)
        nearest[is_far] = np.stack([of_axis[position] for of_axis in indices], axis=1)
    elif len(far):
        nearest[is_far] = goals[tree.query(far * size)[1]]
    return (nearest - starts).T


def _hd95_and_asd(
    steps: tuple[np.ndarray, np.ndarray], spacing: Sequence[float]
) -> tuple[float, float]:
    size = np.asarray(spacing, dtype=np.float64)[:, None]
    to_reference, to_prediction = (np.sqrt(np.square(way * size).sum(axis=0)) for way in steps)
    hd95 = np.percentile(np.concatenate((to_reference, to_prediction)), 95)
    return float(hd95), float(to_reference.mean())
