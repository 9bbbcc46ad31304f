"""Tables of the results, from the CSVs of benchmarks/results alone.

python -m benchmarks.accuracy.tables              fills in README.md, docs/benchmarks.md, reports
python -m benchmarks.accuracy.tables --details    prints all: classes, differences, commands
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

from benchmarks import long_csv
from benchmarks.accuracy.by_patient import by_method, differences_table, shares_table
from benchmarks.accuracy.confirm import confirmation_tables, summary_table
from benchmarks.accuracy.groups import (
    GROUPS,
    comparison_of,
    metrics_by_run,
    overall,
    table,
)
from benchmarks.accuracy.methods import Run
from benchmarks.accuracy.over_time import (
    calibration_table,
    gradient_table,
    over_time_table,
    pseudo_label_table,
    read_calibration,
    read_times,
)
from benchmarks.long_csv import RESULTS, Row
from benchmarks.performance.tables import DOCS, fill

PAGE = DOCS / "benchmarks.md"
README = DOCS.parent / "README.md"
BRANCHES = RESULTS / "2026-11-24-what-the-branches-teach.md"
PARTS = RESULTS / "2026-11-28-parts-and-choices.md"
SEARCH = RESULTS / "2026-11-29-search-for-a-default.md"
CONFIRMATION = RESULTS / "2026-11-29-confirmation.md"
REFERENCES = ("control", "spmc", "view_control_boxes", "view_control_boxes_turns")  # of the search
CHOICES = ("spmc", "noCDPS", "all_voxels", "paste")  # what was chosen between, newest first


def choice_table(rows: Sequence[Row]) -> str:
    """Return the validation Dice of what the default was chosen from."""
    lines = ["| method | validation Dice of seed 1, 2, 3 | settings |", "|---|---|---|"]
    for name in CHOICES:
        own = [
            r for r in rows if r["name"] == name and (r["dataset"], r["epochs"]) == ("acdc", "30")
        ]
        own.sort(key=lambda row: int(row["seed"]))
        dice = ", ".join(row["validation_dice"] for row in own)
        settings = own[0]["settings"] and f"`{own[0]['settings']}`"
        lines.append(f"| {name} | {dice} | {settings or own[0]['method']} |")
    return "\n".join(lines)


def search_table(rows: Sequence[Row], dataset: str, epochs: int) -> str:
    """Return the validation Dice of the search's runs, and of older runs of so many epochs."""
    own: dict[str, list[Row]] = {}
    for row in rows:
        is_searched = row["stage"] == "search" and row["name"] not in CHOICES[2:]
        is_older = row["stage"] == "older" and row["name"] in REFERENCES
        few = row["dataset"] == dataset and not row["chosen_by"] and not row["pretrained"]
        if few and (is_searched or (is_older and row["epochs"] == str(epochs))):
            own.setdefault(row["name"], []).append(row)
    means = {name: validation_mean(found) for name, found in own.items()}
    lines = [
        "| method | epochs | seeds | validation Dice | mean | settings |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(own, key=lambda name: -means[name]):
        found = own[name]
        settings = found[0]["settings"] and f" `{found[0]['settings']}`"
        method = f"{found[0]['method']}{settings}"
        cells = [name, found[0]["epochs"], *validation_cells(found), method]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def validation_mean(rows: Sequence[Row]) -> float:
    """Return the mean validation Dice over the seeds of a method."""
    return statistics.mean(float(row["validation_dice"]) for row in rows)


def validation_cells(rows: Sequence[Row]) -> tuple[str, str, str]:
    """Return the seeds of a method, their validation Dice and its mean."""
    ordered = sorted(rows, key=lambda row: int(row["seed"]))
    seeds, dice = (", ".join(row[key] for row in ordered) for key in ("seed", "validation_dice"))
    return seeds, dice, f"{validation_mean(rows):.3f}"


def warm_start_table(rows: Sequence[Row]) -> str:
    """Return the validation Dice of trainings that start from the control's weights."""
    lines = [
        "| dataset | method | epochs | seeds | validation Dice | mean |",
        "|---|---|---|---|---|---|",
    ]
    found = [row for row in rows if row["pretrained"] and row["validation_dice"]]
    for dataset, name in sorted({(row["dataset"], row["name"]) for row in found}):
        own = [row for row in found if (row["dataset"], row["name"]) == (dataset, name)]
        cells = [dataset, name, own[0]["epochs"], *validation_cells(own)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def search_tables() -> dict[str, str]:
    """Return what stands between the markers of the report on the search."""
    rows = long_csv.read("runs")
    return {
        "runs.csv: hippocampus": search_table(rows, "hippocampus", 20),
        "runs.csv: acdc": search_table(rows, "acdc", 30),
        "runs.csv: warm start": warm_start_table(rows),
    }


def group_tables(names: Sequence[str]) -> dict[str, str]:
    """Return the tables of groups under the names of their markers."""
    rows, metrics = long_csv.read("runs"), metrics_by_run()
    found = {}
    for name in names:
        runs = GROUPS[name].runs(rows)
        found[f"runs.csv: {name}"] = table(runs, overall(comparison_of(runs, metrics)))
    return found


def page_tables() -> dict[str, str]:
    """Return what stands between the markers of docs/benchmarks.md."""
    rows = long_csv.read("runs")
    metrics = metrics_by_run()
    dice = by_method(GROUPS["acdc"].runs(rows), metrics)
    older = (row for row in rows if row["stage"] != "confirm")  # these have a report of their own
    ordered = sorted(older, key=lambda row: row["run"])
    return group_tables(("acdc", "la")) | {
        "runs.csv: in short": summary_table(rows, metrics),
        "metrics.csv: by patient": f"{differences_table(*dice)}\n\n{shares_table(*dice)}",
        "over_time.csv": over_time_table(ordered, long_csv.read("over_time")),
    }


def readme_tables() -> dict[str, str]:
    """Return the table of the README: a row for each dataset whose confirmation is complete."""
    return {"runs.csv: summary": summary_table(long_csv.read("runs"), metrics_by_run())}


def parts_tables() -> dict[str, str]:
    """Return what stands between the markers of the report on parts and choices."""
    tables = group_tables([name for name in GROUPS if name not in ("acdc", "la")])
    return tables | {"runs.csv: choice": choice_table(long_csv.read("runs"))}


def titles_of(runs: Sequence[str]) -> dict[str, str]:
    """Return what runs are called: method and seed."""
    named = {row["run"]: f"{row['name']}, seed {row['seed']}" for row in long_csv.read("runs")}
    return {run: named[run] for run in sorted(runs)}


def branches_tables() -> dict[str, str]:
    """Return what stands between the markers of the report on the branches."""
    rows = long_csv.read("pseudo_labels")
    times, bins = read_times(rows), read_calibration(rows)
    titles = titles_of(list(times))
    return {
        "pseudo_labels.csv: voxels": pseudo_label_table(times, titles),
        "pseudo_labels.csv: gradients": gradient_table(times, titles),
        "pseudo_labels.csv: calibration": calibration_table(bins, titles),
    }


def details() -> str:
    """Return the tables of all groups, with classes, differences and commands."""
    rows, metrics = long_csv.read("runs"), metrics_by_run()
    parts = []
    for name, group in GROUPS.items():
        runs = group.runs(rows)
        comparison = comparison_of(runs, metrics)
        parts += [f"## {name}", table(runs, overall(comparison)), comparison.means_table()]
        parts.append(
            f"Against the control, patient by patient:\n\n{comparison.differences_table()}"
        )
        asked = [Run.of_row({**row, "name": original(row, rows)}) for row in runs]
        parts += [
            f"    nnUNet_spmc_settings='{run.environment()}' {run.commands('cpu')['train']}"
            for run in sorted(asked, key=lambda run: run.run)
        ]
    return "\n\n".join(parts)


def original(row: Row, rows: Sequence[Row]) -> str:
    """Return the name of a run in runs.csv, which a group may have changed."""
    return next(other["name"] for other in rows if other["run"] == row["run"])


PAGES = {
    README: readme_tables,
    PAGE: page_tables,
    BRANCHES: branches_tables,
    PARTS: parts_tables,
    SEARCH: search_tables,
    CONFIRMATION: confirmation_tables,
}


def main() -> None:
    """Fill in the pages or print the details."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--details", action="store_true", help="print all and change nothing")
    if parser.parse_args().details:
        print(details())
        return
    for page, tables in PAGES.items():
        fill(page, tables())


if __name__ == "__main__":
    main()
