"""What lies in a folder, in a form that is equal where two runs of a command did the same.

Times of day, times of files and how long an epoch took are left out, all else is compared: most
files by their bytes, checkpoints value by value. Blosc2 does not write the same bytes each time
(its threads write blocks as they finish them): its files are compared voxel by voxel.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_spmc.unlabeled.preprocessed_files import sampled_digest

Contents = dict[str, str]  # path in the folder -> what is compared

OF_EACH_START = re.compile(r"training_log_\w+\.txt")  # a file for every start of a training
PRESENCE_ONLY = re.compile(r"debug\.json|.*\.png")  # addresses and seconds
TIMES = re.compile(rb'\b1\d{18}\b|"20\d\d-\d\d-\d\d \d\d:\d\d"')  # of files; of day
UNFINISHED, NOT_WHOLE, EMPTY = "unfinished", "not whole: ", "empty folder"
OF_CLOCK = "timestamps"  # in the names of curves


class TornError(Exception):
    """A file cannot be read: it was written in part."""


def contents(root: Path, same: Callable[[Path], bool] = lambda file: True) -> Contents:
    """Return what lies in a folder.

    Args:
        root: the folder.
        same: whether a file is the same in every run; of other checkpoints the form is compared,
            of other files that they are there.
    """
    found = {}
    for file in files_in(root):
        if not OF_EACH_START.fullmatch(file.name):
            name = str(file.relative_to(root))
            try:
                is_hidden = any(part.startswith(".") for part in Path(name).parts)
                found[name] = UNFINISHED if is_hidden else _content(file, same(file))
            except TornError as error:
                found[name] = f"{NOT_WHOLE}{error}"
    return found


def files_in(root: Path) -> Iterator[Path]:
    """Return all files and empty folders in a folder."""
    for folder, folders, names in os.walk(root):
        yield from (Path(folder, name) for name in sorted(names))
        if not folders and not names:
            yield Path(folder)


def _content(file: Path, same: bool) -> str:
    if file.is_dir():
        return EMPTY
    if file.suffix == ".pth":
        checkpoint = read_checkpoint(file)
        if not same and file.name == "checkpoint_best.pth":  # of any epoch
            return "there"
        return _digest(repr(_plain(checkpoint, same)).encode())
    if not same or PRESENCE_ONLY.fullmatch(file.name):
        return "there"
    if file.suffix == ".npz":
        return _digest(_arrays(file))
    if file.suffix == ".b2nd":
        return _digest(_voxels(file))
    content = file.read_bytes()
    if file.suffix == ".json":
        content = TIMES.sub(b"0", _record_of_files(file, content))
    return _digest(content)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Return what a checkpoint of this run holds, or raise a TornError."""
    import torch

    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:  # a damaged one raises anything
        raise TornError(f"{file.name} ({type(error).__name__})") from error
    return content


def _arrays(file: Path) -> bytes:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return repr(
                [(n, arrays[n].shape, _digest(arrays[n].tobytes())) for n in arrays]
            ).encode()
    except Exception as error:  # likewise
        raise TornError(f"{file.name} ({type(error).__name__})") from error


def _voxels(file: Path) -> bytes:
    import blosc2

    try:
        array = blosc2.open(urlpath=str(file), mode="r", dparams={"nthreads": 1})
        return repr((array.shape, array.chunks, array.blocks, _digest(array[:].tobytes()))).encode()
    except Exception as error:  # likewise
        raise TornError(f"{file.name} ({type(error).__name__})") from error


def _record_of_files(file: Path, content: bytes) -> bytes:
    """Replace what a record says of preprocessed files: whether it is true of those that lie there.

    Raises:
        TornError: it is not JSON.
    """
    try:
        record = json.loads(content)
    except ValueError as error:
        raise TornError(file.name) from error
    if not (file.name.endswith("_unlabeled.json") and "files" in record):
        return content
    for case, (size, _, digest) in record["files"].items():
        made = file.with_suffix("") / f"{case}.b2nd"
        is_true = made.is_file() and made.stat().st_size == size and sampled_digest(made) == digest
        record["files"][case] = is_true
    return json.dumps(record).encode()


def _plain(value: Any, same: bool) -> Any:
    """Return a value whose repr is equal where two checkpoints are."""
    import torch

    if isinstance(value, Mapping):
        items = sorted(value.items(), key=lambda item: str(item[0]))
        return [(k, _plain(v, same)) for k, v in items if OF_CLOCK not in str(k)]
    if isinstance(value, torch.Tensor):
        values = _digest(value.detach().contiguous().numpy().tobytes()) if same else "finite"
        if not bool(torch.isfinite(value.float()).all()):
            values = "not finite"
        return (tuple(value.shape), str(value.dtype), values)
    if isinstance(value, (list, tuple)):
        return [_plain(item, same) for item in value]
    if isinstance(value, float) and not same:
        return "a number"
    return value if same or not isinstance(value, np.generic) else "a number"
