"""Bad inputs for every command: one in twelve of those that benchmarks/reliability makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import long_csv
from benchmarks.reliability.sandbox import VERDICTS, BadInput, verdict_on
from benchmarks.reliability.tables import PAGE, tables
from benchmarks.reliability.torture import GROUPS, all_inputs

REPOSITORY = Path(__file__).parents[2]
BAD = BadInput("a scan cut short", "rank", lambda here: (), names=("case_3",))
SENTENCE = "error: Case case_3 is truncated; get it again."


@pytest.mark.parametrize(
    ("status", "said", "leftovers", "verdict"),
    [
        (1, SENTENCE, [], "clear sentence"),
        (1, "error: a case is truncated.", [], "vague"),
        (1, f"Traceback (most recent call last):\n{SENTENCE}", [], "traceback"),
        (-11, "", [], "traceback"),
        (0, SENTENCE, [], "silent"),
        (-9, "", [], "hang"),
        (1, SENTENCE, [".writing-x"], "leftover"),
    ],
)
def test_a_verdict_of_each_kind(status, said, leftovers, verdict) -> None:
    assert verdict_on(BAD, status, said, leftovers)[0] == verdict


def test_what_may_go_on_has_to_name_it() -> None:
    may_go_on = BadInput("another format", "rank", BAD.make, ("x.mgz",), goes_on=True)
    assert verdict_on(may_go_on, 0, "left out: x.mgz", [])[0] == "clear sentence"
    assert verdict_on(may_go_on, 0, "done", [])[0] == "silent"


def test_there_are_hundreds_of_inputs_for_every_command_and_no_two_are_one() -> None:
    inputs = [(group, bad.command, bad.name) for group, bad in all_inputs()]
    assert len(set(inputs)) == len(inputs) >= 300
    files = (REPOSITORY / "nnunetv2_spmc" / "cli").glob("*.py")
    commands = {file.stem for file in files if "\ndef main(" in file.read_text("utf-8")}
    assert {command for _, command, _ in inputs} == commands | {"predict"}


@pytest.mark.slow
def test_no_bad_input_passes_in_silence_or_ends_in_a_traceback(run_on_phantom) -> None:
    run_on_phantom("torture", "--every", "12")


def test_the_page_and_the_committed_verdicts_agree() -> None:
    rows = long_csv.read("reliability")
    assert [row["group"] for row in rows] == [group for group, _ in all_inputs()]
    assert {row["group"] for row in rows} == set(GROUPS)
    assert {row["verdict"] for row in rows} <= set(VERDICTS)
    page = PAGE.read_text(encoding="utf-8")
    for name, content in tables(rows).items():
        assert f"<!-- {name} -->\n\n{content}\n\n<!-- end of {name} -->" in page
