"""Read what a training left in its fold folder."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnunetv2_spmc.common.errors import DataError, reason_of
from nnunetv2_spmc.common.json_files import check_keys, read_json
from nnunetv2_spmc.evaluation.case_metrics import METRICS
from nnunetv2_spmc.evaluation.classes import read_classes
from nnunetv2_spmc.evaluation.metrics_csv import METRICS_COLUMNS, METRICS_CSV, read_metrics_csv
from nnunetv2_spmc.evaluation.pairs import Place, Values
from nnunetv2_spmc.inference.model_folders import FINAL_CHECKPOINT
from nnunetv2_spmc.training.checkpoint import read_checkpoint

VALIDATION_FOLDER = "validation"
SUMMARY_JSON = "summary.json"
PER_CLASS_PREFIXES = {"dice_per_class_or_region": "dice"}
CHECKPOINTS = (FINAL_CHECKPOINT, "checkpoint_latest.pth", "checkpoint_best.pth")
SUMMARY_KEYS = {"prediction_file": str, "reference_file": str, "metrics": dict}
MEASURED = ("Dice", "IoU", "n_ref", "n_pred")
SPLIT_LINE = re.compile(r"This split has (\d+) training and (\d+) validation cases")


class AbsentError(DataError):
    """What is asked for is not there (yet), but nothing is damaged."""


def find_run(folder: Path) -> Path:
    """Return the fold folder of a run; a model folder with one fold stands for that fold.

    Raises:
        DataError: it is neither, or a model folder with several folds.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give nnUNet_results/DatasetXXX_Name/.../fold_0.")
    if (folder / "plans.json").is_file():
        folds = sorted(path for path in folder.glob("fold_*") if path.is_dir())
        if len(folds) != 1:
            names = ", ".join(path.name for path in folds) or "none"
            raise DataError(f"{folder} is a model folder with the folds: {names}; name one fold.")
        folder = folds[0]
    if not (folder.parent / "plans.json").is_file():
        raise DataError(
            f"{folder} is no fold of a trained model: there is no plans.json above it; give "
            "nnUNet_results/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION/fold_0."
        )
    return folder


