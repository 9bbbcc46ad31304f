import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_spmc.losses import masked_mse


def random_inputs(seed, classes=3, shape=(2, 4, 5)):
    generator = torch.Generator().manual_seed(seed)
    batch, *spatial = shape
    p = torch.rand(batch, classes, *spatial, generator=generator, dtype=torch.float64)
    y = torch.rand(batch, classes, *spatial, generator=generator, dtype=torch.float64)
    mask = torch.rand(batch, 1, *spatial, generator=generator) < 0.3
    return p, y, mask


def test_mean_over_all_voxels_and_channels_by_hand():
    # 2 classes, 4 voxels, the second one selected: (0.6-1)^2 + (0.4-0)^2 = 0.32, over 8 entries
    p = torch.tensor([[0.9, 0.6, 0.2, 0.5], [0.1, 0.4, 0.8, 0.5]])[None]
    y = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])[None]
    mask = torch.tensor([[[False, True, False, False]]])
    assert masked_mse(p, y, mask).item() == pytest.approx(0.32 / 8)
    assert masked_mse(p, y, mask, reduction="masked").item() == pytest.approx(0.32 / 2)


@given(st.integers(0, 10_000))
def test_equals_the_formula_as_the_paper_writes_it(seed):
    p, y, mask = random_inputs(seed)
    expected = torch.nn.functional.mse_loss(p * mask, y * mask)
    torch.testing.assert_close(masked_mse(p, y, mask), expected)


@given(st.integers(0, 10_000))
def test_masked_reduction_is_the_mean_over_selected_entries(seed):
    p, y, mask = random_inputs(seed)
    squared_errors = (p - y).square()[mask.expand_as(p)]
    expected = squared_errors.mean() if len(squared_errors) else torch.tensor(0.0).double()
    torch.testing.assert_close(masked_mse(p, y, mask, reduction="masked"), expected)


@pytest.mark.parametrize("reduction", ["all", "masked"])
def test_empty_selection_is_exactly_zero_with_zero_gradient(reduction):
    p, y, mask = random_inputs(0)
    p.requires_grad_()
    loss = masked_mse(p, y, torch.zeros_like(mask), reduction=reduction)
    loss.backward()
    assert loss.item() == 0
    assert torch.count_nonzero(p.grad) == 0


def test_the_divisor_is_told_what_is_selected_and_what_counts():
    p, y, mask = random_inputs(1)
    told = []

    def divisor(selected, valid):
        told.append((int(selected), int(valid)))
        return torch.tensor(5.0)

    loss = masked_mse(p, y, mask, reduction="masked", divisor=divisor)
    squared_errors = (p - y).square()[mask.expand_as(p)]
    torch.testing.assert_close(loss, squared_errors.sum() / 5)
    assert told == [(3 * int(mask.sum()), p.numel())]


def test_mask_with_a_channel_each_selects_single_entries():
    p, y, _ = random_inputs(1)
    mask = torch.rand_like(p) < 0.5
    expected = (p - y).square()[mask].mean()
    torch.testing.assert_close(masked_mse(p, y, mask, reduction="masked"), expected)


def test_divisor_counts_valid_voxels_only():
    p, y, mask = random_inputs(2)
    valid = torch.zeros_like(mask)
    valid[:, :, :2] = True
    expected = ((p - y)[:, :, :2] * mask[:, :, :2]).square().mean()
    torch.testing.assert_close(masked_mse(p, y, mask & valid, valid=valid), expected)


def test_millions_of_voxels_are_summed_without_loss_of_precision():
    generator = torch.Generator().manual_seed(0)
    p, y = (torch.rand(1, 4, 96, 96, 96, generator=generator) for _ in range(2))
    mask = torch.rand(1, 1, 96, 96, 96, generator=generator) < 0.5
    expected = ((p.double() - y.double()) * mask).square().mean()
    torch.testing.assert_close(masked_mse(p, y, mask).double(), expected, rtol=1e-6, atol=0)
