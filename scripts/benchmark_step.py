"""Time and memory of a training step against stock nnU-Net and against the floor.

    python scripts/benchmark_step.py [--device cuda] [--patches 3d 2d] [--classes 2 4 14]

Floor: forward and backward of both branches on the same labeled and unlabeled patches, nnU-Net's
loss on the labeled part and a plain sum on the rest. So spmc/floor shows what the SPMC terms cost,
spmc/stock what semi-supervision costs. Times are medians of interleaved repeats; spmc/floor is the
median of the ratios of the pairs, the other ratios are ratios of medians. Batches are on the device
already: loading, augmentation and copies to the device are not in it.

Memory is what a step adds to the weights, their momenta and gradients at its peak: device memory on
CUDA, bytes that autograd saves for the backward pass on a CPU.
"""

from __future__ import annotations

import argparse
import collections
import csv
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_spmc.methods import nnUNetTrainerSPMC

PATCHES = {"3d": ([80, 112, 112], 2, 6), "2d": ([256, 256], 8, 7)}  # size, batch, stages


def plans(patch: str) -> dict[str, Any]:
    """Return minimal plans with the network that nnU-Net plans for such patches."""
    size, batch, stages = PATCHES[patch]
    dimension = len(size)
    first_strides = [[1] * dimension] + [[2] * dimension] * (stages - 2)
    last_stride = [1, 2, 2] if dimension == 3 else [2, 2]
    largest = 320 if dimension == 3 else 512
    arguments = {
        "n_stages": stages,
        "features_per_stage": [min(32 * 2**i, largest) for i in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
        "kernel_sizes": [[3] * dimension] * stages,
        "strides": [*first_strides, last_stride],
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration = {
        "data_identifier": "benchmark",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": batch,
        "patch_size": size,
        "spacing": [1.0] * dimension,
        "batch_dice": False,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": "Dataset999_Benchmark",
        "plans_name": "nnUNetPlans",
        "configurations": {"benchmark": configuration},
        "continue_training": False,
    }


def trainer(kind: type, patch: str, classes: int, device: torch.device) -> Any:
    labels = {"background": 0} | {f"class{i}": i for i in range(1, classes)}
    dataset_json = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
    built = kind(plans(patch), "benchmark", 0, dataset_json, device)
    built.initialize()
    built.network.train()
    if kind is nnUNetTrainerSPMC:
        built.training_network.train()
        built.iteration = built.num_epochs * built.num_iterations_per_epoch  # lambda is lambda_max
    return built


def random_batch(patch: str, classes: int, scales: list, device: torch.device) -> dict[str, Any]:
    size, batch, _ = PATCHES[patch]
    target = [
        torch.randint(
            0, classes, (batch, 1, *(round(n * s) for n, s in zip(size, scale, strict=True)))
        ).to(device, torch.int16)
        for scale in scales
    ]
    images = [torch.randn(batch, 1, *size, device=device) for _ in range(2)]
    return {"data": images[0], "target": target, "unlabeled": {"data": images[1]}}


def floor_step(spmc: Any, batch: dict[str, Any]) -> None:
    """Do the passes of a step without any SPMC term."""
    spmc.optimizer.zero_grad(set_to_none=True)
    with spmc._autocast():
        main, auxiliary = spmc.training_network(batch["unlabeled"]["data"])
        loss = 1e-9 * (main[0].float().sum() + auxiliary[0].float().sum())
    spmc._backward(loss)
    with spmc._autocast():
        main, auxiliary = spmc.training_network(batch["data"])
        loss = spmc.loss(main, batch["target"]) + spmc.loss(auxiliary, batch["target"])
    spmc._backward(loss)
    spmc._optimizer_step()


def loss_terms(spmc: Any, batch: dict[str, Any], outputs: list) -> Callable[[], None]:
    """Return the SPMC terms alone, forward and backward from fixed logits."""

    def step() -> None:
        logits = [tensor.detach().requires_grad_() for tensor in outputs]
        supervised = spmc.loss
        spmc.loss = lambda output, _: output.sum() * 0
        try:
            with spmc._autocast():
                labeled, _ = spmc.labeled_loss((logits[0], logits[1]), batch["target"])
                unlabeled, _ = spmc.unlabeled_loss((logits[0], logits[1]))
            (labeled + 0.1 * unlabeled).backward()
        finally:
            spmc.loss = supervised

    return step


def seconds(step: Callable[[], Any], device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        step()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def memory(step: Callable[[], Any], device: torch.device) -> int:
    """Return the peak device memory (CUDA) or the peak of bytes saved for backward (CPU)."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    return saved_bytes(step)


def saved_bytes(step: Callable[[], Any]) -> int:
    users: collections.Counter[int] = collections.Counter()  # saved tensors per storage
    current = peak = 0

    class Saved:
        def __init__(self, tensor: torch.Tensor) -> None:
            nonlocal current, peak
            storage = tensor.untyped_storage()
            self.tensor, self.key, self.size = tensor, storage.data_ptr(), storage.nbytes()
            current += 0 if users[self.key] else self.size
            users[self.key] += 1
            peak = max(peak, current)

        def __del__(self) -> None:
            nonlocal current
            users[self.key] -= 1
            current -= 0 if users[self.key] else self.size

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        step()
    return peak


def measure(patch: str, classes: int, device: torch.device, repeats: int) -> dict[str, Any]:
    stock = trainer(nnUNetTrainer, patch, classes, device)
    spmc = trainer(nnUNetTrainerSPMC, patch, classes, device)
    scales = [[1.0] * len(PATCHES[patch][0]), *spmc._get_deep_supervision_scales()[1:]]
    batch = random_batch(patch, classes, scales, device)
    with torch.no_grad(), spmc._autocast():
        outputs = [output[0] for output in spmc.training_network(batch["data"])]
    steps = {
        "stock": lambda: stock.train_step({**batch, "target": list(batch["target"])}),
        "floor": lambda: floor_step(spmc, batch),
        "spmc": lambda: spmc.train_step(batch),
        "terms": loss_terms(spmc, batch, outputs),
    }
    for step in steps.values():
        for _ in range(3 if device.type == "cuda" else 1):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(seconds(step, device))
    median = {name: statistics.median(values) for name, values in times.items()}
    ratio = statistics.median(s / f for s, f in zip(times["spmc"], times["floor"], strict=True))
    # the weights of both trainers are there all the time; compare what a step adds to them
    base = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    used = {name: memory(steps[name], device) - base for name in ("stock", "floor", "spmc")}
    return {
        "patch": patch,
        "classes": classes,
        "stock_ms": round(1000 * median["stock"], 2),
        "floor_ms": round(1000 * median["floor"], 2),
        "spmc_ms": round(1000 * median["spmc"], 2),
        "spmc/floor": round(ratio, 3),
        "spmc/stock": round(median["spmc"] / median["stock"], 2),
        "terms/step": round(median["terms"] / median["spmc"], 4),
        "stock step MiB": used["stock"] >> 20,
        "spmc step MiB": used["spmc"] >> 20,
        "step memory spmc/stock": round(used["spmc"] / used["stock"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--patches", nargs="+", choices=PATCHES, default=list(PATCHES))
    parser.add_argument("--classes", nargs="+", type=int, default=[2, 4, 14])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--csv", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.backends.cudnn.benchmark = True
    with tempfile.TemporaryDirectory() as folder:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            os.environ[variable] = folder
        data = Path(folder, "Dataset999_Benchmark", "benchmark")
        data.mkdir(parents=True)
        (data / "none.b2nd").touch()  # nnU-Net looks at the file ending only
        os.environ.pop("nnUNet_spmc_settings", None)
        rows = [
            measure(patch, classes, device, arguments.repeats)
            for patch in arguments.patches
            for classes in arguments.classes
        ]
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    compiled = os.environ.get("nnUNet_compile", "true" if device.type == "cuda" else "false")
    print(
        f"\n{name}, torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"compile {compiled}, {arguments.repeats} repeats"
    )
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        arguments.csv.with_suffix(".json").write_text(
            json.dumps({"device": name, "torch": torch.__version__, "compile": compiled})
        )


if __name__ == "__main__":
    main()
