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


def test_processes_of_one_machine_share_its_cores(monkeypatch) -> None:
    monkeypatch.setattr(processes, "usable_cores", lambda: 5)
    monkeypatch.setattr(processes.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(processes.dist, "get_world_size", lambda: 2)
    before = torch.get_num_threads()
    try:
        for of_machine, threads in ((None, 2), ("1", 5), ("8", 1)):  # None: -num_gpus 2
            if of_machine:
                monkeypatch.setenv("LOCAL_WORLD_SIZE", of_machine)
            torch.set_num_threads(8)
            processes.limit_threads(torch.device("cpu"))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
