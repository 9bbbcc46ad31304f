import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_spmc.losses import (
    confidence,
    is_single_class,
    one_hot,
    predicted,
    probabilities,
    share,
)


def test_probabilities_are_float32_also_from_half_precision_logits():
    logits = torch.tensor([[[2.0, 0.0]], [[0.0, 1.0]]]).reshape(1, 2, 2).half()
    assert probabilities(logits).dtype == torch.float32


def test_softmax_probabilities_by_hand():
    logits = torch.log(torch.tensor([1.0, 3.0])).view(1, 2, 1)
    torch.testing.assert_close(probabilities(logits).flatten(), torch.tensor([0.25, 0.75]))


def test_region_probabilities_are_independent_sigmoids():
    logits = torch.tensor([0.0, 100.0]).view(1, 2, 1)
    assert probabilities(logits, regions=True).flatten().tolist() == [0.5, 1.0]


def test_confidence_is_the_largest_class_probability():
    p = torch.tensor([[0.2, 0.5], [0.7, 0.3], [0.1, 0.2]])[None]  # one patch, 3 classes, 2 voxels
    torch.testing.assert_close(confidence(p), torch.tensor([[[0.7, 0.5]]]))


def test_region_confidence_is_per_channel():
    p = torch.tensor([[0.2, 0.5], [0.9, 0.4]])[None]
    torch.testing.assert_close(
        confidence(p, regions=True), torch.tensor([[[0.8, 0.5], [0.9, 0.6]]])
    )


@given(st.integers(2, 6), st.integers(0, 1000))
def test_confidence_lies_between_uniform_and_certain(classes, seed):
    logits = torch.randn(2, classes, 5, generator=torch.Generator().manual_seed(seed))
    result = confidence(probabilities(logits))
    assert result.min() >= 1 / classes - 1e-6
    assert result.max() <= 1 + 1e-6


def test_one_hot_leaves_the_ignore_label_empty():
    labels = torch.tensor([0, 2, 3], dtype=torch.int16).view(1, 1, 3)  # 3 is the ignore label
    expected = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 1, 0]])[None]
    assert torch.equal(one_hot(labels, 3), expected)


def test_the_most_probable_class_is_predicted():
    p = torch.tensor([[0.6, 0.2], [0.3, 0.3], [0.1, 0.5]]).view(1, 3, 2)
    assert predicted(p).tolist() == [[[0, 2]]]


def test_with_regions_every_channel_is_decided_on_its_own():
    p = torch.tensor([[0.6, 0.2], [0.7, 0.5]]).view(1, 2, 2)
    assert predicted(p, regions=True).tolist() == [[[True, False], [True, False]]]


def test_a_share_counts_the_voxels_that_count():
    mask = torch.tensor([[[True, False, True, False]]])
    where = torch.tensor([[[True, True, True, False]]])
    assert share(mask).item() == 0.5
    assert share(mask, where).item() == pytest.approx(2 / 3)
    assert share(mask.expand(1, 2, 4), where).item() == pytest.approx(2 / 3)
    assert share(mask, torch.zeros_like(where)).item() == 0


def test_a_single_class_is_found_among_the_voxels_that_count():
    classes = torch.tensor([[[1, 1, 1, 0]]])
    where = torch.tensor([[[True, True, False, False]]])
    assert is_single_class(classes).item() == 0
    assert is_single_class(classes, where).item() == 1
    assert is_single_class(torch.ones_like(classes)).item() == 1
    assert is_single_class(classes, torch.zeros_like(where)).item() == 0


def test_with_regions_a_single_class_means_that_every_channel_is_constant():
    decisions = torch.tensor([[[True, True], [True, False]]])
    assert is_single_class(decisions).item() == 0
    assert is_single_class(torch.tensor([[[True, True], [False, False]]])).item() == 1
