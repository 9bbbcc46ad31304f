import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_spmc.loading.two_views import TwoViewsTransform, changes_intensities_only


def nnunet_transforms(**options):
    return nnUNetTrainer.get_training_transforms(
        (16, 16), (-3.0, 3.0), [[1, 1], [0.5, 0.5]], (0, 1), False, **options
    )


def patch(channels=1):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(channels, 24, 24, generator=generator)
    return image, (image[:1] > 0.5).to(torch.int16)


class Doubled(ImageOnlyTransform):
    """Stands in for an intensity transform whose effect is known."""

    def _apply_to_image(self, img, **params):
        return img.mul_(2)  # in place, as nnU-Net's transforms work


def test_the_weak_view_has_the_geometry_of_the_strong_one_and_the_original_intensities():
    views = TwoViewsTransform(ComposeTransforms([Doubled(), MirrorTransform((0, 1))]))
    image, _ = patch(channels=2)
    flips = [torch.flip(image, axes) for axes in ((), (1,), (2,), (1, 2))]
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        strong, weak = views(image=image.clone())["image"].chunk(2)
        seen.update(i for i, expected in enumerate(flips) if torch.equal(weak, expected))
        assert torch.equal(strong, 2 * weak)
    assert seen == {0, 1, 2, 3}


def test_nothing_but_nnunets_intensity_transforms_is_left_out():
    transforms = nnunet_transforms(use_mask_for_norm=[True]).transforms
    left_out = [changes_intensities_only(transform) for transform in transforms]
    assert left_out == [isinstance(transform, RandomTransform) for transform in transforms]
    assert sum(left_out) == 7


def test_the_strong_view_and_the_labels_are_those_of_nnunet():
    """Up to where the weak view draws nothing of its own, the random numbers are the same."""
    transforms = nnunet_transforms()
    image, labels = patch()
    results = []
    for transform in (transforms, TwoViewsTransform(transforms)):
        np.random.seed(3)
        torch.manual_seed(3)
        results.append(transform(image=image.clone(), segmentation=labels.clone()))
    expected, both = results
    assert both["image"].shape == (2, 16, 16)
    torch.testing.assert_close(both["image"][:1], expected["image"])
    for one, other in zip(both["segmentation"], expected["segmentation"], strict=True):
        assert torch.equal(one, other)


def test_the_outside_is_masked_in_both_views():
    brighten = GaussianNoiseTransform((1.0, 1.0), p_per_channel=1)
    views = TwoViewsTransform(
        ComposeTransforms([brighten, MaskImageTransform([0], channel_idx_in_seg=0)])
    )
    image, labels = patch()
    outside = labels == 0
    both = views(image=image, segmentation=torch.where(outside, -1, 0))["image"]
    assert not both[0][outside[0]].any()
    assert not both[1][outside[0]].any()
    assert both[1][~outside[0]].all()


@pytest.mark.parametrize("transform", [MirrorTransform((0,)), MaskImageTransform([0])])
def test_geometry_and_masking_are_no_intensity_transforms(transform):
    assert not changes_intensities_only(transform)
    assert not changes_intensities_only(RandomTransform(transform))
