"""What it costs if PyTorch computes with more threads than the process has cores.

    python -m benchmarks.performance.threads [--results benchmarks/results]
    OMP_WAIT_POLICY=passive python -m benchmarks.performance.threads --results benchmarks/results

The second line is how the accuracy benchmarks run: threads that wait give their core away.

nnU-Net takes a thread for each core of the machine, and a process that is pinned to one core, or a
job of a cluster, has fewer. A step is a forward and a backward pass of the 2D networks of the
accuracy benchmarks, on random patches. The process pins itself to one core. The ratio is the median
of those of interleaved repeats, in seconds on the clock, because threads that wait use no time of a
core. Needs Linux, and a core that nothing else uses.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from benchmarks.performance.tables import MACHINE, RESULTS_HELP, machine, publish
from benchmarks.performance.timing import Step

STEPS = ((128, 6, [16, 32, 64, 128, 128]), (64, 8, [8, 16, 32, 64, 64]))  # side, batch, features
CLASSES, REPEATS, THREADS = 3, 10, (1, 2)


def step_of(side: int, batch: int, features: list[int]) -> Step:
    """Return a step of a 2D U-Net with a cross-entropy on each of its outputs."""
    stages = len(features)
    network = PlainConvUNet(
        1,
        stages,
        features,
        nn.Conv2d,
        3,
        [1, *[2] * (stages - 1)],
        2,
        CLASSES,
        2,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    )
    images = torch.randn(batch, 1, side, side)
    target = torch.randint(0, CLASSES, (batch, side, side))

    def step() -> None:
        network.zero_grad()
        losses = (
            nn.functional.cross_entropy(output, target[:, :: 2**level, :: 2**level])
            for level, output in enumerate(network(images))
        )
        torch.stack(list(losses)).sum().backward()

    return step


def clock_seconds(step: Step, threads: int) -> float:
    """Return how long a step takes with this number of threads."""
    torch.set_num_threads(threads)
    step()  # the first one starts the threads
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def row_of(side: int, batch: int, features: list[int]) -> dict[str, Any]:
    """Measure a step with one thread and with two, in turns."""
    step = step_of(side, batch, features)
    one, two = zip(
        *(tuple(clock_seconds(step, threads) for threads in THREADS) for _ in range(REPEATS)),
        strict=True,
    )
    return {
        "patch": f"{side}x{side}",
        "batch": batch,
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "not set"),
        "one thread ms": round(1000 * statistics.median(one)),
        "two threads ms": round(1000 * statistics.median(two)),
        "two/one": f"{statistics.median(b / a for a, b in zip(one, two, strict=True)):.1f}",
        MACHINE: machine(1, f"one core; medians of {REPEATS} interleaved repeats"),
    }


def main() -> None:
    """Measure, print and keep the rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, metavar="FOLDER", help=RESULTS_HELP)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = [row_of(*step) for step in STEPS]
    publish("threads", rows, arguments.results, ["patch", "batch", "OMP_WAIT_POLICY"])


if __name__ == "__main__":
    main()
