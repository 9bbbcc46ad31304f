"""Which case is being loaded: for the sentence when that fails, or when its worker dies."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import connection
from multiprocessing.sharedctypes import RawArray
from typing import Any

from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from nnunetv2_spmc.common.errors import DataError, SPMCError, one_line

FAILURE = "failure"  # of an item: the sentence that a worker ends with
NAME_BYTES = 512
DEAD_WORKERS = "background workers are no longer alive"  # batchgenerators' words


class WatchedDataset:
    """One of nnU-Net's datasets, whose cases are noted before they are loaded.

    Args:
        dataset: the preprocessed cases.
        kind: "labeled" or "unlabeled".
        remedy: the command that makes them again.
    """

    def __init__(self, dataset: nnUNetBaseDataset, kind: str, remedy: str) -> None:
        self.dataset, self.kind, self.remedy = dataset, kind, remedy
        self.identifiers = dataset.identifiers

    def load_case(self, identifier: str) -> tuple[Any, ...]:
        """Load a case as nnU-Net does."""
        _note(self, identifier)
        case: tuple[Any, ...] = self.dataset.load_case(identifier)
        return case


def why_unreadable(dataset: Any, identifier: str) -> str | None:
    """Read a case whole; return what that fails with, None if it does not."""
    try:
        images, segmentation, *_, properties = dataset.load_case(identifier)
        for array in (images, segmentation):
            array[:]
        _ = properties["class_locations"]
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise anything
        return one_line(str(error) or type(error).__name__)
    return None


# ---- the case of this process ------------------------------------------------------------------

_current: tuple[WatchedDataset, str] | None = None
_place: Any = None  # where a worker leaves the name for the training to read


def _note(dataset: WatchedDataset, identifier: str) -> None:
    global _current
    _current = dataset, identifier
    if _place is not None:
        _place.value = f"{dataset.kind} case {identifier}".encode()[: NAME_BYTES - 1]


@contextmanager
def cases_named() -> Iterator[None]:
    """Let what fails inside name the case that was being loaded.

    Raises:
        DataError: its files cannot be read; says how to make them again.
        RuntimeError: something else failed, with the case.
    """
    global _current
    _current = None
    try:
        yield
    except SPMCError:
        raise
    except Exception as error:
        if _current is None:
            raise
        refuse_unreadable([], error)
        dataset, case = _current
        raise RuntimeError(f"Loading the {dataset.kind} case {case} failed: {error}") from error


def refuse_unreadable(
    datasets: Iterable[WatchedDataset], error: Exception, *, any_of_them: bool = False
) -> None:
    """Raise DataError, instead of an error, if that came from a case that cannot be read.

    Args:
        datasets: where it may be.
        error: what was raised. If workers died all cases are read, else that of this process.
        any_of_them: read all cases anyway.
    """
    suspects = [] if _current is None else [_current]
    if any_of_them or DEAD_WORKERS in str(error):
        suspects = [(dataset, case) for dataset in datasets for case in dataset.identifiers]
    for dataset, case in suspects:
        reason = why_unreadable(dataset, case)
        if reason is not None:
            raise _unreadable(dataset, case, reason) from error


def _unreadable(dataset: WatchedDataset, case: str, reason: str) -> DataError:
    return DataError(
        f"The preprocessed {dataset.kind} case {case} in {dataset.dataset.source_folder} cannot be "
        f"read ({reason}); make it again with {dataset.remedy}, and go on with --c."
    )


# ---- workers -----------------------------------------------------------------------------------


class _InWorker:
    """A loader in a worker: the item of a case that cannot be read is a sentence."""

    def __init__(self, loader: Any, places: Sequence[Any]) -> None:
        self.loader, self.places = loader, places

    def set_thread_id(self, thread_id: int) -> None:
        """Take the number of the worker, which batchgenerators tells."""
        global _place
        _place = self.places[thread_id]
        self.loader.set_thread_id(thread_id)

    def __next__(self) -> dict[str, Any]:
        try:
            with cases_named():
                item: dict[str, Any] = next(self.loader)
        except SPMCError as error:
            return {FAILURE: str(error)}
        return item


class InThisProcess(SingleThreadedAugmenter):
    """A loader that works in this process and names the case that fails."""

    def __next__(self) -> Any:
        with cases_named():
            return super().__next__()


class Workers(NonDetMultiThreadedAugmenter):
    """Workers on a loader; a worker that dies says which case it had.

    Args:
        loader: a labeled or a paired loader.
        seeds: one per worker.
        options: of batchgenerators.
    """

    def __init__(self, loader: Any, seeds: Sequence[int | None], **options: Any) -> None:
        self.places = [RawArray(ctypes.c_char, NAME_BYTES) for _ in seeds]
        self.ended: dict[int, int] = {}  # worker -> exit status
        watched = _InWorker(loader, self.places)
        super().__init__(watched, None, num_processes=len(seeds), seeds=list(seeds), **options)

    @property
    def data_loader(self) -> Any:
        """The loader, as InThisProcess has it."""
        return self.generator.loader

    def __next__(self) -> Any:
        try:
            item = super().__next__()
        except RuntimeError as error:
            raise self._what_ended(error) from None
        if FAILURE in item:
            self._finish()
            raise DataError(item[FAILURE])
        return item

    def _start(self) -> None:
        _leave_dead_workers_to_us()
        super()._start()

    def _finish(self, *arguments: Any, **options: Any) -> None:
        if self._processes:
            if self.abort_event is not None and self.abort_event.is_set():  # one is ending
                connection.wait([process.sentinel for process in self._processes], timeout=1)
            statuses = [process.exitcode for process in self._processes]
            self.ended = {number: s for number, s in enumerate(statuses) if s is not None}
        super()._finish(*arguments, **options)

    def _what_ended(self, error: RuntimeError) -> Exception:
        for number, status in self.ended.items():
            case = self.places[number].value.decode(errors="replace") or "no case yet"
            if status < 0:
                return DataError(
                    f"A worker that loads patches was ended by {signal.Signals(-status).name} "
                    f"while it had the {case}. The kernel does that where memory runs out: fewer "
                    "workers (nnUNet_n_proc_DA) need less, and --c goes on."
                )
            if status:
                return DataError(
                    f"A worker that loads patches ended with status {status} while it had the "
                    f"{case}; --c goes on."
                )
        return error  # it has printed what was wrong, with the case


def _leave_dead_workers_to_us() -> None:
    """Let the thread that finds a dead worker print no traceback: `Workers` says what happened."""
    previous = threading.excepthook
    if getattr(previous, "is_ours", False):
        return

    def hook(raised: threading.ExceptHookArgs) -> None:
        is_theirs = raised.thread is not None and "results_loop" in raised.thread.name
        of_a_dead_one = isinstance(raised.exc_value, (ConnectionError, EOFError, FileNotFoundError))
        if not (is_theirs and (of_a_dead_one or DEAD_WORKERS in str(raised.exc_value))):
            previous(raised)

    hook.is_ours = True  # type: ignore[attr-defined]
    threading.excepthook = hook
