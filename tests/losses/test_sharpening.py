import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_spmc.losses import sharpen

# by hand: 0.6^10 / (0.6^10 + 0.4^10) = 1.5^10 / (1.5^10 + 1) = 57.665.. / 58.665..
BY_HAND = 1.5**10 / (1.5**10 + 1)


def test_value_by_hand():
    p = torch.tensor([0.6, 0.4]).view(1, 2, 1)
    assert sharpen(p, 0.1).flatten().tolist() == pytest.approx([BY_HAND, 1 - BY_HAND])


@given(st.floats(0.01, 0.99), st.floats(0.1, 1.0))
def test_equals_the_powers_of_equation_12_in_float64(p, temperature):
    exponent = 1 / temperature
    expected = p**exponent / (p**exponent + (1 - p) ** exponent)
    actual = sharpen(torch.tensor(p, dtype=torch.float32), temperature)
    assert actual.item() == pytest.approx(expected, abs=1e-5)


def test_extremes_stay_finite():
    p = torch.tensor([0.0, 1e-38, 0.5, 1.0])
    assert sharpen(p, 0.1).tolist() == [0.0, 0.0, 0.5, 1.0]
    assert torch.isfinite(sharpen(torch.tensor([[0.0, 1.0], [1.0, 0.0]])[None], 0.1)).all()


def test_softmax_form_sums_to_one_and_agrees_with_the_binary_form_for_two_classes():
    p = torch.softmax(torch.randn(2, 2, 50, generator=torch.Generator().manual_seed(0)), dim=1)
    soft = sharpen(p, 0.5, form="softmax")
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(2, 50))
    torch.testing.assert_close(soft, sharpen(p, 0.5))


def test_softmax_form_by_hand_for_three_classes():
    p = torch.tensor([0.5, 0.3, 0.2]).view(1, 3, 1)
    squares = [0.25, 0.09, 0.04]
    expected = [square / sum(squares) for square in squares]
    assert sharpen(p, 0.5, form="softmax").flatten().tolist() == pytest.approx(expected)


def test_temperature_one_changes_nothing():
    p = torch.rand(1, 3, 10, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sharpen(p, 1.0), p)


def test_pseudo_labels_carry_no_gradient():
    p = torch.rand(1, 2, 3, requires_grad=True)
    assert not sharpen(p, 0.1).requires_grad


def test_softmax_form_of_no_class_at_all_is_finite():
    """As of a label under the ignore label, which is 0 in all channels."""
    assert sharpen(torch.zeros(1, 4, 2), 0.1, form="softmax").flatten().tolist() == [0.25] * 8
