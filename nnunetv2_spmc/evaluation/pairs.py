"""Two methods, patient by patient: the one paired comparison, whoever asks for it.

Each case is averaged over seeds first. It counts with the mean over its classes that are defined in
both methods, and a patient with the mean over its cases. Intervals are 95 % expanded bootstrap
percentile intervals of the mean over patients (see `interval_of`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nnunetv2_spmc.evaluation.patients import Patients

MIN_PATIENTS = 6  # fewer decide nothing: with 5 no two-sided signed-rank test reaches p < 0.05
RESAMPLES = 10_000
BOOTSTRAP_SEED = 0
ROUNDED_TO = 12  # decimals; a mean over seeds of equal values differs in the last digits

Place = tuple[str, str]  # fold, validation case of it; the fold is '' where there are none
Values = Mapping[Place, Mapping[str, float]]  # of a metric: class -> value, NaN where undefined


@dataclass(frozen=True)
class Pairs:
    """The values of two methods on the patients of both, in the order of the patients' names.

    Attributes:
        patients: their names.
        ours: of the method, per patient.
        theirs: of the one that it is compared with.
        places: the cases that count.
        left_out: cases of both methods without a value in both.
        one_sided: classes of cases that have a value in one of the methods only.
    """

    patients: tuple[str, ...]
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    places: tuple[Place, ...]
    left_out: int
    one_sided: int

    def __len__(self) -> int:
        """Return the number of patients."""
        return len(self.patients)

    @cached_property
    def differences(self) -> np.ndarray:
        """The differences, (patients,)."""
        return np.round(np.subtract(self.ours, self.theirs), ROUNDED_TO)

    @property
    def mean(self) -> float:
        """The mean difference over patients; NaN without any."""
        return mean_of(self.differences)

    @property
    def decides(self) -> bool:
        """Whether there are patients enough to say anything."""
        return len(self) >= MIN_PATIENTS

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Both ends of the interval of the mean difference; NaN where nothing is decided."""
        return bootstrap_interval(self.differences) if self.decides else (math.nan, math.nan)

    @property
    def higher(self) -> int:
        """On how many patients the method has the higher value."""
        return int((self.differences > 0).sum())

    @property
    def lower(self) -> int:
        """On how many patients it has the lower one."""
        return int((self.differences < 0).sum())


def over_seeds(seeds: Iterable[Values]) -> dict[Place, dict[str, float]]:
    """Return the means over the seeds that have a case.

    They are NaN where the metric is undefined in one of these: a mean over the others would reward
    the failure.
    """
    found: dict[Place, dict[str, list[float]]] = {}
    for seed in seeds:
        for place, of_case in seed.items():
            for label, value in of_case.items():
                found.setdefault(place, {}).setdefault(label, []).append(value)
    return {
        place: {label: float(np.mean(values)) for label, values in of_case.items()}
        for place, of_case in found.items()
    }


def by_patient(
    values: Values, patients: Patients, *, skip_undefined: bool = True
) -> dict[str, float]:
    """Return patient -> mean over the cases of the means over classes.

    With `skip_undefined=False` a NaN among the values of a patient makes its mean NaN.
    """
    found: dict[str, list[float]] = {}
    for (_, case), of_case in values.items():
        mean = mean_of(of_case.values(), skip_undefined=skip_undefined)
        found.setdefault(patients.of(case), []).append(mean)
    return {
        patient: mean_of(means, skip_undefined=skip_undefined) for patient, means in found.items()
    }


def mean_of(values: Iterable[float], *, skip_undefined: bool = True) -> float:
    """Return the mean of the defined values, NaN where there is none."""
    defined = [value for value in values if not (skip_undefined and math.isnan(value))]
    return float(np.mean(defined)) if defined else math.nan


def pair(
    ours: Values, theirs: Values, patients: Patients, labels: Collection[str] | None = None
) -> Pairs:
    """Compare two methods on what both have.

    Args:
        ours: of the method, averaged over seeds.
        theirs: of the one that it is compared with.
        patients: whose the cases are.
        labels: the classes that count; all that both have, if None.
    """
    left, right = {}, {}
    left_out = one_sided = 0
    for place in (place for place in ours if place in theirs):
        a, b = ours[place], theirs[place]
        shared = [label for label in a if label in b and (labels is None or label in labels)]
        both = [label for label in shared if not math.isnan(a[label] + b[label])]
        one_sided += sum(math.isnan(a[label]) != math.isnan(b[label]) for label in shared)
        if both:
            left[place] = {label: a[label] for label in both}
            right[place] = {label: b[label] for label in both}
        else:
            left_out += 1
    of_ours, of_theirs = by_patient(left, patients), by_patient(right, patients)
    names = sorted(of_ours)
    return Pairs(
        tuple(names),
        tuple(of_ours[name] for name in names),
        tuple(of_theirs[name] for name in names),
        tuple(left),
        left_out,
        one_sided,
    )


def bootstrap_interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the mean, resampling the values with a fixed seed."""
    return interval_of(lambda drawn: values[drawn].mean(axis=1), len(values))


def interval_of(statistic: Callable[[np.ndarray], np.ndarray], number: int) -> tuple[float, float]:
    """Return the 95 % expanded percentile interval of any statistic over patients.

    A plain percentile interval of few values is too narrow: resamples scatter too little, by a
    factor of sqrt((n - 1) / n), and its tails are those of a normal distribution in place of a t
    distribution. The expanded one corrects both (Hesterberg, What Teachers Should Know About the
    Bootstrap, The American Statistician 69, 2015).

    Args:
        statistic: from which patients were drawn, (resamples, number), to (resamples,).
        number: of patients, two or more.
    """
    from scipy.stats import norm, t

    tail = 100 * norm.cdf(-math.sqrt(number / (number - 1)) * t.ppf(0.975, number - 1))
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    block = max(1, 1_000_000 // number)  # so that thousands of patients fit into memory
    found = [
        statistic(generator.integers(0, number, (min(block, RESAMPLES - start), number)))
        for start in range(0, RESAMPLES, block)
    ]
    low, high = np.percentile(np.concatenate(found), [tail, 100 - tail])
    return float(low), float(high)
