"""Write files and folders whole or not at all, and say why where that was not possible.

Some writers, SimpleITK's of NIfTI for example, raise nothing when the disk is full or the file
reaches the limit of `ulimit -f`: what they write is checked before it takes its name.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.leftovers import END_OF_NAME, leftovers, remove_leftovers, temporary_name
from nnunetv2_spmc.common.text import check_name

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

WRITING_PREFIX = ".writing-"  # of folders that hold what is not whole yet
REPLACED_PREFIX = ".replaced-"  # of folders that make room for new ones
PROBE_BYTES = 1 << 20  # more than a file system or a library holds back

Check = Callable[[Path], object]


class WriteError(DataError):
    """A file could not be written; says which and why."""


@contextmanager
def made_folder(folder: Path) -> Iterator[Path]:
    """Create a folder and those above it; what is new and still empty goes if anything is raised.

    Raises:
        WriteError: it could not be created.
    """
    check_name(folder, WriteError)
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with writing(folder, folder):
            folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except BaseException:
        for path in new:
            with suppress(OSError):  # it holds what another run, or an earlier step, has written
                path.rmdir()
        raise


@contextmanager
def whole_file(path: Path, check: Check | None = None) -> Iterator[Path]:
    """Yield a temporary path, which becomes `path` if nothing is raised; nothing stays otherwise.

    What killed runs left in its folder is removed.

    Args:
        path: the file; its folder exists. The temporary file has its name, in a folder next to it.
        check: called with the written file, raises if that is not whole; for writers that do not
            raise themselves.

    Raises:
        WriteError: it could not be written, or is a folder.
    """
    check_name(path, WriteError)
    if path.name in ("", "..") or path.is_dir():  # ".", "/" and the like have no name
        raise WriteError(f"{path} is a folder; name a file")
    remove_leftovers(path.parent, WRITING_PREFIX)
    temporary = path.parent / temporary_name(WRITING_PREFIX)
    file = temporary / path.name
    is_one_of_several = path.parent.name.startswith(WRITING_PREFIX)  # see `whole_files`
    name = path.parents[1] / path.name if is_one_of_several else path
    try:
        with writing(file, name, check):
            temporary.mkdir(exist_ok=True)
            yield file
        with writing(file, name):
            os.replace(file, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(content: Any, path: Path, *, allow_nan: bool = True) -> None:
    """Write JSON, whole or not at all; a NaN, which other readers may refuse, if it is allowed."""
    text = json.dumps(content, indent=2, allow_nan=allow_nan)
    with whole_file(path) as temporary:
        temporary.write_text(f"{text}\n", encoding="utf-8")


def refuse_another_file(path: Path, start: str, what: str) -> None:
    """Raise if a file that would be replaced is there and something else.

    Args:
        path: the file.
        start: how a file of this kind begins; capitals do not matter.
        what: it is, "page" for example.

    Raises:
        DataError: it begins otherwise: a scan or a checkpoint, given by mistake.
    """
    try:
        with path.open("rb") as file:
            found = file.read(PROBE_BYTES).lstrip()
    except OSError:  # absent, or writing it will say so
        return
    if found and found[: len(start)].lower() != start.lower().encode():
        raise DataError(f"{path} is there and no {what}; name another file, or remove it.")


@contextmanager
def whole_files(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder; what is in it moves to `folder` if nothing is raised.

    Files in subfolders move first, into subfolders of the same names: a file next to them says that
    all are there. Nothing stays otherwise, and what killed runs left in the folder is removed.

    Args:
        folder: exists; no other file may be written into it meanwhile with `whole_file`.

    Raises:
        WriteError: a file could not be moved.
    """
    check_name(folder, WriteError)
    remove_leftovers(folder, WRITING_PREFIX)  # also of a killed process of the same number
    temporary = folder / temporary_name(WRITING_PREFIX)
    try:
        with writing(temporary, folder):
            temporary.mkdir()
        yield temporary
        for file in files_below(temporary):
            with writing(temporary / file, folder / file):
                (folder / file).parent.mkdir(exist_ok=True)
                os.replace(temporary / file, folder / file)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def files_below(folder: Path) -> list[Path]:
    """Return the files in a folder as seen from it, those in subfolders first."""
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(files, key=lambda file: (-len(file.parts), file))


