"""Tables of single runs over time: test Dice, and what the branches have to teach each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.long_csv import Row

TERMS = ("supervised", "cdps", "cps", "splat")
Measures = Mapping[str, float]  # of pseudo_labels.csv
Times = dict[str, dict[int, dict[str, float]]]  # run -> epochs -> measures


def over_time_table(runs: Sequence[Row], times: Sequence[Row]) -> str:
    """Return the test Dice of every run at its times.

    Args:
        runs: rows of runs.csv.
        times: the rows of over_time.csv.
    """
    lines = ["| dataset | method | seed | test Dice (minutes of training) |", "|---|---|---|---|"]
    for row in runs:
        measured = [at for at in times if at["run"] == row["run"]]
        cells = (
            f"{float(at['test_dice']):.3f} ({float(at['seconds']) / 60:.1f})" for at in measured
        )
        if measured:
            which = f"{row['dataset']} | {row['name']} | {row['seed']}"
            lines.append(f"| {which} | {', '.join(cells)} |")
    return "\n".join(lines)


def read_times(rows: Sequence[Row]) -> Times:
    """Return the measures of pseudo_labels.csv over all voxels, by run and epochs."""
    found: Times = {}
    for row in rows:
        if not row["confidence_above"]:
            at = found.setdefault(row["run"], {}).setdefault(int(row["epochs"]), {})
            at[row["measure"]] = float(row["value"])
    return found


def read_calibration(rows: Sequence[Row]) -> dict[str, dict[float, dict[str, float]]]:
    """Return run -> lower edge of a bin of confidence -> its measures."""
    found: dict[str, dict[float, dict[str, float]]] = {}
    for row in rows:
        if row["confidence_above"]:
            low = float(row["confidence_above"])
            at = found.setdefault(row["run"], {}).setdefault(low, {})
            at[row["measure"]] = float(row["value"])
    return found


def pseudo_label_table(times: Times, titles: Mapping[str, str]) -> str:
    """Return the Dice of the pseudo-labels, and who is right where it matters, over epochs.

    Args:
        times: see `read_times`.
        titles: run -> what it is called.
    """
    header = ["run", "epochs", "Dice main, auxiliary", "wrong (confident ones of these)"]
    header += ["SPLAT teaches: student, teacher right", "branches differ: main, auxiliary right"]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for run, title in titles.items():
        for epochs, at in times[run].items():
            cells = [
                title,
                str(epochs),
                f"{at['dice_main']:.3f}, {at['dice_auxiliary']:.3f}",
                f"{percent(at['wrong'], 2)} ({percent(at['wrong_confident'])})",
                f"{percent(at['taught'], 2)}: {percent(at['taught_student_right'])}, "
                f"{percent(at['taught_teacher_right'])}",
                f"{percent(at['different'], 2)}: {percent(at['different_main_right'])}, "
                f"{percent(at['different_auxiliary_right'])}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def gradient_table(times: Times, titles: Mapping[str, str]) -> str:
    """Return the weighted gradient of every term over epochs; arguments as above."""
    header = ["run", "epochs", "lambda(t)", *TERMS]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for run, title in titles.items():
        for epochs, at in times[run].items():
            norms = (f"{at[f'gradient_{term}']:.2g}" for term in TERMS)
            cells = [title, str(epochs), f"{at['lambda']:.3f}", *norms]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def calibration_table(
    bins: Mapping[str, Mapping[float, Measures]], titles: Mapping[str, str]
) -> str:
    """Return how many voxels of a confidence are right, and how many have it."""
    edges = sorted({low for of_run in bins.values() for low in of_run})
    names = (f"{title}: right (of all voxels)" for title in titles.values())
    header = ["confidence", *names]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for low, high in zip(edges, [*edges[1:], 1.0], strict=True):
        cells = [f"{low:g} to {high:g}"]
        for run in titles:
            at = bins[run].get(low)
            cells.append(f"{percent(at['right'], 1)} ({percent(at['share'], 1)})" if at else "-")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def percent(share: float, digits: int = 0) -> str:
    """Return a share as a percentage."""
    return f"{100 * share:.{digits}f} %"
