from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from tqdm import tqdm

from nnunetv2_spmc.data.worker_pool import run_cases, signals_deferred, termination_raises

SLEEPERS = """
import sys, time
from tqdm import tqdm
from nnunetv2_spmc.data.worker_pool import run_cases
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


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP])
def test_termination_unwinds_the_stack(stop, request) -> None:
    previous = signal.signal(stop, signal.SIG_DFL)  # under nohup it is ignored
    request.addfinalizer(lambda: signal.signal(stop, previous))
    with pytest.raises(SystemExit) as exit_, termination_raises() as came:
        os.kill(os.getpid(), stop)
    assert exit_.value.code == 128 + stop
    assert came == [stop]


def test_an_ignored_hangup_stays_ignored() -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with termination_raises():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, previous)


@pytest.mark.parametrize(
    ("stop", "raised"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_deferred_signals_come_once_the_work_is_done(stop, raised) -> None:
    def work() -> None:
        with signals_deferred():
            os.kill(os.getpid(), stop)
            done.append("inside")
        done.append("after")

    done: list[str] = []
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(raised), termination_raises():
        work()
    assert done == ["inside"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_other_threads_leave_the_handlers_alone() -> None:
    def work() -> None:
        with signals_deferred(), termination_raises():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
