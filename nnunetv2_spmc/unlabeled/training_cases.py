"""The unlabeled cases of a training: what is preprocessed, after preprocessing what is missing."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.raw.layout import IMAGES_UNLABELED
from nnunetv2_spmc.unlabeled.cases import describe_failures, failed_cases, finished_cases
from nnunetv2_spmc.unlabeled.dataset_cases import moved_line, without_annotated
from nnunetv2_spmc.unlabeled.plans_record import check_record
from nnunetv2_spmc.unlabeled.preprocessed_files import refuse_exchanged
from nnunetv2_spmc.unlabeled.preprocessing import (
    Log,
    PreprocessingOptions,
    check_leaks,
    preprocess_cases,
)
from nnunetv2_spmc.unlabeled.raw_images import ImageFolder
from nnunetv2_spmc.unlabeled.scan_record import read_scan_record
from nnunetv2_spmc.unlabeled.target import UnlabeledTarget


def ensure_unlabeled_preprocessed(
    target: UnlabeledTarget,
    options: PreprocessingOptions,
    *,
    allowed_to_run: bool,
    required: bool = True,
) -> list[str]:
    """Return the sorted unlabeled cases to train with; preprocess those that are not yet.

    Args:
        target: What is trained on.
        options: How to preprocess what is missing, and where to say so.
        allowed_to_run: Whether cases may be preprocessed now; not under DDP, for example.
        required: Raise where there is no unlabeled case at all, instead of returning none.

    Raises:
        DataError: If there is no case to train with, or the cases are not preprocessed and it is
            not allowed to do that now; it names the command.
    """
    target.check()
    finished = finished_cases(target.folder)
    check_record(target, finished)
    images = target.raw_cases(required=required) if target.has_images else None
    if images is None or not images.all_cases:
        finished = _known_without_images(target, finished, options.log)
        return _cases_without_images(target, finished, required, options.log)
    if images.note:
        options.log(images.note)
    unlabeled = without_annotated(target.raw_folder, target.dataset_json, images, options.log)
    annotated = set(images.all_cases) - set(unlabeled.all_cases)
    if not unlabeled.all_cases and not required:
        return []
    finished = [i for i in finished if i not in annotated]
    cases = unlabeled.cases
    failed = failed_cases(target.folder, cases)
    missing = sorted(set(cases) - set(finished) - set(failed))
    if missing:
        _announce(target, len(missing), len(unlabeled.all_cases), allowed_to_run, options.log)
        check_leaks(target, cases, options)
        report = preprocess_cases(target, {i: cases[i] for i in missing}, (), options)
        failed |= report.failed
        finished += report.finished
    failed = {i: reason for i, reason in failed.items() if i not in finished} | unlabeled.failed
    usable = _usable_cases(target, unlabeled, finished, failed, options.log)
    refuse_exchanged(target, usable)
    return usable


def _known_without_images(target: UnlabeledTarget, finished: list[str], log: Log) -> list[str]:
    """Take out what nnU-Net has preprocessed with a label since, and what is of no known scan."""
    folder = target.labeled_folder
    labeled = set(os.listdir(folder)) if folder.is_dir() else set()
    moved = [i for i in finished if {f"{i}.b2nd", f"{i}.npz"} & labeled]
    if moved:
        log(moved_line(moved))
    record = read_scan_record(target.preprocessed_dataset)
    known = record.folders.get(IMAGES_UNLABELED, finished) if record else finished
    unknown = [i for i in finished if i not in known and i not in moved]
    if unknown and record:
        log(
            f"Not used, because {IMAGES_UNLABELED} had no such scan on {record.date}: "
            f"{len(unknown)} preprocessed cases ({name_some(unknown)})."
        )
    return [i for i in finished if i not in moved and i not in unknown]


def _cases_without_images(
    target: UnlabeledTarget, finished: list[str], required: bool, log: Log
) -> list[str]:
    """Return the cases to train with where imagesUn has none: those that are preprocessed."""
    if finished:
        log(
            f"nnUNet_raw has no {target.dataset_name}/{IMAGES_UNLABELED}; using the cases in "
            f"{target.folder}."
        )
        refuse_exchanged(target, finished)
    elif required:
        raise DataError(
            f"There is no unlabeled case: {target.folder} is empty, and nnUNet_raw has no "
            f"{target.dataset_name}/{IMAGES_UNLABELED}; put the images there and run "
            f"{target.command}."
        )
    else:
        log(f"There is no {IMAGES_UNLABELED}: training without unlabeled cases.")
    return finished


def _announce(
    target: UnlabeledTarget, missing: int, number: int, allowed_to_run: bool, log: Log
) -> None:
    """Say that cases are preprocessed now, or raise where that is not allowed."""
    text = f"{missing} of {number} unlabeled cases are not preprocessed"
    if not allowed_to_run:
        raise DataError(f"{text}; run {target.command} first.")
    log(f"{text}; doing it now. To do it ahead of time: {target.command}")


def _usable_cases(
    target: UnlabeledTarget,
    images: ImageFolder,
    finished: Collection[str],
    failed: Mapping[str, str],
    log: Log,
) -> list[str]:
    """Return the finished cases that are whole in imagesUn; say what is left out."""
    finished = set(finished)
    removed = sorted(finished - set(images.all_cases))
    if removed:
        log(
            f"Not used, because no longer in {IMAGES_UNLABELED}: "
            f"{len(removed)} preprocessed cases ({name_some(removed)})."
        )
    if failed:
        log(
            f"Left out, because preprocessing failed: {len(failed)} unlabeled cases "
            f"({describe_failures(failed)}). Repair or remove them and run {target.command}"
        )
    usable = sorted(finished & set(images.cases))
    if not images.all_cases:
        raise DataError(
            f"There is no unlabeled case any more: all in {IMAGES_UNLABELED} of "
            f"{target.dataset_name} have a label by now; put other scans there, or train with "
            "nnUNetTrainer."
        )
    if not usable:
        number = len(images.all_cases)
        raise DataError(
            f"None of the {number} unlabeled cases of {target.dataset_name} could be "
            f"preprocessed ({describe_failures(failed, 1)}); repair them and run {target.command}."
        )
    return usable
