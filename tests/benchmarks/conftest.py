from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PlannedPhantom
from tests.phantom_runs import PhantomRuns

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def run_on_phantom(
    planned_phantom: PlannedPhantom, phantom_runs: PhantomRuns, tmp_path: Path
) -> Callable[..., None]:
    """Run a script of benchmarks/reliability on the phantom and its model; it must succeed."""
    base = tmp_path / "base"
    for source in (planned_phantom.raw, planned_phantom.preprocessed):
        shutil.copytree(source, base / source.parent.name / source.name)
    model = phantom_runs.spmc.parent
    shutil.copytree(model, base / "nnUNet_results" / planned_phantom.name / model.name)

    def run(script: str, *options: str) -> None:
        module = f"benchmarks.reliability.{script}"
        ended = subprocess.run(
            [sys.executable, "-m", module, *options, "--base", base],
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "0"},
            capture_output=True,
            text=True,
            errors="replace",
        )
        assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-1000:]

    return run
