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
terms is that of loss and gradients against float64 formulas written anew here, relative to the
largest value.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from nnunetv2.experiment_planning.experiment_planners.network_topology import (
    get_pool_and_conv_props,
)
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor

from benchmarks.performance.tables import MACHINE, RESULTS_HELP, machine, publish
from nnunetv2_spmc.methods import nnUNetTrainerSPMC, nnUNetTrainerSPMC_paper
from nnunetv2_spmc.training import step as parts
from nnunetv2_spmc.training.backward import clip_and_step, run_passes
from nnunetv2_spmc.training.memory import activation_bytes
from nnunetv2_spmc.training.ramp_up import gaussian_ramp_up

PATCHES = {"3d": ([80, 112, 112], 2), "2d": ([256, 256], 8)}  # size, planned batch
# float32 may decide differently than float64 this close to a threshold
UNDECIDED = 1e-5

ROWS = [f"{patch}:{classes}" for patch in PATCHES for classes in (2, 4, 14)]

Step = Callable[[], Any]


def plans(patch: str) -> dict[str, Any]:
    """Return minimal plans with the network that nnU-Net plans for such patches."""
    size, batch = PATCHES[patch]
    dimension = len(size)
    _, strides, kernels, size, _ = get_pool_and_conv_props([1.0] * dimension, size, 4, 999)
    stages = len(strides)
    largest = 320 if dimension == 3 else 512
    arguments = {
        "n_stages": stages,
        "features_per_stage": [min(32 * 2**i, largest) for i in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
        "kernel_sizes": [list(kernel) for kernel in kernels],
        "strides": [list(stride) for stride in strides],
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
        "patch_size": [int(n) for n in size],
        "spacing": [1.0] * dimension,
        "batch_dice": False,
        "use_mask_for_norm": [False],
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


@contextmanager
def empty_dataset() -> Iterator[Path]:
    """Set nnU-Net's folders to temporary ones with as much of a dataset as trainers look at.

    Yields:
        The folder of its preprocessed cases.
    """
    with tempfile.TemporaryDirectory() as folder:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            os.environ[variable] = folder
        data = Path(folder, "Dataset999_Benchmark", "benchmark")
        data.mkdir(parents=True)
        (data / "none.b2nd").touch()  # nnU-Net looks at the file ending only
        os.environ.pop("nnUNet_spmc_settings", None)
        yield data


def trainer(kind: type, patch: str, classes: int, device: torch.device) -> Any:
    """Build a trainer at the end of its ramp-up, where all terms have their full weight."""
    labels = {"background": 0} | {f"class{i}": i for i in range(1, classes)}
    dataset_json = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
    built = kind(plans(patch), "benchmark", 0, dataset_json, device)
    built.initialize()
    built.network.train()
    if issubclass(kind, nnUNetTrainerSPMC):
        built.joint_network.train()
        built.iteration = built.num_epochs * built.num_iterations_per_epoch
    return built


def random_batch(spmc: Any, batch: int, classes: int, device: torch.device) -> dict[str, Any]:
    """Return a labeled and an unlabeled batch without structure."""
    size = spmc.configuration_manager.patch_size
    scales = [[1.0] * len(size), *spmc._get_deep_supervision_scales()[1:]]
    shapes = [[round(n * s) for n, s in zip(size, scale, strict=True)] for scale in scales]
    target = [torch.randint(0, classes, (batch, 1, *s), dtype=torch.int16) for s in shapes]
    images = [torch.randn(batch, 1, *size, device=device) for _ in range(2)]
    return {
        "data": images[0],
        "target": [scale.to(device) for scale in target],
        "unlabeled": {"data": images[1]},
    }


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


def terms(spmc: Any, logits: list[Tensor], target: list[Tensor]) -> Tensor:
    """Compute CDPS + CPS + SPLAT by the trainer's own code, without nnU-Net's loss.

    Args:
        spmc: the trainer.
        logits: of main and auxiliary branch on labeled, then on unlabeled patches, (B, C, ...).
        target: the labels, full resolution first.
    """
    supervised = spmc.loss
    spmc.loss = lambda output, _: output.new_zeros(())
    try:
        with spmc.autocast():
            images = logits[0]  # no term looks at them
            labeled, _ = spmc.labeled_loss((logits[0], logits[1]), parts.Labeled(images, target))
            unlabeled, _ = spmc.unlabeled_loss((logits[2], logits[3]), parts.Unlabeled(images))
        return labeled + spmc.ramp_up_weight() * unlabeled
    finally:
        spmc.loss = supervised


def reference_terms(logits: list[Tensor], labels: Tensor, spmc: Any) -> tuple[Tensor, list[Tensor]]:
    """Compute the same in float64 as the paper writes it, Eq. (3)-(19).

    Returns:
        The loss, and per logits where no decision is closer than UNDECIDED, bool (B, ...).
    """
    p = [torch.softmax(x, dim=1) for x in logits]
    settings = spmc.method_settings
    tau, power = settings.tau, 1 / settings.temperature
    classes = logits[0].shape[1]
    one_hot = F.one_hot(labels[:, 0].long(), classes).movedim(-1, 1).double()
    confidence = [x.detach().amax(1, keepdim=True) for x in p]
    common = ((confidence[0] <= tau) & (confidence[1] <= tau)).double()
    labeled = sum(settings.beta * F.mse_loss(x * common, one_hot * common) for x in p[:2])
    near = [(c - tau).abs() < UNDECIDED for c in confidence]
    unlabeled = torch.zeros((), dtype=torch.float64)
    for i, j in ((2, 3), (3, 2)):
        q = p[j].detach()
        soft = q**power / (q**power + (1 - q) ** power)
        trust = soft.amax(1, keepdim=True)
        taught = ((confidence[i] <= tau) & (trust > tau)).double()
        unlabeled = unlabeled + F.cross_entropy(logits[i], q.argmax(1))
        unlabeled = unlabeled + settings.beta * F.mse_loss(p[i] * taught, soft * taught)
        highest = q.topk(2, dim=1).values
        near[i] = near[i] | ((trust - tau).abs() < power * UNDECIDED)
        near[i] = near[i] | (highest[:, :1] - highest[:, 1:] < UNDECIDED)
    either = near[0] | near[1]
    decided = [~(either if i < 2 else near[i])[:, 0] for i in range(4)]
    return labeled + spmc.settings.lambda_max * unlabeled, decided


def terms_error(spmc: Any, logits: list[Tensor], target: list[Tensor]) -> float:
    """Return the largest relative deviation of the terms or their gradients from float64."""
    ours = [x.detach().float().requires_grad_() for x in logits]
    loss = terms(spmc, ours, target)
    gradients = torch.autograd.grad(loss, ours)
    exact = [x.detach().cpu().double().requires_grad_() for x in logits]
    expected, decided = reference_terms(exact, target[0].cpu(), spmc)
    errors = [abs(loss.item() - expected.item()) / abs(expected.item())]
    reference = torch.autograd.grad(expected, exact)
    for got, wanted, where in zip(gradients, reference, decided, strict=True):
        deviation = (got.cpu().double() - wanted).abs() * where[:, None]
        errors.append((deviation.max() / wanted.abs().max()).item())
    return max(errors)


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


def measure_terms(patch: str, classes: int, device: torch.device, repeats: int) -> dict[str, Any]:
    """Measure the loss terms of one patch alone: their time and their error."""
    torch.manual_seed(0)
    spmc = trainer(nnUNetTrainerSPMC_paper, patch, classes, device)
    target = random_batch(spmc, 1, classes, device)["target"]
    shape = (1, classes, *spmc.configuration_manager.patch_size)
    logits = [2 * torch.randn(shape, device=device) for _ in range(4)]

    def loss_terms() -> None:
        inputs = [x.detach().requires_grad_() for x in logits]
        terms(spmc, inputs, target).backward()

    loss_terms()
    times = interleaved({"terms": loss_terms}, device, repeats)["terms"]
    return {
        "patch": "x".join(map(str, PATCHES[patch][0])),
        "classes": classes,
        "terms ms": f"{1000 * statistics.median(times):.1f}",
        "error": f"{terms_error(spmc, logits, target):.1e}",
        MACHINE: machine(torch.get_num_threads(), f"medians of {repeats} repeats"),
    }


def joint_step(spmc: Any, batch: dict[str, Any]) -> None:
    """Do a step in one pass over labeled and unlabeled patches together."""
    spmc.optimizer.zero_grad(set_to_none=True)
    labeled = len(batch["data"])
    unlabeled_part = parts.Unlabeled(batch["unlabeled"]["data"])
    labeled_part = parts.Labeled(batch["data"], batch["target"])
    step = parts.Step(labeled_part, unlabeled_part, spmc.ramp_up_weight(), 0)

    def joint() -> parts.Loss:
        outputs = spmc.joint_network(torch.cat([labeled_part.images, unlabeled_part.images]))
        first = tuple([scale[:labeled] for scale in branch] for branch in outputs)
        second = tuple([scale[labeled:] for scale in branch] for branch in outputs)
        loss, _ = spmc.labeled_loss(first, labeled_part)
        unlabeled, _ = spmc.unlabeled_loss(second, unlabeled_part)
        return loss + step.weight * unlabeled, {}

    run_passes([joint], step, spmc.joint_network, spmc.autocast, spmc.grad_scaler)
    clip_and_step(spmc.optimizer, spmc.grad_scaler)


def measure_variants(
    patch: str, device: torch.device, repeats: int, batch_size: int | None
) -> list[dict[str, Any]]:
    """Measure other steps against that of the paper's method, with two classes."""
    torch.manual_seed(0)
    spmc, variant = (trainer(nnUNetTrainerSPMC_paper, patch, 2, device) for _ in range(2))
    batch_size = batch_size or spmc.configuration_manager.batch_size
    batch = random_batch(spmc, batch_size, 2, device)
    last = torch.channels_last_3d if patch == "3d" else torch.channels_last
    batch_last = batch | {
        "data": batch["data"].to(memory_format=last),
        "unlabeled": {"data": batch["unlabeled"]["data"].to(memory_format=last)},
    }
    default = trainer(nnUNetTrainerSPMC, patch, 2, device)
    two_views = batch | {"unlabeled": dict.fromkeys(("data", "weak"), batch["unlabeled"]["data"])}
    labeled_only = {key: value for key, value in batch.items() if key != "unlabeled"}
    total = 10_000
    early = sum(gaussian_ramp_up(t, total, 1.0) < 0.01 for t in range(total)) / total
    lower = torch.bfloat16 if device.type == "cpu" else torch.float16

    def bf16(own: Any) -> Any:
        return torch.autocast(own.device.type, dtype=lower)

    def channels_last() -> None:
        variant.train_step(batch_last)

    candidates: dict[str, Step] = {
        "one joint pass": lambda: joint_step(spmc, batch),
        f"no unlabeled pass (lambda < 1 % in {early:.1%} of the steps)": lambda: spmc.train_step(
            labeled_only
        ),
        "channels last": channels_last,
        f"{str(lower).removeprefix('torch.')} autocast": lambda: variant.train_step(batch),
        "the default: weak view, pasted boxes": lambda: default.train_step(two_views),
    }
    rows = []
    as_is: Step = lambda: spmc.train_step(batch)  # noqa: E731
    step_memory = device_memory(as_is) if device.type == "cuda" else 0
    for name, step in candidates.items():
        if name == "channels last":
            variant.joint_network.to(memory_format=last)
        elif "autocast" in name:
            variant.joint_network.to(memory_format=torch.contiguous_format)
            variant.autocast = MethodType(bf16, variant)
        used = device_memory(step) if device.type == "cuda" else 0
        times = interleaved({"as it is": as_is, name: step}, device, repeats)
        rows.append(
            {
                "patch": "x".join(map(str, PATCHES[patch][0])),
                "batch": batch_size,
                "variant": name,
                "time/step": f"{ratio(times, name, 'as it is'):.2f}",
                "memory/step": f"{used / step_memory:.2f}" if used else "",
                MACHINE: machine(
                    torch.get_num_threads(), f"medians of {repeats} interleaved repeats"
                ),
            }
        )
        print(rows[-1], flush=True)
    return rows


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
