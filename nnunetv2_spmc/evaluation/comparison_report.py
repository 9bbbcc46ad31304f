"""Tables and CSV of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_spmc.common.csv_files import write_csv
from nnunetv2_spmc.common.whole_file import made_folder
from nnunetv2_spmc.evaluation.case_metrics import METRICS
from nnunetv2_spmc.evaluation.comparison import Difference, SeedMeans, differences, seed_means
from nnunetv2_spmc.evaluation.methods import Method
from nnunetv2_spmc.evaluation.pairs import RESAMPLES
from nnunetv2_spmc.evaluation.patients import UNKNOWN, Patients
from nnunetv2_spmc.evaluation.text_table import TITLES, mean_and_std_text, number, text_table

COMPARISON_CSV = "comparison.csv"
SHOWN_DIFFERENCES = ("dice", "jaccard", "hd95_mm", "asd_mm")  # those in voxels are in the CSV


@dataclass(frozen=True)
class Comparison:
    """Means of all methods, and the differences of each to the first."""

    baseline: str
    means: list[SeedMeans]
    differences: list[Difference]
    patients: Patients

    def means_table(self) -> str:
        """Return mean +- standard deviation over seeds, classes together."""
        labels = list(dict.fromkeys(m.label for m in self.means))
        rows = [
            [
                m.label,
                m.method,
                str(m.seeds),
                *(mean_and_std_text(*m.metrics[metric][:2], metric) for metric in METRICS),
                str(m.failures),
            ]
            for m in sorted(self.means, key=lambda m: labels.index(m.label))
        ]
        return text_table(["class", "method", "seeds", *TITLES.values(), "failures"], rows)

    def differences_table(self) -> str:
        """Return the paired differences, or '' if there is one method only."""
        rows = [
            [
                d.label,
                d.method,
                TITLES[d.metric],
                number(d.mean, d.metric, sign=True),
                _interval(d),
                d.remark or _p_text(d.p),
                str(d.pairs),
                str(d.left_out),
            ]
            for d in self.differences
            if d.metric in SHOWN_DIFFERENCES
        ]
        header = ["class", "method", "metric", "difference", "95 % interval", "p"]
        return text_table([*header, f"{self.patients.unit}s", "left out"], rows) if rows else ""

    def text(self) -> str:
        """Return tables and explanations for the screen."""
        parts = [
            self.means_table(),
            "Means over cases; +- is the standard deviation (n - 1) of that over seeds.",
        ]
        unit = self.patients.unit
        if self.differences:
            parts += [
                f"\nDifferences to {self.baseline}, {unit} by {unit}, each case averaged over "
                "seeds:",
                self.differences_table(),
                f"95 % interval of the mean: bootstrap over {unit}s ({RESAMPLES} resamples, fixed "
                "seed). p: Wilcoxon signed-rank test,\ntwo-sided, not corrected for the number of "
                f"tests. Both take {unit}s as independent and leave chance in training out.",
            ]
        if any(d.left_out for d in self.differences):
            parts.append(
                "Left out: cases where the metric is undefined in a seed of either method, because "
                "a mask is empty."
            )
        return "\n".join(parts)

    def write_csv(self, folder: Path) -> Path:
        """Write all numbers, one row per method, class and metric."""
        by_key = {(d.method, d.label, d.metric): d for d in self.differences}
        rows = [
            _csv_row(m, metric, by_key.get((m.method, m.label, metric)))
            for m in self.means
            for metric in METRICS
        ]
        path = folder / COMPARISON_CSV
        with made_folder(folder):
            write_csv(path, list(rows[0]), rows)
        return path


def compare(methods: Sequence[Method], patients: Patients = UNKNOWN) -> Comparison:
    """Compare methods that `read_methods` returned; the first one is the baseline."""
    baseline, *others = methods
    return Comparison(
        baseline.name,
        [means for method in methods for means in seed_means(method)],
        [found for method in others for found in differences(method, baseline, patients)],
        patients,
    )


def _csv_row(means: SeedMeans, metric: str, difference: Difference | None) -> dict[str, Any]:
    mean, std, _ = means.metrics[metric]
    row: dict[str, Any] = {
        "method": means.method,
        "label": means.label,
        "metric": metric,
        "seeds": means.seeds,
        "mean": mean,
        "std": std,
        "both_empty": means.both_empty,
        "failures": means.failures,
        "baseline": "",
        "pairs": "",
        "left_out": "",
        "better": "",
        "difference": "",
        "interval_low": "",
        "interval_high": "",
        "p": "",
        "remark": "",
    }
    if difference is not None:
        row |= {
            "baseline": difference.baseline,
            "pairs": difference.pairs,
            "left_out": difference.left_out,
            "better": difference.better,
            "difference": difference.mean,
            "interval_low": difference.low,
            "interval_high": difference.high,
            "p": difference.p,
            "remark": difference.remark,
        }
    return row


def _interval(difference: Difference) -> str:
    if np.isnan(difference.low):
        return "-"
    ends = (number(v, difference.metric, sign=True) for v in (difference.low, difference.high))
    return " to ".join(ends)


def _p_text(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"
