"""Tell whether the preprocessed unlabeled cases are still those that were made from their scans.

A preprocessed case has nothing of its scan's name inside: a validation case under the name of an
unlabeled one would be trained on. What was written is kept next to the plans, in the record of the
folder; a file of another size or time is compared by samples of its bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.whole_file import WriteError, write_json
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.unlabeled.plans_record import record_file
from nnunetv2_spmc.unlabeled.target import UnlabeledTarget

FILES_KEY = "files"  # of the record: identifier -> size, time, digest
SAMPLE_BYTES = 1 << 16
STRANGE = "one that was not written here"

Entry = list[Any]


def exchanged_cases(target: UnlabeledTarget, cases: Iterable[str]) -> dict[str, str]:
    """Return the cases whose file is another one than was made from their scan, with what it is.

    Cases that the record does not know are compared with the labeled cases of the configuration and
    with the other unlabeled ones, and noted.
    """
    known = _read(target)
    now = {case: _entry(target.folder / f"{case}.b2nd", known.get(case)) for case in cases}
    suspects = {case for case in now if case not in known or known[case][2] != now[case][2]}
    if not suspects:
        _write(target, known, {**known, **now})
        return {}
    case_of = {entry[2]: case for case, entry in known.items()}
    labeled = _by_size(target.labeled_folder)
    exchanged = {}
    for case in sorted(suspects):
        other = case_of.get(now[case][2]) or _labeled_twin(labeled, now[case])
        if case in known or other:
            exchanged[case] = f"that of {other}" if other else STRANGE
    _write(target, known, {**known, **{c: e for c, e in now.items() if c not in exchanged}})
    return exchanged


def refuse_exchanged(target: UnlabeledTarget, cases: Iterable[str]) -> None:
    """Raise DataError if a preprocessed case is another one than was made from its scan.

    One whose voxels cannot be read is left to the loaders, which name it and leave it out.
    """
    exchanged = {
        case: what
        for case, what in exchanged_cases(target, cases).items()
        if what != STRANGE or _can_be_read(target.folder / f"{case}.b2nd")
    }
    if exchanged:
        named = name_some([f"{case} ({what})" for case, what in exchanged.items()])
        raise DataError(
            f"Preprocessed files in {target.folder} are not those that were made from the scans of "
            f"these names: {named}; remove them and run {target.command}."
        )


def _can_be_read(file: Path) -> bool:
    import blosc2

    try:
        return bool(blosc2.open(urlpath=str(file), mode="r", dparams={"nthreads": 1})[:].size)
    except (RuntimeError, OSError, ValueError, AttributeError):  # what it raises on damaged files
        return False


def note_files(target: UnlabeledTarget, cases: Iterable[str]) -> None:
    """Note the files of cases that were just made."""
    known = _read(target)
    now = {case: _entry(target.folder / f"{case}.b2nd", None) for case in cases}
    _write(target, known, {**known, **now})


def forget_files(target: UnlabeledTarget, cases: Iterable[str]) -> None:
    """Forget the files of cases that will be made again.

    If that run is killed, the new files would be taken for exchanged ones otherwise.
    """
    known, again = _read(target), set(cases)
    _write(target, known, {case: entry for case, entry in known.items() if case not in again})


def _entry(file: Path, known: Entry | None) -> Entry:
    """Return size, time and digest of a file; the digest as it is known if the others are."""
    stat = os.stat(file)
    if known is not None and known[:2] == [stat.st_size, stat.st_mtime_ns]:
        return known
    return [stat.st_size, stat.st_mtime_ns, sampled_digest(file)]


def sampled_digest(file: Path) -> str:
    """Return a digest of the size of a file and of bytes from its beginning, middle and end."""
    size = file.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with file.open("rb") as stream:
        for position in (0, size // 2, max(0, size - SAMPLE_BYTES)):
            stream.seek(position)
            digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _by_size(folder: Path) -> dict[int, list[Path]]:
    files: dict[int, list[Path]] = {}
    for file in sorted(folder.glob("*.b2nd")) if folder.is_dir() else ():
        files.setdefault(file.stat().st_size, []).append(file)
    return files


def _labeled_twin(labeled: Mapping[int, list[Path]], entry: Entry) -> str | None:
    """Return the preprocessed labeled case with the same file, if there is one."""
    for file in labeled.get(entry[0], []):
        if sampled_digest(file) == entry[2]:
            return f"the labeled case {file.stem}"
    return None


def _read(target: UnlabeledTarget) -> dict[str, Entry]:
    return dict(_content(target).get(FILES_KEY, {}))


def _content(target: UnlabeledTarget) -> dict[str, Any]:
    """Return the record, which `check_record` has checked."""
    file = record_file(target.folder)
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def _write(
    target: UnlabeledTarget, before: Mapping[str, Entry], entries: Mapping[str, Entry]
) -> None:
    content = _content(target)
    if entries == before or not content:
        return
    try:
        write_json(
            {**content, FILES_KEY: dict(sorted(entries.items()))}, record_file(target.folder)
        )
    except WriteError:  # a folder that may only be read: they are compared once more next time
        return
