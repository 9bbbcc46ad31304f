"""Tables and figures of docs/benchmarks from the CSVs that benchmark_accuracy.py wrote.

    python scripts/benchmark_tables.py docs/benchmarks

Reads runs.csv and, per run, metrics.csv and curves.csv; writes tables.md and, per group of runs
that compare (dataset, plans, length), comparison.csv, comparison.png and curves.png.

Share of the gap closed = (method - control) / (all_labels - control), of mean Dice over seeds.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunetv2_spmc.evaluation.box_plot import draw_box_plot
from nnunetv2_spmc.evaluation.comparison import MEAN, SeedMeans
from nnunetv2_spmc.evaluation.comparison_report import Comparison, compare
from nnunetv2_spmc.evaluation.methods import read_methods
from nnunetv2_spmc.evaluation.text_table import mean_and_std_text
from nnunetv2_spmc.evaluation.whole_file import whole_file

Row = Mapping[str, str]
BASELINE, UPPER_BOUND = "control", "all_labels"
SHOWN = {"dice": "Dice", "jaccard": "Jaccard", "hd95_mm": "HD95 mm", "asd_mm": "ASD mm"}


def read_groups(folder: Path) -> dict[str, list[Row]]:
    """Return the runs that compare with each other, by a name made of what they share."""
    groups: dict[str, list[Row]] = {}
    with (folder / "runs.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            name = row["folder"].removesuffix(f"-{row['method']}-seed{row['seed']}")
            groups.setdefault(name, []).append(row)
    return groups


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
    header = ["method", "seeds", *SHOWN.values(), "failures", "gap closed", "s per run"]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for method, mean in sorted(means.items(), key=lambda item: -item[1].metrics["dice"].mean):
        seconds = statistics.median(float(r["seconds"]) for r in rows if r["method"] == method)
        share = gap_closed(means, method)
        cells = [
            method,
            str(mean.seeds),
            *(mean_and_std_text(*mean.metrics[metric][:2], metric) for metric in SHOWN),
            str(mean.failures),
            "-" if share is None else f"{100 * share:.0f} %",
            f"{seconds:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def commands(rows: Sequence[Row]) -> str:
    """Return what each run was started with."""
    return "\n".join(
        f"    nnUNet_spmc_settings='{row['settings']}' {row['train']}"
        for row in sorted(rows, key=lambda row: row["folder"])
    )


def draw_curves(folder: Path, rows: Sequence[Row], path: Path) -> None:
    """Draw the online pseudo Dice per epoch, one color per method, one line per seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    methods = sorted({row["method"] for row in rows})
    for row in rows:
        with (folder / row["folder"] / "curves.csv").open(encoding="utf-8", newline="") as file:
            epochs = list(csv.DictReader(file))
        color = f"C{methods.index(row['method']) % 10}"
        axes.plot(
            [float(epoch["epoch"]) for epoch in epochs],
            [float(epoch["mean_fg_dice"]) for epoch in epochs],
            color=color,
            label=row["method"],
        )
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(handles.values(), handles.keys())
    axes.set(xlabel="epoch", ylabel="Dice on validation patches")
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def main() -> None:
    folder = Path(sys.argv[1])
    parts = ["# Accuracy on real scans\n\nMade by `python scripts/benchmark_accuracy.py --table`."]
    for name, rows in sorted(read_groups(folder).items()):
        output = folder / name
        comparison = compare_runs(folder, rows, output)
        draw_curves(folder, rows, output / "curves.png")
        machines = ", ".join(sorted({row["machine"] for row in rows}))
        parts += [
            f"## {name}",
            table(rows, overall(comparison)),
            f"Machine: {machines}. {rows[0]['versions']}.",
            f"![cases]({name}/comparison.png)\n\n![curves]({name}/curves.png)",
        ]
        if comparison.differences:
            parts.append(
                f"Against the control, case by case:\n\n```\n{comparison.differences_table()}\n```"
            )
        parts.append(f"Trainings:\n\n{commands(rows)}")
    with whole_file(folder / "tables.md") as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(f"Written: {folder / 'tables.md'}")


if __name__ == "__main__":
    main()
