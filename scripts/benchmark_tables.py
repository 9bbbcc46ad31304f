"""Tables and figures of docs/benchmarks from the CSVs that benchmark_accuracy.py wrote.

    python scripts/benchmark_tables.py docs/benchmarks

Reads runs.csv, validation.csv and, per run, metrics.csv, curves.csv and, where they are there,
over_time.csv, pseudo_labels.csv and calibration.csv; writes tables.md and, per group of runs that
compare (dataset, plans, length), comparison.csv, comparison.png, curves.png, over_time.png and
pseudo_labels.png; fills in the tables of docs/benchmarks.md.

Share of the gap closed = (method - control) / (all_labels - control), of mean Dice over seeds.
"""

from __future__ import annotations

import csv
import itertools
import math
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from accuracy_methods import ABLATIONS, ANNOTATE, VIEW_CONTROLS
from by_patient import differences_table, shares_table
from over_time_tables import (
    Row,
    calibration_table,
    draw_over_time,
    draw_pseudo_labels,
    gradient_table,
    over_time_table,
    pseudo_label_table,
    read_runs,
)
from performance_table import DOCS, filled

from nnunetv2_spmc.common.whole_file import whole_file
from nnunetv2_spmc.evaluation.box_plot import draw_box_plot
from nnunetv2_spmc.evaluation.comparison import MEAN, SeedMeans
from nnunetv2_spmc.evaluation.comparison_report import Comparison, compare
from nnunetv2_spmc.evaluation.methods import read_methods
from nnunetv2_spmc.evaluation.text_table import mean_and_std_text

PAGE = DOCS / "benchmarks.md"
BASELINE, UPPER_BOUND = "control", "all_labels"
SIDE_TABLES = {  # what is compared apart -> with which of the main methods
    "ranking": (BASELINE, UPPER_BOUND),
    "ablations": (BASELINE, UPPER_BOUND, "spmc", "spmc_paper"),
    "views": (BASELINE, "control_longer", UPPER_BOUND, "spmc"),
}
SHOWN = {"dice": "Dice", "jaccard": "Jaccard", "hd95_mm": "HD95 mm", "asd_mm": "ASD mm"}


