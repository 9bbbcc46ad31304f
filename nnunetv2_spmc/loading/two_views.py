"""Two views of a patch: as nnU-Net augments it, and with its intensities left alone."""

from __future__ import annotations

from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import (
    BasicTransform,
    ImageOnlyTransform,
    SegOnlyTransform,
)
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from nnunetv2_spmc.loading.image_transforms import ImageTransforms


class TwoViewsTransform(BasicTransform):
    """Apply nnU-Net's transforms, and to a second view all but the intensity transforms.

    Both views show the same voxels: a transform of the geometry draws its parameters once for both.
    The image becomes (2 * channels, ...): nnU-Net's view, then the weakly augmented one.

    Args:
        transforms: nnU-Net's training transforms, or those of the images alone.
    """

    def __init__(self, transforms: ComposeTransforms) -> None:
        super().__init__()
        self.transforms: list[BasicTransform] = transforms.transforms

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Return the data with both views as its image."""
        weak = None  # the views are one until the first intensity transform
        for transform in self.transforms:
            if changes_intensities_only(transform):
                weak = data_dict["image"].clone() if weak is None else weak
                data_dict = transform(**data_dict)
                continue
            parameters = transform.get_parameters(**data_dict)
            if weak is not None and not isinstance(transform, SegOnlyTransform):
                # the labels go along because nnU-Net's masking of the outside reads them
                weak = transform.apply(data_dict | {"image": weak}, **parameters)["image"]
            data_dict = transform.apply(data_dict, **parameters)
        image = data_dict["image"]
        data_dict["image"] = torch.cat((image, image if weak is None else weak))
        return data_dict


def two_views(
    transforms: ComposeTransforms | ImageTransforms,
) -> TwoViewsTransform | ImageTransforms:
    """Return transforms that give both views, of images alone if those given do."""
    if isinstance(transforms, ImageTransforms):
        return ImageTransforms(TwoViewsTransform(transforms.transforms))
    return TwoViewsTransform(transforms)


def changes_intensities_only(transform: BasicTransform) -> bool:
    """Tell whether a transform changes grey values and neither geometry nor labels."""
    if isinstance(transform, RandomTransform):
        return changes_intensities_only(transform.transform)
    return isinstance(transform, ImageOnlyTransform)
