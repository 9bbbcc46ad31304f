from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import pytest

from nnunetv2_spmc.common.signals import signals_deferred, termination_raises


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


def test_a_signal_whose_exception_python_ignored_comes_again(capsys) -> None:
    class Interrupted:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        with termination_raises():
            Interrupted()  # freed at once
            threading.Event().wait(60)

    hook = sys.unraisablehook
    with pytest.raises(SystemExit) as exit_:
        work()
    assert exit_.value.code == 143
    assert capsys.readouterr().err == ""  # no "Exception ignored in ..."
    assert sys.unraisablehook is hook


def test_other_ignored_exceptions_are_shown_as_before(monkeypatch) -> None:
    class Broken:
        def __del__(self) -> None:
            raise ValueError("broken")

    shown: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda ignored: shown.append(ignored.exc_type))
    with termination_raises():
        Broken()
    assert shown == [ValueError]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("stop", "expected"), [(signal.SIGINT, 1), (signal.SIGTERM, 7)])
@pytest.mark.parametrize("handling", [termination_raises, signals_deferred])
def test_a_forked_worker_leaves_ctrl_c_to_its_parent(handling, stop, expected) -> None:
    with handling():
        worker = os.fork()
        if worker == 0:
            try:
                signal.raise_signal(stop)
                os._exit(1)  # not interrupted
            except KeyboardInterrupt:  # at which nnU-Net's workers end quietly
                os._exit(7)
            finally:
                os._exit(2)
        _, status = os.waitpid(worker, 0)
    assert os.waitstatus_to_exitcode(status) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("handling", [termination_raises, signals_deferred])
def test_a_forked_worker_that_waits_for_a_lock_can_be_ended(handling, capfd) -> None:
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    lock = context.Lock()

    def wait() -> None:
        writer.send("started")
        with lock:  # the parent has it
            pass

    with handling(), lock:
        worker = context.Process(target=wait)
        worker.start()
        reader.recv()
        worker.terminate()  # as a pool does when it is closed
        worker.join(30)
        exit_code = worker.exitcode
        worker.kill()
    assert (exit_code, capfd.readouterr().err) == (-signal.SIGTERM, "")


BLOCKED = """
import multiprocessing, signal
from nnunetv2_spmc.common.signals import interrupts_blocked
with interrupts_blocked():
    pool = multiprocessing.get_context("spawn").Pool(1)
print(pool.apply(signal.pthread_sigmask, (signal.SIG_BLOCK, [])))
print(signal.pthread_sigmask(signal.SIG_BLOCK, []))
pool.terminate()
"""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="needs signal masks")
def test_workers_that_start_while_interrupts_are_blocked_never_see_them() -> None:
    printed = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True).stdout
    assert printed.split("\n")[:2] == ["{<Signals.SIGINT: 2>}", "set()"]


def test_other_threads_leave_the_handlers_alone() -> None:
    def work() -> None:
        with signals_deferred(), termination_raises():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
