from __future__ import annotations

import torch

from nnunetv2_spmc.training import processes


def test_a_training_takes_no_more_threads_than_it_has_cores(make_trainer, monkeypatch) -> None:
    monkeypatch.setattr(processes, "usable_cores", lambda: 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # as nnUNetv2_train does on a machine of two cores
    try:
        make_trainer()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_fewer_threads_than_cores_are_left_as_they_are(make_trainer, monkeypatch) -> None:
    monkeypatch.setattr(processes, "usable_cores", lambda: 64)
    before = torch.get_num_threads()
    make_trainer()
    assert torch.get_num_threads() == before
