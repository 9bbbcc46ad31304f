"""Run unlabeled cases through worker processes: check, preprocess, publish each one whole."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm import tqdm

from nnunetv2_spmc.common.errors import DataError, reason_of
from nnunetv2_spmc.common.whole_file import WriteError, whole_file, write_error
from nnunetv2_spmc.common.worker_pool import run_cases
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.unlabeled.cases import CASE_ENDINGS, FAILED_FOLDER, case_problem
from nnunetv2_spmc.unlabeled.image_checks import (
    check_image,
    check_same_place,
    is_finite,
    reading_problem,
)
from nnunetv2_spmc.unlabeled.resampled_size import check_resampled_size

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager


@dataclass(frozen=True)
class PreprocessingJob:
    """What all cases of a run share."""

    folder: Path
    temporary_folder: Path  # inside `folder`, so that a finished case only has to be renamed
    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    dataset_json: dict[str, Any]
    num_channels: int
    verify: bool


@dataclass(frozen=True)
class CaseOutcome:
    """What became of a case; `reason` says why it failed."""

    identifier: str
    status: Literal["done", "skipped", "redone", "failed"]
    reason: str = ""


def process_cases(
    job: PreprocessingJob, cases: Mapping[str, Sequence[str]], num_processes: int, progress: tqdm
) -> list[CaseOutcome]:
    """Process all cases and return what became of each.

    Args:
        job: What the cases share.
        cases: Identifier -> channel files.
        num_processes: Worker processes; 0 works in this process.
        progress: Advanced by one per case.

    Raises:
        DataError: If a worker process was killed. What it was at work on is named.
    """
    try:
        return run_cases(partial(_process_item, job), list(cases.items()), num_processes, progress)
    except BrokenProcessPool:
        begun = [p.name for p in job.temporary_folder.glob("*")]
        where = f"while it preprocessed one of {name_some(sorted(begun))}" if begun else "at start"
        raise DataError(
            f"A worker process was killed {where}, usually a sign of too little memory; finished "
            "cases are kept, run it again with fewer processes (-np)."
        ) from None


def _process_item(job: PreprocessingJob, item: tuple[str, Sequence[str]]) -> CaseOutcome:
    return process_case(job, *item)


def process_case(job: PreprocessingJob, identifier: str, files: Sequence[str]) -> CaseOutcome:
    """Preprocess a case unless it is finished, and publish its files whole or not at all."""
    data_file = job.folder / f"{identifier}.b2nd"
    had_data = data_file.exists()
    existed = any((job.folder / f"{identifier}{ending}").exists() for ending in CASE_ENDINGS)
    if case_problem(job.folder, identifier, verify=job.verify) is None:
        return CaseOutcome(identifier, "skipped")
    if had_data:  # nnU-Net lists cases by this file: without it a broken case no longer counts
        data_file.unlink(missing_ok=True)
    temporary = job.temporary_folder / identifier
    temporary.mkdir(parents=True)
    try:
        _preprocess(job, str(temporary / identifier), list(files))
        problem = case_problem(temporary, identifier)  # a full disk, for example
        if problem is not None:
            raise OSError(problem)
        if case_problem(job.folder, identifier) is None:
            return CaseOutcome(identifier, "skipped")  # another run was faster
        for ending in CASE_ENDINGS:
            os.replace(temporary / f"{identifier}{ending}", job.folder / f"{identifier}{ending}")
    except Exception as error:  # the other cases go on, whatever happens to this one
        unfinished = _unfinished_file(temporary, identifier)
        if unfinished is not None and isinstance(error, (OSError, RuntimeError)):
            reason = str(write_error(unfinished, job.folder / unfinished.name, error))
        else:
            reason = _describe(error, files, job)
            _note_failure(job, identifier, reason)
        return CaseOutcome(identifier, "failed", reason)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    (job.folder / FAILED_FOLDER / f"{identifier}.txt").unlink(missing_ok=True)
    return CaseOutcome(identifier, "redone" if existed else "done")


def _preprocess(job: PreprocessingJob, output_truncated: str, files: list[str]) -> None:
    from nnunetv2_spmc.raw.scan import check_scan

    for file in files:
        check_scan(Path(file))
    check_same_place(files)
    stock_class = job.configuration_manager.preprocessor_class
    preprocessor_class = _checking(stock_class, job.num_channels, files)
    with contextlib.redirect_stdout(io.StringIO()):  # readers also print when they raise
        preprocessor_class(verbose=False).run_case_save(
            output_truncated,
            files,
            None,
            job.plans_manager,
            job.configuration_manager,
            job.dataset_json,
        )


def _checking(preprocessor_class: Any, num_channels: int, files: Sequence[str]) -> Any:
    """Return a subclass of the plans' preprocessor that refuses images nobody can train on."""

    class CheckingPreprocessor(preprocessor_class):
        def run_case_npy(
            self, data: np.ndarray, seg: None, properties: dict[str, Any], *args: Any, **kwargs: Any
        ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
            check_image(data, num_channels, files)
            resampling = check_resampled_size(data, properties, *args[:2])
            try:
                data, mask, properties = super().run_case_npy(
                    data, seg, properties, *args, **kwargs
                )
            except MemoryError:
                raise DataError(
                    f"there was not enough memory: {resampling}; if the spacing is right, use "
                    "fewer processes (-np)"
                ) from None
            if not is_finite(data):
                raise DataError("the preprocessed image has NaN or infinite voxels")
            # nnUNetDataLoader reads it from every case; unlabeled cases have no class to sample.
            properties["class_locations"] = {}
            return data, mask, properties

    return CheckingPreprocessor


def _describe(error: Exception, files: Sequence[str], job: PreprocessingJob) -> str:
    """Say in one line why a case failed, naming the file if it is one of them."""
    if isinstance(error, MemoryError):
        return "there was not enough memory; use fewer processes (-np)"
    if isinstance(error, DataError):
        return str(error)
    reader = job.plans_manager.image_reader_writer_class()
    problem = reading_problem(files, reader)
    return problem or f"{type(error).__name__}: {reason_of(error)}"


def _unfinished_file(temporary: Path, identifier: str) -> Path | None:
    """Return the file that was being written when a case failed; None before the first."""
    files = [temporary / f"{identifier}{ending}" for ending in (".b2nd", "_seg.b2nd", ".pkl")]
    return next((file for file in reversed(files) if file.exists()), None)


def _note_failure(job: PreprocessingJob, identifier: str, reason: str) -> None:
    """Keep the reason, so that a training does not try the case again; room is no such reason."""
    note = job.folder / FAILED_FOLDER / f"{identifier}.txt"
    # without it, the next training tries the case once more
    with contextlib.suppress(OSError, WriteError):
        note.parent.mkdir(exist_ok=True)
        with whole_file(note) as temporary:
            temporary.write_text(f"{reason}\n", encoding="utf-8")
