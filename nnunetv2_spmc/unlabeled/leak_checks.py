"""Refuse unlabeled cases that are also labeled, validation or test cases.

Training on the images of validation or test cases, even without their labels, makes every number
measured on them too good. Where that is wanted (transductive learning) it has to be said:
`allow_overlap`, which logs what is shared.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.json_files import check_keys, read_json
from nnunetv2_spmc.raw.cases import count_of, name_some
from nnunetv2_spmc.raw.layout import IMAGES_TEST, IMAGES_TRAIN, SPLIT_FILE
from nnunetv2_spmc.unlabeled.raw_images import image_files

SAMPLE_BYTES = 1 << 16
REMEDY = (
    "Take them out of imagesUn, or allow the overlap if it is on purpose "
    "(--allow-overlap, in training the setting allow_overlap)"
)


def check_no_leak(
    labeled: Collection[str],
    unlabeled: Collection[str],
    validation: Collection[str],
    test: Collection[str],
    groups: Mapping[str, str] | None = None,
    *,
    allow_overlap: bool = False,
    log: Callable[[str], None] | None = None,
) -> None:
    """Check by name that no unlabeled case is labeled, validation or test data as well.

    Args:
        labeled: Identifiers of the labeled cases.
        unlabeled: Identifiers of the unlabeled cases.
        validation: Identifiers of the validation cases.
        test: Identifiers of the test cases.
        groups: Identifier -> patient key, where known. A patient with a validation or test case
            must not have unlabeled cases.
        allow_overlap: Log what is shared instead of raising.
        log: Where to log it.

    Raises:
        DataError: If a case is shared; it names the cases.
    """
    groups = groups or {}
    found = []
    for name, others in (("test", test), ("validation", validation), ("labeled", labeled)):
        shared = set(unlabeled) & set(others)
        if shared:
            found.append(f"unlabeled and at the same time {name}: {name_some(sorted(shared))}")
    for name, others in (("test", test), ("validation", validation)):
        patients = {groups[identifier] for identifier in others if identifier in groups}
        shared = {i for i in unlabeled if groups.get(i) in patients} - set(others)
        if shared:
            found.append(
                f"unlabeled, but of a patient of a {name} case: {name_some(sorted(shared))}"
            )
    _report(found, allow_overlap, log)


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


def check_raw_dataset(
    dataset_folder: Path,
    dataset_json: Mapping[str, Any],
    unlabeled: Mapping[str, Sequence[str]],
    *,
    allow_overlap: bool = False,
    log: Callable[[str], None] | None = None,
) -> None:
    """Check names, patients and file contents of the unlabeled cases of a raw dataset.

    Args:
        dataset_folder: The dataset in nnUNet_raw.
        dataset_json: Its dataset.json.
        unlabeled: Identifier -> channel files.
        allow_overlap: Log what is shared instead of raising.
        log: Where to log it.

    Raises:
        DataError: If a case is shared; it names the cases.
    """
    labeled = _labeled_cases(dataset_folder, dataset_json)
    test = _in_order(image_files(dataset_folder / IMAGES_TEST, dataset_json["file_ending"]))
    groups = read_groups(dataset_folder)
    check_no_leak(labeled, unlabeled, (), test, groups, allow_overlap=allow_overlap, log=log)
    found = []
    for name, others in ((IMAGES_TRAIN, labeled), (IMAGES_TEST, test)):
        unreadable = [i for i in others if not all(os.access(f, os.R_OK) for f in others[i])]
        if unreadable and log is not None:
            log(
                f"note: {count_of(len(unreadable), 'case')} of {name} cannot be read, so no "
                f"unlabeled case is compared with them: {name_some(unreadable)}."
            )
        pairs = {  # those of one name have been found above
            ours: theirs
            for ours, theirs in identical_cases(unlabeled, others).items()
            if ours != theirs
        }
        if pairs:
            named = name_some([f"{ours} (= {theirs})" for ours, theirs in sorted(pairs.items())])
            found.append(f"unlabeled with the same images as a case in {name}: {named}")
    _report(found, allow_overlap, log)


def identical_cases(
    cases: Mapping[str, Sequence[str]], others: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Return the cases whose files equal another case's byte by byte, with that other case.

    Most files differ in size or in a sample of their bytes; only the rest is read whole. A case
    that cannot be read equals no other.
    """
    left, right = dict(cases), dict(others)
    for fingerprint in (_size, _sample, _digest):
        ours, theirs = _fingerprints(left, fingerprint), _fingerprints(right, fingerprint)
        common = set(ours.values()) & set(theirs.values())
        left = {i: left[i] for i in ours if ours[i] in common}
        right = {i: right[i] for i in theirs if theirs[i] in common}
    by_content = {theirs[i]: i for i in right}
    return {i: by_content[ours[i]] for i in left}


def _fingerprints(
    cases: Mapping[str, Sequence[str]], fingerprint: Callable[[Path], Any]
) -> dict[str, tuple[Any, ...]]:
    found = {}
    for identifier, files in cases.items():
        with contextlib.suppress(OSError):
            found[identifier] = tuple(fingerprint(Path(file)) for file in files)
    return found


def _size(file: Path) -> int:
    return file.stat().st_size


def _sample(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as stream:
        samples = []
        for position in (0, size // 2, max(0, size - SAMPLE_BYTES)):
            stream.seek(position)
            samples.append(stream.read(SAMPLE_BYTES))
    return hashlib.blake2b(b"".join(samples), digest_size=16).digest()


def _digest(file: Path) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.digest()


def _labeled_cases(
    dataset_folder: Path, dataset_json: Mapping[str, Any]
) -> dict[str, Sequence[str]]:
    if "dataset" not in dataset_json:
        return _in_order(image_files(dataset_folder / IMAGES_TRAIN, dataset_json["file_ending"]))
    cases = {  # an absolute file replaces the folder it is joined to
        identifier: [str(dataset_folder / os.path.expandvars(file)) for file in case["images"]]
        for identifier, case in dataset_json["dataset"].items()
    }
    return {i: files for i, files in cases.items() if all(map(os.path.isfile, files))}


def _in_order(cases: Mapping[str, Mapping[int, str]]) -> dict[str, Sequence[str]]:
    return {i: [channels[c] for c in sorted(channels)] for i, channels in cases.items()}


def _report(found: Sequence[str], allow_overlap: bool, log: Callable[[str], None] | None) -> None:
    text = "; ".join(found)
    if not text:
        return
    if not allow_overlap:
        raise DataError(f"Some cases are {text}. {REMEDY}.")
    if log is not None:
        log(f"Overlap allowed: some cases are {text}.")
