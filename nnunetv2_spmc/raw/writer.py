"""Write a semi-labeled dataset into nnUNet_raw: all of it, or nothing.

The cases are read, checked and written by worker processes into a temporary folder, which takes
the dataset's name only when everything in it is right. Layout: `raw_layout`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from nnunetv2_spmc.common.cores import usable_cores
from nnunetv2_spmc.common.nnunet_folders import (
    PREPROCESSED,
    RAW,
    RESULTS,
    dataset_names,
    folder_if_set,
    preprocessed_folder,
    raw_folder,
)
from nnunetv2_spmc.common.signals import termination_raises
from nnunetv2_spmc.common.whole_file import made_folder, whole_file, whole_folder, write_json
from nnunetv2_spmc.common.worker_pool import run_cases
from nnunetv2_spmc.raw.case_writer import CaseRecord, write_case
from nnunetv2_spmc.raw.cases import ConversionError, RawDataset, check_dataset
from nnunetv2_spmc.raw.dataset_json import dataset_json, split_json
from nnunetv2_spmc.raw.layout import DATASET_FILE, SPLIT_FILE, SPLITS_FINAL, is_raw_dataset
from nnunetv2_spmc.raw.problems import raise_problems, site_comparison, warnings_of
from nnunetv2_spmc.raw.sources import files_of, unused_files
from nnunetv2_spmc.raw.splits import Splits, final_splits
from nnunetv2_spmc.raw.summary import ConversionSummary


def default_processes() -> int:
    """Number of worker processes unless told otherwise."""
    return min(8, usable_cores())


@dataclass(frozen=True)
class WriteOptions:
    """How to write, for every converter alike.

    Attributes:
        overwrite: Replace a dataset of the same name.
        processes: Number of worker processes.
        link: Link files that are right as they are, instead of copying them.
        dry_run: Write nothing, only say what would be written.
        raw: nnU-Net's raw folder; the environment variable nnUNet_raw where None.
        preprocessed: Likewise nnUNet_preprocessed, needed only for splits_final.json.
    """

    overwrite: bool = False
    processes: int = 1
    link: bool = False
    dry_run: bool = False
    raw: Path | None = None
    preprocessed: Path | None = None

    def raw_folder(self) -> Path:
        """Return nnUNet_raw, or raise DataError."""
        return self.raw or raw_folder()

    def preprocessed_folder(self) -> Path:
        """Return nnUNet_preprocessed, or raise DataError."""
        return self.preprocessed or preprocessed_folder()


def write_raw_dataset(dataset: RawDataset, options: WriteOptions) -> ConversionSummary:
    """Check and write a dataset with dataset.json, split.json and, if needed, splits_final.json.

    Returns:
        What was written, or with `dry_run` would be.

    Raises:
        DataError: If anything is wrong with the input. Nothing has been written then.
    """
    check_dataset(dataset)
    dataset = replace(dataset, unused=unused_files(dataset))
    target = options.raw_folder() / dataset.folder_name
    splits = final_splits(dataset.cases)
    splits_file = _splits_file(dataset, options, needed=splits is not None)
    _refuse_taken_id(dataset, target, options, splits_file, splits)
    _refuse_own_files(dataset, target)
    _check_writable(target.parent, RAW)
    if splits_file is not None:
        _check_writable(splits_file.parents[1], PREPROCESSED)
    if options.dry_run:
        return ConversionSummary(dataset, target, splits, splits_file, dry_run=True)
    with (
        termination_raises(),
        made_folder(splits_file.parent) if splits_file and splits is not None else nullcontext(),
        _restored_on_failure(splits_file),
        whole_folder(target, overwrite=options.overwrite) as staging,
    ):
        records = _write_cases(dataset, staging, options)
        raise_problems(dataset, records)
        dataset = dataset.without_unused_labels({v for r in records for v in r.label_values})
        write_json(dataset_json(dataset), staging / DATASET_FILE)
        write_json(split_json(dataset), staging / SPLIT_FILE)
        # First, since a dataset without its fixed split would be trained on another one.
        outdated = _publish_splits(splits, splits_file)
    return ConversionSummary(
        dataset,
        target,
        splits,
        splits_file,
        outdated=outdated,
        warnings=warnings_of(dataset, records, splits),
        sites=tuple(site_comparison(dataset, records).lines()),
        # nnU-Net plans no 3d_fullres for single slices.
        configuration="2d" if all(r.is_slice for r in records) else dataset.configuration,
    )


def _splits_file(dataset: RawDataset, options: WriteOptions, *, needed: bool) -> Path | None:
    if not (needed or options.preprocessed or folder_if_set(PREPROCESSED)):
        return None
    folder = options.preprocessed_folder()
    if folder.resolve() == options.raw_folder().resolve():
        raise ConversionError(f"{RAW} and {PREPROCESSED} are both {folder}; give each its own.")
    return folder / dataset.folder_name / SPLITS_FINAL


def _refuse_taken_id(
    dataset: RawDataset,
    target: Path,
    options: WriteOptions,
    splits_file: Path | None,
    splits: Splits | None,
) -> None:
    """Raise if the dataset exists, or another one has its id: nnU-Net finds datasets by id."""
    folders = [target.parent]
    if splits_file is not None:
        folders.append(splits_file.parents[1])
    if results := folder_if_set(RESULTS):
        folders.append(results)
    for folder in folders:
        for other in dataset_names(folder):
            if other.startswith(f"Dataset{dataset.dataset_id:03d}") and other != target.name:
                raise ConversionError(
                    f"Dataset id {dataset.dataset_id} is already taken by {folder / other}, so "
                    f"{target.name} cannot have it; choose another id with -d."
                )
    if options.overwrite:
        _refuse_to_replace(target)
        return
    if splits_file is not None and not os.path.lexists(target) and _has(splits_file, splits):
        return  # of a run that was killed before it published the dataset
    for existing in (target, splits_file):
        if existing is not None and os.path.lexists(existing):
            raise ConversionError(f"{existing} already exists; --overwrite replaces it.")


def _has(splits_file: Path, splits: Splits | None) -> bool:
    """Tell whether splits_final.json is there with these splits, and nothing else."""
    try:
        others = [name for name in os.listdir(splits_file.parent) if not name.startswith(".")]
        if others != [splits_file.name]:  # plans, or preprocessed cases of another dataset
            return False
        return splits is not None and json.loads(splits_file.read_text("utf-8")) == splits
    except (OSError, ValueError, RecursionError):
        return False


def _refuse_to_replace(target: Path) -> None:
    """Raise if what --overwrite would delete is no dataset."""
    if target.is_symlink():
        raise ConversionError(
            f"{target} is a link to {os.readlink(target)}, which --overwrite does not follow; "
            "remove the link, or choose another id with -d."
        )
    is_empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and not is_empty and not is_raw_dataset(target):
        raise ConversionError(
            f"{target} is not a dataset of nnU-Net (it has no dataset.json with labels), so "
            "--overwrite leaves it alone; move it away, or choose another id with -d."
        )


def _refuse_own_files(dataset: RawDataset, target: Path) -> None:
    """Raise if the dataset that would be replaced holds the files to convert."""
    target = target.resolve()
    for case in dataset.cases:
        for source in (*case.images, *([case.label] if case.label is not None else [])):
            if any(f.parent.resolve().is_relative_to(target) for f in files_of(source)):
                raise ConversionError(
                    f"Case {case.identifier}: {source} lies in the dataset that would be replaced; "
                    "choose another id with -d, or copy the files elsewhere first."
                )


def _check_writable(folder: Path, variable: str) -> None:
    """Raise now rather than after all cases have been read."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK)):
        raise ConversionError(
            f"{variable} is {folder}, where nothing can be written; set it to another folder or "
            f"correct the permissions of {existing}."
        )


