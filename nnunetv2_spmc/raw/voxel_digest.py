"""A digest of a scan's voxels that re-saving the scan does not change.

It is taken over the dense ranks of the voxels (0 for the smallest value, 1 for the next ...) in a
canonical orientation. So it does not depend on compression, file format, data type, any header
field but the orientation, nor on a strictly increasing rescaling: a scan in HU, the same one with
an offset, and the same one z-scored have one digest.

A rescaling that is rounded is covered as long as it keeps different values different: 16 bit
integers stored as 32 bit floating point numbers, scaled or not, are; floating point numbers rounded
to integers, clipped or reduced to 8 bit in general are not. Those copies are near-duplicates, see
`thumbnails`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk

from nnunetv2_spmc.raw.checks import orientation_code

CHUNK = 1 << 20  # voxels: they fit into a cache
LARGEST_TABLE = 1 << 24  # values between the lowest and the highest of integers
AXIS_OF_LETTER = {"L": 0, "R": 0, "P": 1, "A": 1, "S": 2, "I": 2}
CANONICAL = "LPS"


def voxel_digest(image: sitk.Image) -> str:
    """Return the digest of a channel."""
    return array_digest(canonical_array(image))


def array_digest(array: np.ndarray) -> str:
    """Return the digest of voxels in their canonical order."""
    array = np.ascontiguousarray(array)
    digest = hashlib.blake2b(repr(array.shape).encode(), digest_size=16)
    for ranks in rank_chunks(array.reshape(-1)):
        digest.update(ranks.data)
    if array.size and array.min() == array.max():  # no ranks to compare: only the value is left
        digest.update(repr(float(array.flat[0])).encode())
    return digest.hexdigest()


def canonical_array(image: sitk.Image) -> np.ndarray:
    """Return the voxels of a volume (S, P, L): its axes exchanged and flipped, nothing resampled.

    Pictures and whatever else is no volume come as they are.
    """
    array = sitk.GetArrayViewFromImage(image)
    if image.GetDimension() != 3 or array.ndim != 3:
        return array
    code = orientation_code(image)
    axes = [AXIS_OF_LETTER.get(letter, -1) for letter in code]
    if sorted(axes) != [0, 1, 2]:  # a direction that is none
        return array
    by_axis = array.transpose(2, 1, 0)  # as the header counts them
    by_axis = by_axis[tuple(slice(None, None, 1 if c in CANONICAL else -1) for c in code)]
    return by_axis.transpose(np.argsort(axes)).transpose(2, 1, 0)


def rank_chunks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the dense ranks of a flat array in pieces: uint16 if there are few, else uint32."""
    if not values.size:
        return
    as_integers = _as_integers(values)
    if as_integers is not None:
        yield from _ranks_by_table(*as_integers)
    else:
        yield from _ranks_by_search(values)


def _chunks(values: np.ndarray) -> Iterator[np.ndarray]:
    return (values[start : start + CHUNK] for start in range(0, values.size, CHUNK))


def _as_integers(values: np.ndarray) -> tuple[np.ndarray, int, int] | None:
    """Return the values with their range if these are integers, of any type, in a small range."""
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)) or float(high) - float(low) >= LARGEST_TABLE:
        return None
    if values.dtype.kind == "f" and not all((np.rint(c) == c).all() for c in _chunks(values)):
        return None
    return values, int(low), int(high)


def _ranks_by_table(values: np.ndarray, low: int, high: int) -> Iterator[np.ndarray]:
    """A table from value to rank: several times as fast as sorting."""
    is_there = np.zeros(high - low + 1, dtype=bool)
    for chunk in _chunks(values):
        is_there[_above(chunk, low)] = True
    rank_of = np.cumsum(is_there) - 1
    rank_of = rank_of.astype(_rank_type(int(rank_of[-1])))
    for chunk in _chunks(values):
        yield rank_of[_above(chunk, low)]


def _above(values: np.ndarray, low: int) -> np.ndarray:
    return values.astype(np.int64) - low


def _ranks_by_search(values: np.ndarray) -> Iterator[np.ndarray]:
    """Look each voxel up among the sorted values, where sorting all indices needs much memory."""
    distinct = np.unique(values)
    for chunk in _chunks(values):
        order = np.argsort(chunk)  # looking up what is sorted keeps to the cache
        ranks = np.empty(chunk.size, _rank_type(distinct.size - 1))
        ranks[order] = np.searchsorted(distinct, chunk[order])
        yield ranks


def _rank_type(highest: int) -> type[np.unsignedinteger]:
    return np.uint16 if highest < 1 << 16 else np.uint32
