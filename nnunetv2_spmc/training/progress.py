"""How far a training is: a bar per epoch on a terminal, and a line a minute in the log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from tqdm import tqdm

from nnunetv2_spmc.training.settings import TrainingSettings

UPDATES_PER_EPOCH = 20  # of the bar; the loss is read only then: reading it waits for the device
LINE_EVERY_S = 60.0


class Progress:
    """Show how far the epoch is, the loss and the time left of the whole training.

    The bar is shown where stderr is a terminal; there the lines go into the log file alone. A line
    is written when nothing was said for a minute.

    Args:
        schedule: how many epochs of how many steps.
        log: nnU-Net's print_to_log_file.
        clock: seconds since any moment.
        disable: True shows nothing; None shows the bar on a terminal, False anywhere.
    """

    def __init__(
        self,
        schedule: TrainingSettings,
        log: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
        disable: bool | None = None,
    ) -> None:
        self.iterations = schedule.iterations_per_epoch
        self.validation_iterations = schedule.validation_iterations
        self.total = schedule.epochs * self.iterations
        self._log = log
        self._clock = clock
        self._disable = disable
        self._bar: tqdm | None = None  # -> start_epoch
        self._shows_bar = False
        self._epoch = self._done = self._validated = 0
        self._started: tuple[float, int] | None = None  # when, at which step of the training
        self._said = 0.0

    def start_epoch(self, epoch: int) -> None:
        """Begin an epoch, which nnU-Net has just announced."""
        if self._disable:
            return
        self._epoch, self._done, self._validated = epoch, 0, 0
        self._said = self._clock()
        if self._started is None:
            self._started = (self._said, epoch * self.iterations)
        self._bar = tqdm(
            total=self.iterations,
            desc=f"Epoch {epoch}",
            disable=self._disable,
            leave=False,
            mininterval=0,  # it is updated a few times only
        )
        self._shows_bar = not self._bar.disable

    def step(self, loss: Callable[[], float], note: str = "") -> None:
        """Advance by one step.

        Args:
            loss: reads the loss; called only when it is shown.
            note: what else to show.
        """
        if self._bar is None:
            return
        self._done += 1
        every = max(1, self.iterations // UPDATES_PER_EPOCH)
        drawn, due = self._shows_bar and self._done % every == 0, self._is_due()
        if not drawn and not due:
            return
        text = f"loss {loss():.3f}{note}, training done in {self._time_left()}"
        if drawn:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(self._done - self._bar.n)
        if due:
            self._say(f"step {self._done} of {self.iterations}, {text}")

    def end_steps(self) -> None:
        """Remove the bar, so that nnU-Net's lines stand alone."""
        if self._bar is not None:
            self._bar.close()

    def validation_step(self) -> None:
        """Advance by one step of the validation at the end of the epoch."""
        if self._bar is None:
            return
        self._validated += 1
        if self._is_due():
            self._say(f"validation step {self._validated} of {self.validation_iterations}")

    def _time_left(self) -> str:
        assert self._started is not None
        since, first = self._started
        done = self._epoch * self.iterations + self._done
        left = (self._clock() - since) / (done - first) * (self.total - done)
        return tqdm.format_interval(left)

    def _is_due(self) -> bool:
        return self._clock() - self._said >= LINE_EVERY_S

    def _say(self, text: str) -> None:
        self._log(f"Epoch {self._epoch}: {text}", also_print_to_console=not self._shows_bar)
        sys.stdout.flush()  # a file or a pipe would get it with the next kilobytes
        self._said = self._clock()


@contextmanager
def validation_lines(
    folder: Path, file_ending: str, cases: Sequence[str], log: Callable[[str], None]
) -> Iterator[None]:
    """Log every minute how many cases of nnU-Net's final validation are written.

    Args:
        folder: where they are written; may hold those of an earlier validation.
        file_ending: of a segmentation, such as ".nii.gz".
        cases: their identifiers, known once the validation has begun.
        log: nnU-Net's print_to_log_file.
    """
    before = _change_times(folder, file_ending)

    def say() -> None:
        times = _change_times(folder, file_ending)
        written = sum(before.get(name) != changed for name, changed in times.items())
        log(f"Validation: {written} of {len(cases)} cases are written.")
        sys.stdout.flush()

    with _called_every_minute(say):
        yield


def _change_times(folder: Path, file_ending: str) -> dict[str, int]:
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        files = [entry for entry in entries if entry.name.endswith(file_ending)]
        return {entry.name: entry.stat().st_mtime_ns for entry in files}


@contextmanager
def _called_every_minute(call: Callable[[], None]) -> Iterator[None]:
    """Call a function every minute from a thread of its own, until what runs inside is done."""
    done = Event()

    def run() -> None:
        while not done.wait(LINE_EVERY_S):
            with suppress(OSError):  # a file that is gone by now: the next minute will tell
                call()

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
