"""The devices of this machine."""

from __future__ import annotations

import pytest
import torch

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.doctor import cost
from nnunetv2_spmc.training.devices import best_device, check_device


@pytest.fixture
def machine(monkeypatch):
    """Give this machine GPUs of NVIDIA and of Apple, or none."""

    def have(gpus=0, *, apple=False):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)

    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return have


@pytest.mark.parametrize(
    ("gpus", "apple", "best"), [(2, False, "cuda"), (0, True, "mps"), (0, False, "cpu")]
)
def test_the_best_device_is_a_gpu_of_nvidia_then_of_apple_then_the_cpu(machine, gpus, apple, best):
    machine(gpus, apple=apple)
    assert best_device() == best
    check_device(best)


@pytest.mark.parametrize(("device", "gpu"), [("cuda", "GPU"), ("mps", "Apple GPU")])
def test_a_device_that_is_not_there_is_refused(machine, device, gpu):
    machine()
    with pytest.raises(DataError, match=rf"^There is no {gpu} that PyTorch can use.* -device cpu"):
        check_device(device)


def test_more_processes_than_gpus_are_refused(machine):
    machine(2)
    with pytest.raises(DataError, match=r"^-num_gpus 3 is more than the 2 that this machine has"):
        check_device("cuda", 3)


def test_no_step_is_measured_on_a_device_that_is_not_there(machine, monkeypatch):
    machine()
    monkeypatch.setattr(cost, "measured", None)
    with pytest.raises(DataError, match=r"^There is no GPU that PyTorch can use"):
        list(cost.check_cost(None, "cuda"))
