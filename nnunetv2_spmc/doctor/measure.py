"""Build a training, count what its step needs and time one: a program of its own.

It is a process that a lack of memory may kill, with a temporary nnUNet_results, where nnU-Net's
trainers leave a folder and a log. `cost.py` starts it.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from nnunetv2_spmc.common.cores import usable_cores
from nnunetv2_spmc.methods import nnUNetTrainerSPMC
from nnunetv2_spmc.training.dry_run import Counter, batch_without_data
from nnunetv2_spmc.training.memory import activation_type, step_memory
from nnunetv2_spmc.unlabeled.target import find_training_target

MEASURED_S = 2.0  # steps that take longer are estimated
STEPS = 3


def measure(dataset: str, configuration: str, plans: str, device: str) -> dict[str, Any]:
    """Return what a training step with SPMC's defaults needs.

    Args:
        dataset: name of a planned dataset.
        configuration: of its plans, with preprocessed labeled cases.
        plans: what they are called.
        device: "cuda", "cpu" or "mps".
    """
    if device == "cpu":
        torch.set_num_threads(usable_cores())  # as a training does
    target = find_training_target(dataset, configuration, plans)
    content = {**target.plans_manager.plans, "continue_training": False}
    on_device = torch.device(device)
    fold: Any = "all"
    trainer = nnUNetTrainerSPMC(content, configuration, fold, target.dataset_json, on_device)
    trainer.initialize()
    trainer.joint_network.train()
    trainer.iteration = trainer.num_epochs * trainer.num_iterations_per_epoch  # full weight
    labeled, unlabeled = trainer.batch_size, 0
    if trainer.uses_unlabeled_data:
        unlabeled = trainer.stream.batch_size
    memory = step_memory(trainer, labeled, unlabeled, activation_type(on_device))
    every = trainer.settings.unlabeled_every if unlabeled else 1
    operations = float(memory.operations)
    if every > 1:  # of a step on average: the others have no unlabeled patches
        others = step_memory(trainer, labeled, 0, activation_type(on_device)).operations
        operations = (operations + (every - 1) * others) / every
    speed = operations_per_second(len(trainer.configuration_manager.patch_size), on_device)
    seconds, is_measured = operations / speed, False
    there = _device_bytes(on_device)
    if seconds <= MEASURED_S and (there is None or memory.peak < there):
        batch = _random(batch_without_data(trainer, labeled, unlabeled, torch.float32), on_device)
        seconds, is_measured = _seconds_of_training(trainer, every, batch), True
    return {
        "labeled": labeled,
        "unlabeled": unlabeled,
        "patch": list(trainer.configuration_manager.patch_size),
        "peak_bytes": memory.peak,
        "operations": operations,
        "operations_per_second": speed,
        "seconds": seconds,
        "is_measured": is_measured,
        "steps": trainer.num_epochs * trainer.num_iterations_per_epoch,
        "epochs": trainer.num_epochs,
        "device_bytes": there,
    }


def _seconds_of_training(trainer: nnUNetTrainerSPMC, every: int, batch: dict[str, Any]) -> float:
    """Return the time of a step, on average over those with unlabeled patches and those without."""
    first = -(-trainer.iteration // every) * every

    def at(iteration: int) -> float:
        def step() -> None:
            trainer.iteration = iteration
            trainer.train_step(dict(batch))

        return seconds_of(step, trainer.device)

    return (at(first) + ((every - 1) * at(first + 1) if every > 1 else 0.0)) / every


def operations_per_second(dimension: int, device: torch.device) -> float:
    """Measure how fast a convolution is, forward and backward."""
    flat, solid = nn.Conv2d(64, 64, 3, padding=1), nn.Conv3d(32, 32, 3, padding=1)
    layer = (solid if dimension == 3 else flat).to(device)
    shape = (1, 32, 40, 40, 40) if dimension == 3 else (4, 64, 96, 96)
    images = torch.randn(shape, device=device, requires_grad=True)

    def step() -> None:
        with torch.autocast("cuda") if device.type == "cuda" else torch.enable_grad():
            result = layer(images)
        result.float().sum().backward()

    with Counter() as counter:
        step()
    return counter.operations / seconds_of(step, device)


def seconds_of(step: Callable[[], Any], device: torch.device) -> float:
    """Return the median time of a few steps, after one that is not counted."""
    times = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        step()
        if device.type != "cpu":
            getattr(torch, device.type).synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def _random(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    def with_data(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return torch.randn(tensor.shape, device=device)
        return torch.ones(tensor.shape, dtype=tensor.dtype, device=device)

    return dict(tree_map_only(Tensor, with_data, batch))


def _device_bytes(device: torch.device) -> int | None:
    """Return the memory of the device, None where that is not known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None


if __name__ == "__main__":
    *arguments, result = sys.argv[1:]
    Path(result).write_text(json.dumps(measure(*arguments)), encoding="utf-8")
