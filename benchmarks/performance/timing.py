"""Time and memory of what is measured in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Step = Callable[[], Any]


def seconds(step: Step, device: torch.device) -> float:
    """Return the device's time (CUDA), or the time the process spent on all threads (CPU)."""
    if device.type != "cuda":
        start = time.process_time()
        step()
        return time.process_time() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def device_memory(step: Step) -> int:
    """Return what a step adds to the memory of the CUDA device at its peak."""
    step()  # momenta and gradients are there now
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    base = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - base


def saved_bytes(loss: Step) -> int:
    """Return the bytes that a loss saves for its backward pass."""
    saved: dict[int, torch.UntypedStorage] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage  # kept, so that no other one takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss()
    return sum(storage.nbytes() for storage in saved.values())


def interleaved(steps: dict[str, Step], device: torch.device, repeats: int) -> dict[str, list]:
    """Time the steps in turns, on CUDA after a warm-up."""
    if device.type == "cuda":
        for step in [*steps.values()] * 3:
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(seconds(step, device))
    return times


def ratio(times: dict[str, list], one: str, other: str) -> float:
    """Return the median of the ratios of what was measured in turns."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))
