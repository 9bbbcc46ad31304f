"""Pictures of the results, from the CSVs of benchmarks/results alone.

python -m benchmarks.accuracy.pictures             those that pages show
python -m benchmarks.accuracy.pictures FOLDER      all: cases and curves of each group, too
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import long_csv
from benchmarks.accuracy.by_patient import by_method, patients_of_methods
from benchmarks.accuracy.confirm import CURVE_SEEDS, RECIPE, SAME_COST, curve_runs, long_runs
from benchmarks.accuracy.groups import BASELINE, GROUPS, methods_of, metrics_by_run
from benchmarks.accuracy.methods import DATASETS
from benchmarks.accuracy.over_time import TERMS, Times, read_times
from benchmarks.accuracy.tables import BRANCHES, PAGE, titles_of
from benchmarks.long_csv import Row
from nnunetv2_spmc.common.colors import METHOD_COLORS, method_color
from nnunetv2_spmc.common.whole_file import whole_file
from nnunetv2_spmc.evaluation.box_plot import draw_box_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINES = ("-", "--", ":")
STYLES = dict(zip(TERMS, ("-", ":", "-.", "--"), strict=True))
BY_PATIENT = ("control", "control_longer", "view_control_boxes", "spmc", "all_labels")


def new_figure(width: float, height: float) -> Figure:
    """Return a figure that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure whole or not at all."""
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)


def draw_patients(dice: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Draw the Dice of each patient, means over seeds: the control's worst patient first."""
    figure = new_figure(7, 3.5)
    axes = figure.subplots()
    patients = sorted(dice["control"], key=lambda patient: dice["control"][patient])
    for number, (name, marker) in enumerate(zip(BY_PATIENT, "ovs^_", strict=True)):
        values = [dice[name][patient] for patient in patients]
        color = "black" if name == "all_labels" else method_color(number)
        axes.plot(range(len(patients)), values, marker, label=name, color=color)
    axes.set_xticks(range(len(patients)), [p.removeprefix("patient") for p in patients])
    axes.set(xlabel="test patient of ACDC", ylabel="Dice, mean over classes and seeds")
    axes.grid(axis="y", alpha=0.3)
    axes.legend()
    save(figure, path)


