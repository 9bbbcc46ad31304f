"""What may change when a training goes on: its schedule; and what is said of that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnunetv2_spmc.training.checkpoint import FINAL, check_length, refuse_to_resume, reopen_finished
from nnunetv2_spmc.training.settings import changed_schedule, changed_settings

if TYPE_CHECKING:
    from nnunetv2_spmc.training.configured import nnUNetTrainerConfigured


def check_resumed(trainer: nnUNetTrainerConfigured) -> None:
    """Refuse to go on with settings that change more than the schedule; nothing to do in a new run.

    Raises:
        CheckpointError: see `refuse_to_resume` and `check_length`.
    """
    if trainer.resumed_from is None:
        return
    before, now = trainer.resumed_from["settings"], trainer.flat_settings
    if changes := changed_settings(before, now):
        refuse_to_resume("; ".join(changes), trainer.print_to_log_file)
    check_length(trainer.current_epoch, trainer.num_epochs, trainer.resumed_file)


def go_on(trainer: nnUNetTrainerConfigured) -> None:
    """Say how the schedule of a resumed run changed; reopen one that was finished."""
    if trainer.resumed_from is None:
        return
    for change in changed_schedule(trainer.resumed_from["settings"], trainer.flat_settings):
        trainer.print_to_log_file(change)
    file = trainer.resumed_file
    is_finished = file.name == FINAL and file.is_file()
    goes_on = trainer.current_epoch < trainer.num_epochs and not trainer.disable_checkpointing
    if is_finished and goes_on and trainer.local_rank == 0:
        trainer.print_to_log_file(reopen_finished(file.parent, trainer.current_epoch))
