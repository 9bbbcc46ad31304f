"""Disks and limits that a file does not fit on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """What `ulimit -f` does, in this process and those it starts meanwhile."""
    if resource is None:
        pytest.skip("this system has no limit on the size of files")
    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))


@dataclass(frozen=True)
class SmallDisk:
    """A file system of its own in memory."""

    folder: Path

    def resize(self, num_kilobytes: int) -> None:
        """Give it another size, as somebody does who frees space."""
        option = f"remount,size={num_kilobytes}k"
        subprocess.run(["mount", "-o", option, str(self.folder)], check=True)

    def leave_free(self, num_kilobytes: int) -> None:
        """Give it the size that leaves so much room."""
        state = os.statvfs(self.folder)
        used = (state.f_blocks - state.f_bfree) * state.f_frsize // 1024
        self.resize(used + num_kilobytes)


@contextmanager
def mounted_disk(folder: Path, num_kilobytes: int) -> Iterator[SmallDisk]:
    """Mount a disk; the test is skipped where that is not allowed."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk, and not on every system")
    folder.mkdir()
    size = f"size={num_kilobytes}k"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
