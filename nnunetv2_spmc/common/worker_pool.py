"""Run cases through worker processes, and clean up after runs that were stopped or killed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType
from typing import TypeVar

import SimpleITK as sitk
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")
ABANDONED_AFTER_S = 24 * 3600
_STOPPING = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


def run_cases(
    work: Callable[[Item], Result], items: Sequence[Item], num_processes: int, progress: tqdm
) -> list[Result]:
    """Return what `work` returns for each item, in their order.

    Args:
        work: Picklable unless `num_processes` is 0.
        items: What to do.
        num_processes: Worker processes; 0 works in this process.
        progress: Advanced by one per item.

    Raises:
        BrokenProcessPool: If a worker process was killed.
    """
    if num_processes == 0 or not items:
        results = []
        for item in items:
            results.append(work(item))
            progress.update()
        return results
    pool = ProcessPoolExecutor(
        min(num_processes, len(items)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare_worker,
    )
    try:
        with interrupts_blocked():
            futures = [pool.submit(work, item) for item in items]
        for future in as_completed(futures):
            future.result()
            progress.update()
        return [future.result() for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)


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


def _prepare_worker() -> None:
    """Make a worker end silently with its parent, whichever way that ends; one core for each."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


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
        elif signum != signal.SIGINT:  # a forked worker: nnU-Net's end quietly at this exception
            raise KeyboardInterrupt
        # a terminal sends Ctrl-C to workers too; one that ends before its parent breaks its queue

    # nohup ignores SIGHUP; None is a handler that Python could not put back
    ours = [n for n in _STOPPING if signal.getsignal(n) not in (signal.SIG_IGN, None)]
    previous = {number: signal.signal(number, handler) for number in ours}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)


def temporary_name(prefix: str) -> str:
    """Return a name for what this process has not finished yet."""
    return f"{prefix}{socket.gethostname()}-{os.getpid()}"


def remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove what runs that were killed left under `temporary_name(prefix)` in a folder.

    Other runs may be at work in the same folder, on this computer or on others: only what belongs
    to ended processes of this computer is removed, and what nobody touched for a day.
    """
    for leftover in folder.glob(f"{prefix}*"):
        host, _, process = leftover.name.removeprefix(prefix).rpartition("-")
        is_ours = host == socket.gethostname() and process.isdecimal()
        try:
            is_old = time.time() - leftover.stat().st_mtime > ABANDONED_AFTER_S
        except FileNotFoundError:
            continue
        if is_old or (is_ours and not _is_running(int(process))):
            shutil.rmtree(leftover, ignore_errors=True)


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False  # a leftover of an earlier process of that number
    if os.name == "nt":
        return True  # signal 0 would end the process there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
