import os
import re
import threading
from pathlib import Path

import pytest

from nnunetv2_spmc.methods import nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl
from nnunetv2_spmc.training import progress
from nnunetv2_spmc.training.progress import Progress, validation_lines
from nnunetv2_spmc.training.settings import TrainingSettings
from tests.in_process import use_threads_for_pools
from tests.training_logs import log_of


class Clock:
    """Advances by some seconds each time it is asked."""

    def __init__(self, step):
        self.now, self.step = 1000.0, step

    def __call__(self):
        self.now += self.step
        return self.now


class Log(list):
    """Takes the place of print_to_log_file."""

    def __call__(self, line, also_print_to_console=True):
        self.append((line, also_print_to_console))


def a_progress(iterations, epochs=1, validation=2, log=None, seconds=0.0, disable=None):
    schedule = TrainingSettings(
        epochs=epochs, iterations_per_epoch=iterations, validation_iterations=validation
    )
    return Progress(schedule, Log() if log is None else log, Clock(seconds), disable)


# ---- the bar ------------------------------------------------------------------------------------


def test_the_bar_shows_the_loss_a_note_and_the_time_left(capsys):
    bar = a_progress(40, epochs=2, disable=False)
    bar.start_epoch(0)
    for _ in range(40):
        bar.step(lambda: 1.2345, ", lambda 0.05")
    bar.end_steps()
    shown = capsys.readouterr().err
    assert "Epoch 0" in shown
    assert "40/40" in shown
    assert "loss 1.234, lambda 0.05, training done in 00:" in shown


def test_the_loss_is_read_a_few_times_an_epoch_only():
    read = []
    bar = a_progress(100, disable=False)
    bar.start_epoch(0)
    for _ in range(100):
        bar.step(lambda: read.append(1) or 0.0)
    bar.end_steps()
    assert len(read) == 20


def test_where_there_is_no_terminal_nothing_is_shown_or_read(capsys):
    bar = a_progress(2)
    bar.start_epoch(0)
    bar.step(pytest.fail)
    bar.end_steps()
    assert capsys.readouterr().err == ""


# ---- a line a minute ----------------------------------------------------------------------------


def steps_of_seconds(seconds, log, disable=None):
    """Do two epochs of six steps and two validation steps; the clock is asked once a step."""
    lines = a_progress(6, epochs=2, log=log, disable=disable)
    losses = iter(range(100))
    for epoch in range(2):
        lines.start_epoch(epoch)
        for _ in range(6):
            lines._clock.now += seconds
            lines.step(lambda: float(next(losses)))
        lines.end_steps()
        for _ in range(2):
            lines._clock.now += seconds
            lines.validation_step()


def test_each_minute_a_line_says_how_far_the_training_is():
    log = Log()
    steps_of_seconds(30, log)
    assert [line for line, _ in log] == [
        "Epoch 0: step 2 of 6, loss 0.000, training done in 05:00",
        "Epoch 0: step 4 of 6, loss 1.000, training done in 04:00",
        "Epoch 0: step 6 of 6, loss 2.000, training done in 03:00",
        "Epoch 0: validation step 2 of 2",
        # 60 s of validation more than the steps took
        "Epoch 1: step 2 of 6, loss 3.000, training done in 02:30",
        "Epoch 1: step 4 of 6, loss 4.000, training done in 01:12",
        "Epoch 1: step 6 of 6, loss 5.000, training done in 00:00",
        "Epoch 1: validation step 2 of 2",
    ]
    assert all(on_console for _, on_console in log)


def test_an_epoch_of_less_than_a_minute_says_nothing():
    log = Log()
    steps_of_seconds(7, log)
    assert log == []


def test_a_step_of_minutes_is_one_line():
    log = Log()
    steps_of_seconds(200, log)
    assert len(log) == 16


def test_with_a_bar_the_lines_go_into_the_log_file_alone(capsys):
    log = Log()
    steps_of_seconds(30, log, disable=False)
    assert len(log) == 8
    assert not any(on_console for _, on_console in log)


def test_other_processes_say_nothing():
    log = Log()
    steps_of_seconds(200, log, disable=True)
    assert log == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer", "note"),
    [(nnUNetTrainerSPMC, r", lambda \S+"), (nnUNetTrainerSupervisedControl, "")],
)
def test_a_training_without_a_terminal_writes_lines(
    make_trainer, monkeypatch, capsys, trainer, note
):
    monkeypatch.setattr(trainer, "clock", Clock(40.0))
    trained = make_trainer(trainer, epochs=1, iterations_per_epoch=4, validation_iterations=4)
    trained.run_training()
    log = log_of(trained)
    printed = capsys.readouterr().out
    for text in (log, printed):
        assert re.search(rf"Epoch 0: step \d of 4, loss \d\.\d+{note}, training done in ", text)
        assert "Epoch 0: validation step " in text


# ---- the final validation -----------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.01)


def test_the_final_validation_says_how_many_cases_are_written(tmp_path, soon):
    (tmp_path / "case_0.nii.gz").touch()
    os.utime(tmp_path / "case_0.nii.gz", (0, 0))  # of an earlier validation
    threads, said = threading.active_count(), threading.Event()
    lines = []

    def log(line):
        lines.append(line)
        said.set()

    def wait_for_a_line():
        for _ in range(2):  # the first one may have been on its way
            said.clear()
            assert said.wait(60)

    cases = []
    with validation_lines(tmp_path, ".nii.gz", cases, log):
        cases += ["case_0", "case_1", "case_2"]
        wait_for_a_line()
        assert lines[-1] == "Validation: 0 of 3 cases are written."
        (tmp_path / "case_0.nii.gz").touch()
        (tmp_path / "case_1.nii.gz").touch()
        (tmp_path / "case_1.npz").touch()
        wait_for_a_line()
        assert lines[-1] == "Validation: 2 of 3 cases are written."
    assert threading.active_count() == threads


def test_a_validation_of_less_than_a_minute_says_nothing(tmp_path):
    lines = []
    with validation_lines(tmp_path / "validation", ".nii.gz", ["case_0"], lines.append):
        pass
    assert lines == []


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl])
def test_the_validation_of_a_trainer_writes_lines(make_trainer, monkeypatch, soon, trainer):
    use_threads_for_pools(monkeypatch)
    trained = make_trainer(trainer, epochs=1)
    trained.run_training()
    trained.perform_actual_validation()
    log = log_of(trained)
    assert "Validation: 0 of 1 cases are written." in log
    assert (Path(trained.output_folder) / "validation" / "summary.json").is_file()
