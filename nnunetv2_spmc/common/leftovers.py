"""Names for what is not finished yet, and the removal of what killed runs left under them."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

ABANDONED_AFTER_S = 24 * 3600
END_OF_NAME = "@"  # after the name of a folder in a prefix: no host has it in its own


def temporary_name(prefix: str) -> str:
    """Return a name for what this process has not finished yet."""
    return f"{prefix}{_here()}-{os.getpid()}"


def remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove what runs that were killed left under `temporary_name(prefix)` in a folder."""
    for leftover in leftovers(folder, prefix):
        shutil.rmtree(leftover, ignore_errors=True)


def leftovers(folder: Path, prefix: str) -> Iterator[Path]:
    """Return what runs that were killed left under `temporary_name(prefix)` in a folder.

    Other runs may be at work in the same folder, on this computer or on others: that is only what
    belongs to ended processes of this computer, and what nobody touched for a day.
    """
    for leftover in folder.glob(f"{prefix}*"):
        host, _, process = leftover.name.removeprefix(prefix).rpartition("-")
        if END_OF_NAME in host:  # of a folder with a longer name
            continue
        is_ours = host == _here() and process.isdecimal()
        try:
            is_old = time.time() - leftover.stat().st_mtime > ABANDONED_AFTER_S
        except FileNotFoundError:
            continue
        if is_old or (is_ours and not _is_running(int(process))):
            yield leftover


def _here() -> str:
    """Name what gives processes their numbers: this computer, or a container on it."""
    try:
        return f"{socket.gethostname()}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:  # not on Linux
        return socket.gethostname()


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return False  # a leftover of an earlier process of that number
    if os.name == "nt":
        return True  # signal 0 would end the process there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
