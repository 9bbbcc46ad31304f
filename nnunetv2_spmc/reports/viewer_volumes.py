"""Volumes for the viewer: small, eight bits a voxel, as NIfTI in base64."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Sequence
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import io_orientation
from skimage.measure import block_reduce

from nnunetv2_spmc.reports.case_figure import slice_to_show
from nnunetv2_spmc.reports.case_views import CaseView
from nnunetv2_spmc.reports.orientation import closest_axes, header_affine

MAX_VOXELS = 1_500_000  # per volume; a page with four cases stays below some 20 MB


def viewer_case(case: str, views: Sequence[CaseView]) -> dict[str, Any]:
    """Return a case for the viewer, its volumes as base64 of gzipped NIfTI files.

    Large volumes are reduced by whole factors: the image by its mean, doubt and common-difficulty
    voxels by their maximum, so that none of them disappears, labels by the voxel in the middle.

    Args:
        case: identifier.
        views: the case in one or several runs.
    """
    first = views[0]
    factors = reduction_factors(first.image.shape)
    affine = ras_affine(first.properties, first.spacing_mm)

    def volume(array: np.ndarray, function: Callable[..., Any] | None) -> str:
        is_label = function is None or array.dtype == bool
        return encode(reduced(array, factors, function), affine, factors, is_label=is_label)

    low, high = np.percentile(first.image, (1, 99))
    image = np.clip((first.image - low) / max(high - low, 1e-6), 0, 1) * 255
    _, height, width = first.image.shape
    start = affine @ [(width - 1) / 2, (height - 1) / 2, slice_to_show(views), 1]
    content: dict[str, Any] = {
        "name": case,
        "plane": first.display.plane or "axial",  # in which the viewer starts: that of the figure
        "is_oriented": bool(first.display.plane),
        "axes": slice_counts(affine, first.image.shape, factors),
        "start_mm": [float(value) for value in start[:3]],  # the slice of the figure
        "image": volume(image, np.mean),
        "runs": [],
    }
    if first.reference is not None:
        content["reference"] = volume(first.reference, None)
    for view in views:
        layers = {"name": view.run_name, "prediction": volume(view.prediction, None)}
        if view.confidence is not None:  # doubt is 0 where the image should shine through
            layers["doubt"] = volume((1 - view.confidence) * 255, np.max)
        if view.common_difficulty is not None:
            layers["difficulty"] = volume(view.common_difficulty, np.max)
        content["runs"].append(layers)
    return content


def reduction_factors(shape: tuple[int, ...], max_voxels: int = MAX_VOXELS) -> tuple[int, ...]:
    """Return by which factor to reduce each axis, the longest first."""
    factors = [1] * len(shape)
    while np.prod([-(-size // f) for size, f in zip(shape, factors, strict=True)]) > max_voxels:
        sizes = [size / f for size, f in zip(shape, factors, strict=True)]
        factors[int(np.argmax(sizes))] += 1
    return tuple(factors)


def ras_affine(properties: dict[str, Any], spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Return an affine by which NiiVue draws a volume as the figures do, right-anterior-superior.

    NiiVue draws slices along the axes of the volume and has its own rule for which anatomical axis
    each of them stands for. Oblique volumes are turned onto the closest ones, so that it agrees.
    """
    affine = header_affine(properties)
    if affine is not None:
        return closest_axes(affine)
    # as stored: columns from left to right, rows downwards. The readers of pictures give the
    # missing axis a huge spacing
    z, y, x = spacing_mm
    return np.diag([-x, -y, min(z, max(x, y)), 1.0])


def slice_counts(
    affine: np.ndarray, shape: tuple[int, ...], factors: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Return how the slices of a (z, y, x) volume are counted along R, A and S.

    Each axis has the size and the factor by which it was reduced, and whether the volume is stored
    in the opposite direction: the figures count in the order in which it is stored.
    """
    axes: list[dict[str, Any]] = [{}, {}, {}]
    for voxel_axis, (axis, direction) in enumerate(io_orientation(affine)):
        axes[int(axis)] = {
            "size": shape[2 - voxel_axis],
            "factor": factors[2 - voxel_axis],
            "reversed": bool(direction < 0),
        }
    return axes


def encode(
    array: np.ndarray, affine: np.ndarray, factors: tuple[int, ...], *, is_label: bool = False
) -> str:
    """Encode a uint8 (z, y, x) volume that was reduced by factors as a gzipped NIfTI file.

    Label volumes say so in their header: NiiVue then gives every value its own colour.
    """
    z, y, x = factors
    scaled = affine @ np.diag([x, y, z, 1.0])
    scaled[:3, 3] += affine[:3, :3] @ ((np.array([x, y, z]) - 1) / 2)  # centre of the first block
    volume = nibabel.Nifti1Image(array.transpose(2, 1, 0), scaled)
    if is_label:
        volume.header.set_intent("label")
    return base64.b64encode(gzip.compress(volume.to_bytes(), 6, mtime=0)).decode("ascii")


def reduced(
    array: np.ndarray, factors: tuple[int, ...], function: Callable[..., Any] | None
) -> np.ndarray:
    """Reduce a volume by whole factors to uint8; without a function to the middle voxels."""
    if function is None:
        middle = [
            np.minimum(np.arange(0, size, factor) + factor // 2, size - 1)
            for size, factor in zip(array.shape, factors, strict=True)
        ]
        array = array[np.ix_(*middle)]
    elif any(factor > 1 for factor in factors):
        array = block_reduce(array, factors, function)
    return array.astype(float).round().astype(np.uint8)
