"""The record of a dataset's scans by content: labeled, validation, unlabeled and test cases.

It lies in nnUNet_preprocessed/DATASET with the plans, so that a training can compare its cases
where nnUNet_raw is absent. Where that is there, only new and changed files are read: those whose
size or time of change is not as recorded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunetv2_spmc import __version__
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.leftovers import remove_leftovers
from nnunetv2_spmc.common.whole_file import WRITING_PREFIX, WriteError, whole_file
from nnunetv2_spmc.common.worker_pool import run_cases
from nnunetv2_spmc.raw.scan_facts import ScanFacts, facts_of_files
from nnunetv2_spmc.unlabeled.thumbnail_record import store_thumbnails

RECORD_FILE = "spmc_scans.json"
FEW_SCANS = 16  # are read in this process: starting others would take longer
DAY = len("2026-11-24")
SAVED_AFTER = 500  # scans, so that an interrupted run goes on from there

Cases = Mapping[str, Sequence[str]]  # identifier -> channel files


@dataclass(frozen=True)
class ScanRecord:
    """What is known of the scans of a dataset.

    Attributes:
        date: Of the last look at nnUNet_raw, "2026-11-24 14:05".
        groups: Identifier -> patient key, as far as split.json stated it.
        folders: imagesTr, imagesUn, imagesTs -> identifier -> "files" and "facts".
    """

    date: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def digests(self, folder: str) -> dict[str, tuple[str, ...]]:
        """Return the digests of the scans of a folder, by identifier."""
        scans = self.folders.get(folder, {})
        return {identifier: tuple(scan["facts"]["digests"]) for identifier, scan in scans.items()}

    def names(self) -> dict[str, list[str]]:
        """Return the scans that have a digest in their first channel, by that digest."""
        names: dict[str, list[str]] = {}
        for folder in self.folders:
            for identifier, digests in self.digests(folder).items():
                names.setdefault(digests[0], []).append(identifier)
        return names

    def facts(self, folder: str) -> dict[str, ScanFacts]:
        """Return all that is known of the scans of a folder, by identifier."""
        scans = self.folders.get(folder, {})
        return {i: ScanFacts.from_json(scan["facts"]) for i, scan in scans.items()}


NOTHING = ScanRecord()


def read_scan_record(preprocessed_dataset: Path) -> ScanRecord | None:
    """Return the record of a dataset, None where there is none that can be read."""
    try:
        content = json.loads((preprocessed_dataset / RECORD_FILE).read_text(encoding="utf-8"))
        record = ScanRecord(content["date"], content["groups"], content["folders"])
        for folder in record.folders:
            record.digests(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record


def update_scan_record(
    preprocessed_dataset: Path | None,
    cases: Mapping[str, Cases],
    groups: Mapping[str, str],
    *,
    num_processes: int = 0,
    show_progress: bool = False,
    log: Callable[[str], None] | None = None,
) -> ScanRecord:
    """Bring the record up to date with nnUNet_raw: read what is new or changed.

    Args:
        preprocessed_dataset: Where the record lies; None keeps none.
        cases: Folder of nnUNet_raw -> its cases. What is recorded of other folders stays: their
            files may have been removed to save room.
        groups: Patient keys, as split.json states them. Those it does not state (any more) stay.
        num_processes: Worker processes; 0 works in this process.
        show_progress: Show a progress bar.
        log: Told where the record cannot be written: a training can do without.
    """
    if preprocessed_dataset:
        remove_leftovers(preprocessed_dataset, WRITING_PREFIX)
    known = (read_scan_record(preprocessed_dataset) if preprocessed_dataset else None) or NOTHING
    folders, to_read = _compared_with_files(known, cases)
    merged = {**known.groups, **groups} if groups else {}
    record = ScanRecord(datetime.now().strftime("%Y-%m-%d %H:%M"), merged, folders)
    is_shown = show_progress and bool(to_read)
    num_processes = 0 if len(to_read) <= FEW_SCANS else num_processes
    with tqdm(total=len(to_read), desc="Scans to compare", disable=not is_shown) as progress:
        for start in range(0, len(to_read), SAVED_AFTER):
            part = to_read[start : start + SAVED_AFTER]
            facts = _read([cases[folder][i] for folder, i, _ in part], num_processes, progress)
            for (folder, identifier, state), scan in zip(part, facts, strict=True):
                folders[folder][identifier] = {"files": state, "facts": scan.to_json()}
            if preprocessed_dataset:
                store_thumbnails(
                    preprocessed_dataset,
                    {f.digests[0]: f.thumbnail for f in facts if f.thumbnail is not None},
                )
            _write(record, preprocessed_dataset, log)
    is_new = (merged, folders) != (known.groups, known.folders)
    if not to_read and (is_new or known.date[:DAY] != record.date[:DAY]):
        _write(record, preprocessed_dataset, log)
    return record


def _compared_with_files(
    known: ScanRecord, cases: Mapping[str, Cases]
) -> tuple[dict[str, dict[str, Any]], list[tuple[str, str, list[list[Any]]]]]:
    """Return what of a record still holds, and folder, identifier and state of what is to read."""
    folders: dict[str, dict[str, Any]] = {
        folder: dict(scans) for folder, scans in known.folders.items() if folder not in cases
    }
    to_read = []
    for folder, of_folder in cases.items():
        before, folders[folder] = known.folders.get(folder, {}), {}
        for identifier, files in of_folder.items():
            state = _state(files)
            if before.get(identifier, {}).get("files") == state:
                folders[folder][identifier] = before[identifier]
            else:
                to_read.append((folder, identifier, state))
    return folders, to_read


def _state(files: Sequence[str]) -> list[list[Any]]:
    """Return what changes with a file: name, size, time. As it is read back from JSON."""
    state: list[list[Any]] = []
    for file in files:
        try:
            stat = os.stat(file)
        except OSError:  # a link that leads nowhere
            state.append([os.path.basename(file), -1, -1])
        else:
            state.append([os.path.basename(file), stat.st_size, stat.st_mtime_ns])
    return state


def _read(cases: Sequence[Sequence[str]], num_processes: int, bar: tqdm) -> list[ScanFacts]:
    try:
        return run_cases(facts_of_files, cases, num_processes, bar)
    except (BrokenProcessPool, MemoryError):
        raise DataError(
            "There was not enough memory to compare the scans of nnUNet_raw with each other; run "
            "it again with fewer processes (-np)."
        ) from None


def _write(record: ScanRecord, folder: Path | None, log: Callable[[str], None] | None) -> None:
    if folder is None:
        return
    content = {
        "version": __version__,
        "date": record.date,
        "groups": record.groups,
        "folders": record.folders,
    }
    try:
        with whole_file(folder / RECORD_FILE) as temporary:
            temporary.write_text(json.dumps(content), encoding="utf-8")
    except WriteError as error:
        if log is not None:
            log(f"{error}. Scans will be compared once more the next time.")
