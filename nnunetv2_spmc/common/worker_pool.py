"""Run cases through worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

import SimpleITK as sitk
from tqdm import tqdm

from nnunetv2_spmc.common.signals import interrupts_blocked

Item = TypeVar("Item")
Result = TypeVar("Result")


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
