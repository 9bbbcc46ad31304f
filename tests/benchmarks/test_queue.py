from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from benchmarks import long_csv
from benchmarks.accuracy import queue
from benchmarks.accuracy.methods import QUEUE_COLUMNS, Run
from tests.benchmarks.runs import make_run


def write_queue(path: Path, *runs: Run) -> Path:
    long_csv.write_file(path, QUEUE_COLUMNS, [run.row() for run in runs])
    return path


def put_rows(folder: Path, run: str) -> None:
    for number in range(20):
        with long_csv.locked(folder):
            long_csv.put("over_time", [{"run": f"{run}{number}", "epochs": "1"}], folder)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = make_run(settings='{"SPMC": {"tau": 0.8}, "turns": true}', seed=0, times=2, seconds=3.5)
    assert queue.read_queue(write_queue(tmp_path / "queue.csv", run)) == [run]


def test_the_longest_run_comes_first(tmp_path: Path) -> None:
    runs = [make_run(seed=seed, seconds=seconds) for seed, seconds in ((1, 10), (2, 900), (3, 50))]
    found = queue.read_queue(write_queue(tmp_path / "queue.csv", *runs))
    assert [run.seed for run in found] == [2, 3, 1]


def test_what_has_its_row_is_skipped(tmp_path: Path) -> None:
    runs = [make_run(seed=1), make_run(seed=2)]
    long_csv.put("runs", [{"run": runs[0].run}], tmp_path)
    assert list(queue.open_runs(runs, tmp_path, tmp_path)) == [runs[1]]


def test_two_processes_take_different_runs(tmp_path: Path) -> None:
    runs = [make_run(seed=1), make_run(seed=2)]
    ours, theirs = (queue.open_runs(runs, tmp_path, tmp_path) for _ in range(2))
    assert next(ours) == runs[0]
    assert next(theirs) == runs[1]
    assert list(theirs) == []
    ours.close()
    assert list(queue.open_runs(runs[:1], tmp_path, tmp_path)) == runs[:1]


def test_a_run_that_another_process_finished_meanwhile_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([set(), {make_run().run}])  # before and after the lock
    monkeypatch.setattr(queue, "finished", lambda results: next(answers))
    assert list(queue.open_runs([make_run()], tmp_path, tmp_path)) == []


def hold(output: Path, holds: multiprocessing.Event) -> None:
    with queue.claimed(make_run(), output):
        holds.set()
        signal.pause()


def test_a_run_whose_process_was_killed_is_open_again(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    holds = context.Event()
    process = context.Process(target=hold, args=(tmp_path, holds))
    process.start()
    assert holds.wait(60)
    assert list(queue.open_runs([make_run()], tmp_path, tmp_path)) == []
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert list(queue.open_runs([make_run()], tmp_path, tmp_path)) == [make_run()]


def test_rows_of_two_processes_are_all_kept(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=put_rows, args=(tmp_path, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(long_csv.read("over_time", tmp_path)) == 40


def test_rows_of_a_run_that_is_measured_again_are_replaced(tmp_path: Path) -> None:
    for run, dice in (("a", "1"), ("b", "2"), ("a", "3")):
        long_csv.put("over_time", [{"run": run, "epochs": "1", "test_dice": dice}], tmp_path)
    rows = long_csv.read("over_time", tmp_path)
    assert [(row["run"], row["test_dice"]) for row in rows] == [("b", "2"), ("a", "3")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "SPCM"}, "no trainer nnUNetTrainerSPCM"),
        ({"labels": 8}, "labels must be 7, got 8"),
        ({"settings": '{"tua": 0.8}'}, "Unknown setting 'tua'"),
        ({"settings": '{"epochs": 8}'}, "epochs is no setting but has its own column"),
        ({"configuration": "3d"}, "configuration must be one of 2d, 2d_2x, 2d_small"),
        ({"stage": "search", "times": 2}, "a search does not look at the test cases"),
        ({"epochs": 5, "iterations": 10, "times": 2}, "times must divide epochs"),
    ],
)
def test_a_row_that_cannot_be_trained_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_run(**changes)


def test_a_search_needs_validation_cases() -> None:
    la = {"dataset": "la", "labels": 8, "configuration": "3d_fullres_small"}
    assert make_run(**la).run
    with pytest.raises(ValueError, match="la has no validation cases"):
        make_run(**la, stage="search")


def test_runs_are_added_once_with_the_time_they_should_take(tmp_path: Path) -> None:
    file = tmp_path / "queue.csv"
    write_queue(file)
    command = ["acdc", "SPMC", "--stage", "confirm", "--seeds", "4", "5", "--longer", "2"]
    command += ["--queue", str(file), "--results", str(tmp_path)]
    done = make_run(seed=1, epochs=30, iterations=3000).row() | {"run": "x", "seconds": "600"}
    long_csv.put("runs", [done], tmp_path)
    queue.main(command)
    runs = queue.read_queue(file)
    assert [(run.seed, run.iterations, run.seconds) for run in runs] == [
        (4, 6000, 1200.0),
        (5, 6000, 1200.0),
    ]
    with pytest.raises(SystemExit, match="in the queue or done already"):
        queue.main(command)
    assert queue.read_queue(file) == runs
