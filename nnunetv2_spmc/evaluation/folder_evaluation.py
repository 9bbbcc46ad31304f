"""Evaluate a folder of predictions against a folder of references."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunetv2_spmc import __version__
from nnunetv2_spmc.common.cores import usable_cores
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.whole_file import made_folder, whole_files, write_json
from nnunetv2_spmc.common.worker_pool import run_cases
from nnunetv2_spmc.evaluation.case_files import find_reader, pair_cases, read_pair
from nnunetv2_spmc.evaluation.case_metrics import METRICS, ClassMetrics, case_metrics
from nnunetv2_spmc.evaluation.classes import Classes, read_classes
from nnunetv2_spmc.evaluation.metrics_csv import METRICS_CSV, METRICS_JSON, write_metrics_csv
from nnunetv2_spmc.evaluation.summary import ClassSummary, summarize_classes, summarize_mean
from nnunetv2_spmc.evaluation.text_table import TITLES, mean_and_std_text, text_table
from nnunetv2_spmc.raw.cases import count_of, name_some
from nnunetv2_spmc.raw.dataset_json import read_dataset_json
from nnunetv2_spmc.raw.layout import OVERLAP_KEY

DEFINITIONS = {
    "dice, jaccard": "MedPy dc, jc",
    "hd95": "MedPy hd95: 95th percentile of the distances from both surfaces to the other",
    "asd": "MedPy asd(prediction, reference): mean distance from the surface of the prediction to "
    "that of the reference",
    "both_empty": "class in neither mask: counted, no metric",
    "failures": "class in one of the two masks only: Dice and Jaccard 0, no distance",
    "std": "sample standard deviation (n - 1) over cases",
}


@dataclass(frozen=True)
class EvaluationJob:
    """What all cases of an evaluation share."""

    reference_folder: Path
    prediction_folder: Path
    file_ending: str
    reader: type
    classes: Classes


@dataclass(frozen=True)
class Evaluation:
    """The metrics of all cases, and how they were measured."""

    rows: list[ClassMetrics]
    missing: tuple[str, ...]  # cases without a prediction
    failed: dict[str, str]  # case -> why it could not be measured
    notes: tuple[str, ...]  # about files that are left out
    settings: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the content of metrics.json."""
        return {
            "mean": summarize_mean(self.rows).as_json(),
            "classes": {
                label: summary.as_json() for label, summary in summarize_classes(self.rows).items()
            },
            "settings": self.settings,
            "definitions": DEFINITIONS,
            "version": __version__,
        }

    def table(self) -> str:
        """Return the table for the screen: one row per class, and their mean."""
        classes = summarize_classes(self.rows)
        rows = [_table_row(label, summary) for label, summary in classes.items()]
        if len(classes) > 1:
            rows.append(_table_row("mean", summarize_mean(self.rows)))
        return text_table(["class", *TITLES.values(), "both empty", "failures"], rows)

    def remarks(self) -> list[str]:
        """Return what the reader of the table has to know, one sentence each."""
        cases = len({row.case for row in self.rows})
        remarks = [f"{count_of(cases, 'case')}, mean +- standard deviation over cases."]
        if OVERLAP_KEY in self.settings:
            remarks.append(
                f"The model was trained with allow_overlap ({self.settings[OVERLAP_KEY]}): numbers "
                "of those cases are too good."
            )
        failed = [f"{row.case} ({row.label})" for row in self.rows if row.is_failure]
        if failed:
            remarks.append(
                "Failures count as Dice and Jaccard 0 and have no distance, so the distances are "
                f"those of the other cases: {name_some(failed)}."
            )
        if any(row.status == "both_empty" for row in self.rows):
            remarks.append("Both empty: class in neither mask, in no mean.")
        if self.failed:
            remarks.append(
                f"Not evaluated, because they cannot be measured: {len(self.failed)} of "
                f"{len(self.failed) + cases} cases ({name_some(self.failed)})."
            )
        if self.missing:
            remarks.append(
                f"Not evaluated, because there is no prediction: {len(self.missing)} of "
                f"{len(self.missing) + cases} cases ({name_some(self.missing)})."
            )
        return remarks

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write metrics.csv and metrics.json into a folder and return their paths."""
        with made_folder(folder), whole_files(folder) as new:
            write_metrics_csv(new / METRICS_CSV, self.rows)
            write_json(self.as_json(), new / METRICS_JSON, allow_nan=False)
        return folder / METRICS_CSV, folder / METRICS_JSON


def _table_row(label: str, summary: ClassSummary) -> list[str]:
    values = [
        mean_and_std_text(summary.metrics[metric].mean, summary.metrics[metric].std, metric)
        for metric in METRICS
    ]
    return [label, *values, str(summary.both_empty), str(summary.failures)]


def evaluate_folder(
    reference_folder: Path,
    prediction_folder: Path,
    dataset_json_file: Path,
    *,
    num_processes: int | None = None,
    allow_missing: bool = False,
    show_progress: bool = True,
) -> Evaluation:
    """Evaluate all predictions of a folder.

    Args:
        reference_folder: Reference segmentations, labelsTs for example.
        prediction_folder: Predictions of the same names; other files, and predictions without a
            reference, may lie in the folder, too.
        dataset_json_file: States the labels or regions, the file ending and the reader.
        num_processes: Worker processes, 0 works in this process; nnU-Net's default number if
            None, but no more than there are CPU cores.
        allow_missing: Evaluate the predictions that are there instead of raising.
        show_progress: Show a progress bar.

    Raises:
        DataError: If folders or files do not fit together, or no case can be measured. A case that
            fails while others do not is named with its reason; it does not raise.
    """
    if num_processes is not None and num_processes < 0:
        raise DataError(f"The number of processes must not be negative, got {num_processes}.")
    for folder in (reference_folder, prediction_folder):
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder.")
    if not os.path.lexists(dataset_json_file):
        raise DataError(f"{dataset_json_file} does not exist; name the dataset's with -djfile.")
    remedy = "it must be the dataset.json of the dataset"
    dataset_json = read_dataset_json(dataset_json_file, remedy, with_channels=False)
    classes = read_classes(dataset_json, dataset_json_file)
    ending = dataset_json["file_ending"]
    pairs = pair_cases(reference_folder, prediction_folder, ending, allow_missing=allow_missing)
    reader = find_reader(
        dataset_json, [reference_folder / f"{case}{ending}" for case in pairs.cases]
    )
    job = EvaluationJob(reference_folder, prediction_folder, ending, reader, classes)
    if num_processes is None:
        num_processes = _default_processes()
    rows, failed = _evaluate_cases(job, pairs.cases, num_processes, show_progress=show_progress)
    settings = {
        "references": str(reference_folder.resolve()),
        "predictions": str(prediction_folder.resolve()),
        "cases": len(pairs.cases) - len(failed),
        "failed_cases": failed,
        "missing_predictions": list(pairs.missing),
        "predictions_without_reference": list(pairs.surplus),
        "reader": reader.__name__,
        "file_ending": ending,
        "classes": {label: list(values) for label, values in classes.values.items()},
        "ignore_label": classes.ignore,
    }
    if overlap := _allowed_overlap(dataset_json, prediction_folder):
        settings[OVERLAP_KEY] = overlap
    return Evaluation(rows, pairs.missing, failed, pairs.notes, settings)


def _allowed_overlap(dataset_json: Mapping[str, Any], predictions: Path) -> str:
    """Return what the model's unlabeled cases may share with others; '' if nothing was allowed.

    A training that allowed it says so in the dataset.json of the model, which nnU-Net copies next
    to predictions; those of a validation lie two folders below.
    """
    if OVERLAP_KEY in dataset_json:
        return str(dataset_json[OVERLAP_KEY])
    for folder in (predictions, predictions.resolve().parent.parent):
        try:
            return str(json.loads((folder / "dataset.json").read_text("utf-8"))[OVERLAP_KEY])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return ""


def _default_processes() -> int:
    from nnunetv2.configuration import default_num_processes

    return min(default_num_processes, usable_cores())


def _evaluate_cases(
    job: EvaluationJob, cases: Sequence[str], num_processes: int, *, show_progress: bool
) -> tuple[list[ClassMetrics], dict[str, str]]:
    try:
        with tqdm(total=len(cases), desc="Evaluating", disable=not show_progress) as progress:
            outcomes = run_cases(partial(_evaluate_case, job), cases, num_processes, progress)
    except BrokenProcessPool:
        raise DataError(
            "A worker process was killed, usually a sign of too little memory; run it again with "
            "fewer processes (-np)."
        ) from None
    failed = {case: o for case, o in zip(cases, outcomes, strict=True) if isinstance(o, str)}
    if len(failed) == len(cases):
        (first, problem), *others = failed.items()
        more = f" Problems with {count_of(len(others), 'more case')}: " if others else ""
        names = name_some((case for case, _ in others), limit=20) + "." if others else ""
        raise DataError(f"Case {first}: {problem}.{more}{names}")
    rows = [row for outcome in outcomes if not isinstance(outcome, str) for row in outcome]
    return rows, failed


def _evaluate_case(job: EvaluationJob, case: str) -> list[ClassMetrics] | str:
    """Return the metrics of a case, or what is wrong with it."""
    name = f"{case}{job.file_ending}"
    try:
        reference, prediction = read_pair(
            job.reference_folder / name, job.prediction_folder / name, job.reader, job.classes
        )
        return case_metrics(
            case, reference.voxels, prediction.voxels, reference.spacing_mm, job.classes
        )
    except MemoryError:
        return "there was not enough memory; use fewer processes (-np)"
    except (DataError, OSError) as error:
        return str(error)
