"""Run the unlabeled cases through worker processes, and clean up after runs that were killed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from tqdm import tqdm

from nnunetv2_spmc.data.errors import DataError
from nnunetv2_spmc.data.raw_cases import name_some
from nnunetv2_spmc.data.unlabeled_case_worker import (
    CaseJob,
    CaseOutcome,
    prepare_worker,
    process_case,
)

UNFINISHED_PREFIX = ".unfinished-"
ABANDONED_AFTER_S = 24 * 3600


def temporary_folder(folder: Path) -> Path:
    """Return where this process keeps cases that are not finished yet."""
    return folder / f"{UNFINISHED_PREFIX}{socket.gethostname()}-{os.getpid()}"


def process_cases(
    job: CaseJob, cases: Mapping[str, Sequence[str]], num_processes: int, progress: tqdm
) -> list[CaseOutcome]:
    """Process all cases and return what became of each, in no particular order.

    Args:
        job: What the cases share.
        cases: Identifier -> channel files.
        num_processes: Worker processes; 0 works in this process.
        progress: Advanced by one per case.

    Raises:
        DataError: If a worker process was killed. What it was at work on is named.
    """
    outcomes: list[CaseOutcome] = []
    if num_processes == 0 or not cases:
        for identifier, files in cases.items():
            outcomes.append(process_case(job, identifier, files))
            progress.update()
        return outcomes
    pool = ProcessPoolExecutor(
        min(num_processes, len(cases)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=prepare_worker,
    )
    try:
        futures = [pool.submit(process_case, job, *case) for case in cases.items()]
        for future in as_completed(futures):
            outcomes.append(future.result())
            progress.update()
    except BrokenProcessPool:
        begun = [p.name for p in job.temporary_folder.glob("*")]
        where = f"while it preprocessed one of {name_some(sorted(begun))}" if begun else "at start"
        raise DataError(
            f"A worker process was killed {where}, mostly a sign of too little memory; finished "
            "cases are kept, run it again with fewer processes (-np)."
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)
    return outcomes


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary folders of runs that were killed.

    Other runs may be at work in the same folder, on this computer or, with parts, on others: only
    those of ended processes of this computer are removed, and those untouched for a day.
    """
    for leftover in folder.glob(f"{UNFINISHED_PREFIX}*"):
        host, _, process = leftover.name.removeprefix(UNFINISHED_PREFIX).rpartition("-")
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
