from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from tqdm import tqdm

from nnunetv2_spmc.common.worker_pool import run_cases

SLEEPERS = """
import sys, time
from tqdm import tqdm
from nnunetv2_spmc.common.worker_pool import run_cases
if __name__ == "__main__":
    print("starting", flush=True)
    run_cases(time.sleep, [60, 60], 2, tqdm(disable=True))
"""


@pytest.mark.parametrize("num_processes", [0, 2])
def test_results_keep_the_order(num_processes) -> None:
    progress = tqdm(total=3, disable=True)
    assert run_cases(abs, [-3, 2, -1], num_processes, progress) == [3, 2, 1]


@pytest.mark.parametrize("delay_s", [0.3, 3])
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path, stop, delay_s) -> None:
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(delay_s)
    if stop == signal.SIGINT:
        os.killpg(process.pid, stop)  # as a terminal does
    else:
        process.send_signal(stop)
    _, errors = process.communicate(timeout=30)  # returns once no worker holds the pipes
    assert errors.count("Traceback") <= (stop == signal.SIGINT)  # workers print none
