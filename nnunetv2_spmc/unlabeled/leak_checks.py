"""Refuse unlabeled cases of a dataset in nnUNet_raw that are labeled or test cases as well."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.json_files import check_keys, read_json
from nnunetv2_spmc.common.nnunet_folders import raw_dataset_folder
from nnunetv2_spmc.raw.cases import count_of, name_some
from nnunetv2_spmc.raw.layout import IMAGES_TEST, IMAGES_TRAIN, SPLIT_FILE
from nnunetv2_spmc.raw.lookalikes import lookalike_warnings
from nnunetv2_spmc.raw.scan_facts import facts_of_files
from nnunetv2_spmc.unlabeled.dataset_cases import raw_cases
from nnunetv2_spmc.unlabeled.overlap import check_contents, check_no_leak, same_contents
from nnunetv2_spmc.unlabeled.scan_record import (
    NOTHING,
    Cases,
    ScanRecord,
    read_scan_record,
    update_scan_record,
)
from nnunetv2_spmc.unlabeled.thumbnail_record import pairs_that_look_alike

__all__ = ["check_no_leak", "check_raw_dataset", "identical_cases", "read_groups"]

Log = Callable[[str], None]


def check_raw_dataset(
    dataset_folder: Path,
    dataset_json: Mapping[str, Any],
    unlabeled: Cases,
    *,
    record_folder: Path | None = None,
    num_processes: int = 0,
    show_progress: bool = False,
    allow_overlap: bool = False,
    log: Log | None = None,
) -> ScanRecord:
    """Check names, patients and voxels of the unlabeled cases of a raw dataset.

    Args:
        dataset_folder: The dataset in nnUNet_raw.
        dataset_json: Its dataset.json.
        unlabeled: Identifier -> channel files.
        record_folder: Where the record of the scans is kept; None keeps none.
        num_processes: As `update_scan_record` takes it, like the next one.
        show_progress: Show a progress bar.
        allow_overlap: Log what is shared instead of raising.
        log: Where to log it.

    Raises:
        DataError: If a case is shared; it names the cases.
    """
    cases = raw_cases(dataset_folder, dataset_json, unlabeled)
    groups = read_groups(dataset_folder)
    labeled, test = (cases.get(folder, {}) for folder in (IMAGES_TRAIN, IMAGES_TEST))
    # names first, before a file is read
    check_no_leak(labeled, unlabeled, (), test, groups, allow_overlap=allow_overlap, log=log)
    if log is not None:
        note_unreadable(cases, log)
    record = update_scan_record(
        record_folder,
        cases,
        groups,
        num_processes=num_processes,
        show_progress=show_progress,
        log=log,
    )
    if record.groups != groups:  # it knows patients that split.json no longer states
        check_no_leak((), unlabeled, (), test, record.groups, allow_overlap=allow_overlap, log=log)
    check_contents(record, unlabeled, allow_overlap=allow_overlap, log=log)
    if record_folder is not None and log is not None:
        warn_of_lookalikes(record_folder, record, log)
    return record


def note_unreadable(cases: Mapping[str, Cases], log: Log) -> None:
    """Say which labeled and test cases cannot be compared with any unlabeled one."""
    for folder in (IMAGES_TRAIN, IMAGES_TEST):
        unreadable = [
            identifier
            for identifier, files in cases.get(folder, {}).items()
            if not all(os.path.isfile(f) and os.access(f, os.R_OK) for f in files)
        ]
        if unreadable:
            log(
                f"note: {count_of(len(unreadable), 'case')} of {folder} cannot be read, so no "
                f"unlabeled case is compared with them: {name_some(unreadable)}."
            )


def warn_of_lookalikes(record_folder: Path, record: ScanRecord, log: Log) -> None:
    """Warn of scans that are probably near-duplicates, or of one patient."""
    pairs = pairs_that_look_alike(record_folder, record.names())
    for warning in lookalike_warnings(pairs, record.groups):
        log(f"warning: {warning}")


def current_record(
    dataset_name: str,
    dataset_json: Mapping[str, Any],
    preprocessed_dataset: Path | None,
    log: Log,
    *,
    num_processes: int = 0,
    show_progress: bool = False,
) -> ScanRecord:
    """Return what is known of the scans of a dataset, for a training.

    That is what nnUNet_raw has now or, without it, had when it was last compared.
    """
    raw = raw_dataset_folder(dataset_name)
    if raw is not None:
        cases, groups = raw_cases(raw, dataset_json), read_groups(raw)
        note_unreadable(cases, log)
        return update_scan_record(
            preprocessed_dataset,
            cases,
            groups,
            num_processes=num_processes,
            show_progress=show_progress,
            log=log,
        )
    record = read_scan_record(preprocessed_dataset) if preprocessed_dataset else None
    if record is None:
        log(
            "nnUNet_raw has no such dataset: unlabeled cases are not compared with test cases, nor "
            "with the patients of validation cases."
        )
        return NOTHING
    log(
        "nnUNet_raw has no such dataset: unlabeled cases are not compared with test cases as they "
        f"are now, but with all scans as they were on {record.date}."
    )
    return record


def identical_cases(
    cases: Mapping[str, Sequence[str]], others: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return the cases that are another case's scan, however saved, with that other case.

    Args:
        cases: Identifier -> channel files.
        others: The same, of what to compare with.
    """
    ours, theirs = (
        {identifier: facts_of_files(files).digests for identifier, files in group.items()}
        for group in (cases, others)
    )
    return same_contents(ours, theirs)


def read_groups(dataset_folder: Path) -> dict[str, str]:
    """Return identifier -> patient key from split.json; empty if it states none.

    Raises:
        DataError: If the file cannot be read.
    """
    file = dataset_folder / SPLIT_FILE
    if not os.path.lexists(file):
        return {}
    remedy = "repair it, or remove it if no patient has several cases"
    groups = read_json(file, remedy).get("groups") or {}
    check_keys({"groups": groups}, {"groups": dict}, file, remedy)
    return {str(identifier): str(key) for identifier, key in groups.items()}
