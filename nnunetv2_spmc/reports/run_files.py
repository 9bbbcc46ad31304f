"""Read what a training left in its fold folder."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.evaluation.case_metrics import METRICS
from nnunetv2_spmc.evaluation.classes import read_classes
from nnunetv2_spmc.evaluation.metrics_csv import METRICS_COLUMNS, METRICS_CSV, read_metrics_csv
from nnunetv2_spmc.inference.trained_model import FINAL_CHECKPOINT, read_checkpoint

VALIDATION_FOLDER = "validation"
SUMMARY_JSON = "summary.json"
PER_CLASS_PREFIXES = {"dice_per_class_or_region": "dice"}
CHECKPOINTS = (FINAL_CHECKPOINT, "checkpoint_latest.pth", "checkpoint_best.pth")
SPLIT_LINE = re.compile(r"This split has (\d+) training and (\d+) validation cases")


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
        DataError: the training has not written any.
    """
    there = [name for name in CHECKPOINTS if (folder / name).is_file()]
    if not there:
        raise DataError(
            f"{folder} has no checkpoint: the training has not finished its first epoch; start it "
            "again, or wait."
        )
    if FINAL_CHECKPOINT in there:
        return FINAL_CHECKPOINT, read_checkpoint(folder / FINAL_CHECKPOINT)
    read = {name: read_checkpoint(folder / name) for name in there}
    name = max(there, key=lambda name: read[name]["current_epoch"])
    return name, read[name]


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


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file, or nothing if there is none."""
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); restore or remove it.") from error


def case_counts(folder: Path, dataset_json: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return how many labeled cases were trained and validated on, as far as the run tells."""
    if folder.name == "fold_all":
        number = dataset_json.get("numTraining")
        return number, number
    for log in sorted(folder.glob("training_log_*.txt"), reverse=True):
        match = SPLIT_LINE.search(log.read_text(encoding="utf-8", errors="replace"))
        if match:
            return int(match[1]), int(match[2])
    return None, None


def metrics_table(folder: Path, dataset_json: Mapping[str, Any]) -> pd.DataFrame | None:
    """Return the metrics of the validation cases, one row per case and class.

    They come from metrics.csv where nnUNetv2_spmc_evaluate was run, else from nnU-Net's
    summary.json, which has no surface distances (NaN). None without either.
    """
    metrics_csv = folder / VALIDATION_FOLDER / METRICS_CSV
    if metrics_csv.is_file():
        rows = read_metrics_csv(metrics_csv)
        return pd.DataFrame([vars(row) for row in rows], columns=METRICS_COLUMNS)
    summary = read_json(folder / VALIDATION_FOLDER / SUMMARY_JSON)
    return _from_summary(summary, folder, dataset_json) if summary else None


def _from_summary(
    summary: Mapping[str, Any], folder: Path, dataset_json: Mapping[str, Any]
) -> pd.DataFrame:
    values = read_classes(dataset_json, folder.parent / "dataset.json").values
    names = {str(v[0] if len(v) == 1 else v): name for name, v in values.items()}
    rows = []
    for case in summary["metric_per_case"]:
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


def _status(reference_voxels: int, predicted_voxels: int) -> str:
    if reference_voxels and predicted_voxels:
        return "ok"
    if not reference_voxels and not predicted_voxels:
        return "both_empty"
    return "reference_empty" if not reference_voxels else "prediction_empty"
