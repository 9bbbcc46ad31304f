"""A progress bar per epoch, on interactive terminals only."""

from __future__ import annotations

import time
from collections.abc import Callable

from tqdm import tqdm

UPDATES_PER_EPOCH = 20  # the loss is read only then: reading it waits for the device


class ProgressBar:
    """Show how far the epoch is, the loss, lambda(t) and the time left of the whole training.

    Args:
        iterations: steps per epoch.
        total: steps of the whole training.
        disable: True shows nothing; None shows the bar where stderr is a terminal.
    """

    def __init__(self, iterations: int, total: int, disable: bool | None = None) -> None:
        self.iterations = iterations
        self.total = total
        self.disable = disable
        self._bar: tqdm | None = None
        self._started: tuple[float, int] | None = None

    def start_epoch(self, epoch: int, iteration: int) -> None:
        """Begin the bar of an epoch, whose first step is `iteration`."""
        if self._started is None:
            self._started = (time.monotonic(), iteration)
        self._bar = tqdm(
            total=self.iterations,
            desc=f"Epoch {epoch}",
            disable=self.disable,
            leave=False,
            mininterval=0,  # it is updated a few times only
        )

    def step(self, iteration: int, loss: Callable[[], float], ramp_up_weight: float) -> None:
        """Advance by one step.

        Args:
            iteration: steps done so far, in the whole training.
            loss: reads the loss; called only when it is shown.
            ramp_up_weight: lambda(t).
        """
        if self._bar is None or self._bar.disable or self._started is None:
            return
        done = iteration % self.iterations or self.iterations
        if done % max(1, self.iterations // UPDATES_PER_EPOCH) == 0:
            since, first = self._started
            left = (time.monotonic() - since) / (iteration - first) * (self.total - iteration)
            self._bar.set_postfix_str(
                f"loss {loss():.3f}, lambda {ramp_up_weight:.2g}, training done in "
                f"{tqdm.format_interval(left)}",
                refresh=False,
            )
            self._bar.update(done - self._bar.n)

    def end_epoch(self) -> None:
        """Remove the bar, so that nnU-Net's lines stand alone."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
