"""Unlabeled batches reach every Nth step, in whatever order the items of workers come."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_spmc.loading.early_patches import EarlyPatches
from nnunetv2_spmc.loading.paired_loader import PairedDataLoader


def worker(every):
    labeled = ({"data": number} for number in count())
    return PairedDataLoader(labeled, ({"data": number} for number in count()), every)


@given(
    every=st.integers(1, 5),
    order=st.lists(st.integers(0, 3), min_size=2, max_size=60),
    first_step=st.integers(0, 7),
)
def test_each_nth_step_has_unlabeled_patches_and_no_other(every, order, first_step):
    workers = [worker(every) for _ in range(4)]
    early = EarlyPatches(every)
    early.keep(next(workers[order[0]]))  # drawn before the training
    for iteration, number in enumerate(order[1:], start=first_step):
        batch = early.hand_out(next(workers[number]), iteration)
        assert ("unlabeled" in batch) == (iteration % every == 0)
        assert "data" in batch
    assert len(early.batches) <= len(workers) + 1


@pytest.mark.parametrize(("every", "drawn"), [(1, 9), (3, 3)])
def test_a_loader_draws_unlabeled_patches_for_every_nth_item(every, drawn):
    loader = worker(every)
    assert sum("unlabeled" in next(loader) for _ in range(9)) == drawn
    assert next(loader.unlabeled) == {"data": drawn}


def test_a_step_takes_the_unlabeled_patches_of_its_own_item():
    early = EarlyPatches(2)
    early.keep({"unlabeled": "early"})
    assert early.hand_out({"unlabeled": "own"}, 4) == {"unlabeled": "own"}
    assert early.hand_out({"data": 1}, 5) == {"data": 1}
    assert early.hand_out({"data": 1}, 6) == {"data": 1, "unlabeled": "early"}
