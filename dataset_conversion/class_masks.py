"""A label that comes as one mask for each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from nnunetv2_spmc.raw.cases import ConversionError, ImageSource, LabelRules
from nnunetv2_spmc.raw.checks import geometry_difference, mapped_label

# A mask is 0 outside, and 1 or 255 inside.
MASK = LabelRules(
    frozenset({0, 1}), {255: 1}, advice="a mask of --label_files is 0 outside and 1 or 255 inside"
)


@dataclass(frozen=True)
class ClassMask:
    """The mask of one class."""

    name: str
    value: int  # in the label that is made
    source: ImageSource


@dataclass(frozen=True)
class ClassMasks:
    """The masks of a case, one for each class; together they are its label."""

    masks: tuple[ClassMask, ...]
    later_counts: bool = False  # where masks overlap; else that is an error

    def __str__(self) -> str:
        """The masks, as messages and split.json name them."""
        return ", ".join(str(mask.source) for mask in self.masks)

    @property
    def parts(self) -> tuple[ImageSource, ...]:
        """What is read."""
        return tuple(mask.source for mask in self.masks)

    def read(self) -> sitk.Image:
        """Return the label with the value of each class; refuse overlaps and other grids."""
        first = self.masks[0].source.read()
        merged = np.zeros(first.GetSize()[::-1], np.uint16)
        for number, mask in enumerate(self.masks):
            image = mask.source.read() if number else first
            difference = geometry_difference(image, first)
            if difference:
                raise ConversionError(
                    f"mask {mask.source} has {difference} (mask {self.masks[0].source}); resample "
                    "the masks to one grid."
                )
            mask_label = mapped_label(image, MASK, f"mask {mask.source}")
            inside = sitk.GetArrayFromImage(mask_label) > 0
            if not self.later_counts:
                self._refuse_overlap(merged, inside, mask)
            merged[inside] = mask.value
        label = sitk.GetImageFromArray(merged)
        label.CopyInformation(first)
        return label

    def _refuse_overlap(self, merged: np.ndarray, inside: np.ndarray, mask: ClassMask) -> None:
        values, counts = np.unique(merged[inside], return_counts=True)
        for other in self.masks:
            shared = counts[values == other.value].sum() if other.value else 0
            if shared:
                raise ConversionError(
                    f"the masks {other.source} ({other.name}) and {mask.source} ({mask.name}) "
                    f"overlap in {shared} {'voxel' if shared == 1 else 'voxels'}; correct one, or "
                    "let the later one of --label_files count with --later_mask_counts."
                )