def newest_checkpoint(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return name and content of the most advanced checkpoint.

    Raises:
        DataError: the training has not written any, or one has no log of a training.
    """
    there = [name for name in CHECKPOINTS if (folder / name).is_file()]
    if not there:
        raise DataError(
            f"{folder} has no checkpoint: the training has not finished its first epoch; start it "
            "again, or wait."
        )
    if FINAL_CHECKPOINT in there:
        there = [FINAL_CHECKPOINT]
    read = {name: _logged_checkpoint(folder / name) for name in there}
    name = max(there, key=lambda name: read[name]["current_epoch"])
    return name, read[name]


def _logged_checkpoint(path: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(path)
    for key, kind in (("logging", Mapping), ("current_epoch", int)):
        if not isinstance(checkpoint.get(key), kind):
            raise DataError(
                f"{path} does not hold {key!r}, which every training writes: exported models have "
                "none; give the folder of the training."
            )
    return checkpoint


def curves_of(checkpoint: Mapping[str, Any], classes: Sequence[str], path: Path) -> pd.DataFrame:
    """Return the `curves` of a checkpoint.

    Raises:
        DataError: they are damaged.
    """
    try:
        return curves(checkpoint["logging"], classes)
    except Exception as error:  # the log of a damaged checkpoint may hold anything
        raise DataError(
            f"{path} has no readable curves in 'logging' ({reason_of(error)}); copy it again."
        ) from error


def curves(logging: Mapping[str, Sequence[Any]], classes: Sequence[str]) -> pd.DataFrame:
    """Return the logged values as one row per epoch.

    Lists of one value per class become columns such as "dice_liver", the two time stamps the column
    "seconds". Columns are as long as the longest; missing values are NaN.

    Args:
        logging: the lists of nnU-Net's logger.
        classes: names of the foreground classes or regions, in order.
    """
    columns: dict[str, Sequence[Any]] = {}
    for key, values in logging.items():
        if key.endswith("_timestamps"):
            continue
        if any(isinstance(value, (list, tuple, np.ndarray)) for value in values):
            prefix = PER_CLASS_PREFIXES.get(key, key)
            for number, name in enumerate(classes):
                columns[f"{prefix}_{name}"] = [_entry(epoch, number) for epoch in values]
        else:
            columns[key] = values
    start, end = logging["epoch_start_timestamps"], logging["epoch_end_timestamps"]
    columns["seconds"] = [e - s for s, e in zip(start, end, strict=False)]
    table = pd.DataFrame({key: pd.Series(values, dtype=float) for key, values in columns.items()})
    return table.rename_axis("epoch")


def _entry(values: Any, number: int) -> float:
    """Return one value of a list of values per class; NaN where there is none."""
    return values[number] if np.size(values) > number and np.ndim(values) else math.nan


def read_debug(folder: Path) -> dict[str, Any]:
    """Return what stock nnU-Net notes about a training in debug.json, nothing without the file."""
    file = folder / "debug.json"
    return read_json(file, "restore or remove it") if os.path.lexists(file) else {}


def read_summary(folder: Path) -> list[dict[str, Any]]:
    """Return what the validation's summary.json holds of each case, nothing without the file.

    Raises:
        DataError: it is damaged.
    """
    file = folder / VALIDATION_FOLDER / SUMMARY_JSON
    if not os.path.lexists(file):
        return []
    remedy = "validate again with nnUNetv2_train --val"
    cases = read_json(file, remedy, {"metric_per_case": list})["metric_per_case"]
    for number, case in enumerate(cases):
        name = f"metric_per_case.{number}"
        check_keys({name: case}, {name: dict}, file, remedy)
        check_keys(case, SUMMARY_KEYS, file, remedy, inside=name)
        for label, measured in case["metrics"].items():
            inside = f"{name}.metrics.{label}"
            check_keys({inside: measured}, {inside: dict}, file, remedy)
            check_keys(measured, dict.fromkeys(MEASURED, float), file, remedy, inside=inside)
    return cases


def case_counts(folder: Path, dataset_json: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return how many labeled cases were trained and validated on, as far as the run tells."""
    if folder.name == "fold_all":
        number = dataset_json.get("numTraining")
        return number, number
    for log in sorted(folder.glob("training_log_*.txt"), key=_started, reverse=True):
        match = SPLIT_LINE.search(log.read_text(encoding="utf-8", errors="replace"))
        if match:
            return int(match[1]), int(match[2])
    return None, None


def _started(log: Path) -> list[int]:
    """Return when a log was begun, by its name, in which nnU-Net writes the 9th as 9, not 09."""
    return [int(number) for number in re.findall(r"\d+", log.stem)]


def metrics_table(folder: Path, dataset_json: Mapping[str, Any]) -> pd.DataFrame | None:
    """Return the metrics of the validation cases, one row per case and class.

    They come from metrics.csv where nnUNetv2_spmc_evaluate was run on these predictions, else from
    nnU-Net's summary.json, which has no surface distances (NaN). None without either.
    """
    metrics_csv = folder / VALIDATION_FOLDER / METRICS_CSV
    if os.path.lexists(metrics_csv):
        rows = read_metrics_csv(metrics_csv)
        table = pd.DataFrame([vars(row) for row in rows], columns=METRICS_COLUMNS)
        if not _is_of_earlier_predictions(table, metrics_csv, folder, dataset_json):
            return table
    return summary_table(folder, dataset_json)


def _is_of_earlier_predictions(
    table: pd.DataFrame, metrics_csv: Path, folder: Path, dataset_json: Mapping[str, Any]
) -> bool:
    """Whether nnU-Net has validated again since a metrics.csv was written, with another result."""
    summary = folder / VALIDATION_FOLDER / SUMMARY_JSON
    if not summary.is_file() or summary.stat().st_mtime <= metrics_csv.stat().st_mtime:
        return False
    now = summary_table(folder, dataset_json)
    if now is None:
        return False
    both = now.merge(table, on=["case", "label"], suffixes=("", "_before"))
    same = both["predicted_voxels"] == both["predicted_voxels_before"]
    return len(both) < len(now) or not same.all()


def summary_table(folder: Path, dataset_json: Mapping[str, Any]) -> pd.DataFrame | None:
    """Return what nnU-Net's validation measured, as `metrics_table`; None if there was none."""
    summary = read_summary(folder)
    if not summary:
        return None
    values = read_classes(dataset_json, folder.parent / "dataset.json").values
    names = {str(v[0] if len(v) == 1 else v): name for name, v in values.items()}
    names |= {str(v): name for name, v in values.items()}  # "(3,)": a region of one label
    rows = []
    for case in summary:
        identifier = os.path.basename(case["prediction_file"]).removesuffix(
            dataset_json["file_ending"]
        )
        for label, measured in case["metrics"].items():
            row = dict.fromkeys(METRICS, math.nan)
            row |= {"dice": measured["Dice"], "jaccard": measured["IoU"]}
            reference, predicted = int(measured["n_ref"]), int(measured["n_pred"])
            rows.append(
                {
                    "case": identifier,
                    "label": names.get(label, label),
                    **row,
                    "reference_voxels": reference,
                    "predicted_voxels": predicted,
                    "status": _status(reference, predicted),
                }
            )
    return pd.DataFrame(rows, columns=METRICS_COLUMNS)


def values_of(table: pd.DataFrame, metric: str = "dice", fold: str = "") -> Values:
    """Return a metric from a table as `metrics_table` returns it."""
    found: dict[Place, dict[str, float]] = {}
    for case, label, value in zip(table["case"], table["label"], table[metric], strict=True):
        found.setdefault((fold, str(case)), {})[label] = float(value)
    return found


def _status(reference_voxels: int, predicted_voxels: int) -> str:
    if reference_voxels and predicted_voxels:
        return "ok"
    if not reference_voxels and not predicted_voxels:
        return "both_empty"
    return "reference_empty" if not reference_voxels else "prediction_empty"
