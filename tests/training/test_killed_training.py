import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from nnunetv2_spmc import discovery
from nnunetv2_spmc.data.whole_file import WRITING_PREFIX
from nnunetv2_spmc.data.worker_pool import termination_raises
from nnunetv2_spmc.training.memory import recomputed

RUNNER = Path(__file__).with_name("killed_training.py")
SCHEDULE = {"epochs": 8, "iterations_per_epoch": 3, "save_every": 1}


@pytest.mark.supported(
    "resume",
    "`--c` after SIGTERM and `kill -9` at any moment, also while a checkpoint is written",
)
@pytest.mark.slow
def test_a_training_killed_at_many_moments_ends_as_the_uninterrupted_one(
    make_trainer, monkeypatch, tmp_path
):
    monkeypatch.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    uninterrupted = make_trainer(**SCHEDULE)
    uninterrupted.run_training()
    torch.set_num_threads(threads)
    results = tmp_path / "killed"
    process = subprocess.run(
        [sys.executable, str(RUNNER), "2d_small", "7"],
        env=os.environ | {"nnUNet_results": str(results)},
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=1200,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    lives = [json.loads(line) for line in process.stdout.splitlines() if line.startswith("{")]
    statuses = [life["status"] for life in lives]
    assert statuses[-1] == 0
    assert -9 in statuses
    assert 143 in statuses  # SIGTERM became SystemExit
    assert len(lives) >= 5
    epochs = [max(life["checkpoints"].values(), default=0) for life in lives]
    assert epochs == sorted(epochs)  # no checkpoint was ever lost
    assert len(set(epochs)) >= 3  # it went on from where it was several times

    final = "fold_0/checkpoint_final.pth"
    (killed,) = results.rglob(final)
    assert not list(results.rglob(f"{WRITING_PREFIX}*"))
    assert not list(results.rglob("checkpoint_latest.pth"))
    ours = torch.load(killed, weights_only=False)
    theirs = torch.load(
        Path(uninterrupted.output_folder) / "checkpoint_final.pth", weights_only=False
    )
    assert ours["current_epoch"] == theirs["current_epoch"] == SCHEDULE["epochs"]
    for key, curve in theirs["logging"].items():
        if "timestamps" not in key:
            assert len(ours["logging"][key]) == len(curve) == SCHEDULE["epochs"]
            assert same(ours["logging"][key], curve), key
    branches = (("network_weights",), ("semi_supervised", "auxiliary_weights"))
    for path in branches:
        mine, other = ours, theirs
        for part in path:
            mine, other = mine[part], other[part]
        assert all(torch.equal(mine[key], other[key]) for key in other)


@pytest.mark.supported("resume", "SIGTERM leaves no worker process behind")
@pytest.mark.slow
def test_on_sigterm_the_worker_processes_leave_too(make_trainer, monkeypatch, tmp_path):
    make_trainer(epochs=1000)  # leaves its settings in the environment
    monkeypatch.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    command = [sys.executable, "-c"]
    command += ["from nnunetv2.run.run_training import run_training_entry; run_training_entry()"]
    command += ["500", "2d_small", "0", "-tr", "nnUNetTrainerSPMC", "-device", "cpu"]
    with (tmp_path / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            deadline = time.monotonic() + 300
            while b"Epoch 1" not in (tmp_path / "output.txt").read_bytes():
                assert process.poll() is None, (tmp_path / "output.txt").read_text()[-4000:]
                assert time.monotonic() < deadline
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 143
            assert "Stopped by a signal" in (tmp_path / "output.txt").read_text(encoding="utf-8")
            deadline = time.monotonic() + 10
            while is_alive(process.pid) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert not is_alive(process.pid)
        finally:
            if is_alive(process.pid):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_signal_waits_for_the_end_of_the_backward_pass(make_trainer):
    """Broken off inside, the graph is freed after the interpreter has ended: a crash at exit."""
    passes = []

    def loss(x):
        passes.append(None)
        if len(passes) == 2:  # in the backward pass
            signal.raise_signal(signal.SIGTERM)
        return (x**2).sum()

    x = torch.ones(3, requires_grad=True)
    trainer = make_trainer()
    with pytest.raises(SystemExit), termination_raises():
        trainer._backward(recomputed(loss, x))
    assert x.grad.tolist() == [2, 2, 2]


def test_a_signal_that_a_library_turned_into_an_error_stops_the_training(make_trainer, capsys):
    trainer = make_trainer(epochs=2)

    def on_epoch_end():
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit:
            raise ValueError("invalid bounding box") from None

    trainer.on_epoch_end = on_epoch_end
    with pytest.raises(SystemExit) as stopped:
        trainer.run_training()
    assert stopped.value.code == 143
    assert "Stopped by a signal" in capsys.readouterr().out


def test_an_error_of_its_own_is_not_taken_for_a_signal(make_trainer, capsys):
    trainer = make_trainer(epochs=2)

    def on_epoch_end():
        raise ValueError("invalid bounding box")

    trainer.on_epoch_end = on_epoch_end
    with pytest.raises(ValueError, match="invalid bounding box"):
        trainer.run_training()
    assert "Stopped by a signal" not in capsys.readouterr().out


def is_alive(process_group):
    try:
        os.killpg(process_group, 0)
    except ProcessLookupError:
        return False
    return True


def same(ours, theirs):
    if isinstance(theirs, list):
        return all(same(a, b) for a, b in zip(ours, theirs, strict=True))
    return ours == theirs or (math.isnan(ours) and math.isnan(theirs))
