"""Which of several trained models to use: differences in Dice by patient, and one sentence.

In doubt the model that costs least stays: another one is recommended only if the interval of its
gain over the one that it replaces lies above zero, and below zero over no cheaper one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nnunetv2_spmc.evaluation.comparison import bootstrap_interval
from nnunetv2_spmc.evaluation.text_table import number, text_table
from nnunetv2_spmc.raw.cases import count_of

MIN_PATIENTS = 5  # fewer decide nothing
Place = tuple[str, str]  # fold, validation case of it


@dataclass(frozen=True)
class Candidate:
    """A trained model that could be used.

    Attributes:
        name: How it is called.
        dice: Dice of each class of each validation case, averaged over the runs of the model; NaN
            where the class is in neither mask.
        rank: 0 for supervised trainings, more for those that ask for more.
        needs_unlabeled: Whether it was trained with unlabeled cases.
        seconds: A training of a fold, NaN where that is unknown.
    """

    name: str
    dice: Mapping[Place, Mapping[str, float]]
    rank: int = 0
    needs_unlabeled: bool = False
    seconds: float = math.nan

    @property
    def cost(self) -> tuple[int, float, str]:
        """What sorts models: the first one is kept in doubt."""
        return self.rank, math.inf if math.isnan(self.seconds) else self.seconds, self.name


@dataclass(frozen=True)
class Patients:
    """Whose cases are whose."""

    of_case: Mapping[str, str]  # a case that is not in it is a patient of its own
    are_known: bool

    def count(self, number: int) -> str:
        """Return '10 patients', '10 cases' where patients are not known."""
        return count_of(number, "patient" if self.are_known else "case")


@dataclass(frozen=True)
class Gain:
    """By how much the Dice of a model is above that of another one, patient by patient.

    The interval is the 95 % bootstrap percentile interval of the mean over patients; NaN with fewer
    than MIN_PATIENTS.
    """

    model: Candidate
    other: Candidate
    folds: tuple[str, ...]
    dice: tuple[float, ...]  # of the model, per patient
    other_dice: tuple[float, ...]
    left_out: int  # classes of cases that one of the two rightly leaves empty, and the other not

    @property
    def patients(self) -> int:
        """How many both have validated."""
        return len(self.dice)

    @property
    def mean(self) -> float:
        """The mean difference over patients."""
        return float(np.mean(np.subtract(self.dice, self.other_dice))) if self.dice else math.nan

    @property
    def decides(self) -> bool:
        """Whether there are patients enough to say anything."""
        return self.patients >= MIN_PATIENTS

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Both ends."""
        if not self.decides:
            return math.nan, math.nan
        return bootstrap_interval(np.subtract(self.dice, self.other_dice))

    @property
    def is_surely_more(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.interval[0] > 0

    @property
    def is_surely_less(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.interval[1] < 0

    def interval_text(self) -> str:
        """Return '+0.010 to +0.057'."""
        return " to ".join(f"{end:+.3f}" for end in self.interval)

    def text(self, patients: Patients) -> str:
        """Return 'Dice +0.034 over OTHER (95 % interval ...) on 10 patients, fold 0'."""
        interval = f" (95 % interval {self.interval_text()})" if self.decides else ""
        return (
            f"Dice {self.mean:+.3f} over {self.other.name}{interval} on "
            f"{patients.count(self.patients)}, {folds_text(self.folds)}"
        )


@dataclass(frozen=True)
class Recommendation:
    """What to use, and what that rests on."""

    baseline: Candidate  # what is kept in doubt
    gains: tuple[Gain, ...]  # of the other models over it
    patients: Patients
    sentence: str

    def table(self) -> str:
        """Return a row per model: its Dice and that of the baseline on the patients of both."""
        of_baseline = gain_of(self.baseline, self.baseline, self.patients)
        rows = [[*_cells(of_baseline), "-", "-", "-"]]
        rows += [[*_cells(gain), *_compared(gain)] for gain in self.gains]
        header = ["model", "hours", "folds", self.patients.count(2).split()[1], "Dice"]
        header += ["Dice of the first", "difference", "95 % interval"]
        return text_table(header, rows)


def _cells(gain: Gain) -> list[str]:
    seconds = gain.model.seconds
    hours = "-" if math.isnan(seconds) else f"{seconds / 3600:.2g}"
    folds = ", ".join(gain.folds) or "-"
    dice = number(_mean(gain.dice), "dice")
    return [gain.model.name, hours, folds, str(gain.patients), dice]


def _compared(gain: Gain) -> list[str]:
    ends = " to ".join(number(end, "dice", sign=True) for end in gain.interval)
    return [
        number(_mean(gain.other_dice), "dice"),
        number(gain.mean, "dice", sign=True),
        ends if gain.decides else "-",
    ]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def folds_text(folds: Sequence[str]) -> str:
    """Return 'fold 0', 'folds 0, 1'."""
    return f"fold{'' if len(folds) == 1 else 's'} {', '.join(folds)}"


def gain_of(model: Candidate, other: Candidate, patients: Patients) -> Gain:
    """Compare two models on what both have validated.

    A case counts with the mean over its classes that are defined in both models, a patient with the
    mean over its cases.
    """
    per_patient: dict[str, list[tuple[float, float]]] = {}
    folds, left_out = set(), 0
    for place, ours in model.dice.items():
        if place not in other.dice:
            continue
        theirs = other.dice[place]
        pairs = np.array([(ours[label], theirs[label]) for label in ours])
        is_defined = ~np.isnan(pairs)
        left_out += int((is_defined[:, 0] != is_defined[:, 1]).sum())
        if not (whole := is_defined.all(axis=1)).any():
            continue
        fold, case = place
        folds.add(fold)
        mean = pairs[whole].mean(axis=0)
        per_patient.setdefault(patients.of_case.get(case, case), []).append(tuple(mean))
    means = [np.mean(cases, axis=0) for _, cases in sorted(per_patient.items())]
    return Gain(
        model,
        other,
        tuple(sorted(folds)),
        dice=tuple(float(mean[0]) for mean in means),
        other_dice=tuple(float(mean[1]) for mean in means),
        left_out=left_out,
    )


def comparable(models: Sequence[Candidate], patients: Patients) -> list[Candidate]:
    """Return the models that have a patient in common with another one."""
    return [
        model
        for model in models
        if any(gain_of(model, m, patients).patients for m in models if m is not model)
    ]


def recommend(models: Sequence[Candidate], patients: Patients) -> Recommendation:
    """Compare two or more models that are `comparable` and say which one to use."""
    baseline, *others = sorted(models, key=lambda model: model.cost)
    gains = tuple(gain_of(model, baseline, patients) for model in others)
    chosen, reason = baseline, None
    for number_of_cheaper, model in enumerate(others, start=1):
        gain = gain_of(model, chosen, patients)
        cheaper = [baseline, *others][:number_of_cheaper]
        is_worse = any(gain_of(model, other, patients).is_surely_less for other in cheaper)
        if gain.is_surely_more and not is_worse:
            chosen, reason = model, gain
    if reason is not None:
        costlier = others[others.index(chosen) + 1 :]
        still = [gain_of(model, chosen, patients) for model in costlier]
        sentence = f"Use {chosen.name}: {reason.text(patients)}{_no_better(still)}."
    else:
        sentence = _baseline_stays(baseline, gains, patients)
    return Recommendation(baseline, gains, patients, sentence)


def _no_better(gains: Sequence[Gain]) -> str:
    """Name the costlier model that may be better than the one that is recommended."""
    promising = [gain for gain in gains if gain.decides and gain.mean > 0]
    if not promising:
        return ""
    best = max(promising, key=lambda gain: gain.mean)
    return (
        f"; {best.model.name} is not surely better still ({best.mean:+.3f}, {best.interval_text()})"
    )


def _baseline_stays(baseline: Candidate, gains: Sequence[Gain], patients: Patients) -> str:
    validated = [gain for gain in gains if gain.patients]
    maybe_better = [gain for gain in validated if not gain.is_surely_less]
    best = max(maybe_better or validated, key=lambda gain: (gain.decides, gain.mean))
    if not maybe_better:
        return f"Use {baseline.name}: {gain_of(baseline, best.model, patients).text(patients)}."
    why = _why(baseline, best.model)
    if not best.decides:
        verb = "decides" if best.patients == 1 else "decide"
        return (
            f"{patients.count(best.patients)} {verb} nothing: {best.model.name} has Dice "
            f"{best.mean:+.3f} over {baseline.name}, {folds_text(best.folds)}; train more folds of "
            f"both, and until then take {baseline.name}{why}."
        )
    return (
        f"No model is surely better: {best.model.name} has {best.text(patients)}; take "
        f"{baseline.name}{why}."
    )


def _why(kept: Candidate, other: Candidate) -> str:
    """Say why one of two models that may be equal is taken."""
    reasons = []
    if other.needs_unlabeled and not kept.needs_unlabeled:
        reasons.append("needs no unlabeled scans")
    if kept.seconds < other.seconds:
        reasons.append("takes less time to train")
    return f", which {' and '.join(reasons)}" if reasons else ""
