import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from nnunetv2_spmc import discovery
from nnunetv2_spmc.common.signals import termination_raises
from nnunetv2_spmc.common.whole_file import WRITING_PREFIX
from nnunetv2_spmc.training.backward import run_passes
from nnunetv2_spmc.training.memory import recomputed
from nnunetv2_spmc.training.step import Labeled, Step

RUNNER = Path(__file__).with_name("killed_training.py")
STOCK_COMMAND = [
    sys.executable,
    "-c",
    "from nnunetv2.run.run_training import run_training_entry; run_training_entry()",
]
PATIENCE = 300  # seconds
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
    branches = (("network_weights",), ("semi_supervised", "parts"))
    for path in branches:
        mine, other = ours, theirs
        for part in path:
            mine, other = mine[part], other[part]
        assert all(torch.equal(mine[key], other[key]) for key in other)


class StockTraining:
    """nnUNetv2_train in a session of its own, as one starts it in a terminal."""

    def __init__(self, output, *arguments):
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [*STOCK_COMMAND, *arguments],
                env=os.environ | {"PYTHONUNBUFFERED": "1"},  # all output in its order
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if is_alive(self.process.pid):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def printed(self):
        return self.output.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, text):
        deadline = time.monotonic() + PATIENCE
        while text not in self.printed():
            assert self.process.poll() is None, self.printed()[-4000:]
            assert time.monotonic() < deadline, self.printed()[-4000:]
            time.sleep(0.05)

    def stop(self, number):
        """Send a signal, Ctrl-C to all processes as a terminal does; return the exit status."""
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)

    def last_line(self):
        """Return the last line without its time."""
        return self.printed().splitlines()[-1].partition(": ")[2].rstrip()


@pytest.fixture
def train(make_trainer, monkeypatch, tmp_path):
    """Start nnUNetv2_train with some settings and a number of worker processes."""

    def start(trainer="nnUNetTrainerSPMC", workers=0, options=(), **settings):
        make_trainer(**settings)  # leaves them in the environment
        monkeypatch.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))
        monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
        monkeypatch.setenv("nnUNet_def_n_proc", "2")
        arguments = ["500", "2d_small", "0", "-tr", trainer, "-device", "cpu", *options]
        return StockTraining(tmp_path / "output.txt", *arguments)

    return start


@pytest.mark.supported(
    "resume", "Ctrl-C and SIGTERM end `nnUNetv2_train` with the command that goes on"
)
@pytest.mark.supported("resume", "SIGTERM leaves no worker process behind")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "workers", "trainer"),
    [
        (signal.SIGINT, 0, "nnUNetTrainerSPMC"),
        (signal.SIGINT, 2, "nnUNetTrainerSPMC"),
        (signal.SIGTERM, 0, "nnUNetTrainerSPMC"),
        (signal.SIGTERM, 2, "nnUNetTrainerSPMC"),
        (signal.SIGINT, 2, "nnUNetTrainerSupervisedControl"),
    ],
)
def test_the_last_line_of_a_stopped_training_goes_on_where_it_says(train, stop, workers, trainer):
    with train(trainer, workers, epochs=1000, save_every=1) as training:
        training.wait_for("Epoch 1")
        assert training.stop(stop) == 128 + stop
        assert "Traceback" not in training.printed()
        said = re.fullmatch(
            rf"Stopped by {stop.name}\. It goes on from epoch (\d+) \(checkpoint_latest\.pth\) "
            rf"with: nnUNetv2_train (500 2d_small 0 -tr {trainer} -device cpu --c)",
            training.last_line(),
        )
        assert said, training.last_line()
        deadline = time.monotonic() + 10
        while is_alive(training.process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not is_alive(training.process.pid)
    if workers:  # both ways to load
        return
    with StockTraining(training.output, *said[2].split()) as resumed:
        resumed.wait_for("Current learning rate")
        assert resumed.printed().count("Epoch ") == 1
        assert f"Epoch {said[1]}" in resumed.printed()


@pytest.mark.supported("resume", "Ctrl-C and SIGTERM in the final validation name `--val`")
@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["Training done.", "predicting "])
def test_a_stopped_validation_says_how_to_validate(train, stop, moment):
    with train(epochs=1, options=["--npz"]) as training:
        training.wait_for(moment)
        assert training.stop(stop) == 128 + stop
        assert "Traceback" not in training.printed()
        assert training.last_line() == (
            f"Stopped by {stop.name}. The training is done; validate with: "
            "nnUNetv2_train 500 2d_small 0 -tr nnUNetTrainerSPMC -device cpu --npz --val"
        )


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_stopped_while_workers_start_ends(train, stop):
    """Python ignores what a signal handler raises while it forks."""
    with train(workers=2, epochs=1000) as training:
        training.wait_for("This split has 4 training")
        assert training.stop(stop) == 128 + stop
        assert training.last_line() == (
            f"Stopped by {stop.name}. There is no checkpoint yet, so it starts again with: "
            "nnUNetv2_train 500 2d_small 0 -tr nnUNetTrainerSPMC -device cpu --c"
        )


def test_a_signal_waits_for_the_end_of_the_backward_pass():
    """Broken off inside, the graph is freed after the interpreter has ended: a crash at exit."""
    passes = []

    def loss(x):
        passes.append(None)
        if len(passes) == 2:  # in the backward pass
            signal.raise_signal(signal.SIGTERM)
        return (x**2).sum()

    x = torch.ones(3, requires_grad=True)
    step = Step(Labeled(x[None], x[None]), None, 0.0, 0)
    with pytest.raises(SystemExit), termination_raises():
        run_passes([lambda: (recomputed(loss, x), {})], step, nn.Identity(), nullcontext, None)
    assert x.grad.tolist() == [2, 2, 2]


@pytest.mark.slow
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
    assert "Stopped by SIGTERM" in capsys.readouterr().out


@pytest.mark.slow
def test_an_error_of_its_own_is_not_taken_for_a_signal(make_trainer, capsys):
    trainer = make_trainer(epochs=2)

    def on_epoch_end():
        raise ValueError("invalid bounding box")

    trainer.on_epoch_end = on_epoch_end
    with pytest.raises(ValueError, match="invalid bounding box"):
        trainer.run_training()
    assert "Stopped by" not in capsys.readouterr().out


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
