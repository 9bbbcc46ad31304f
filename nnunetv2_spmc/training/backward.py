"""From the forward passes of a step to the optimizer's step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from nnunetv2_spmc.common.signals import signals_deferred
from nnunetv2_spmc.training.memory import explain_out_of_memory
from nnunetv2_spmc.training.stability import steps_noted
from nnunetv2_spmc.training.step import Loss, Pass, Step

GRADIENT_NORM_LIMIT = 12  # nnU-Net's own


def run_passes(
    passes: Sequence[Pass],
    step: Step,
    network: nn.Module,
    autocast: Callable[[], AbstractContextManager],
    grad_scaler: GradScaler | None,
    *,
    viewed: int = 0,
) -> list[Loss]:
    """Run the passes of a step and pass the loss of each backward; gradients are summed.

    Args:
        passes: closures that return a loss and values.
        step: of these passes.
        network: the training network, which synchronizes gradients in the last pass only.
        autocast: the context of forward passes.
        grad_scaler: of fp16; None without.
        viewed: how many of the first passes see labeled patches only.

    Returns:
        The losses, detached, and the values of the passes.
    """
    labeled = len(step.labeled.images)
    unlabeled = 0 if step.unlabeled is None else len(step.unlabeled.images)
    distributed = network if isinstance(network, DistributedDataParallel) else None
    results = []
    for number, run in enumerate(passes, 1):
        is_last = number == len(passes)
        has_unlabeled = number > viewed and (not is_last or number == viewed + 1)
        with (
            explain_out_of_memory(labeled, unlabeled, lower=has_unlabeled),
            nullcontext() if distributed is None or is_last else distributed.no_sync(),
        ):
            with autocast():
                loss, values = run()
            if distributed is not None and is_last and number > 1:
                # it waits for the gradients of all, also of what only an earlier pass reached
                for parameter in unreached(loss, distributed):
                    loss = loss + 0.0 * parameter.sum()
            # what autograd keeps of a broken-off pass is freed after the interpreter: a crash
            with signals_deferred():
                (loss if grad_scaler is None else grad_scaler.scale(loss)).backward()
        results.append((loss.detach(), values))
    return results


def unreached(loss: Tensor, network: nn.Module) -> list[nn.Parameter]:
    """Return the learning parameters of a network for which a loss has no gradient."""
    reached: set[Any] = set()
    seen: set[Any] = set()
    waiting = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        reached.add(getattr(node, "variable", None))  # of the nodes that accumulate gradients
        waiting += [following for following, _ in node.next_functions]
    return [p for p in network.parameters() if p.requires_grad and p not in reached]


def clip_and_step(optimizer: Optimizer, grad_scaler: GradScaler | None) -> bool:
    """Clip the gradients and step; return False if the gradient scaler skipped the step."""
    if grad_scaler is not None:
        grad_scaler.unscale_(optimizer)
    # one norm per parameter group: clipping jointly would couple the branches' step sizes
    for group in optimizer.param_groups:
        torch.nn.utils.clip_grad_norm_(group["params"], GRADIENT_NORM_LIMIT)
    with steps_noted(optimizer) as taken:
        if grad_scaler is None:
            optimizer.step()
        else:
            grad_scaler.step(optimizer)
            grad_scaler.update()
    return bool(taken)
