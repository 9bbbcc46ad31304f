"""What several processes of one training share."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, multiprocessing, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from nnunetv2_spmc.common.cores import usable_cores
from nnunetv2_spmc.common.errors import SPMCError

GLOO_REST_S = 1.0  # a thread needs microseconds, once a busy machine gives it a turn


def device_of_process(asked_for: torch.device) -> torch.device:
    """Return the device of this process, of the kind that is asked for.

    nnU-Net takes the global rank for the GPU's number, which holds on one machine only.
    """
    if asked_for.type != "cuda":
        return asked_for
    return torch.device("cuda", torch.cuda.current_device())


def processes_of_machine() -> int:
    """Return how many processes of this training run on this machine."""
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    return int(os.environ.get("LOCAL_WORLD_SIZE", dist.get_world_size()))  # torchrun sets it


def limit_threads(device: torch.device) -> None:
    """On a CPU, compute with no more threads than there are cores for this process.

    nnU-Net takes a thread per core of the machine, also where a job or a container has fewer, and
    in each of several processes. Threads that share a core wait for each other
    (docs/performance.md).
    """
    if device.type == "cpu":
        cores = max(1, usable_cores() // processes_of_machine())
        torch.set_num_threads(min(torch.get_num_threads(), cores))


def distributed(network: nn.Module, device: torch.device) -> DistributedDataParallel:
    """Wrap a network for training in several processes, on any kind of device."""
    network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return DistributedDataParallel(network, device_ids=[device] if device.type == "cuda" else None)


def end_process_group() -> None:
    """Destroy the group of all processes as the last thing that a program does.

    PyTorch keeps the threads of gloo where a network was wrapped for several processes. A thread
    that lets go of the last tensor while Python is ending aborts the process ("terminate called
    without an active exception"), though all went well; so it is given the time to do so before.
    """
    if dist.get_backend() == dist.Backend.GLOO:
        time.sleep(GLOO_REST_S)
    dist.destroy_process_group()


def entries_of_all_processes(selected: Tensor, valid: Tensor) -> Tensor:
    """Share the selected entries of all processes out by the number of valid ones.

    The caller weighs a process by its valid voxels: then the mean over processes is the mean over
    the selected voxels of all of them, where a mean of means would count a process with three
    selected voxels like one with thousands.

    Args:
        selected: the number of selected entries of this process.
        valid: the number of those that count at all.

    Returns:
        What the sum over the selected entries of this process is divided by.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return selected
    everywhere = torch.stack([selected, valid]).float()
    dist.all_reduce(everywhere)
    return valid * (everywhere[0] / everywhere[1].clamp(min=1))


def run_in_processes(work: Callable[..., None], number: int, *arguments: Any) -> None:
    """Call `work(rank, *arguments)` in each of `number` processes, and wait for all of them.

    Raises:
        SPMCError: with the sentence of the first process that had one, or if one was killed.
        SystemExit: the status of one that was stopped.
    """
    sentences = multiprocessing.get_context("spawn").SimpleQueue()
    arguments = (work, sentences, arguments)
    started: Any = multiprocessing.spawn(_work, arguments, nprocs=number, join=False)
    try:
        while not started.join():
            pass
    except multiprocessing.ProcessExitedException as ended:
        if not sentences.empty():
            raise SPMCError(sentences.get()) from None
        if ended.signal_name:
            raise SPMCError(
                f"Process {ended.error_index} of {number} was ended by {ended.signal_name} (the "
                "kernel does that where memory runs out); --c goes on from the last checkpoint."
            ) from None
        raise SystemExit(ended.exit_code) from None
    except (KeyboardInterrupt, SystemExit):
        for process in started.processes:
            process.terminate()  # Python would wait for them at its end
        raise


def _work(rank: int, work: Callable[..., None], sentences: Any, arguments: tuple[Any, ...]) -> None:
    try:
        work(rank, *arguments)
    except SPMCError as error:
        sentences.put(str(error))
        sys.exit(1)
