"""Preprocess the unlabeled cases of a dataset with the plans of its labeled ones.

The plans' own preprocessor does the work, so the files are what nnU-Net would have written; this
module decides which cases are to do, runs them in worker processes, and reports.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.leftovers import remove_leftovers, temporary_name
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.raw.layout import IMAGES_UNLABELED
from nnunetv2_spmc.unlabeled.case_worker import CaseOutcome, PreprocessingJob, process_cases
from nnunetv2_spmc.unlabeled.cases import (
    describe_failures,
    failed_cases,
    finished_cases,
    image_files,
    raw_dataset_folder,
    raw_unlabeled_cases,
    unlabeled_folder,
)
from nnunetv2_spmc.unlabeled.leak_checks import check_raw_dataset
from nnunetv2_spmc.unlabeled.plans_record import (
    check_record,
    record_file,
    relevant_plans,
    write_record,
)
from nnunetv2_spmc.unlabeled.target import UnlabeledTarget, find_target

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

Log = Callable[[str], None]
UNFINISHED_PREFIX = ".unfinished-"


@dataclass(frozen=True)
class PreprocessingReport:
    """What a run did, by identifier."""

    folder: Path
    done: list[str]
    skipped: list[str]  # were finished before
    redone: list[str]  # had broken files
    failed: dict[str, str]  # with the reason

    def summary(self) -> str:
        """Return the counts in one line."""
        return (
            f"{self.folder}: {len(self.done)} preprocessed, {len(self.skipped)} were finished, "
            f"{len(self.redone)} broken ones redone, {len(self.failed)} failed."
        )


def preprocess_unlabeled(
    dataset_name_or_id: str | int,
    configuration: str,
    plans_identifier: str = "nnUNetPlans",
    *,
    num_processes: int = 8,
    num_parts: int = 1,
    part_id: int = 0,
    verify: bool = False,
    overwrite: bool = False,
    allow_overlap: bool = False,
    show_progress: bool = True,
    log: Log | None = None,
) -> PreprocessingReport:
    """Preprocess the cases of imagesUn that are not finished yet.

    Args:
        dataset_name_or_id: The dataset in nnUNet_raw and nnUNet_preprocessed.
        configuration: A configuration of the plans, not the cascade.
        plans_identifier: Name of the plans file.
        num_processes: Worker processes; 0 works in this process.
        num_parts: Share the cases among that many runs, on several computers for example.
        part_id: Which of the parts this run does, from 0.
        verify: Decompress finished cases fully and redo the broken ones.
        overwrite: Make all cases anew.
        allow_overlap: Accept unlabeled cases that are labeled or test cases too.
        show_progress: Show a progress bar.
        log: Receives remarks; none are made without it.

    Raises:
        DataError: If the run as a whole is not possible. A case that fails does not raise, the
            report names it.
    """
    if num_parts < 1 or not 0 <= part_id < num_parts:
        raise DataError(f"part_id must lie in [0, {num_parts}) for {num_parts} parts: {part_id}.")
    if num_processes < 0:
        raise DataError(f"The number of processes must not be negative, got {num_processes}.")
    target = find_target(dataset_name_or_id, configuration, plans_identifier)
    if overwrite and num_parts > 1:
        raise DataError(
            f"Several parts cannot all overwrite the folder; delete {target.folder} and "
            f"{record_file(target.folder)} once, then run the parts without overwriting."
        )
    cases = _checked_raw_cases(target, allow_overlap, log)
    if overwrite:
        if target.folder.is_dir():
            shutil.rmtree(target.folder)
        record_file(target.folder).unlink(missing_ok=True)
    part = {identifier: cases[identifier] for identifier in sorted(cases)[part_id::num_parts]}
    return _run(target, part, num_processes, verify=verify, show_progress=show_progress)


def ensure_unlabeled_preprocessed(
    dataset_name: str,
    plans_manager: PlansManager,
    configuration_name: str,
    dataset_json: dict[str, Any],
    preprocessed_folder: str | Path,
    *,
    allowed_to_run: bool,
    log: Log,
    num_processes: int,
    allow_overlap: bool = False,
    required: bool = True,
) -> list[str]:
    """Return the unlabeled cases to train with, after preprocessing those that are not yet.

    Args:
        dataset_name: "Dataset510_Liver" for example.
        plans_manager: The plans of the training.
        configuration_name: The configuration of the training.
        dataset_json: The dataset.json of the training.
        preprocessed_folder: The folder of the preprocessed *labeled* cases of the configuration.
        allowed_to_run: Whether cases may be preprocessed now; not under DDP, for example.
        log: Receives what the user should know.
        num_processes: Worker processes for preprocessing.
        allow_overlap: Accept unlabeled cases that are labeled or test cases too.
        required: Raise where there is no unlabeled case at all, instead of returning none.

    Returns:
        Sorted identifiers; at least one if required.

    Raises:
        DataError: If there is no case to train with, or the cases are not preprocessed and it is
            not allowed to do that now; it names the command.
    """
    folder = unlabeled_folder(preprocessed_folder)
    target = UnlabeledTarget(dataset_name, plans_manager, configuration_name, dataset_json, folder)
    target.check()
    plans = relevant_plans(plans_manager, target.configuration_manager)
    check_record(folder, plans, f"{target.command} --overwrite")
    finished = finished_cases(folder)
    raw_folder = raw_dataset_folder(target.dataset_name)
    if raw_folder is None or not _has_unlabeled(raw_folder, dataset_json, required):
        if not finished and not required:
            log(f"There is no {IMAGES_UNLABELED}: training without unlabeled cases.")
            return []
        if not finished:
            raise DataError(
                f"There is no unlabeled case: {folder} is empty, and nnUNet_raw has no "
                f"{dataset_name}/{IMAGES_UNLABELED}; put the images there and run {target.command}."
            )
        log(f"nnUNet_raw has no {dataset_name}/{IMAGES_UNLABELED}; using the cases in {folder}.")
        return finished
    cases = raw_unlabeled_cases(raw_folder, dataset_json["file_ending"], target.num_channels)
    failed = failed_cases(folder, cases)
    missing = sorted(set(cases) - set(finished) - set(failed))
    if missing and not allowed_to_run:
        raise DataError(
            f"{len(missing)} of {len(cases)} unlabeled cases are not preprocessed; run "
            f"{target.command} first."
        )
    if missing:
        log(
            f"{len(missing)} of {len(cases)} unlabeled cases are not preprocessed; doing it now. "
            f"To do it ahead of time: {target.command}"
        )
        cases = _checked_raw_cases(target, allow_overlap, log)
        report = _run(target, {i: cases[i] for i in missing}, num_processes)
        failed.update(report.failed)
        finished = finished_cases(folder)
    return _usable_cases(target, cases, finished, failed, log)


def _has_unlabeled(raw_folder: Path, dataset_json: Mapping[str, Any], required: bool) -> bool:
    folder = raw_folder / IMAGES_UNLABELED
    # an empty folder is a mistake where unlabeled cases are required, and named later
    return folder.is_dir() and (required or bool(image_files(folder, dataset_json["file_ending"])))


def _usable_cases(
    target: UnlabeledTarget,
    cases: Mapping[str, Sequence[str]],
    finished: Sequence[str],
    failed: Mapping[str, str],
    log: Log,
) -> list[str]:
    removed = sorted(set(finished) - set(cases))
    if removed:
        log(
            f"Not used, because no longer in {IMAGES_UNLABELED}: "
            f"{len(removed)} preprocessed cases ({name_some(removed)})."
        )
    failed = {i: reason for i, reason in failed.items() if i not in finished}
    if failed:
        log(
            f"Left out, because preprocessing failed: {len(failed)} unlabeled cases "
            f"({describe_failures(failed)}). Mend or remove them and run {target.command}"
        )
    usable = sorted(set(finished) & set(cases))
    if not usable:
        raise DataError(
            f"None of the {len(cases)} unlabeled cases of {target.dataset_name} could be "
            f"preprocessed ({describe_failures(failed, 1)}); mend them and run {target.command}."
        )
    return usable


def _checked_raw_cases(
    target: UnlabeledTarget, allow_overlap: bool, log: Log | None
) -> dict[str, list[str]]:
    raw_folder = raw_dataset_folder(target.dataset_name)
    if raw_folder is None:
        raise DataError(f"There is no {target.dataset_name} in nnUNet_raw.")
    cases = raw_unlabeled_cases(raw_folder, target.dataset_json["file_ending"], target.num_channels)
    check_raw_dataset(raw_folder, target.dataset_json, cases, allow_overlap=allow_overlap, log=log)
    return cases


def _run(
    target: UnlabeledTarget,
    cases: Mapping[str, Sequence[str]],
    num_processes: int,
    *,
    verify: bool = False,
    show_progress: bool = True,
) -> PreprocessingReport:
    """Bring the given cases into the folder; finished ones are found and skipped."""
    folder = target.folder
    plans = relevant_plans(target.plans_manager, target.configuration_manager)
    check_record(folder, plans, f"{target.command} --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    write_record(folder, plans)
    remove_leftovers(folder, UNFINISHED_PREFIX)
    job = PreprocessingJob(
        folder=folder,
        temporary_folder=folder / temporary_name(UNFINISHED_PREFIX),
        plans_manager=target.plans_manager,
        configuration_manager=target.configuration_manager,
        dataset_json=target.dataset_json,
        num_channels=target.num_channels,
        verify=verify,
    )
    skipped = [] if verify else sorted(set(finished_cases(folder)) & set(cases))
    outcomes = [CaseOutcome(identifier, "skipped") for identifier in skipped]
    to_do = {i: files for i, files in cases.items() if i not in set(skipped)}
    description = f"Unlabeled cases, {target.configuration_name}"
    try:
        with tqdm(
            total=len(to_do), desc=description, disable=not (show_progress and to_do)
        ) as progress:
            outcomes += process_cases(job, to_do, num_processes, progress)
    finally:
        shutil.rmtree(job.temporary_folder, ignore_errors=True)

    def of_status(status: str) -> list[str]:
        return sorted(o.identifier for o in outcomes if o.status == status)

    failed = {o.identifier: o.reason for o in outcomes if o.status == "failed"}
    return PreprocessingReport(
        folder, of_status("done"), of_status("skipped"), of_status("redone"), failed
    )