def _write_cases(dataset: RawDataset, folder: Path, options: WriteOptions) -> list[CaseRecord]:
    write = partial(write_case, folder=folder, rules=dataset.rules, link=options.link)
    cases = sorted(dataset.cases, key=lambda case: case.identifier)
    num_processes = 0 if options.processes == 1 else options.processes
    try:
        # None: the bar shows on a terminal and stays out of log files.
        with tqdm(total=len(cases), desc="Converting", unit="case", disable=None) as progress:
            return run_cases(write, cases, num_processes, progress)
    except BrokenProcessPool as error:
        raise ConversionError(
            "A worker process was killed, perhaps for lack of memory; try a smaller -np."
        ) from error


@contextmanager
def _restored_on_failure(file: Path | None) -> Iterator[None]:
    """Give splits_final.json back as it was if the dataset that it belongs to is not published."""
    if file is None:
        yield
        return
    old = file.read_bytes() if file.is_file() else None
    try:
        yield
    except BaseException:
        if old is None:
            file.unlink(missing_ok=True)
        elif not file.is_file() or file.read_bytes() != old:
            with whole_file(file) as temporary:
                temporary.write_bytes(old)
        raise


def _publish_splits(splits: Splits | None, file: Path | None) -> bool:
    """Write or remove splits_final.json; return whether preprocessed data lies next to it."""
    if file is None:
        return False
    if splits is None:
        file.unlink(missing_ok=True)
    else:
        write_json(splits, file)
    return file.parent.is_dir() and any(p.name != SPLITS_FINAL for p in file.parent.iterdir())
