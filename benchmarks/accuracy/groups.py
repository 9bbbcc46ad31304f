"""Which runs compare with each other, and what comes out of the comparison."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import long_csv
from benchmarks.accuracy.by_patient import recorded_patients
from benchmarks.long_csv import Row
from nnunetv2_spmc.evaluation.comparison import MEAN, SeedMeans
from nnunetv2_spmc.evaluation.comparison_report import Comparison, compare
from nnunetv2_spmc.evaluation.methods import Method, read_methods
from nnunetv2_spmc.evaluation.metrics_csv import METRICS_COLUMNS, METRICS_CSV
from nnunetv2_spmc.evaluation.text_table import mean_and_std_text

BASELINE, UPPER_BOUND = "control", "all_labels"
CONFIRMING = ("4", "5", "6")  # seeds, which have a report of their own; confirm.py
LONGER = {"control_longer": 4}  # trained so many times as long as the others of its group
MAIN = (BASELINE, UPPER_BOUND, "spmc", "spmc_paper", "cps", "noUnlabeled")
COSTLY = ("control_longer", "control_2x")
VIEWS = ("view_control_boxes", "view_control_boxes_turns", "control_again")
PARTS = (
    *(BASELINE, UPPER_BOUND, "spmc", "spmc_paper"),
    *("all_voxels", "no_paste", "same_view", "noNoise", "noCDPS", "noSPLAT", "cpsOnly"),
    *("ordinaryToLow", "highToOrdinary", "separateEncoders", "paper_noNoise"),
    *("tau_0.6", "tau_0.8", "beta_0.3", "beta_0.7"),
)
SHOWN = {"dice": "Dice", "jaccard": "Jaccard", "hd95_mm": "HD95 mm", "asd_mm": "ASD mm"}
RANKED = ("annotate_difficulty", "annotate_entropy", "annotate_random")


@dataclass(frozen=True)
class Group:
    """Runs of the small plans on a dataset, by their length and their names."""

    dataset: str
    epochs: int
    names: tuple[str, ...]

    def runs(self, rows: Sequence[Row]) -> list[dict[str, str]]:
        """Return its rows of runs.csv; draws of random patients have one name."""
        found = []
        for row in rows:
            name = row["name"].rstrip("0123456789") if row["chosen_by"] else row["name"]
            epochs = self.epochs * LONGER.get(name, 1)
            same = row["dataset"] == self.dataset and int(row["epochs"]) == epochs
            small = "_small" in row["configuration"]
            is_older = row["seed"] not in CONFIRMING
            if same and small and is_older and name in self.names and row["mean_dice"]:
                found.append({**row, "name": name})
        return found


GROUPS = {
    "acdc": Group("acdc", 30, (*MAIN, *COSTLY, *VIEWS)),
    "la": Group("la", 60, MAIN),
    "la, 20 epochs": Group("la", 20, (*MAIN, *COSTLY)),
    "parts": Group("acdc", 30, PARTS),
    "parts, la, 20 epochs": Group("la", 20, PARTS),
    "parts, la, 5 epochs": Group("la", 5, PARTS),
    "parts, acdc, 15 epochs": Group("acdc", 15, PARTS),
    "ranking": Group("acdc", 30, (BASELINE, UPPER_BOUND, *RANKED)),
}


def metrics_by_run(folder: Path = long_csv.RESULTS) -> dict[str, list[dict[str, str]]]:
    """Return run -> its rows of metrics.csv."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in long_csv.read("metrics", folder):
        found.setdefault(row["run"], []).append(row)
    return found


def methods_of(runs: Sequence[Row], metrics: Mapping[str, Sequence[Row]]) -> list[Method]:
    """Return the methods of a group with their seeds, the control first.

    Raises:
        DataError: the runs do not have the same cases, classes and references.
    """
    names = sorted({row["name"] for row in runs}, key=lambda name: (name != BASELINE, name))
    with tempfile.TemporaryDirectory() as folder:
        for row in runs:
            path = Path(folder, row["run"], METRICS_CSV)
            path.parent.mkdir()
            own = ({c: measured[c] for c in METRICS_COLUMNS} for measured in metrics[row["run"]])
            long_csv.write_file(path, METRICS_COLUMNS, own)
        return read_methods(
            [
                f"{name}={Path(folder, row['run'])}"
                for name in names
                for row in runs
                if row["name"] == name
            ]
        )


def comparison_of(runs: Sequence[Row], metrics: Mapping[str, Sequence[Row]]) -> Comparison:
    """Compare the methods of a group with the control."""
    patients = recorded_patients(row for run in runs for row in metrics[run["run"]])
    return compare(methods_of(runs, metrics), patients)


def overall(comparison: Comparison) -> dict[str, SeedMeans]:
    """Return method -> its mean over classes, or its only class."""
    labels = {means.label for means in comparison.means}
    label = MEAN if MEAN in labels else labels.pop()
    return {means.method: means for means in comparison.means if means.label == label}


def gap_closed(means: Mapping[str, SeedMeans], method: str) -> float | None:
    """Return the share of the gap in Dice, or None if the group lacks one of its ends.

    It is (method - control) / (all labels - control), of mean Dice over seeds.
    """
    if not {BASELINE, UPPER_BOUND} <= means.keys():
        return None
    control, best, reached = (
        means[name].metrics["dice"].mean for name in (BASELINE, UPPER_BOUND, method)
    )
    return None if best <= control else (reached - control) / (best - control)


def table(runs: Sequence[Row], means: Mapping[str, SeedMeans]) -> str:
    """Return the markdown table of a group, best Dice first."""
    validated = any(row["validation_dice"] for row in runs)  # fold all has no validation cases
    header = ["method", "runs", *SHOWN.values(), "failures", "gap closed"]
    header += ["validation Dice"] * validated + ["s per run"]
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for method, mean in sorted(means.items(), key=lambda item: -item[1].metrics["dice"].mean):
        own = [row for row in runs if row["name"] == method]
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
