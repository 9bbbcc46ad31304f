"""Preprocess the unlabeled cases of a dataset with the plans of its labeled ones.

The plans' own preprocessor does the work, so the files are what nnU-Net would have written; this
module decides which cases are to do, runs them in worker processes, and reports.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.leftovers import remove_leftovers, temporary_name
from nnunetv2_spmc.common.whole_file import made_folder
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.raw.label_definition import label_warnings
from nnunetv2_spmc.raw.layout import IMAGES_TRAIN, IMAGES_UNLABELED
from nnunetv2_spmc.raw.sites import SiteComparison, compare_sites
from nnunetv2_spmc.unlabeled.case_worker import CaseOutcome, PreprocessingJob, process_cases
from nnunetv2_spmc.unlabeled.cases import CASE_ENDINGS, FAILED_FOLDER, finished_cases
from nnunetv2_spmc.unlabeled.dataset_cases import without_annotated
from nnunetv2_spmc.unlabeled.leak_checks import check_raw_dataset
from nnunetv2_spmc.unlabeled.plans_check import check_plans
from nnunetv2_spmc.unlabeled.plans_record import check_record, record_file, write_record
from nnunetv2_spmc.unlabeled.preprocessed_files import (
    exchanged_cases,
    forget_files,
    note_files,
)
from nnunetv2_spmc.unlabeled.scan_record import ScanRecord
from nnunetv2_spmc.unlabeled.target import UnlabeledTarget, find_target

Log = Callable[[str], None]
Cases = Mapping[str, Sequence[str]]  # identifier -> channel files
UNFINISHED_PREFIX = ".unfinished-"


def say_nothing(message: str) -> None:
    """Make no remarks."""


@dataclass(frozen=True)
class PreprocessingOptions:
    """How to preprocess, for the command and for training alike.

    Attributes:
        num_processes: Worker processes; 0 works in this process.
        num_parts: Share the cases among that many runs, on several computers for example.
        part_id: Which of the parts this run does, from 0.
        verify: Decompress finished cases fully and redo the broken ones.
        overwrite: Make all cases again.
        allow_overlap: Accept unlabeled cases that are labeled or test cases too.
        show_progress: Show a progress bar.
        log: Receives what the user should know.
    """

    num_processes: int = 8
    num_parts: int = 1
    part_id: int = 0
    verify: bool = False
    overwrite: bool = False
    allow_overlap: bool = False
    show_progress: bool = True
    log: Log = say_nothing

    def __post_init__(self) -> None:
        """Refuse what makes no run."""
        if self.num_parts < 1 or not 0 <= self.part_id < self.num_parts:
            expected = f"[0, {self.num_parts}) for {self.num_parts} parts"
            raise DataError(f"part_id must lie in {expected}: {self.part_id}.")
        if self.num_processes < 0:
            raise DataError(
                f"The number of processes must not be negative, got {self.num_processes}."
            )


@dataclass(frozen=True)
class PreprocessingReport:
    """What a run did, by identifier."""

    folder: Path
    done: list[str]
    skipped: list[str]  # were finished before
    redone: list[str]  # had broken files
    failed: dict[str, str]  # with the reason

    @property
    def finished(self) -> list[str]:
        """The cases that are whole now."""
        return [*self.done, *self.skipped, *self.redone]

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
    options: PreprocessingOptions | None = None,
) -> PreprocessingReport:
    """Preprocess the cases of imagesUn that are not finished yet.

    Args:
        dataset_name_or_id: The dataset in nnUNet_raw and nnUNet_preprocessed.
        configuration: A configuration of the plans, not the cascade.
        plans_identifier: Name of the plans file.
        options: How to run.

    Raises:
        DataError: If the run as a whole is not possible. A case that fails does not raise, the
            report names it.
    """
    options = options or PreprocessingOptions()
    target = find_target(dataset_name_or_id, configuration, plans_identifier)
    check_plans(target)
    _refuse_parts_that_overwrite(target, options)
    for warning in label_warnings(target.dataset_json):
        options.log(warning)
    images = target.raw_cases()
    if images.note:
        options.log(images.note)
    images = without_annotated(target.raw_folder, target.dataset_json, images, options.log)
    record = check_leaks(target, images.cases, options)
    tell_sites_apart(target, record, options.log)
    if options.overwrite:
        _remove(target.folder)
        record_file(target.folder).unlink(missing_ok=True)
    finished = finished_cases(target.folder)
    check_record(target, finished)
    finished = _without_exchanged(target, finished, options.log)
    part = images.all_cases[options.part_id :: options.num_parts]
    cases = {i: images.cases[i] for i in part if i in images.cases}
    report = preprocess_cases(target, cases, finished, options)
    report.failed.update({i: images.failed[i] for i in part if i in images.failed})
    return report


def _remove(folder: Path) -> None:
    """Remove a folder of preprocessed cases, unless it holds anything else."""
    if folder.is_symlink():
        raise DataError(f"{folder} is a link, which --overwrite does not follow; remove it.")
    known = (*CASE_ENDINGS, FAILED_FOLDER)
    others = [
        path.name
        for path in sorted(folder.glob("*"))
        if not path.name.endswith(known) and not path.name.startswith(UNFINISHED_PREFIX)
    ]
    if others:
        raise DataError(
            f"{folder} holds {name_some(others)}, which no preprocessing wrote and --overwrite "
            "would delete; move it away."
        )
    if folder.is_dir():
        shutil.rmtree(folder)


def _refuse_parts_that_overwrite(target: UnlabeledTarget, options: PreprocessingOptions) -> None:
    if options.overwrite and options.num_parts > 1:
        raise DataError(
            f"Several parts cannot all overwrite the folder; delete {target.folder} and "
            f"{record_file(target.folder)} once, then run the parts without overwriting."
        )


def _without_exchanged(target: UnlabeledTarget, finished: list[str], log: Log) -> list[str]:
    """Have the cases done again whose files are not those that were made from their scans."""
    exchanged = exchanged_cases(target, finished)
    for case, what in exchanged.items():
        log(f"{case} is done again: its preprocessed file is not its own but {what}.")
        (target.folder / f"{case}.b2nd").unlink()
    return [case for case in finished if case not in exchanged]


def check_leaks(target: UnlabeledTarget, cases: Cases, options: PreprocessingOptions) -> ScanRecord:
    """Refuse unlabeled cases that are labeled or test cases too, unless that is accepted."""
    return check_raw_dataset(
        target.raw_folder,
        target.dataset_json,
        cases,
        record_folder=target.preprocessed_dataset,
        num_processes=options.num_processes,
        show_progress=options.show_progress,
        allow_overlap=options.allow_overlap,
        log=options.log,
    )


def tell_sites_apart(target: UnlabeledTarget, record: ScanRecord, log: Log) -> None:
    """Say how the unlabeled scans differ from the labeled ones."""
    comparison = sites_of(target, record)
    for line in comparison.lines():
        log(line)
    for warning in comparison.warnings:
        log(f"warning: {warning}")


def sites_of(target: UnlabeledTarget, record: ScanRecord) -> SiteComparison:
    """Compare the unlabeled scans with the labeled ones, CT within the plans' intensities."""
    return compare_sites(
        list(record.facts(IMAGES_TRAIN).values()),
        list(record.facts(IMAGES_UNLABELED).values()),
        target.channels,
        plans_windows(target.plans_manager.foreground_intensity_properties_per_channel),
    )


