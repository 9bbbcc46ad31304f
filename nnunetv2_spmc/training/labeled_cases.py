"""The preprocessed labeled cases of a training: whole at its start, named if one cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.errors import DataError, SPMCError
from nnunetv2_spmc.loading.watched import WatchedDataset, refuse_unreadable
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.unlabeled.cases import damaged_cases


def watched(dataset: Any, command: str) -> WatchedDataset:
    """Return a dataset of nnU-Net that names the case which it cannot read.

    Args:
        dataset: of labeled cases.
        command: makes them again.
    """
    return WatchedDataset(dataset, "labeled", command)


def watch_labeled(
    datasets: Iterable[Any], folder: Path, command: str
) -> tuple[WatchedDataset, ...]:
    """Return the datasets of a training, watched over.

    Args:
        datasets: of nnU-Net.
        folder: where their cases are.
        command: makes them again.

    Raises:
        DataError: cases are damaged or not there.
    """
    datasets = tuple(datasets)
    damaged = damaged_cases(folder, {case for d in datasets for case in d.identifiers})
    if damaged:
        raise DataError(
            f"{len(damaged)} preprocessed labeled cases in {folder} are damaged or not there "
            f"({name_some(damaged)}); make them again with {command}."
        )
    return tuple(watched(dataset, command) for dataset in datasets)


@contextmanager
def naming_unreadable(
    datasets: Callable[[], Sequence[WatchedDataset]], *, any_of_them: bool = False
) -> Iterator[None]:
    """If what is done inside fails because a case cannot be read, raise an error that names it.

    Args:
        datasets: returns those that may hold the case.
        any_of_them: look at every case: the datasets are not those that were read from.
    """
    try:
        yield
    except SPMCError:
        raise
    except Exception as error:
        refuse_unreadable(datasets(), error, any_of_them=any_of_them)
        raise
