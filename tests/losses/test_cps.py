import math

import pytest
import torch

from nnunetv2_spmc.losses import cps


def test_cross_entropy_against_the_hard_pseudo_label_by_hand():
    student = torch.log(torch.tensor([[0.8, 0.4], [0.2, 0.6]]))[None]
    teacher = torch.tensor([[0.9, 0.7], [0.1, 0.3]])[None]  # class 0 on both voxels
    expected = -(math.log(0.8) + math.log(0.4)) / 2
    assert cps(student, teacher).item() == pytest.approx(expected)


def test_regions_use_binary_cross_entropy_by_hand():
    student = torch.logit(torch.tensor([0.8, 0.3])).view(1, 2, 1)
    teacher = torch.tensor([0.6, 0.2]).view(1, 2, 1)
    expected = -(math.log(0.8) + math.log(0.7)) / 2
    assert cps(student, teacher, regions=True).item() == pytest.approx(expected)


@pytest.mark.parametrize("regions", [False, True])
def test_the_teacher_gets_no_gradient(regions):
    student = torch.randn(1, 3, 10, requires_grad=True)
    teacher = torch.rand(1, 3, 10, requires_grad=True)
    cps(student, teacher, regions=regions).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


@pytest.mark.parametrize("regions", [False, True])
def test_only_the_voxels_that_count_enter_the_mean(regions):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    teacher = torch.rand(2, 3, 4, 4, generator=generator)
    where = torch.rand(2, 1, 4, 4, generator=generator) > 0.5
    chosen = where[:, 0]
    expected = cps(logits.movedim(1, -1)[chosen], teacher.movedim(1, -1)[chosen], regions=regions)
    torch.testing.assert_close(cps(logits, teacher, regions=regions, valid=where), expected)
    everywhere = torch.ones_like(where)
    whole = cps(logits, teacher, regions=regions)
    torch.testing.assert_close(cps(logits, teacher, regions=regions, valid=everywhere), whole)


def test_where_no_voxel_counts_the_loss_is_zero_with_a_valid_gradient():
    logits = torch.randn(1, 3, 4, requires_grad=True)
    loss = cps(logits, torch.rand(1, 3, 4), valid=torch.zeros(1, 1, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()
