"""Write result files whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetv2_spmc.data.worker_pool import temporary_name


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which becomes `path` if nothing is raised."""
    temporary = path.with_name(temporary_name(f".{path.name}-"))
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
