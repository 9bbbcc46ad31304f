"""Check the voxels of a case and bring image channels and label onto one grid."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import SimpleITK as sitk

from nnunetv2_spmc.raw.cases import ConversionError, LabelRules

Volume = sitk.Image | sitk.ImageFileReader  # the latter has read a header

# Header noise of that size is removed; more is a real difference.
SPACING_TOLERANCE = 1e-3  # relative
DIRECTION_TOLERANCE = 1e-3  # per cosine
ORIGIN_TOLERANCE = 1e-2  # of a voxel
LABEL_TOLERANCE = 1e-4  # from an integer; resampling and scaled headers leave that


def geometry_difference(image: Volume, reference: Volume, *, on_grid: bool = False) -> str | None:
    """Say how two volumes differ in space, or None if they share a grid up to header noise.

    Args:
        image: The volume to compare.
        reference: The volume it should match.
        on_grid: Compare only shape and spacing.
    """
    spacing = np.asarray(reference.GetSpacing())
    if image.GetSize() != reference.GetSize():
        return f"shape {image.GetSize()} instead of {reference.GetSize()}"
    if not np.allclose(image.GetSpacing(), spacing, rtol=SPACING_TOLERANCE, atol=0):
        return f"spacing {_rounded(image.GetSpacing())} instead of {_rounded(spacing)}"
    if on_grid:
        return None
    if not np.allclose(
        image.GetDirection(), reference.GetDirection(), rtol=0, atol=DIRECTION_TOLERANCE
    ):
        return (
            f"direction {_rounded(image.GetDirection())} "
            f"instead of {_rounded(reference.GetDirection())}"
        )
    offset = np.abs(np.subtract(image.GetOrigin(), reference.GetOrigin()))
    if np.any(offset > ORIGIN_TOLERANCE * spacing.min()):
        return f"origin {_rounded(image.GetOrigin())} instead of {_rounded(reference.GetOrigin())}"
    return None


def has_no_geometry(label: sitk.Image, image: sitk.Image) -> bool:
    """Whether a label on the image's voxels has lost its header, as arrays do that are saved alone.

    Without one, nibabel writes the identity in RAS axes, the others write it in LPS axes; where
    only the position got lost, the spacing is the image's.
    """
    lps, ras = (1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1)
    is_identity = label.GetSpacing() == (1, 1, 1) and label.GetDirection() in (lps, ras)
    without_position = label.GetDirection() == lps and bool(
        np.allclose(label.GetSpacing(), image.GetSpacing(), rtol=SPACING_TOLERANCE, atol=0)
    )
    return (
        label.GetSize() == image.GetSize()
        and not any(label.GetOrigin())
        and (is_identity or without_position)
    )


def same_header(image: sitk.Image, reference: sitk.Image) -> bool:
    """Whether spacing, direction and origin are equal to the last digit."""
    return bool(
        image.GetSpacing() == reference.GetSpacing()
        and image.GetDirection() == reference.GetDirection()
        and image.GetOrigin() == reference.GetOrigin()
    )


def mapped_label(label: sitk.Image, rules: LabelRules, name: str) -> sitk.Image:
    """Return the label with mapped values as uint8 (or uint16), or raise.

    Args:
        label: Label volume of any pixel type.
        rules: Old value to new value, and which values are allowed.
        name: The file, for the message.
    """
    array = sitk.GetArrayFromImage(label)
    values = np.unique(array)
    if values.dtype.kind == "f":
        rounded = np.rint(values)
        off = np.abs(values - rounded) - np.finfo(values.dtype).eps * np.abs(values)
        if not np.all(off <= LABEL_TOLERANCE):  # NaN is not, either
            raise ConversionError(
                f"{name} has label values that are not integers; round or redo it."
            )
        array, values = np.rint(array), np.unique(rounded)
    unexpected = [int(value) for value in values if not rules.accepts(int(value))]
    if unexpected:
        raise ConversionError(
            f"{name} has label values {_some(unexpected)} that are not among the labels "
            f"{rules.expected}; {rules.advice}."
        )
    mapped = np.zeros(array.shape, np.uint8 if max(rules.allowed) < 256 else np.uint16)
    for value in values:
        mapped[array == value] = rules.label_map.get(int(value), int(value))
    result = sitk.GetImageFromArray(mapped)
    result.CopyInformation(label)
    return result


def orientation_code(image: sitk.Image) -> str:
    """Return the axis orientation, 'LPS' for example."""
    return str(sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection()))


def _rounded(values: Collection[float]) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)


def _some(values: Sequence[int], limit: int = 8) -> str:
    return f"{list(values[:limit])}" + (f" and {len(values) - limit} more" * (len(values) > limit))
