"""Count what a training step has to do at least: operations and bytes of its convolutions.

    python -m benchmarks.performance.floor [--results benchmarks/results]

The networks are built without data, so the count takes seconds. A convolution of 2 * K * C_in
operations per output value (K: kernel positions) costs that once forward and twice backward, for
the gradients of its input and of its weights. It reads its input and weights and writes its output,
in float16 as under autocast; backward it reads and writes twice of that. Normalization,
nonlinearity, interpolation and losses are left out: this is the floor, not an estimate.

The ceilings divide by what an NVIDIA A100 (40 GB) does by its data sheet: 312 TFLOP/s of float16
on tensor cores, 1555 GB/s. No step can be faster on it.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from benchmarks.performance.tables import RESULTS_HELP, publish
from benchmarks.performance.trainers import PATCHES, empty_dataset, trainer
from nnunetv2_spmc.methods import nnUNetTrainerSPMC

HALF = 2  # bytes
PASSES = 3  # forward, gradients of inputs, gradients of weights
A100_FLOPS, A100_BYTES = 312e12, 1555e9  # per second
# passes over (B, C, ...) float32 of the loss terms of a branch, forward and backward, labeled part:
# softmax 2, its gradient 3, one-hot 1, error 3, mask 2, norm 1, its gradient 2; unlabeled part:
# softmax 2, its gradient 3, cross-entropy 2, its gradient 3, largest 1, sharpening 6, largest 1,
# error 3, mask 2, norm 1, its gradient 2, sum of gradients 3
LOSS_PASSES = 14 + 29


def convolutions(network: nn.Module, shape: tuple[int, ...]) -> tuple[int, int]:
    """Return operations and bytes of the convolutions in a forward pass.

    Args:
        network: any network, on the meta device.
        shape: (B, channels, ...) of the images.
    """
    operations = moved = 0

    def count(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal operations, moved
        assert isinstance(layer, _ConvNd)
        kernel = math.prod(layer.kernel_size)
        # each output value of a transposed convolution with stride = kernel sees one position
        positions = 1 if isinstance(layer, _ConvTransposeNd) else kernel
        operations += 2 * positions * layer.in_channels * output.numel()
        moved += HALF * (inputs[0].numel() + layer.weight.numel() + output.numel())

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, _ConvNd)]
    with torch.no_grad():
        network(torch.empty(shape, device="meta"))
    for hook in hooks:
        hook.remove()
    return operations, moved


def rows_of(patch: str) -> list[dict[str, Any]]:
    size, batch = PATCHES[patch]
    device = torch.device("cpu")
    stock = trainer(nnUNetTrainer, patch, 2, device).network.to("meta")
    spmc = trainer(nnUNetTrainerSPMC, patch, 2, device).joint_network.to("meta")
    shape = (batch, 1, *size)
    main = convolutions(stock, shape)
    both = convolutions(spmc, shape)
    parts = {
        "stock: labeled batch": main,
        "SPMC: both branches, labeled and unlabeled batch": (2 * both[0], 2 * both[1]),
    }
    rows = []
    for name, (operations, moved) in parts.items():
        operations, moved = PASSES * operations, PASSES * moved
        rows.append(
            {
                "patch": f"{batch} x {'x'.join(map(str, size))}",
                "step": name,
                "TFLOP": f"{operations / 1e12:.2f}",
                "GB": f"{moved / 1e9:.1f}",
                "/stock": f"{operations / PASSES / main[0]:.2f}",
                "ceiling A100 ms": f"{1000 * max(operations / A100_FLOPS, moved / A100_BYTES):.0f}",
            }
        )
    for classes in (2, 4, 14):
        moved = LOSS_PASSES * 2 * batch * math.prod(size) * classes * 4
        rows.append(
            {
                "patch": f"{batch} x {'x'.join(map(str, size))}",
                "step": f"SPMC terms, {classes} classes",
                "TFLOP": "",
                "GB": f"{moved / 1e9:.1f}",
                "/stock": "",
                "ceiling A100 ms": f"{1000 * moved / A100_BYTES:.1f}",
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, metavar="FOLDER", help=RESULTS_HELP)
    arguments = parser.parse_args()
    with empty_dataset():
        rows = [row for patch in PATCHES for row in rows_of(patch)]
    publish("floor", rows, arguments.results, ["patch", "step"])


if __name__ == "__main__":
    main()
