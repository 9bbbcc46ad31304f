from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed as dist

from nnunetv2_spmc.losses import cdps, masked_mse


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


@contextmanager
def as_processes(*sums):
    """Run as several processes, among which all_reduce has these sums."""

    def all_reduce(tensor):
        tensor.copy_(torch.stack(sums))

    with (
        mock.patch.object(dist, "is_initialized", return_value=True),
        mock.patch.object(dist, "all_reduce", all_reduce),
    ):
        yield


@given(st.integers(0, 10_000), st.booleans())
def test_two_processes_average_to_the_mean_over_the_voxels_of_both(seed, with_valid):
    """The processes are played one after the other; what they sum up is known beforehand."""
    p, y, mask = random_inputs(seed)
    valid = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)) < 0.7
    valid = valid if with_valid else torch.ones_like(valid)
    mask &= valid
    processes = (slice(0, 1), slice(1, 2))
    with as_processes(mask.sum() * 3, valid.sum() * 3):
        splat = [
            masked_mse(p[i], y[i], mask[i], reduction="masked", valid=valid[i]) for i in processes
        ]
    with as_processes(mask.sum() * 3, torch.tensor(p.numel())):
        corrected = [
            cdps(p[i], p[i], y[i], mask[i], reduction="masked", valid=valid[i])[0]
            for i in processes
        ]
    # the trainer weighs unlabeled voxels alike, and processes alike for labeled ones
    weights = [2 * part.sum() / valid.sum().clamp(min=1) for part in valid]
    expected = masked_mse(p, y, mask, reduction="masked")
    mean = (splat[0] * weights[0] + splat[1] * weights[1]) / 2
    torch.testing.assert_close(mean, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(sum(corrected) / 2, expected, rtol=1e-6, atol=1e-9)


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
