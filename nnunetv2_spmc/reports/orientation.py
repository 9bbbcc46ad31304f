"""How slices are drawn: in the radiological convention, by the geometry in the header.

The patient's right is on the left of axial and coronal slices, anterior on the left of sagittal
ones; anterior is on top of axial slices, superior on top of the others. Oblique volumes are drawn
along their own axes, which are named after the closest anatomical ones. Pictures, and other files
without an orientation, are drawn as they are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    io_orientation,
    ornt_transform,
)

# what lies at the two ends of the axes, in the order and the direction in which they are drawn
STARTS, ENDS = "RAS", "LPI"
PLANES = ("sagittal", "coronal", "axial")  # whose slices follow each other along these axes


@dataclass(frozen=True)
class SliceDisplay:
    """How to draw the slices of a (z, y, x) volume along its first axis; by default as stored.

    Args:
        plane: "axial", "coronal" or "sagittal"; empty without an orientation.
        sides: letters of what is on the left, right, top and bottom; empty without an orientation.
        transposed: whether the rows of a slice are drawn as columns.
        flipped: whether the y and the x axis are drawn against their direction.
    """

    plane: str = ""
    sides: str = ""
    transposed: bool = False
    flipped: tuple[bool, bool] = (False, False)

    def picture(self, volume: np.ndarray, index: int) -> np.ndarray:
        """Return a slice as it is drawn, its first row on top."""
        y, x = (slice(None, None, -1 if flip else 1) for flip in self.flipped)
        picture = volume[index, y, x]
        return picture.T if self.transposed else picture

    def size_mm(self, shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> tuple[float, float]:
        """Return height and width of a drawn slice, given shape and voxel size along z, y, x."""
        height, width = (n * size for n, size in zip(shape[1:], spacing_mm[1:], strict=True))
        return (width, height) if self.transposed else (height, width)


def slice_display(properties: Mapping[str, Any]) -> SliceDisplay:
    """Return how to draw the slices of a volume that nnU-Net read with these properties."""
    affine = header_affine(properties)
    if affine is None:
        return SliceDisplay()
    x, y, z = (
        (int(axis), bool(direction < 0))
        for axis, direction in ornt_transform(io_orientation(affine), axcodes2ornt(ENDS))
    )
    column_axis, row_axis = sorted((x[0], y[0]))
    return SliceDisplay(
        plane=PLANES[z[0]],
        sides=STARTS[column_axis] + ENDS[column_axis] + STARTS[row_axis] + ENDS[row_axis],
        transposed=x[0] == row_axis,
        flipped=(y[1], x[1]),
    )


def header_affine(properties: Mapping[str, Any]) -> np.ndarray | None:
    """Return the affine from voxel (x, y, z) to millimetres, right-anterior-superior.

    None where there is no orientation: pictures, TIFF files, and 2D images, which do not say in
    which plane of the body they lie.
    """
    geometry = properties.get("sitk_stuff")
    if geometry is not None and len(geometry["spacing"]) == 3:
        to_ras = np.diag([-1.0, -1.0, 1.0])  # ITK counts from right to left, front to back
        affine = np.eye(4)
        direction = np.reshape(geometry["direction"], (3, 3))
        affine[:3, :3] = to_ras @ direction @ np.diag(geometry["spacing"])
        affine[:3, 3] = to_ras @ np.asarray(geometry["origin"])
        return affine
    geometry = properties.get("nibabel_stuff")
    if geometry is not None:
        return geometry.get("reoriented_affine", geometry["original_affine"])
    return None


def closest_axes(affine: np.ndarray) -> np.ndarray:
    """Return the affine with every voxel axis turned onto the anatomical axis closest to it."""
    turned = np.eye(4)
    turned[:3, :3] = 0
    sizes_mm = voxel_sizes(affine)
    for voxel_axis, (axis, direction) in enumerate(io_orientation(affine)):
        turned[int(axis), voxel_axis] = direction * sizes_mm[voxel_axis]
    turned[:3, 3] = affine[:3, 3]
    return turned


def with_axes_of(
    volume: np.ndarray, properties: Mapping[str, Any], other: Mapping[str, Any]
) -> np.ndarray:
    """Return a (z, y, x) volume with the order and the directions of the axes of another."""
    affine, other_affine = header_affine(properties), header_affine(other)
    if affine is None or other_affine is None:
        return volume
    transform = ornt_transform(io_orientation(affine), io_orientation(other_affine))
    return np.asarray(apply_orientation(volume.T, transform)).T
