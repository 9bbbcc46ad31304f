import pytest

from nnunetv2_spmc.training.progress_bar import ProgressBar


def test_the_bar_shows_loss_lambda_and_time_left(capsys):
    bar = ProgressBar(iterations=40, total=80, disable=False)
    bar.start_epoch(0, 0)
    for iteration in range(1, 41):
        bar.step(iteration, lambda: 1.2345, 0.05)
    bar.end_epoch()
    shown = capsys.readouterr().err
    assert "Epoch 0" in shown
    assert "40/40" in shown
    assert "loss 1.234, lambda 0.05, training done in 00:" in shown


def test_the_loss_is_read_a_few_times_an_epoch_only():
    read = []
    bar = ProgressBar(iterations=100, total=100, disable=False)
    bar.start_epoch(0, 0)
    for iteration in range(1, 101):
        bar.step(iteration, lambda: read.append(1) or 0.0, 0.0)
    bar.end_epoch()
    assert len(read) == 20


def test_where_there_is_no_terminal_nothing_is_shown_or_read(capsys):
    bar = ProgressBar(iterations=2, total=2)
    bar.start_epoch(0, 0)
    bar.step(1, pytest.fail, 0.0)
    bar.end_epoch()
    assert capsys.readouterr().err == ""
