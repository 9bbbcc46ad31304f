"""What might make a step cheaper, and what the views of the default add to it."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch

from benchmarks.performance.tables import MACHINE, machine
from benchmarks.performance.timing import Step, device_memory, interleaved, ratio
from benchmarks.performance.trainers import PATCHES, random_batch, trainer
from nnunetv2_spmc.methods import nnUNetTrainerSPMC, nnUNetTrainerSPMC_paper
from nnunetv2_spmc.training import step as parts
from nnunetv2_spmc.training.backward import clip_and_step, run_passes
from nnunetv2_spmc.training.ramp_up import gaussian_ramp_up


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
        "the default, in a step with unlabeled patches": lambda: default.train_step(two_views),
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
