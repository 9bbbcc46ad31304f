"""One place for what differs between classes and regions, with and without an ignore label."""

import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunetv2_spmc.losses import LabelSpace

CLASSES = {"background": 0, "organ": 1, "core": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
IGNORE = {"ignore": 3}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (CLASSES, LabelSpace(3)),
        (CLASSES | IGNORE, LabelSpace(3, ignore_label=3)),
        (REGIONS, LabelSpace(2, regions=True)),
        (REGIONS | IGNORE, LabelSpace(2, regions=True, ignore_label=3)),
    ],
)
def test_it_is_read_from_the_label_manager_of_nnunet(labels, expected):
    order = (1, 2) if "whole" in labels else None
    assert LabelSpace.of(LabelManager(labels, order)) == expected


def test_classes_by_hand():
    space = LabelSpace(3, ignore_label=3)
    logits = torch.tensor([[0.5, 0.2], [0.3, 0.2], [0.2, 0.6]]).log().view(1, 3, 1, 2)
    p = space.probabilities(logits)
    assert space.confidence(p).flatten().tolist() == pytest.approx([0.5, 0.6])
    assert space.predicted(p).flatten().tolist() == [0, 2]
    target = torch.tensor([2, 3]).view(1, 1, 1, 2)
    assert space.one_hot(target)[0, :, 0].T.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert space.ignored(target).flatten().tolist() == [False, True]


def test_regions_by_hand():
    space = LabelSpace(2, regions=True, ignore_label=3)
    logits = torch.tensor([[0.9, 0.4], [0.2, 0.5]]).logit().view(1, 2, 1, 2)
    p = space.probabilities(logits)
    confidence = space.confidence(p).flatten().tolist()
    assert confidence == pytest.approx([0.9, 0.6, 0.8, 0.5])
    assert space.predicted(p).flatten().tolist() == [True, False, False, False]
    target = torch.tensor([[1, 0], [0, 1], [0, 1]]).view(1, 3, 1, 2)
    assert space.one_hot(target).flatten().tolist() == [1, 0, 0, 1]
    assert space.ignored(target).flatten().tolist() == [False, True]


def test_without_an_ignore_label_nothing_is_ignored():
    assert LabelSpace(3).ignored(torch.zeros(1, 1, 2)) is None
    assert LabelSpace(2, regions=True).ignored(torch.zeros(1, 2, 2)) is None


def test_a_prediction_becomes_a_target_of_nnunet():
    predicted = torch.tensor([0, 1, 2, 1]).view(1, 1, 1, 4)
    valid = torch.tensor([True, True, False, True]).view(1, 1, 1, 4)
    assert LabelSpace(3).target(predicted, valid) is predicted
    space = LabelSpace(3, ignore_label=3)
    assert space.target(predicted).flatten().tolist() == [0, 1, 2, 1]
    assert space.target(predicted, valid).flatten().tolist() == [0, 1, 3, 1]
    decided = torch.tensor([[1, 0], [0, 1]], dtype=torch.bool).view(1, 2, 1, 2)
    space = LabelSpace(2, regions=True, ignore_label=3)
    target = space.target(decided, valid[..., 1:3])
    assert target[0, :, 0].tolist() == [[True, False], [False, True], [False, True]]


def test_what_counts_is_sampled_at_the_resolution_of_the_prediction():
    valid = torch.tensor([True, True, False, False]).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    target = LabelSpace(3, ignore_label=3).target(torch.ones(1, 1, 2, 2).long(), valid)
    assert target[0, 0].tolist() == [[1, 3], [1, 3]]
