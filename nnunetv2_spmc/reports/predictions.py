"""Predicted cases of a run: of its validation, or the test cases of its dataset."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.nnunet_folders import PREPROCESSED, RAW, folder_if_set, raw_dataset_folder
from nnunetv2_spmc.common.whole_file import WriteError, made_folder
from nnunetv2_spmc.evaluation.folder_evaluation import evaluate_folder
from nnunetv2_spmc.evaluation.metrics_csv import METRICS_COLUMNS, METRICS_CSV, read_metrics_csv
from nnunetv2_spmc.inference.case_maps import CaseMaps
from nnunetv2_spmc.inference.map_files import StoredMaps, read_stored_maps, write_maps
from nnunetv2_spmc.inference.uncertainty import write_uncertainty
from nnunetv2_spmc.raw.cases import count_of
from nnunetv2_spmc.raw.layout import IMAGES_TEST, LABELS_TEST
from nnunetv2_spmc.reports.run_files import VALIDATION_FOLDER, AbsentError, read_summary
from nnunetv2_spmc.reports.run_record import RunRecord
from nnunetv2_spmc.unlabeled.raw_images import find_images

TEST_FOLDER = "test"
MAPS_FOLDER = "validation_maps"
Kind = Literal["validation", "test"]
Log = Callable[[str], None]


@dataclass(frozen=True)
class Predictions:
    """Where the predictions of a run are, and how good.

    Args:
        run: the run.
        kind: whether they are of validation or test cases.
        folder: that holds them.
        metrics: one row per case and class.
        failed: case -> why it is not among them.
        written_by_run: whether files that are older than the checkpoint are an earlier model's.
    """

    run: RunRecord
    kind: Kind
    folder: Path
    metrics: pd.DataFrame = field(repr=False)
    failed: Mapping[str, str] = field(default_factory=dict)
    written_by_run: bool = True

    @property
    def remedy(self) -> str:
        """How to have them again."""
        if self.kind == "validation":
            return "nnUNetv2_train --val"
        return "nnUNetv2_predict" if not self.written_by_run else f"remove {self.folder}"

    def prediction(self, case: str) -> Path:
        """Return the predicted segmentation of a case."""
        return self.folder / f"{case}{self.run.dataset_json['file_ending']}"

    def images(self, case: str) -> list[Path]:
        """Return the image files of a case, one per channel.

        Raises:
            AbsentError: nnUNet_raw does not have them.
        """
        if self.kind == "validation":
            return self.run.validation_images(case)
        return labeled_test_cases(self.run)[0][case]

    def reference(self, case: str) -> Path | None:
        """Return the segmentation by a human, None where it is gone."""
        if self.kind == "validation":
            return reference_of(self.run, case)
        return _test_label(self.run, case)

    def stored_maps(self, case: str) -> StoredMaps | None:
        """Return the maps next to a prediction, or those that `keep_maps` has kept.

        Raises:
            DataError: they are damaged.
        """
        reader = self.run.reader_writer
        newer_than = _checkpoint_time(self.run) if self.written_by_run else 0
        ending = self.run.dataset_json["file_ending"]
        maps = read_stored_maps(self.folder, case, reader, ending, newer_than)
        if maps is None and self.kind == "validation":
            maps = read_stored_maps(self._kept, case, reader, ending, newer_than)
        return maps

    def keep_maps(self, case: str, maps: CaseMaps) -> None:
        """Keep the maps of a validation case for the next report, where the disk allows it."""
        if self.kind != "validation":
            return
        ending = self.run.dataset_json["file_ending"]
        with suppress(WriteError), made_folder(self._kept):
            write_maps(self._kept, case, maps, self.run.reader_writer, ending)

    @property
    def _kept(self) -> Path:
        return self.run.folder / MAPS_FOLDER


def predicted_validation_cases(
    run: RunRecord, *, num_processes: int | None = 0, show_progress: bool = False, log: Log = print
) -> Predictions:
    """Return the validation cases of a run, with surface distances if they can be measured.

    Cases that cannot be measured are in `failed`; these have no distance.

    Raises:
        AbsentError: the run has not been validated.
        DataError: its metrics are damaged.
    """
    folder, table = run.folder / VALIDATION_FOLDER, run.metrics
    stored = Predictions(run, "validation", folder, table)
    if table["hd95_mm"].notna().any() or table.empty:
        return stored
    reference = reference_of(run, str(table["case"].iloc[0]))
    if reference is None:
        return stored
    log(f"Measuring surface distances of {run.name}")
    try:
        measured, failed = _measured(
            run, reference.parent, folder, num_processes, show_progress, write=False
        )
    except DataError as error:
        log(f"note: no surface distances: {error}")
        return stored
    others = table[table["case"].isin(list(failed))]
    table = pd.concat([measured, others], ignore_index=True) if failed else measured
    return Predictions(run, "validation", folder, table, failed)


def predicted_test_cases(
    run: RunRecord,
    folder: Path | None = None,
    *,
    may_predict: bool = True,
    num_processes: int | None = 0,
    show_progress: bool = False,
    log: Log = print,
) -> Predictions:
    """Return the labeled test cases of the dataset, predicted by a finished run.

    Args:
        run: the run.
        folder: predictions that are there; by default the run's folder `test`, in which what is
            missing, or older than the checkpoint, is predicted and kept with its maps.
        may_predict: predict into that folder.
        num_processes: that measure, see `evaluate_folder`.
        show_progress: show a progress bar of the measuring.
        log: receives a line per case that is predicted.

    Raises:
        AbsentError: there are no such test cases, or they are not predicted.
        DataError: no prediction can be used.
    """
    cases, failed = labeled_test_cases(run)
    if not cases:
        raise AbsentError(f"nnUNet_raw has no test cases with labels in {run.dataset_name}")
    own, folder = folder is None, folder or run.folder / TEST_FOLDER
    missing = _not_predicted(run, cases, folder, _checkpoint_time(run) if own else 0)
    if missing and own:
        if not may_predict or not run.is_finished:
            number, verb = len(missing), "is" if len(missing) == 1 else "are"
            raise AbsentError(f"{number} of {len(cases)} test cases {verb} not predicted")
        log(
            f"Predicting {count_of(len(missing), 'test case')} of {run.name} into {folder} "
            "(--validation leaves this out)"
        )
        for case in missing:  # what an older model predicted
            (folder / f"{case}{run.dataset_json['file_ending']}").unlink(missing_ok=True)
        summary = write_uncertainty(run.model, missing, folder, log=log)
        failed |= summary.failed
        if len(missing) == len(cases) and not summary.written:
            raise DataError(next(iter(summary.failed.values())))
    elif _is_measured(run, folder, cases):
        return Predictions(run, "test", folder, _stored_metrics(folder), failed, own)
    for case in _not_predicted(run, cases, folder, 0):
        failed.setdefault(case, f"{folder} has no prediction of it")
    log(f"Measuring the test cases of {run.name}")
    references = _test_label(run, next(iter(cases))).parent
    table, unmeasured = _measured(run, references, folder, num_processes, show_progress, write=own)
    return Predictions(run, "test", folder, table, {**failed, **unmeasured}, own)


def _not_predicted(
    run: RunRecord, cases: Mapping[str, list[Path]], folder: Path, newer_than: float
) -> dict[str, list[Path]]:
    ending = run.dataset_json["file_ending"]
    files = {case: folder / f"{case}{ending}" for case in cases}
    return {
        case: images
        for case, images in cases.items()
        if not files[case].is_file() or files[case].stat().st_mtime < newer_than
    }


def _is_measured(run: RunRecord, folder: Path, cases: Iterable[str]) -> bool:
    """Whether the folder has metrics of these cases, newer than all predictions and labels."""
    file = folder / METRICS_CSV
    if not file.is_file():
        return False
    predictions = folder.glob(f"*{run.dataset_json['file_ending']}")
    labels = [_test_label(run, case) for case in cases]
    newest = max(path.stat().st_mtime for path in (*predictions, *labels, file))
    return file.stat().st_mtime == newest and set(_stored_metrics(folder)["case"]) == set(cases)


def _stored_metrics(folder: Path) -> pd.DataFrame:
    rows = read_metrics_csv(folder / METRICS_CSV)
    return pd.DataFrame([vars(row) for row in rows], columns=METRICS_COLUMNS)


def labeled_test_cases(run: RunRecord) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Return the test cases of the dataset that have a label.

    Returns:
        identifier -> image files, and identifier -> why others cannot be used.
    """
    raw = raw_dataset_folder(run.dataset_name)
    if raw is None:
        return {}, {}
    images = find_images(raw / IMAGES_TEST, run.dataset_json["file_ending"], run.channels)
    labeled = [case for case in images.all_cases if os.path.lexists(_test_label(run, case))]
    return (
        {case: list(map(Path, images.cases[case])) for case in labeled if case in images.cases},
        {case: images.failed[case] for case in labeled if case in images.failed},
    )


