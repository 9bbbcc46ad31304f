"""Kills: a few of those of benchmarks/reliability, and how they are judged."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks import long_csv
from benchmarks.reliability import kills
from benchmarks.reliability.contents import _plain
from benchmarks.reliability.kills import Kill, all_kills, run
from benchmarks.reliability.kinds import Kind, kinds
from benchmarks.reliability.sandbox import FOLDERS, Here
from benchmarks.reliability.tables import OUTCOMES, PAGE, kill_tables

REPOSITORY = Path(__file__).parents[2]
RESULT = Path("out", "result.txt")


def work(seconds: float = 0.2) -> None:
    """Take some time, during which the kill comes; publish the result."""
    time.sleep(seconds)
    RESULT.with_suffix(".new").write_text("whole")
    RESULT.with_suffix(".new").rename(RESULT)


def works(arguments: list[str]) -> None:
    work()


def leaves_a_temporary_file(arguments: list[str]) -> None:
    temporary = Path("out", f".writing-{os.getpid()}")
    temporary.touch()
    work()
    temporary.unlink()


def leaves_a_process(arguments: list[str]) -> None:
    worker = os.fork()
    if worker == 0:
        time.sleep(60)
    work()
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)


def writes_something_else_the_second_time(arguments: list[str]) -> None:
    with Path("out", "starts.txt").open("a") as file:
        file.write("started\n")
    work()


def writes_in_place(arguments: list[str]) -> None:
    with RESULT.open("w") as file:
        file.write("who")
        file.flush()
        time.sleep(0.2)
        file.write("le")


def never_ends_the_second_time(arguments: list[str]) -> None:
    started = Path("out", "started")
    if started.exists():
        time.sleep(60)
    started.touch()
    work()


def fails_the_second_time(arguments: list[str]) -> None:
    started = Path("out", "started")
    if started.exists():
        sys.exit("error: it has been started before")
    started.touch()
    work()


def makes_all_again(arguments: list[str]) -> None:
    Path("out", "first.new").write_text("first")
    Path("out", "first.new").rename(Path("out", "first.txt"))
    work()


def inode_of_first(here: Here) -> dict[str, object]:
    return {file.name: file.stat().st_ino for file in here.out.glob("first.txt")}


@pytest.fixture
def outcome_of(tmp_path, monkeypatch):
    """Kill a command half-way and return what came of it."""
    monkeypatch.setattr(kills, "TIMEOUT_S", 2)
    monkeypatch.setattr(kills, "PATIENCE_S", 0.5)
    base = tmp_path / "base"
    for name in FOLDERS:
        (base / name).mkdir(parents=True)

    def of(command, number=signal.SIGKILL, **options):
        name = f"{len(list(tmp_path.glob('starts/*')))}"
        kind = Kind("fake", name, 1, lambda here: (), main=command, **options)
        ((_, outcome),) = run([Kill(kind, 0, 0.5, number)], base, tmp_path / "here")
        return outcome.outcome, outcome.why

    return of


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_that_gives_the_same_is_fine(outcome_of, number):
    assert outcome_of(works, number) == ("same", "")


def test_a_temporary_file_that_stays_is_left_over(outcome_of):
    outcome, why = outcome_of(leaves_a_temporary_file)
    assert outcome == "left over"
    assert why.startswith("out/.writing-")


def test_a_process_that_stays_is_left_over(outcome_of):
    assert outcome_of(leaves_a_process) == ("same", "")  # they die together
    outcome, why = outcome_of(leaves_a_process, signal.SIGTERM)
    assert outcome == "left over"
    assert why.startswith("1 processes that it started")


def test_another_result_is_different(outcome_of):
    outcome = outcome_of(writes_something_else_the_second_time)
    assert outcome == ("different", "out/starts.txt")


def test_a_result_that_is_written_in_place_is_different(outcome_of):
    outcome = outcome_of(writes_in_place)
    assert outcome == ("different", "out/result.txt is half-written after the kill")


def test_a_command_that_never_ends_has_lost_its_result(outcome_of):
    outcome, why = outcome_of(never_ends_the_second_time)
    assert outcome == "lost"
    assert why.startswith("run again it has not ended after 2 s")


def test_a_command_that_cannot_go_on_has_lost_its_result(outcome_of):
    outcome, why = outcome_of(fails_the_second_time)
    assert outcome == "lost"
    assert why.startswith("run again it ends with 1")


def test_what_was_finished_and_is_made_again_is_lost(outcome_of):
    assert outcome_of(makes_all_again) == ("same", "")
    outcome, why = outcome_of(makes_all_again, finished=inode_of_first)
    assert outcome == "lost"
    assert why.endswith("made again: first.txt")


def test_a_command_that_is_different_without_a_kill_is_refused(outcome_of):
    def tells_the_time(arguments: list[str]) -> None:
        work()
        RESULT.write_text(str(time.monotonic()))

    with pytest.raises(RuntimeError, match=r"differs without a kill: out/result\.txt"):
        outcome_of(tells_the_time)


def test_weights_that_are_not_finite_differ_also_where_nothing_repeats():
    weights = [{"weights": torch.tensor([value])} for value in (1.0, 2.0, float("nan"))]
    one, other, broken = (_plain(w, same=False) for w in weights)
    assert one == other != broken


def test_there_are_two_hundred_kills_spread_over_the_duration():
    chosen = all_kills(kinds())
    assert len(chosen) >= 200
    counts = Counter(kill.kind.command for kill in chosen)
    assert counts.keys() == {"convert", "preprocess", "train", "uncertainty"}
    with_workers = sum("workers" in k.kind.name for k in chosen if k.kind.command == "train")
    assert with_workers == counts["train"] / 4
    for kind in kinds():
        moments = sorted(kill.moment for kill in chosen if kill.kind == kind)
        assert all(part <= kind.kills * m <= part + 1 for part, m in enumerate(moments))
    assert {kill.signal for kill in chosen} == {signal.SIGKILL, signal.SIGTERM}


@pytest.mark.slow
def test_killed_commands_give_in_the_end_what_they_give_uninterrupted(run_on_phantom) -> None:
    run_on_phantom("kills", "--every", "17")


def test_the_page_and_the_committed_outcomes_agree() -> None:
    rows = long_csv.read("kills")
    assert [(row["command"], row["kind"], row["number"]) for row in rows] == [
        (kill.kind.command, kill.kind.name, str(kill.number)) for kill in all_kills(kinds())
    ]
    assert {row["outcome"] for row in rows} <= set(OUTCOMES)
    page = PAGE.read_text(encoding="utf-8")
    for name, content in kill_tables(rows).items():
        assert f"<!-- {name} -->\n\n{content}\n\n<!-- end of {name} -->" in page
