"""Compare methods over seeds: means, and paired differences by patient against the first method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunetv2_spmc.evaluation.case_metrics import METRICS, OVERLAPS
from nnunetv2_spmc.evaluation.methods import Method
from nnunetv2_spmc.evaluation.pairs import MIN_PATIENTS, Pairs, Place, Values, over_seeds, pair
from nnunetv2_spmc.evaluation.patients import UNKNOWN, Patients
from nnunetv2_spmc.evaluation.summary import (
    MeanStd,
    mean_and_std,
    summarize_classes,
    summarize_mean,
)

MEAN = "mean"  # over classes


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
    """Paired differences of a method to the first one by patient, for a class and a metric.

    The interval is that of `Pairs`, p that of the two-sided Wilcoxon signed-rank test. They are NaN
    with fewer than MIN_PATIENTS; p, too, where `remark` says why.
    """

    method: str
    baseline: str
    label: str
    metric: str
    pairs: int  # patients with cases where the metric is defined in all seeds of both methods
    left_out: int  # the other cases
    better: int  # patients on whom the method is better
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


def differences(method: Method, baseline: Method, patients: Patients = UNKNOWN) -> list[Difference]:
    """Return the paired differences to the baseline, per class and for the mean over classes."""
    labels = baseline.seeds[0].labels
    names = (method.name, baseline.name)
    found = []
    for metric in METRICS:
        ours, theirs = (case_values(m, metric) for m in (method, baseline))
        for label, counted in classes_and_mean(labels).items():
            pairs = pair(ours, theirs, patients, counted)
            found.append(difference_of(*names, label, metric, pairs, patients))
    rank = {label: i for i, label in enumerate([*labels, MEAN])}
    return sorted(found, key=lambda difference: rank[difference.label])


def classes_and_mean(labels: Sequence[str]) -> dict[str, Sequence[str]]:
    """Return what is compared -> the classes that count: each, and their mean if there are more."""
    found: dict[str, Sequence[str]] = {label: [label] for label in labels}
    return found | {MEAN: labels} if len(labels) > 1 else found


def case_values(method: Method, metric: str) -> Values:
    """Return a metric of each case and class, the mean over the seeds of a method."""
    seeds: list[dict[Place, dict[str, float]]] = []
    for seed in method.seeds:
        seeds.append({})
        for key, row in seed.rows.items():
            seeds[-1].setdefault(("", key.case), {})[key.label] = row.value(metric)
    return over_seeds(seeds)


def difference_of(
    method: str, baseline: str, label: str, metric: str, pairs: Pairs, patients: Patients
) -> Difference:
    """Return what tables show of a paired comparison."""
    p, remark = np.nan, ""
    number_of_differing = np.count_nonzero(pairs.differences)
    if not pairs.decides:
        remark = f"fewer than {patients.count(MIN_PATIENTS)}"
    elif not number_of_differing:
        remark = f"no difference in any {patients.unit}"
    elif number_of_differing < MIN_PATIENTS:
        remark = f"fewer than {patients.count(MIN_PATIENTS)} differ"
    else:
        p = _wilcoxon(pairs.differences)
    low, high = pairs.interval
    return Difference(
        method,
        baseline,
        label,
        metric,
        pairs=len(pairs),
        left_out=pairs.left_out,
        better=pairs.higher if metric in OVERLAPS else pairs.lower,
        mean=pairs.mean,
        low=low,
        high=high,
        p=p,
        remark=remark,
    )


def _wilcoxon(values: Sequence[float] | np.ndarray) -> float:
    from scipy.stats import wilcoxon

    return float(wilcoxon(values).pvalue)  # two-sided; cases without a difference are dropped