def reference_of(run: RunRecord, case: str) -> Path | None:
    """Return the reference segmentation of a validation case, wherever it lies now."""
    name = f"{case}{run.dataset_json['file_ending']}"
    places = [Path(measured["reference_file"]) for measured in read_summary(run.folder)]
    candidates = [path for path in places if path.name == name]
    for variable, folder in ((PREPROCESSED, "gt_segmentations"), (RAW, "labelsTr")):
        root = folder_if_set(variable)
        if root is not None:
            candidates.append(root / run.dataset_name / folder / name)
    return next((path for path in candidates if os.path.lexists(path)), None)


def _test_label(run: RunRecord, case: str) -> Path:
    raw = raw_dataset_folder(run.dataset_name)
    assert raw is not None, "asked for cases of nnUNet_raw only"
    return raw / LABELS_TEST / f"{case}{run.dataset_json['file_ending']}"


def _checkpoint_time(run: RunRecord) -> float:
    return (run.folder / run.checkpoint_name).stat().st_mtime


def _measured(
    run: RunRecord,
    references: Path,
    predictions: Path,
    num_processes: int | None,
    show_progress: bool,
    *,
    write: bool,
) -> tuple[pd.DataFrame, Mapping[str, str]]:
    evaluation = evaluate_folder(
        references,
        predictions,
        run.folder.parent / "dataset.json",
        num_processes=num_processes,
        allow_missing=True,
        show_progress=show_progress,
    )
    if write:
        evaluation.write(predictions)
    rows: Sequence[object] = [vars(row) for row in evaluation.rows]
    return pd.DataFrame(rows, columns=METRICS_COLUMNS), evaluation.failed
