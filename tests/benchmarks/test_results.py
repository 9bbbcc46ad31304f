"""The committed results: what would silently make their tables wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import long_csv
from benchmarks.accuracy import tables
from benchmarks.accuracy.groups import metrics_by_run
from benchmarks.accuracy.methods import STAGES, Run
from benchmarks.accuracy.queue import finished, read_queue
from benchmarks.performance.tables import filled

RUNS = long_csv.read("runs")
SCHEMA = "dataset method settings labels stage seed epochs iterations mean_dice validation_dice"


@pytest.mark.parametrize("name", long_csv.COLUMNS)
def test_files_have_their_columns_and_unique_keys(name: str) -> None:
    rows = long_csv.read(name)
    assert rows
    assert tuple(rows[0]) == long_csv.COLUMNS[name]
    keys = [tuple(row[column] for column in long_csv.KEYS[name]) for row in rows]
    assert len(set(keys)) == len(keys)


def test_the_first_columns_of_runs_are_those_that_later_work_writes_into() -> None:
    assert long_csv.COLUMNS["runs"][:11] == (*SCHEMA.split(), "seconds")


@pytest.mark.parametrize("name", ["metrics", "curves", "over_time", "pseudo_labels"])
def test_every_row_belongs_to_a_run(name: str) -> None:
    assert {row["run"] for row in long_csv.read(name)} <= {row["run"] for row in RUNS}


@pytest.mark.parametrize("row", RUNS, ids=lambda row: row["run"])
def test_a_row_of_runs_is_a_training_that_can_be_repeated(row: dict[str, str]) -> None:
    run = Run.of_row(row)  # its settings are those of its trainer, among all else
    assert run.run == row["run"]
    assert bool(row["mean_dice"]) == run.looks_at_test_cases
    resolved = run.resolved().flat()
    default = Run.of_row(row | {"settings": ""}).resolved().flat()
    settings = json.loads(row["settings"] or "{}")
    own = row["method"].partition("_")[0]  # without the ablation
    settings |= settings.pop(own, {})  # which stand under its name
    for key, value in settings.items():
        assert resolved[key] == value != default[key], "settings name what differs"


def test_a_name_means_the_same_training_in_all_rows() -> None:
    """Tables and shares put rows of a name together."""
    meanings: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    for row in RUNS:
        what = ("method", "settings", "labels", "chosen_by", "pretrained", "configuration")
        meanings.setdefault((row["dataset"], row["name"]), set()).add(tuple(row[w] for w in what))
    assert {name: found for name, found in meanings.items() if len(found) > 1} == {}


def test_mean_dice_is_that_of_the_metrics() -> None:
    metrics = metrics_by_run()
    assert {row["run"] for row in RUNS if row["mean_dice"]} == metrics.keys()
    for row in RUNS:
        if row["mean_dice"]:
            by_class: dict[str, list[float]] = {}
            for measured in metrics[row["run"]]:
                by_class.setdefault(measured["label"], []).append(float(measured["dice"]))
            means = [sum(dice) / len(dice) for dice in by_class.values()]
            assert float(row["mean_dice"]) == pytest.approx(sum(means) / len(means), abs=6e-5)


def test_all_runs_of_a_dataset_measured_the_same_patients() -> None:
    metrics = metrics_by_run()
    measured = [row for row in RUNS if row["mean_dice"]]  # a search leaves test cases alone
    for dataset in {row["dataset"] for row in measured}:
        runs = [metrics[row["run"]] for row in measured if row["dataset"] == dataset]
        assert len({frozenset((row["case"], row["unit"]) for row in rows) for rows in runs}) == 1


def test_the_queue_holds_nothing_that_is_done() -> None:
    assert not {run.run for run in read_queue()} & finished(long_csv.RESULTS)


def test_stages_are_explained() -> None:
    text = (long_csv.RESULTS.parent / "README.md").read_text(encoding="utf-8")
    assert all(f"`{stage}`" in text for stage in STAGES)
    assert all(f"`{column}`" in text for column in long_csv.COLUMNS["runs"])


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.stem)
def test_pages_show_what_the_files_hold(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name, content in tables.PAGES[page]().items():
        assert filled(text, name, content) == text, name
