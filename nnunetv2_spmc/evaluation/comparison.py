"""Compare methods over seeds: means, and paired differences per case against the first method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_spmc.evaluation.case_metrics import METRICS
from nnunetv2_spmc.evaluation.methods import Key, Method
from nnunetv2_spmc.evaluation.summary import (
    MeanStd,
    mean_and_std,
    summarize_classes,
    summarize_mean,
)

MEAN = "mean"  # over classes
MIN_PAIRS = 6  # with 5 pairs no two-sided Wilcoxon test reaches p < 0.05
RESAMPLES = 10_000
BOOTSTRAP_SEED = 0
ROUNDED_TO = 12  # decimals; a mean over seeds of equal values differs in the last digits


@dataclass(frozen=True)
class SeedMeans:
    """A method on a class: mean and standard deviation over seeds of the means over cases."""

    method: str
    label: str
    seeds: int
    metrics: dict[str, MeanStd]
    both_empty: int  # cases, over all seeds
    failures: int


@dataclass(frozen=True)
class Difference:
    """Paired differences of a method to the first one, for a class and a metric.

    The interval is the 95 % bootstrap percentile interval of the mean difference, p that of the
    two-sided Wilcoxon signed-rank test; both NaN where `remark` says why.
    """

    method: str
    baseline: str
    label: str
    metric: str
    pairs: int  # cases where the metric is defined in all seeds of both methods
    left_out: int  # the other cases
    mean: float
    low: float
    high: float
    p: float
    remark: str


def seed_means(method: Method) -> list[SeedMeans]:
    """Return one entry per class and one for the mean over classes if there are several."""
    per_seed = []
    for seed in method.seeds:
        rows = list(seed.rows.values())
        summaries = summarize_classes(rows)
        if len(summaries) > 1:
            summaries[MEAN] = summarize_mean(rows)
        per_seed.append(summaries)
    return [
        SeedMeans(
            method.name,
            label,
            len(per_seed),
            {
                metric: mean_and_std(
                    [s[label].metrics[metric].mean for s in per_seed], skip_undefined=False
                )
                for metric in METRICS
            },
            both_empty=sum(s[label].both_empty for s in per_seed),
            failures=sum(s[label].failures for s in per_seed),
        )
        for label in per_seed[0]
    ]


def case_values(
    method: Method, metric: str, cases: Sequence[str], labels: Sequence[str]
) -> np.ndarray:
    """Return the means over seeds of each case and class, (cases, classes).

    They are NaN where the metric is undefined in any seed: a mean over the other seeds would
    reward the failure.
    """
    return np.array(
        [
            [
                np.mean([seed.rows[Key(case, label)].value(metric) for seed in method.seeds])
                for label in labels
            ]
            for case in cases
        ]
    )


def differences(method: Method, baseline: Method) -> list[Difference]:
    """Return the paired differences to the baseline, per class and for the mean over classes.

    For the mean over classes a case counts with the mean difference of its defined classes.
    """
    cases, labels = baseline.seeds[0].cases, baseline.seeds[0].labels
    found = []
    for metric in METRICS:
        ours, theirs = (case_values(m, metric, cases, labels) for m in (method, baseline))
        per_class = ours - theirs
        values = dict(zip(labels, per_class.T, strict=True))
        if len(labels) > 1:
            values[MEAN] = np.array([mean_and_std(row).mean for row in per_class])
        found += [
            paired_difference(method.name, baseline.name, label, metric, of_label)
            for label, of_label in values.items()
        ]
    rank = {label: i for i, label in enumerate([*labels, MEAN])}
    return sorted(found, key=lambda difference: rank[difference.label])


def paired_difference(
    method: str, baseline: str, label: str, metric: str, values: np.ndarray
) -> Difference:
    """Return the mean of paired differences, one per case or patient, with its interval and p."""
    paired = np.round(values[~np.isnan(values)], ROUNDED_TO)
    low, high, p, remark = np.nan, np.nan, np.nan, ""
    if len(paired) < MIN_PAIRS:
        remark = f"fewer than {MIN_PAIRS} pairs"
    elif not paired.any():
        remark = "no difference in any case"
    else:
        low, high = bootstrap_interval(paired)
        if np.count_nonzero(paired) < MIN_PAIRS:
            remark = f"fewer than {MIN_PAIRS} cases differ"
        else:
            p = _wilcoxon(paired)
    return Difference(
        method,
        baseline,
        label,
        metric,
        pairs=len(paired),
        left_out=len(values) - len(paired),
        mean=float(paired.mean()) if len(paired) else np.nan,
        low=low,
        high=high,
        p=p,
        remark=remark,
    )


def bootstrap_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean, resampling the values with a fixed seed."""
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    block = max(1, 1_000_000 // len(values))  # so that thousands of cases fit into memory
    means: list[np.ndarray] = []
    for start in range(0, RESAMPLES, block):
        size = (min(block, RESAMPLES - start), len(values))
        means.append(values[generator.integers(0, len(values), size)].mean(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def _wilcoxon(values: Sequence[float] | np.ndarray) -> float:
    from scipy.stats import wilcoxon

    return float(wilcoxon(values).pvalue)  # two-sided; cases without a difference are dropped
