"""Ctrl-C, SIGTERM and a closed terminal end a training with its last words, not a traceback."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter

from nnunetv2_spmc.common.signals import signals_deferred, termination_raises
from nnunetv2_spmc.training.checkpoint import BEST, FINAL, LATEST, next_epoch
from nnunetv2_spmc.training.commands import new_start_option, train_command

if TYPE_CHECKING:
    from nnunetv2_spmc.training.configured import nnUNetTrainerConfigured


@contextmanager
def says_how_to_go_on(
    trainer: nnUNetTrainerConfigured, *, is_validating: bool = False
) -> Iterator[None]:
    """When a signal comes end all workers, say how to go on, and exit with 128 + signal.

    Whatever a library made of the signal is taken for it.

    Args:
        trainer: whose workers end.
        is_validating: in the final validation, after the training.
    """
    stdout = sys.stdout
    with termination_raises() as stopped:
        try:
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and not stopped:  # raised without a signal
                stopped.append(signal.SIGINT)
            if not stopped:
                raise
            # a second signal changes nothing; a terminal that was closed cannot be written to
            with suppress(KeyboardInterrupt, SystemExit, OSError), signals_deferred():
                sys.stdout = stdout  # nnU-Net hides what ending workers print
                with _threads_quiet():
                    _free(error)
                    _end_workers(trainer)
                if trainer.local_rank == 0:
                    reason = f"Stopped by {signal.Signals(stopped[0]).name}."
                    trainer.print_to_log_file(reason, how_to_go_on(trainer, is_validating))
                    sys.stdout.flush()
            raise SystemExit(128 + stopped[0]) from None


def how_to_go_on(trainer: nnUNetTrainerConfigured, is_validating: bool = False) -> str:
    """Say in a line where a training that was stopped goes on, and with which command.

    The checkpoint is the one that `--c` of nnU-Net takes: the final, the latest or the best.
    """
    folder = Path(trainer.output_folder)
    found = [name for name in (FINAL, LATEST, BEST) if (folder / name).is_file()]
    is_trained = is_validating or trainer.current_epoch >= trainer.num_epochs
    if not found:
        command = train_command(trainer, *new_start_option())
        return f"There is no checkpoint yet, so it starts again with: {command}"
    if found[0] == FINAL and is_trained:
        return f"The training is done; validate with: {train_command(trainer, '--val')}"
    who = "It"
    if found[:2] == [FINAL, LATEST]:  # `--c` would take the final one, and remove the latest
        who = f"Move {folder / found.pop(0)} of an earlier training away; then it"
    epoch = next_epoch(folder / found[0])
    return f"{who} goes on from epoch {epoch} ({found[0]}) with: {train_command(trainer, '--c')}"


@contextmanager
def _threads_quiet() -> Iterator[None]:
    """Hide what threads raise: one may be taking a batch from a worker that ends just then."""
    previous, threading.excepthook = threading.excepthook, lambda _: None
    try:
        yield
    finally:
        threading.excepthook = previous


def _free(error: BaseException | None) -> None:
    """Free what the functions that were broken off held: loaders end their workers with that."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _end_workers(trainer: nnUNetTrainerConfigured) -> None:
    trainer.progress.end_steps()
    for loader in (trainer.dataloader_train, trainer.dataloader_val):
        if isinstance(loader, NonDetMultiThreadedAugmenter):
            loader._finish()
