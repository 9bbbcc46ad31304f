"""Ctrl-C, SIGTERM and a closed terminal: unwind the stack, wait, or stay away from workers."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.util import register_after_fork
from types import FrameType

_STOPPING = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


_handlers: set[Callable[..., None]] = set()  # those of this module that are in use


class _WorkerEnds(SystemExit, KeyboardInterrupt):
    """Nobody shows its traceback: multiprocessing for the first base, nnU-Net for the second."""


@contextmanager
def termination_raises() -> Iterator[list[int]]:
    """Let SIGTERM and a closed terminal unwind the stack as Ctrl-C does, so that clean-up runs.

    Yields:
        The numbers of the signals that came, Ctrl-C among them. Raised at any moment, SystemExit
        and KeyboardInterrupt may come out of a library as another exception.
    """
    stopped: list[int] = []

    def stop(signum: int) -> None:
        stopped.append(signum)
        if signum == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signum)

    with _handled_by(stop), _repeated_where_ignored(stopped):
        yield stopped


@contextmanager
def _repeated_where_ignored(stopped: Sequence[int]) -> Iterator[None]:
    """Send a signal again that came where Python ignores exceptions: in __del__, at a fork, ..."""

    def note(ignored: sys.UnraisableHookArgs) -> None:
        if stopped and isinstance(ignored.exc_value, (KeyboardInterrupt, SystemExit)):
            threading.Timer(0.05, os.kill, (os.getpid(), stopped[0])).start()
        else:
            previous(ignored)

    previous, sys.unraisablehook = sys.unraisablehook, note
    try:
        yield
    finally:
        sys.unraisablehook = previous


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Put Ctrl-C, SIGTERM and a closed terminal off until what runs inside is done."""
    came: list[int] = []
    try:
        with _handled_by(came.append):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


@contextmanager
def _handled_by(handle: Callable[[int], None]) -> Iterator[None]:
    """Let a function handle signals, but those that are ignored; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def handler(signum: int, _frame: FrameType | None) -> None:
        if os.getpid() == process:
            handle(signum)
        elif signum != signal.SIGINT:  # a forked worker
            raise _WorkerEnds(128 + signum)
        # a terminal sends Ctrl-C to workers too; one that ends before its parent breaks its queue

    # nohup ignores SIGHUP; None is a handler that Python could not put back
    ours = [n for n in _STOPPING if signal.getsignal(n) not in (signal.SIG_IGN, None)]
    previous = {number: signal.signal(number, handler) for number in ours}
    _handlers.add(handler)
    try:
        yield
    finally:
        _handlers.discard(handler)
        for number, earlier in previous.items():
            signal.signal(number, earlier)


def _end_as_always(_: object) -> None:
    """Let a forked worker of multiprocessing end by SIGTERM, whatever it waits for.

    A pool ends its workers so. Python runs a handler when a call returns: one that waits for a lock
    which another worker took along never does, and the pool would wait for it for ever.
    """
    for number in _STOPPING:
        if number != signal.SIGINT and signal.getsignal(number) in _handlers:
            signal.signal(number, signal.SIG_DFL)


register_after_fork(_end_as_always, _end_as_always)  # it belongs to an object, here itself


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Put Ctrl-C off while workers start: they inherit that, and would print tracebacks else.

    Their parent must end them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # started by the first worker it would let Ctrl-C through
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
