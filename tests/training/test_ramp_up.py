import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_spmc.training.ramp_up import gaussian_ramp_up


def test_start_and_end():
    assert gaussian_ramp_up(0, 30_000, 0.1) == pytest.approx(0.1 * math.exp(-5))
    assert gaussian_ramp_up(30_000, 30_000, 0.1) == 0.1


def test_half_way_by_hand():
    assert gaussian_ramp_up(500, 1000, 1.0) == pytest.approx(math.exp(-1.25))


def test_it_stays_at_its_maximum_after_the_end():
    assert gaussian_ramp_up(2000, 1000, 0.1) == 0.1


@given(st.integers(0, 999))
def test_it_never_falls(iteration):
    assert gaussian_ramp_up(iteration + 1, 1000, 1) > gaussian_ramp_up(iteration, 1000, 1) > 0


def test_without_a_ramp_up_it_is_at_its_maximum_at_once():
    assert gaussian_ramp_up(0, 0, 0.1) == 0.1