def read_groups(folder: Path) -> dict[str, list[Row]]:
    """Return the runs that compare with each other, by a name made of what they share.

    What more labels are worth and what single parts are worth are comparisons of their own.
    """
    groups: dict[str, list[Row]] = {}
    with (folder / "runs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        name = row["folder"].removesuffix(f"-{row['method']}-seed{row['seed']}")
        if row["method"] in ABLATIONS:
            name += "-ablations"
        elif row["method"] in VIEW_CONTROLS:
            name += "-views"
        elif row["method"] in ANNOTATE:
            row["method"] = row["method"].rstrip("0123456789")  # draws are like seeds
            name += "-ranking"
        groups.setdefault(name, []).append(row)
    for name, compared in groups.items():
        main, _, side = name.rpartition("-")
        if side in SIDE_TABLES:
            others = groups.get(main, [])
            compared += [row for row in others if row["method"] in SIDE_TABLES[side]]
    # a method alone may be there for a table apart
    apart = {name.rpartition("-")[0] for name in groups if name.rpartition("-")[2] in SIDE_TABLES}
    return {
        name: rows
        for name, rows in groups.items()
        if name not in apart or len({row["method"] for row in rows}) > 1
    }


def iterations(name: str) -> float:
    """Return how long the trainings of a group are; nnU-Net's own length has no number."""
    length = re.search(r"-(\d+)x(\d+)", name)
    return int(length[1]) * int(length[2]) if length else math.inf


def compare_runs(folder: Path, rows: Sequence[Row], output: Path) -> Comparison:
    """Compare the methods of a group, the control first; write its CSV and box plot."""
    methods = sorted({row["method"] for row in rows}, key=lambda m: (m != BASELINE, m))
    runs = [
        f"{method}={folder / row['folder']}"
        for method in methods
        for row in rows
        if row["method"] == method
    ]
    found = read_methods(runs)
    comparison = compare(found)
    comparison.write_csv(output)
    draw_box_plot(found, output)
    return comparison


def overall(comparison: Comparison) -> dict[str, SeedMeans]:
    """Return method -> its mean over classes, or its only class."""
    labels = {means.label for means in comparison.means}
    label = MEAN if MEAN in labels else labels.pop()
    return {means.method: means for means in comparison.means if means.label == label}


def gap_closed(means: Mapping[str, SeedMeans], method: str) -> float | None:
    """Return the share of the gap in Dice, or None if the group lacks one of its ends."""
    if not {BASELINE, UPPER_BOUND} <= means.keys():
        return None
    control, best, reached = (
        means[name].metrics["dice"].mean for name in (BASELINE, UPPER_BOUND, method)
    )
    return None if best <= control else (reached - control) / (best - control)


def table(rows: Sequence[Row], means: Mapping[str, SeedMeans]) -> str:
    """Return the markdown table of a group, best Dice first."""
    validated = any(row["validation_dice"] for row in rows)  # fold all has no validation cases
    header = ["method", "runs", *SHOWN.values(), "failures", "gap closed"]
    header += ["validation Dice"] * validated + ["s per run"]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for method, mean in sorted(means.items(), key=lambda item: -item[1].metrics["dice"].mean):
        own = [row for row in rows if row["method"] == method]
        share = gap_closed(means, method)
        cells = [
            method,
            str(mean.seeds),
            *(mean_and_std_text(*mean.metrics[metric][:2], metric) for metric in SHOWN),
            str(mean.failures),
            "-" if share is None else f"{100 * share:.0f} %",
        ]
        if validated:
            cells.append(f"{statistics.mean(float(row['validation_dice']) for row in own):.3f}")
        cells.append(f"{statistics.median(float(row['seconds']) for row in own):.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def commands(rows: Sequence[Row]) -> str:
    """Return what each run was started with."""
    return "\n".join(
        f"    nnUNet_spmc_settings='{row['settings']}' {row['train']}"
        for row in sorted(rows, key=lambda row: row["folder"])
    )


def draw_curves(folder: Path, rows: Sequence[Row], path: Path) -> None:
    """Draw nnU-Net's Dice on validation patches: a color per method, a line per seed, smoothed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    methods = sorted({row["method"] for row in rows})
    for row in rows:
        with (folder / row["folder"] / "curves.csv").open(encoding="utf-8", newline="") as file:
            epochs = list(csv.DictReader(file))
        dice = smoothed([float(epoch["mean_fg_dice"]) for epoch in epochs])
        style = {"color": f"C{methods.index(row['method']) % 10}", "label": row["method"]}
        axes.plot([float(epoch["epoch"]) for epoch in epochs], dice, **style)
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(handles.values(), handles.keys())
    # with fold all the validation cases are the training cases
    cases = "training" if rows[0]["train"].split()[3] == "all" else "validation"
    axes.set(xlabel="epoch", ylabel=f"Dice on patches of {cases} cases")
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def smoothed(values: Sequence[float], kept: float = 0.7) -> list[float]:
    """Return the exponential moving average."""
    return list(itertools.accumulate(values, lambda mean, new: kept * mean + (1 - kept) * new))


def summary(name: str, rows: Sequence[Row], comparison: Comparison) -> str:
    """Return what the page shows of a group: table, machine, figures."""
    machines = ", ".join(sorted({row["machine"] for row in rows}))
    return (
        f"{table(rows, overall(comparison))}\n\n"
        f"`{name}` on {machines}; {rows[0]['versions']}.\n\n"
        f"![Dice of all test cases](benchmarks/{name}/comparison.png)\n\n"
        f"![Dice during training](benchmarks/{name}/curves.png)"
    )


def over_time(folder: Path, rows: Sequence[Row], output: Path) -> dict[str, str]:
    """Return what the page shows of runs whose checkpoints were kept; draw its figures."""
    texts = {}
    if times := read_runs(folder, rows, "over_time.csv"):
        draw_over_time(times, output / "over_time.png")
        figure = f"![Test Dice over time](benchmarks/{output.name}/over_time.png)"
        texts["time"] = f"{over_time_table(times)}\n\n`{output.name}`.\n\n{figure}"
    if measured := read_runs(folder, rows, "pseudo_labels.csv"):
        draw_pseudo_labels(measured, output / "pseudo_labels.png")
        calibration = calibration_table(read_runs(folder, rows, "calibration.csv"))
        texts["pseudo-labels"] = "\n\n".join(
            (
                pseudo_label_table(measured),
                gradient_table(measured),
                calibration,
                f"![Pseudo-labels over time](benchmarks/{output.name}/pseudo_labels.png)",
            )
        )
    return texts


def choice_table(folder: Path) -> str:
    """Return the table of what was tried on validation cases."""
    file = folder / "validation.csv"
    if not file.is_file():
        return "Nothing was tried."
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows.sort(key=lambda row: (row["dataset"], -float(row["validation_dice"])))
    lines = ["| dataset | method | seed | validation Dice | settings |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row[key] for key in ("dataset", "method", "seed", "validation_dice"))
        lines.append(f"| {' | '.join(cells)} | `{row['settings']}` |")
    return "\n".join(lines)


def main() -> None:
    folder = Path(sys.argv[1])
    details = ["# Accuracy on real scans: the details\n\nSee [benchmarks.md](../benchmarks.md)."]
    sections: dict[str, list[str]] = {}
    groups = read_groups(folder) if (folder / "runs.csv").is_file() else {}
    for name, rows in sorted(groups.items(), key=lambda group: -iterations(group[0])):
        side = name.rpartition("-")[2]
        section = side if side in SIDE_TABLES else rows[0]["dataset"]
        output = folder / name
        comparison = compare_runs(folder, rows, output)
        draw_curves(folder, rows, output / "curves.png")
        if side not in SIDE_TABLES:
            for kind, text in over_time(folder, rows, output).items():
                sections.setdefault(kind, []).append(text)
        sections.setdefault(section, []).append(summary(name, rows, comparison))
        if side == "views":
            sections[section] += [differences_table(folder, rows), shares_table(folder, rows)]
        details += [f"## {name}", f"```\n{comparison.means_table()}\n```"]
        if comparison.differences:
            differences = comparison.differences_table()
            details.append(f"Against the control, case by case:\n\n```\n{differences}\n```")
        details.append(f"Trainings:\n\n{commands(rows)}")
    with whole_file(folder / "tables.md") as temporary:
        temporary.write_text("\n\n".join(details) + "\n", encoding="utf-8")
    if folder.resolve() == PAGE.with_suffix(""):
        page = filled(PAGE.read_text(encoding="utf-8"), "validation.csv", choice_table(folder))
        for section, parts in sections.items():
            page = filled(page, f"runs.csv: {section}", "\n\n".join(parts))
        with whole_file(PAGE) as temporary:
            temporary.write_text(page, encoding="utf-8")
    print(f"Written: {folder / 'tables.md'}")


if __name__ == "__main__":
    main()
