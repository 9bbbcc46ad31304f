"""The loss terms alone: their time, and their error against float64 formulas."""

from __future__ import annotations

import statistics
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.performance.tables import MACHINE, machine
from benchmarks.performance.timing import interleaved
from benchmarks.performance.trainers import PATCHES, random_batch, trainer
from nnunetv2_spmc.methods import nnUNetTrainerSPMC_paper
from nnunetv2_spmc.training import step as parts

# float32 may decide differently than float64 this close to a threshold
UNDECIDED = 1e-5


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
