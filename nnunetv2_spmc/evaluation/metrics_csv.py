"""metrics.csv: one row per case and class."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunetv2_spmc.common.csv_files import from_cell, write_csv
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.text import read_text
from nnunetv2_spmc.evaluation.case_metrics import (
    DISTANCES,
    METRICS,
    OVERLAPS,
    STATUSES,
    ClassMetrics,
)
from nnunetv2_spmc.raw.cases import name_some

METRICS_CSV = "metrics.csv"
METRICS_JSON = "metrics.json"  # next to it: means, and how they were made
REMEDY = "write it again with nnUNetv2_spmc_evaluate."
METRICS_COLUMNS = [field.name for field in dataclasses.fields(ClassMetrics)]


def write_metrics_csv(path: Path, rows: Sequence[ClassMetrics]) -> None:
    """Write the rows; every number can be read back exactly, an undefined one is 'nan'."""
    write_csv(path, METRICS_COLUMNS, map(dataclasses.asdict, rows))


def read_metrics_csv(path: Path) -> list[ClassMetrics]:
    """Return the rows of a metrics.csv.

    Raises:
        DataError: If it is not such a file, or holds a value that no metric can have.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        _check_columns(path, reader.fieldnames or ())
        rows = [_row(path, reader.line_num, values) for values in reader]
    except csv.Error as error:  # such as a field longer than csv reads
        raise DataError(f"{path}: line {reader.line_num + 1}: {error}; {REMEDY}") from error
    if not rows:
        raise DataError(f"{path} has no rows; {REMEDY}")
    counted = Counter(f"{row.case}, {row.label}" for row in rows)
    twice = [name for name, count in counted.items() if count > 1]
    if twice:
        named = name_some(twice, 3)
        raise DataError(f"{path} has rows of the same case and class twice ({named}); {REMEDY}")
    return rows


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [column for column in METRICS_COLUMNS if column not in columns]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; {REMEDY}")
    twice = [column for column in METRICS_COLUMNS if list(columns).count(column) > 1]
    if twice:
        raise DataError(f"{path} has the column {', '.join(twice)} twice; {REMEDY}")


def _row(path: Path, line: int, values: Mapping[str, str]) -> ClassMetrics:
    try:
        row = ClassMetrics(
            case=from_cell(values["case"]),
            label=from_cell(values["label"]),
            **{metric: float(values[metric]) for metric in METRICS},
            reference_voxels=int(values["reference_voxels"]),
            predicted_voxels=int(values["predicted_voxels"]),
            status=next(status for status in STATUSES if status == values["status"]),
        )
        if None in values:  # more fields than columns
            raise ValueError
    except (ValueError, TypeError, StopIteration) as error:
        raise DataError(f"{path}: line {line} is not a row of metrics; {REMEDY}") from error
    wrong = _impossible(row)
    if wrong:
        raise DataError(
            f"{path}: line {line}: case {row.case}, class {row.label} has {wrong}; {REMEDY}"
        )
    return row


def _impossible(row: ClassMetrics) -> str:
    """Name the first value that no evaluation gives, "" if there is none."""
    for metric in METRICS:
        value = row.value(metric)
        if metric in OVERLAPS and not (0 <= value <= 1 or math.isnan(value)):
            return f"{metric} {value:g}, which is not between 0 and 1"
        if metric in DISTANCES and (value < 0 or math.isinf(value)):
            return f"{metric} {value:g}, which is not a distance"
        if metric in OVERLAPS and math.isnan(value) != (row.status == "both_empty"):
            return f"{metric} {value:g} with the status {row.status}"
    for count in ("reference_voxels", "predicted_voxels"):
        if getattr(row, count) < 0:
            return f"{count} {getattr(row, count)}"
    return ""
