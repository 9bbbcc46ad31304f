"""Means and standard deviations over cases, per class and over classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nnunetv2_spmc.evaluation.case_metrics import METRICS, ClassMetrics


class MeanStd(NamedTuple):
    """Mean and sample standard deviation (n - 1) of the n defined values; NaN where undefined."""

    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class ClassSummary:
    """The metrics of a class over cases, or those of the mean over classes."""

    metrics: dict[str, MeanStd]
    both_empty: int
    failures: int

    def as_json(self) -> dict[str, Any]:
        """Return the content for JSON, which knows no NaN: undefined numbers are null."""
        content: dict[str, Any] = {
            metric: {"mean": _or_null(mean), "std": _or_null(std), "n": n}
            for metric, (mean, std, n) in self.metrics.items()
        }
        return content | {"both_empty": self.both_empty, "failures": self.failures}


def mean_and_std(values: Iterable[float], *, skip_undefined: bool = True) -> MeanStd:
    """Return mean and sample standard deviation of the values that are not NaN.

    With `skip_undefined=False` a NaN among them makes both NaN.
    """
    values = list(values)
    defined = [value for value in values if not np.isnan(value)]
    if len(defined) < len(values) and not skip_undefined:
        return MeanStd(np.nan, np.nan, len(defined))
    return MeanStd(
        float(np.mean(defined)) if defined else np.nan,
        float(np.std(defined, ddof=1)) if len(defined) > 1 else np.nan,
        len(defined),
    )


def labels_of(rows: Iterable[ClassMetrics]) -> list[str]:
    """Return the classes in their order."""
    return list(dict.fromkeys(row.label for row in rows))


def summarize_classes(rows: Sequence[ClassMetrics]) -> dict[str, ClassSummary]:
    """Return class -> its metrics over all cases in which they are defined."""
    return {
        label: _summarize([row for row in rows if row.label == label]) for label in labels_of(rows)
    }


def _summarize(rows: Sequence[ClassMetrics]) -> ClassSummary:
    return ClassSummary(
        {metric: mean_and_std(row.value(metric) for row in rows) for metric in METRICS},
        both_empty=sum(row.status == "both_empty" for row in rows),
        failures=sum(row.is_failure for row in rows),
    )


def summarize_mean(rows: Sequence[ClassMetrics]) -> ClassSummary:
    """Return the mean over classes.

    The mean is that of the classes' means, as nnU-Net's foreground mean. A class that is in no
    case, neither reference nor prediction, is left out; a class without any defined distance makes
    the mean distance undefined, because leaving it out would reward its failures. The standard
    deviation is that of the cases' means over their defined classes, n the number of such cases.
    """
    classes = summarize_classes(rows)
    present = [c for label, c in classes.items() if _is_present(label, rows)]
    cases: dict[str, list[ClassMetrics]] = {}
    for row in rows:
        cases.setdefault(row.case, []).append(row)
    metrics = {}
    for metric in METRICS:
        of_cases = [
            mean_and_std(row.value(metric) for row in case_rows).mean
            for case_rows in cases.values()
        ]
        of_classes = [summary.metrics[metric].mean for summary in present]
        mean = float(np.mean(of_classes)) if of_classes else np.nan
        metrics[metric] = mean_and_std(of_cases)._replace(mean=mean)
    return ClassSummary(
        metrics,
        both_empty=sum(summary.both_empty for summary in classes.values()),
        failures=sum(summary.failures for summary in classes.values()),
    )


def _is_present(label: str, rows: Iterable[ClassMetrics]) -> bool:
    return any(row.label == label and row.status != "both_empty" for row in rows)


def _or_null(value: float) -> float | None:
    return None if np.isnan(value) else value
