from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import distributed as dist

from nnunetv2_spmc.common.errors import SPMCError
from nnunetv2_spmc.losses import cdps, masked_mse
from nnunetv2_spmc.training.processes import (
    end_process_group,
    entries_of_all_processes,
    run_in_processes,
)
from tests.training.spawned import be_killed, refuse, stop


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


def test_one_process_divides_by_what_it_selects():
    assert entries_of_all_processes(torch.tensor(3), torch.tensor(9)) == 3


@given(st.integers(0, 10_000), st.booleans())
def test_two_processes_average_to_the_mean_over_the_voxels_of_both(seed, with_valid):
    """The processes are played one after the other; what they sum up is known beforehand."""
    generator = torch.Generator().manual_seed(seed)
    p, y = (torch.rand(2, 3, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(2, 1, 4, 5, generator=generator) < 0.3
    valid = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)) < 0.7
    valid = valid if with_valid else torch.ones_like(valid)
    mask &= valid
    processes = (slice(0, 1), slice(1, 2))
    with as_processes(mask.sum() * 3, valid.sum() * 3):
        splat = [
            masked_mse(
                p[i],
                y[i],
                mask[i],
                reduction="masked",
                valid=valid[i],
                divisor=entries_of_all_processes,
            )
            for i in processes
        ]
    with as_processes(mask.sum() * 3, torch.tensor(p.numel())):
        corrected = [
            cdps(
                p[i],
                p[i],
                y[i],
                mask[i],
                reduction="masked",
                valid=valid[i],
                divisor=entries_of_all_processes,
            )[0]
            for i in processes
        ]
    # the trainer weighs unlabeled voxels alike, and processes alike for labeled ones
    weights = [2 * part.sum() / valid.sum().clamp(min=1) for part in valid]
    expected = masked_mse(p, y, mask, reduction="masked")
    mean = (splat[0] * weights[0] + splat[1] * weights[1]) / 2
    torch.testing.assert_close(mean, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(sum(corrected) / 2, expected, rtol=1e-6, atol=1e-9)


def test_the_threads_of_gloo_rest_before_the_group_ends(tmp_path, monkeypatch):
    """One that is still at work while Python ends aborts the process."""
    rests = []
    monkeypatch.setattr("time.sleep", lambda _: rests.append(dist.is_initialized()))
    store = (tmp_path / "store").as_uri()
    dist.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    end_process_group()
    assert rests == [True]
    assert not dist.is_initialized()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "arguments", "sentence"),
    [(refuse, ("what is wrong",), "^what is wrong$"), (be_killed, (), "of 1 was ended by SIGKILL")],
)
def test_why_a_process_ended_is_one_sentence(work, arguments, sentence):
    with pytest.raises(SPMCError, match=sentence):
        run_in_processes(work, 1, *arguments)


@pytest.mark.slow
def test_a_process_that_was_stopped_gives_its_status():
    with pytest.raises(SystemExit) as ended:
        run_in_processes(stop, 1)
    assert ended.value.code == 143
