"""The CSVs of benchmarks/results: one schema, read and written here alone.

Rows are dictionaries of strings, as csv reads them. README.md says what the columns mean.
"""

from __future__ import annotations

import csv
import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.whole_file import whole_file

RESULTS = Path(__file__).resolve().parent / "results"
COLUMNS: dict[str, tuple[str, ...]] = {
    "runs": (
        *("dataset", "method", "settings", "labels", "stage", "seed", "epochs", "iterations"),
        *("mean_dice", "validation_dice", "seconds"),
        *("run", "name", "configuration", "chosen_by", "pretrained", "added_cases", "times"),
        *("machine", "versions"),
    ),
    "metrics": (
        *("run", "case", "unit", "label"),
        *("dice", "jaccard", "hd95_mm", "asd_mm", "hd95_voxel", "asd_voxel"),
        *("reference_voxels", "predicted_voxels", "status"),
    ),
    "curves": (
        *("run", "epoch", "seconds", "train_losses", "val_losses", "mean_fg_dice"),
        *("lambda", "agreement", "cps_main", "splat_main", "cdps_main"),
    ),
    "over_time": ("run", "epochs", "seconds", "test_dice"),
    "pseudo_labels": ("run", "epochs", "confidence_above", "measure", "value"),
    "performance": ("table", "key", "measure", "value", "machine"),
    "reliability": ("group", "command", "input", "verdict", "status", "seconds", "why", "said"),
    "kills": ("command", "kind", "number", "moment", "seconds", "signal", "outcome", "why"),
}
KEYS: dict[str, tuple[str, ...]] = {  # what tells the rows of a file apart
    "runs": ("run",),
    "metrics": ("run", "case", "label"),
    "curves": ("run", "epoch"),
    "over_time": ("run", "epochs"),
    "pseudo_labels": ("run", "epochs", "confidence_above", "measure"),
    "performance": ("table", "key", "measure"),
    "reliability": ("group", "command", "input"),
    "kills": ("command", "kind", "number"),
}

Row = Mapping[str, str]


def read(name: str, folder: Path = RESULTS) -> list[dict[str, str]]:
    """Return the rows of a CSV, none if it is absent.

    Raises:
        ValueError: it has other columns.
    """
    return read_file(folder / f"{name}.csv", COLUMNS[name])


def read_file(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows of a file with these columns and perhaps more, none if it is absent."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path} has no column {', '.join(missing)}.")
        return list(reader)


def write_file(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file whole or not at all; what a row lacks is empty."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def put(
    name: str, rows: Sequence[Mapping[str, Any]], folder: Path = RESULTS, same: str = "run"
) -> None:
    """Put rows at the end of a CSV, in place of all that agree with one of them in a column.

    The folder must be locked where somebody else may write, too.

    Args:
        name: of the CSV.
        rows: the new ones.
        folder: of the CSVs.
        same: the column.
    """
    new = {str(row[same]) for row in rows}
    kept = [row for row in read(name, folder) if row[same] not in new]
    write_file(folder / f"{name}.csv", COLUMNS[name], [*kept, *rows])


@contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a folder while something is done that only one process may do at a time.

    The lock goes with the process, however that ends.

    Args:
        folder: any folder.
        wait: until it is free; otherwise yield False where another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