def draw_curves(runs: Sequence[Row], curves: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Draw nnU-Net's Dice on validation patches: a color per method, a line per seed, smoothed."""
    figure = new_figure(7, 5)
    axes = figure.subplots()
    names = sorted({row["name"] for row in runs})
    numbers = {name: number for number, name in enumerate(names)}
    for row in runs:
        epochs = curves[row["run"]]
        dice = smoothed([float(epoch["mean_fg_dice"]) for epoch in epochs])
        steps = [int(epoch["epoch"]) + 1 for epoch in epochs]
        number = numbers[row["name"]]
        style = LINES[number // len(METHOD_COLORS) % len(LINES)]  # more methods than colours
        axes.plot(steps, dice, style, color=method_color(number), label=row["name"])
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    axes.legend(handles.values(), handles.keys())
    # with fold all the validation cases are the training cases
    cases = "training" if DATASETS[runs[0]["dataset"]].fold == "all" else "validation"
    axes.set(xlabel="epoch", ylabel=f"Dice on patches of {cases} cases")
    save(figure, path)


def smoothed(values: Sequence[float], kept: float = 0.7) -> list[float]:
    """Return the exponential moving average."""
    return list(itertools.accumulate(values, lambda mean, new: kept * mean + (1 - kept) * new))


def draw_over_time(runs: Sequence[Row], times: Sequence[Row], path: Path) -> None:
    """Draw the test Dice over minutes of training."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for number, row in enumerate(runs):
        measured = [at for at in times if at["run"] == row["run"]]
        if measured:
            minutes = [float(at["seconds"]) / 60 for at in measured]
            dice = [float(at["test_dice"]) for at in measured]
            color = method_color(number)
            axes.plot(
                minutes, dice, marker="o", color=color, label=f"{row['name']}, seed {row['seed']}"
            )
    axes.set(xlabel="minutes of training", ylabel="Dice of the test cases")
    axes.legend()
    save(figure, path)


def draw_pseudo_labels(times: Times, titles: Mapping[str, str], path: Path) -> None:
    """Draw Dice, disagreement, gain from a teacher, and gradients over epochs."""
    from matplotlib.lines import Line2D

    figure = new_figure(11, 8)
    (dice, differ), (gain, gradients) = figure.subplots(2, 2)
    for i, (run, title) in enumerate(titles.items()):
        epochs, values = list(times[run]), list(times[run].values())

        def of(key: str, factor: float = 1, values: list[dict[str, float]] = values) -> list[float]:
            return [factor * at[key] for at in values]

        color = method_color(i)
        dice.plot(epochs, of("dice_main"), color=color, label=title)
        dice.plot(epochs, of("dice_auxiliary"), "--", color=color)
        differ.plot(epochs, of("different", 100), color=color)
        differ.plot(epochs, of("taught", 100), "--", color=color)
        teacher, student = (of(f"taught_{who}_right", 100) for who in ("teacher", "student"))
        better = [t - s for t, s in zip(teacher, student, strict=True)]
        gain.plot(epochs, better, color=color)
        for term, style in STYLES.items():
            norms = of(f"gradient_{term}")
            if any(norms):
                gradients.plot(epochs, norms, style, color=color)
    dice.set(title="Dice of pseudo-labels (dashed: auxiliary branch)", xlabel="epoch")
    differ.set(title="% of voxels: branches differ (dashed: SPLAT teaches)", xlabel="epoch")
    gain.set(title="teacher right minus student right, % of taught voxels", xlabel="epoch")
    gradients.set(title="norm of the gradient, weighted", xlabel="epoch", yscale="log")
    gain.axhline(0, color="grey", linewidth=0.8)
    dice.legend()
    lines = [Line2D([], [], color="black", linestyle=style) for style in STYLES.values()]  # type: ignore[arg-type]
    figure.legend(lines, TERMS, loc="outside lower right", ncols=len(TERMS))
    save(figure, path)


def draw_confirmation(rows: Sequence[Row], times: Sequence[Row], path: Path) -> None:
    """Draw the test Dice over the number of labeled patients, and over iterations to convergence.

    Args:
        rows: of runs.csv.
        times: the rows of over_time.csv.
        path: of the picture.
    """
    shown = {RECIPE: "SPMC", "turns_view_control": "view control", BASELINE: "control"}
    number = {name: position for position, name in enumerate(shown)}
    figure = new_figure(10, 4)
    labels, iterations = figure.subplots(1, 2)
    curve = curve_runs(rows)
    for seed, line in zip(CURVE_SEEDS, LINES, strict=False):
        trained = [row for by_seed in curve.values() for row in by_seed.get(seed, [])]
        for name in (RECIPE, *SAME_COST):
            kind, own = SAME_COST.get(name, name), [row for row in trained if row["name"] == name]
            labels.plot(
                [int(row["labels"]) for row in own],
                [float(row["mean_dice"]) for row in own],
                line,
                marker="o",
                color=method_color(number[kind]),
                label=f"{shown[kind]}, seed {seed}",
            )
    labels.set_xticks([DATASETS[dataset].few for dataset in curve])
    labels.set(title="same minutes", xlabel="labeled patients of ACDC")
    for row in long_runs(rows):
        measured = [at for at in times if at["run"] == row["run"]]
        per_epoch = int(row["iterations"]) // int(row["epochs"])
        iterations.plot(
            [per_epoch * int(at["epochs"]) for at in measured],
            [float(at["test_dice"]) for at in measured],
            marker="o",
            color=method_color(number[row["name"]]),
        )
    iterations.set(title="7 labeled patients, to convergence, seed 4", xlabel="iterations")
    for axes in (labels, iterations):
        axes.set_ylabel("Dice of the test patients")
        axes.grid(axis="y", alpha=0.3)
    labels.legend()
    save(figure, path)


def draw_pages() -> None:
    """Draw the pictures that pages show."""
    rows = long_csv.read("runs")
    dice = by_method(GROUPS["acdc"].runs(rows), metrics_by_run())
    draw_patients(patients_of_methods(*dice), PAGE.with_suffix(".png"))
    times = read_times(long_csv.read("pseudo_labels"))
    draw_pseudo_labels(times, titles_of(list(times)), BRANCHES.with_suffix(".png"))
    draw_confirmation(rows, long_csv.read("over_time"), PAGE.with_name("confirmation.png"))


def draw_groups(folder: Path) -> None:
    """Draw every case, the curves, and Dice over time of each group into a folder of its name."""
    rows, metrics, times = long_csv.read("runs"), metrics_by_run(), long_csv.read("over_time")
    curves: dict[str, list[Row]] = {}
    for row in long_csv.read("curves"):
        curves.setdefault(row["run"], []).append(row)
    for name, group in GROUPS.items():
        runs, output = group.runs(rows), folder / name.replace(", ", "-").replace(" ", "-")
        output.mkdir(parents=True, exist_ok=True)
        draw_box_plot(methods_of(runs, metrics), output)
        draw_curves(runs, curves, output / "curves.png")
        if {row["run"] for row in runs} & {at["run"] for at in times}:
            draw_over_time(runs, times, output / "over_time.png")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        draw_groups(Path(sys.argv[1]))
    else:
        draw_pages()
