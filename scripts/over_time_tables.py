"""Tables and figures of single runs over time, for benchmark_tables.py.

over_time.csv comes from benchmark_accuracy.py --keep, pseudo_labels.csv and calibration.csv from
benchmark_pseudo_labels.py.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunetv2_spmc.common.whole_file import whole_file

Row = Mapping[str, str]
Runs = Mapping[tuple[str, str], Sequence[Row]]  # (method, seed) -> rows of a CSV
TERMS = {"supervised": "-", "cdps": ":", "cps": "-.", "splat": "--"}  # -> line style


def read_runs(folder: Path, rows: Sequence[Row], name: str) -> Runs:
    """Return the rows of the CSV of that name, of the runs that have it."""
    found = {}
    for row in sorted(rows, key=lambda row: row["folder"]):
        path = folder / row["folder"] / name
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                found[row["method"], row["seed"]] = list(csv.DictReader(file))
    return found


def over_time_table(times: Runs) -> str:
    """Return the test Dice of every run at its times."""
    lines = ["| method | seed | test Dice (minutes of training) |", "|---|---|---|"]
    for (method, seed), measured in times.items():
        cells = (
            f"{float(at['test_dice']):.3f} ({float(at['seconds']) / 60:.1f})" for at in measured
        )
        lines.append(f"| {method} | {seed} | {', '.join(cells)} |")
    return "\n".join(lines)


def draw_over_time(times: Runs, path: Path) -> None:
    """Draw the test Dice over minutes of training."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    methods = sorted({method for method, _ in times})
    for (method, seed), measured in times.items():
        minutes = [float(at["seconds"]) / 60 for at in measured]
        dice = [float(at["test_dice"]) for at in measured]
        style = {"color": f"C{methods.index(method) % 10}", "label": f"{method}, seed {seed}"}
        axes.plot(minutes, dice, marker="o", **style)
    axes.set(xlabel="minutes of training", ylabel="Dice of the test cases")
    axes.legend()
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def pseudo_label_table(runs: Runs) -> str:
    """Return the Dice of the pseudo-labels, and who is right where it matters, over epochs."""
    header = ["run", "epochs", "Dice main, auxiliary", "wrong (confident ones of these)"]
    header += ["SPLAT teaches: student, teacher right", "branches differ: main, auxiliary right"]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for (method, seed), rows in runs.items():
        for row in rows:
            cells = [
                f"{method}, seed {seed}",
                row["epochs"],
                f"{float(row['dice_main']):.3f}, {float(row['dice_auxiliary']):.3f}",
                f"{percent(row['wrong'], 2)} ({percent(row['wrong_confident'])})",
                f"{percent(row['taught'], 2)}: {percent(row['taught_student_right'])}, "
                f"{percent(row['taught_teacher_right'])}",
                f"{percent(row['different'], 2)}: {percent(row['different_main_right'])}, "
                f"{percent(row['different_auxiliary_right'])}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def gradient_table(runs: Runs) -> str:
    """Return the weighted gradient of every term over epochs."""
    header = ["run", "epochs", "lambda(t)", *TERMS]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for (method, seed), rows in runs.items():
        for row in rows:
            norms = (f"{float(row[f'gradient_{term}']):.2g}" for term in TERMS)
            cells = [f"{method}, seed {seed}", row["epochs"], f"{float(row['lambda']):.3f}", *norms]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def calibration_table(runs: Runs) -> str:
    """Return how many voxels of a confidence are right, and how many have it."""
    bins = sorted({row["confidence_above"] for rows in runs.values() for row in rows}, key=float)
    names = (f"{method}, seed {seed}: right (of all voxels)" for method, seed in runs)
    header = ["confidence", *names]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for low, high in zip(bins, [*bins[1:], "1"], strict=True):
        cells = [f"{float(low):g} to {float(high):g}"]
        for rows in runs.values():
            found = {row["confidence_above"]: row for row in rows}.get(low)
            there = found and f"{percent(found['right'], 1)} ({percent(found['share'], 1)})"
            cells.append(there or "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def percent(share: str, digits: int = 0) -> str:
    """Return a share as a percentage."""
    return f"{100 * float(share):.{digits}f} %"


def column(rows: Sequence[Row], key: str, factor: float = 1) -> list[float]:
    """Return the numbers of a column."""
    return [factor * float(row[key]) for row in rows]


def draw_pseudo_labels(runs: Runs, path: Path) -> None:
    """Draw Dice, disagreement, gain from a teacher, and gradients over epochs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(11, 8), layout="constrained")
    FigureCanvasAgg(figure)
    (dice, differ), (gain, gradients) = figure.subplots(2, 2)
    for i, ((method, seed), rows) in enumerate(runs.items()):
        epochs = column(rows, "epochs")
        color = f"C{i}"
        dice.plot(epochs, column(rows, "dice_main"), color=color, label=f"{method}, seed {seed}")
        dice.plot(epochs, column(rows, "dice_auxiliary"), "--", color=color)
        differ.plot(epochs, column(rows, "different", 100), color=color)
        differ.plot(epochs, column(rows, "taught", 100), "--", color=color)
        teacher, student = (
            column(rows, f"taught_{who}_right", 100) for who in ("teacher", "student")
        )
        better = [t - s for t, s in zip(teacher, student, strict=True)]
        gain.plot(epochs, better, color=color)
        for term, style in TERMS.items():
            norms = column(rows, f"gradient_{term}")
            if any(norms):
                gradients.plot(epochs, norms, style, color=color)
    dice.set(title="Dice of pseudo-labels (dashed: auxiliary branch)", xlabel="epoch")
    differ.set(title="% of voxels: branches differ (dashed: SPLAT teaches)", xlabel="epoch")
    gain.set(title="teacher right minus student right, % of taught voxels", xlabel="epoch")
    gradients.set(title="norm of the gradient, weighted", xlabel="epoch", yscale="log")
    gain.axhline(0, color="grey", linewidth=0.8)
    dice.legend()
    lines = [Line2D([], [], color="black", linestyle=style) for style in TERMS.values()]
    figure.legend(lines, TERMS, loc="outside lower right", ncols=len(TERMS))
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
