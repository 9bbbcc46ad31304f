"""Time and memory of a training step against stock nnU-Net and against the floor.

    python -m benchmarks.performance.step [--device cuda] [--rows 3d:2 3d:4 3d:14 2d:2 2d:4 2d:14]
    python -m benchmarks.performance.step --terms        the loss terms alone, and their error
    python -m benchmarks.performance.step --variants     what might make a step cheaper

Floor: forward and backward of both branches on the same labeled and unlabeled patches, nnU-Net's
loss on the labeled part and a plain sum on the rest, and the optimizer's step. So step/floor shows
what the SPMC terms cost, step/stock what semi-supervision costs. The ratios are medians of the
ratios of interleaved repeats. Batches are on the device already: loading, augmentation and copies
to the device are not in it. On CUDA time is taken from events, eager and compiled; on a CPU it is
the time that the process spent on all its threads, so that other processes hardly count.

Memory is what a step of the planned batch adds to weights, momenta and gradients at its peak:
device memory on CUDA, bytes that autograd saves for the backward pass on a CPU. The error of the
terms is that of loss and gradients against float64 formulas written again here, relative to the
largest value.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from benchmarks.performance.tables import MACHINE, RESULTS_HELP, machine, publish
from benchmarks.performance.terms import measure_terms, terms
from benchmarks.performance.timing import Step, device_memory, interleaved, ratio, saved_bytes
from benchmarks.performance.trainers import PATCHES, empty_dataset, random_batch, trainer
from benchmarks.performance.variants import measure_variants
from nnunetv2_spmc.methods import nnUNetTrainerSPMC_paper
from nnunetv2_spmc.training import step as parts
from nnunetv2_spmc.training.backward import clip_and_step, run_passes
from nnunetv2_spmc.training.memory import activation_bytes

ROWS = [f"{patch}:{classes}" for patch in PATCHES for classes in (2, 4, 14)]


def floor_step(spmc: Any, batch: dict[str, Any]) -> None:
    """Do the passes of a step without any SPMC term."""
    spmc.optimizer.zero_grad(set_to_none=True)

    def unlabeled() -> parts.Loss:
        main, auxiliary = spmc.joint_network(batch["unlabeled"]["data"])
        return 1e-9 * (main[0].float().sum() + auxiliary[0].float().sum()), {}

    def labeled() -> parts.Loss:
        main, auxiliary = spmc.joint_network(batch["data"])
        return spmc.loss(main, batch["target"]) + spmc.loss(auxiliary, batch["target"]), {}

    step = parts.Step(parts.Labeled(batch["data"], batch["target"]), None, 1.0, 0)
    passes = (unlabeled, labeled)
    run_passes(passes, step, spmc.joint_network, spmc.autocast, spmc.grad_scaler)
    clip_and_step(spmc.optimizer, spmc.grad_scaler)


def memory_of_steps(stock: Any, spmc: Any, classes: int, device: torch.device) -> dict[str, int]:
    """Return the peak memory of a step of the planned batch, stock and with SPMC."""
    batch = random_batch(spmc, spmc.configuration_manager.batch_size, classes, device)
    if device.type == "cuda":
        return {
            "stock": device_memory(lambda: stock.train_step(batch)),
            "spmc": device_memory(lambda: spmc.train_step(batch)),
        }
    images, target = batch["data"], batch["target"]
    one, other = (
        [torch.randn(len(t), classes, *t.shape[2:], requires_grad=True) for t in target]
        for _ in range(2)
    )
    supervised = saved_bytes(lambda: stock.loss(one, target))
    gradients = 2 * sum(scale.nbytes for scale in one)
    passes = [  # of SPMC, one after the other
        saved_bytes(lambda: spmc.labeled_loss((one, other), parts.Labeled(images, target))),
        supervised + gradients,  # while nnU-Net's loss of a branch is recomputed
        saved_bytes(lambda: spmc.unlabeled_loss((one, other), parts.Unlabeled(images))),
    ]
    networks = {"stock": stock.network, "spmc": spmc.joint_network}
    used = {
        name: activation_bytes(network, tuple(images.shape), torch.float32)
        for name, network in networks.items()
    }
    used["stock"] += supervised
    used["spmc"] += max(passes)
    return used


def measure(
    patch: str, classes: int, device: torch.device, repeats: int, batch_size: int | None, mode: str
) -> dict[str, Any]:
    """Measure the steps of one patch and number of classes; a row of the table."""
    os.environ["nnUNet_compile"] = str(mode == "compiled").lower()
    torch.manual_seed(0)
    stock = trainer(nnUNetTrainer, patch, classes, device)
    spmc = trainer(nnUNetTrainerSPMC_paper, patch, classes, device)
    used = memory_of_steps(stock, spmc, classes, device)
    batch_size = batch_size or spmc.configuration_manager.batch_size
    batch = random_batch(spmc, batch_size, classes, device)
    # clear decisions and doubtful ones, as in a network that has learned something
    shape = (batch_size, classes, *spmc.configuration_manager.patch_size)
    logits = [2 * torch.randn(shape, device=device) for _ in range(4)]

    def loss_terms() -> None:
        terms(spmc, [x.requires_grad_() for x in logits], batch["target"]).backward()
        for tensor in logits:
            tensor.grad = None

    steps: dict[str, Step] = {
        "stock": lambda: stock.train_step({**batch, "target": list(batch["target"])}),
        "floor": lambda: floor_step(spmc, batch),
        "spmc": lambda: spmc.train_step(batch),
        "terms": loss_terms,
    }
    times = interleaved(steps, device, repeats)
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        "patch": "x".join(map(str, PATCHES[patch][0])),
        "batch": batch_size,
        "classes": classes,
        "mode": mode,
        "stock ms": round(1000 * median["stock"]),
        "floor ms": round(1000 * median["floor"]),
        "spmc ms": round(1000 * median["spmc"]),
        "step/floor": f"{ratio(times, 'spmc', 'floor'):.3f}",
        "step/stock": f"{ratio(times, 'spmc', 'stock'):.2f}",
        "terms/step": f"{ratio(times, 'terms', 'spmc'):.4f}",
        "stock MiB": used["stock"] >> 20,
        "spmc MiB": used["spmc"] >> 20,
        "memory/stock": f"{used['spmc'] / used['stock']:.2f}",
        MACHINE: machine(torch.get_num_threads(), f"medians of {repeats} interleaved repeats"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rows", nargs="+", metavar="PATCH:CLASSES", default=ROWS)
    parser.add_argument("--repeats", type=int, help="default: 20 on CUDA, 3 on a CPU")
    parser.add_argument("--batch", type=int, help="default: as planned on CUDA, 1 on a CPU")
    parser.add_argument("--terms", action="store_true", help="measure the loss terms only")
    parser.add_argument("--variants", action="store_true", help="measure those, with two classes")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help=RESULTS_HELP)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_cuda = device.type == "cuda"
    torch.backends.cudnn.benchmark = True
    repeats = arguments.repeats or (20 if on_cuda else 3)
    batch = arguments.batch or (None if on_cuda else 1)
    rows = []
    with empty_dataset():
        for patch, classes in (row.split(":") for row in arguments.rows):
            if arguments.variants:
                os.environ["nnUNet_compile"] = "false"
                rows += measure_variants(patch, device, repeats, batch)
                continue
            if arguments.terms:
                rows.append(measure_terms(patch, int(classes), device, repeats))
                continue
            for mode in ("eager", "compiled") if on_cuda else ("eager",):
                rows.append(measure(patch, int(classes), device, repeats, batch, mode))
                print(rows[-1], flush=True)
    if arguments.terms:
        publish("terms", rows, arguments.results, ["patch", "classes"])
    elif arguments.variants:
        publish("variants", rows, arguments.results, ["patch", "batch", "variant"])
    else:
        publish("step", rows, arguments.results, ["patch", "batch", "classes", "mode"])


if __name__ == "__main__":
    main()