@contextmanager
def whole_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder, which becomes `path` if nothing is raised; nothing stays otherwise.

    What killed runs left of it is removed, and a folder that one of them was replacing comes back.

    Args:
        path: the folder; those above it are created.
        overwrite: replace a folder that is there already; it stays until the new one is whole.

    Raises:
        WriteError: it could not be created, or is there already.
    """
    check_name(path, WriteError)
    prefix = f"{WRITING_PREFIX}{path.name}{END_OF_NAME}"
    _give_back(path)
    remove_leftovers(path.parent, prefix)
    temporary = path.with_name(temporary_name(prefix))
    with made_folder(path.parent):
        try:
            with writing(temporary, path):
                temporary.mkdir()
            yield temporary
            with writing(temporary, path):
                _replace_folder(temporary, path, overwrite)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _give_back(path: Path) -> None:
    """Give a folder its name back if a run was killed that had moved it away to replace it."""
    for old in leftovers(path.parent, f"{REPLACED_PREFIX}{path.name}{END_OF_NAME}"):
        with suppress(OSError):
            if path.exists():
                shutil.rmtree(old)
            else:
                os.replace(old, path)


def _replace_folder(new: Path, path: Path, overwrite: bool) -> None:
    old = path.with_name(temporary_name(f"{REPLACED_PREFIX}{path.name}{END_OF_NAME}"))
    if overwrite and path.exists():
        os.replace(path, old)
        with suppress(OSError):
            os.utime(old)  # its age is that of the replacement, not of the folder
    try:
        os.replace(new, path)
    except BaseException:
        if old.exists():
            os.replace(old, path)
        raise
    if old.exists():  # under the name of what is not finished, it goes even if this run is killed
        os.replace(old, new)


@contextmanager
def writing(file: Path, name: Path | str, check: Check | None = None) -> Iterator[None]:
    """Let what is written inside fail in a sentence, also where the writer itself is silent.

    Args:
        file: what is written inside.
        name: what the user knows the file by.
        check: as in `whole_file`.

    Raises:
        WriteError: it could not be written.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise write_error(file, name, error) from error
    if check is None:
        return
    try:
        check(file)
    except MemoryError:
        raise
    except Exception as error:  # readers raise all kinds
        raise write_error(file, name, error) from error


def write_error(file: Path, name: Path | str, error: Exception) -> WriteError:
    """Return the error for a file that could not be written, with the reason.

    Args:
        file: the unfinished file.
        name: what the user knows it by.
        error: what the writer or the check of what it wrote raised.
    """
    number = error.errno if isinstance(error, OSError) and error.errno else _refusal(file)
    if number == errno.ENOSPC:
        reason = "no space left on its disk; free some and try again"
    elif number == errno.EDQUOT:
        reason = "no space left in the quota of its disk; free some and try again"
    elif number == errno.EFBIG:
        limit = _size_limit()
        reason = "file too large for its file system; choose another disk"
        if limit is not None:
            reason = f"file too large, the limit of ulimit -f is {limit} bytes; raise it"
    elif isinstance(error, OSError) and error.errno:
        other = error.filename not in (None, str(file), str(file.parent))
        reason = f"{error.strerror}{f' ({error.filename})' if other else ''}"
    elif isinstance(error, DataError):  # the check speaks of a file that somebody else damaged
        reason = "it was written in part only, perhaps because its disk was full; try again"
    else:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    return WriteError(f"{name} could not be written: {reason}")


def _refusal(file: Path) -> int | None:
    """Find out why a writer stopped short: return the errno of writing on, None if that works."""
    limit = _size_limit()
    probe = file.with_name(f"{file.name}.room")  # the file itself may be anything
    try:
        with probe.open("wb") as stream:
            stream.write(bytes(PROBE_BYTES if limit is None else min(PROBE_BYTES, limit)))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error.errno
    finally:
        probe.unlink(missing_ok=True)
    size = file.stat().st_size if file.is_file() else 0
    return None if limit is None or size + PROBE_BYTES < limit else errno.EFBIG


def _size_limit() -> int | None:
    """Return how large a file may become, in bytes; None without a limit."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if limit == resource.RLIM_INFINITY else limit