def plans_windows(statistics: Mapping[str, Mapping[str, float]]) -> dict[int, tuple[float, float]]:
    """Return the lowest and highest intensity that plans keep, by channel."""
    return {
        int(channel): (values["percentile_00_5"], values["percentile_99_5"])
        for channel, values in statistics.items()
        if {"percentile_00_5", "percentile_99_5"} <= values.keys()
    }


def preprocess_cases(
    target: UnlabeledTarget, cases: Cases, finished: Collection[str], options: PreprocessingOptions
) -> PreprocessingReport:
    """Bring cases into the folder of a target, whose record has been checked.

    Args:
        target: Where to, and with which plans.
        cases: Raw cases; they may be a part of all.
        finished: Cases of the folder that are whole: these are skipped.
        options: How to run.
    """
    folder = target.folder
    with made_folder(folder):
        write_record(target)
    remove_leftovers(folder, UNFINISHED_PREFIX)
    skipped = set() if options.verify else set(finished) & set(cases)
    outcomes = [CaseOutcome(identifier, "skipped") for identifier in skipped]
    to_do = {i: files for i, files in cases.items() if i not in skipped}
    forget_files(target, to_do.keys() - set(finished))  # --verify also looks at whole cases
    job = _job(target, verify=options.verify)
    bar = options.show_progress and bool(to_do)
    description = f"Unlabeled cases, {target.configuration_name}"
    try:
        with tqdm(total=len(to_do), desc=description, disable=not bar) as progress:
            outcomes += process_cases(job, to_do, options.num_processes, progress)
    finally:
        shutil.rmtree(job.temporary_folder, ignore_errors=True)
    now = [o.identifier for o in outcomes if o.identifier in to_do and o.status != "failed"]
    note_files(target, now)
    return _report(folder, outcomes)


def _job(target: UnlabeledTarget, *, verify: bool) -> PreprocessingJob:
    return PreprocessingJob(
        folder=target.folder,
        temporary_folder=target.folder / temporary_name(UNFINISHED_PREFIX),
        plans_manager=target.plans_manager,
        configuration_manager=target.configuration_manager,
        dataset_json=target.dataset_json,
        num_channels=len(target.channels),
        verify=verify,
    )


def _report(folder: Path, outcomes: Sequence[CaseOutcome]) -> PreprocessingReport:
    def of_status(status: str) -> list[str]:
        return sorted(o.identifier for o in outcomes if o.status == status)

    failed = {o.identifier: o.reason for o in outcomes if o.status == "failed"}
    return PreprocessingReport(
        folder, of_status("done"), of_status("skipped"), of_status("redone"), failed
    )
