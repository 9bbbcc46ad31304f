"""metrics.csv: one row per case and class."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.whole_file import whole_file
from nnunetv2_spmc.evaluation.case_metrics import METRICS, STATUSES, ClassMetrics

METRICS_CSV = "metrics.csv"
METRICS_JSON = "metrics.json"  # beside it: means, and how they came about
METRICS_COLUMNS = [field.name for field in dataclasses.fields(ClassMetrics)]


def write_metrics_csv(path: Path, rows: Sequence[ClassMetrics]) -> None:
    """Write the rows; every number can be read back exactly, an undefined one is 'nan'."""
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, METRICS_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row) for row in rows)


def read_metrics_csv(path: Path) -> list[ClassMetrics]:
    """Return the rows of a metrics.csv.

    Raises:
        DataError: If it is not such a file.
    """
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = set(METRICS_COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise DataError(
                f"{path} has no column {', '.join(sorted(missing))}; make it anew with "
                "nnUNetv2_spmc_evaluate."
            )
        rows = [_row(path, reader.line_num, values) for values in reader]
    seen = {(row.case, row.label) for row in rows}
    if not rows or len(seen) != len(rows):
        wrong = "rows that name the same case and class twice" if rows else "no rows"
        raise DataError(f"{path} has {wrong}; make it anew with nnUNetv2_spmc_evaluate.")
    return rows


def _row(path: Path, line: int, values: Mapping[str, str]) -> ClassMetrics:
    try:
        return ClassMetrics(
            case=values["case"],
            label=values["label"],
            **{metric: float(values[metric]) for metric in METRICS},
            reference_voxels=int(values["reference_voxels"]),
            predicted_voxels=int(values["predicted_voxels"]),
            status=next(status for status in STATUSES if status == values["status"]),
        )
    except (ValueError, TypeError, StopIteration) as error:
        raise DataError(
            f"{path}: line {line} is no row of metrics; make it anew with nnUNetv2_spmc_evaluate."
        ) from error
