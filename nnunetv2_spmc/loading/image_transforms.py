"""nnU-Net's augmentation of images alone, for patches whose segmentation nobody reads."""

from __future__ import annotations

from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import (
    BasicTransform,
    ImageOnlyTransform,
    SegOnlyTransform,
)
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import (
    Convert2DTo3DTransform,
    Convert3DTo2DTransform,
)
from batchgeneratorsv2.transforms.utils.random import RandomTransform

# what they do to an image does not depend on whether there is a segmentation
INDEPENDENT = (
    ImageOnlyTransform,
    SegOnlyTransform,
    SpatialTransform,
    MirrorTransform,
    Convert3DTo2DTransform,
    Convert2DTo3DTransform,
)


class ImageTransforms:
    """Apply transforms to the image; the segmentation passes unchanged."""

    def __init__(self, transforms: BasicTransform) -> None:
        self.transforms = transforms

    def __call__(self, image: torch.Tensor, segmentation: torch.Tensor) -> dict[str, torch.Tensor]:
        """Transform (channels, ...) patches as nnU-Net's loader asks for it."""
        image = self.transforms(image=image)["image"]
        return {"image": image, "segmentation": segmentation}


def image_transforms(transforms: Any) -> ImageTransforms | None:
    """Return the same augmentation without its work on the segmentation.

    Args:
        transforms: what nnU-Net's get_training_transforms returns.

    Returns:
        Transforms that give the same images, or None where an image depends on the segmentation:
        with normalization inside of a mask, or transforms that nnU-Net's default does not have.
    """
    if not isinstance(transforms, ComposeTransforms):
        return None
    if not all(isinstance(_inner(t), INDEPENDENT) for t in transforms.transforms):
        return None
    return ImageTransforms(
        ComposeTransforms([t for t in transforms.transforms if not isinstance(t, SegOnlyTransform)])
    )


def _inner(transform: BasicTransform) -> BasicTransform:
    while isinstance(transform, RandomTransform):
        transform = transform.transform
    return transform
