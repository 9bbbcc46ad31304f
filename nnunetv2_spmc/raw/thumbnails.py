"""Small pictures of scans, and how much two of them look alike where the digests differ.

Copies that were cropped, shifted, resampled or noised have other voxels; scans of two patients look
alike, too, as far as their anatomy goes. So the thumbnails are compared by their fine structure (a
high-pass), at the best of a few windows: each of the three axes may be cut or moved by up to a
tenth. Windows are searched coarsely first, for all pairs at once, see `lookalikes`.
"""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunetv2_spmc.raw.voxel_digest import canonical_array

SIDE = 24  # cells
FINE_SIGMA, COARSE_SIGMA = 1.5, 2.5  # of what is subtracted, in cells of 24 and of 12
MOVES = (-0.1, -0.05, 0.0, 0.05, 0.1)  # of the coarse search, in fractions of the field of view
STEPS = (0.05, 0.025, 0.0125, 0.00625)  # of the fine one
LARGEST_MOVE = 0.125
INSIDE, OUTSIDE = 2, 3  # cells left out at an end that was moved into the other scan, or beyond it
HOPELESS = 0.5  # after the second step: a pair that looks alike is far above

Window = tuple[float, float]  # begin and end along an axis, fractions of the field of view


def thumbnail(image: sitk.Image) -> np.ndarray | None:
    """Return a volume as SIDE**3 grey levels, uint8; None if it is not a volume or picture."""
    array = canonical_array(image)
    if image.GetNumberOfComponentsPerPixel() != 1:
        return None
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or not array.size or array.dtype.kind not in "iuf":
        return None
    small = _reduced(array, 2 * SIDE)
    small[~np.isfinite(small)] = 0
    sigma = [max(0.0, 0.45 * (length / SIDE - 1)) for length in small.shape]
    smooth = ndimage.gaussian_filter(small, sigma)
    centers = [(np.arange(SIDE) + 0.5) * length / SIDE - 0.5 for length in small.shape]
    grid = np.meshgrid(*centers, indexing="ij")
    cells = ndimage.map_coordinates(smooth, grid, order=1, mode="nearest")
    low, high = np.percentile(cells, (0.5, 99.5))
    if high <= low:
        return np.zeros((SIDE,) * 3, np.uint8)
    return np.rint(np.clip((cells - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _reduced(array: np.ndarray, limit: int) -> np.ndarray:
    """Average neighbours until no axis is longer than `limit`."""
    reduced = array
    for axis, length in enumerate(array.shape):
        if length > limit:
            edges = np.linspace(0, length, limit + 1).astype(int)
            sums = np.add.reduceat(reduced, edges[:-1], axis=axis, dtype=np.float32)
            shape = [1, 1, 1]
            shape[axis] = limit
            reduced = sums / np.diff(edges).astype(np.float32).reshape(shape)
    return reduced.astype(np.float32)


def fine(picture: np.ndarray) -> np.ndarray:
    """Return the fine structure of a thumbnail."""
    cells = picture.astype(np.float32)
    return cells - ndimage.gaussian_filter(cells, FINE_SIGMA)


def coarse(picture: np.ndarray) -> np.ndarray:
    """Return the structure of a thumbnail at half its resolution."""
    half = SIDE // 2
    cells = picture.astype(np.float32).reshape(half, 2, half, 2, half, 2).mean((1, 3, 5))
    return cells - ndimage.gaussian_filter(cells, COARSE_SIGMA)


def moved(structure: np.ndarray) -> np.ndarray:
    """Return a coarse structure moved by all MOVES along each axis, as unit vectors (125, n)."""
    matrices = [_resampling(len(structure), move, 1 + move)[0] for move in MOVES]
    rows = [
        _along(_along(_along(structure, z, 0), y, 1), x, 2).ravel()
        for z, y, x in product(matrices, repeat=3)
    ]
    return unit_vectors(np.stack(rows))


def unit_vectors(rows: np.ndarray) -> np.ndarray:
    """Return rows of length 1; those without structure stay 0."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def similarity(one: np.ndarray, other: np.ndarray, start: int) -> float:
    """Return the correlation of two fine structures at the best windows, at most 1.

    Args:
        one: Its windows are compared with the whole of the other.
        other: The other.
        start: Which of the 125 moves of `moved` fits best.
    """
    moves = list(product(MOVES, repeat=3))[start]
    windows: list[Window] = [(move, 1 + move) for move in moves]
    best = _correlation(one, other, windows)
    for number, step in enumerate(STEPS):
        for _ in range(2):
            before = best
            for axis in range(3):
                best = _improve(one, other, windows, axis, step, best)
            if best == before:
                break
        if number == 1 and best < HOPELESS:
            break
    return best


def _improve(
    one: np.ndarray, other: np.ndarray, windows: list[Window], axis: int, step: float, best: float
) -> float:
    """Move the ends of the window of an axis where that helps; return the correlation then."""
    rest = one
    for k in range(3):
        if k != axis:
            rest = _along(rest, _resampling(len(one), *windows[k])[0], k)
    begin, end = windows[axis]
    for by_begin, by_end in product((-step, 0.0, step), repeat=2):
        window = (round(begin + by_begin, 5), round(end + by_end, 5))
        if max(abs(window[0]), abs(window[1] - 1)) > LARGEST_MOVE:
            continue
        matrix, _ = _resampling(len(one), *window)
        tried = [*windows[:axis], window, *windows[axis + 1 :]]
        value = _overlap_correlation(_along(rest, matrix, axis), other, tried)
        if value > best + 1e-6:
            best, windows[axis] = value, window
    return best


def _correlation(one: np.ndarray, other: np.ndarray, windows: list[Window]) -> float:
    for axis, window in enumerate(windows):
        one = _along(one, _resampling(len(other), *window)[0], axis)
    return _overlap_correlation(one, other, windows)


def _overlap_correlation(one: np.ndarray, other: np.ndarray, windows: list[Window]) -> float:
    """Return the correlation over the cells that both have."""
    inside = tuple(_resampling(len(other), *window)[1] for window in windows)
    a, b = one[inside], other[inside]
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > 1e-6 else 0.0


def _along(volume: np.ndarray, matrix: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(np.tensordot(matrix, volume, axes=(1, axis)), 0, axis)


@cache
def _resampling(side: int, begin: float, end: float) -> tuple[np.ndarray, slice]:
    """Return the matrix that stretches a window over an axis, and the cells to compare.

    Those at moved ends are left out: the high-pass saw an edge there that the other does not have.
    """
    cells = ((np.arange(side) + 0.5) / side * (end - begin) + begin) * side - 0.5
    inside = np.flatnonzero((cells >= -0.5) & (cells <= side - 0.5))
    first, last = int(inside[0]), int(inside[-1]) + 1
    compared = slice(
        first + (OUTSIDE if first > 0 else INSIDE if begin != 0 else 0),
        last - (OUTSIDE if last < side else INSIDE if end != 1 else 0),
    )
    cells = np.clip(cells, 0, side - 1)
    left = np.minimum(cells.astype(int), side - 2)
    matrix = np.zeros((side, side), np.float32)
    matrix[np.arange(side), left] = 1 - (cells - left)
    matrix[np.arange(side), left + 1] = cells - left
    matrix[np.setdiff1d(np.arange(side), inside)] = 0
    return matrix, compared
