"""Which of several trained models to use: differences in Dice by patient, and one sentence.

In doubt the model that costs least stays: another one is recommended only if the interval of its
gain over the one that it replaces lies above zero, and below zero over no cheaper one. A model that
has seen validation cases in training is never recommended: its Dice is too good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nnunetv2_spmc.evaluation.pairs import Pairs, Values, mean_of, pair
from nnunetv2_spmc.evaluation.patients import Patients
from nnunetv2_spmc.evaluation.text_table import number, text_table


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
        seen: How it has seen validation cases in training, 'as unlabeled ones'; '' if it has not.
    """

    name: str
    dice: Values
    rank: int = 0
    needs_unlabeled: bool = False
    seconds: float = math.nan
    seen: str = ""

    @property
    def cost(self) -> tuple[bool, int, float, str]:
        """What sorts models: the first one is kept in doubt."""
        seconds = math.inf if math.isnan(self.seconds) else self.seconds
        return bool(self.seen), self.rank, seconds, self.name


@dataclass(frozen=True)
class Gain:
    """By how much the Dice of a model is above that of another one, patient by patient."""

    model: Candidate
    other: Candidate
    pairs: Pairs

    @property
    def folds(self) -> tuple[str, ...]:
        """The folds whose cases count."""
        return tuple(sorted({fold for fold, _ in self.pairs.places}))

    @property
    def is_surely_more(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.pairs.interval[0] > 0

    @property
    def is_surely_less(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.pairs.interval[1] < 0

    def interval_text(self) -> str:
        """Return '+0.010 to +0.057'."""
        return " to ".join(f"{end:+.3f}" for end in self.pairs.interval)

    def text(self, patients: Patients) -> str:
        """Return 'Dice +0.034 over OTHER (95 % interval ...) on 10 patients, fold 0'."""
        interval = f" (95 % interval {self.interval_text()})" if self.pairs.decides else ""
        return (
            f"Dice {self.pairs.mean:+.3f} over {self.other.name}{interval} on "
            f"{patients.count(len(self.pairs))}, {folds_text(self.folds)}"
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
        header = ["model", "hours", "folds", f"{self.patients.unit}s", "Dice"]
        header += ["Dice of the first", "difference", "95 % interval"]
        return text_table(header, rows)


def _cells(gain: Gain) -> list[str]:
    seconds = gain.model.seconds
    hours = "-" if math.isnan(seconds) else f"{seconds / 3600:.2g}"
    folds = ", ".join(gain.folds) or "-"
    dice = number(mean_of(gain.pairs.ours), "dice")
    return [gain.model.name, hours, folds, str(len(gain.pairs)), dice]


def _compared(gain: Gain) -> list[str]:
    ends = " to ".join(number(end, "dice", sign=True) for end in gain.pairs.interval)
    return [
        number(mean_of(gain.pairs.theirs), "dice"),
        number(gain.pairs.mean, "dice", sign=True),
        ends if gain.pairs.decides else "-",
    ]


def folds_text(folds: Sequence[str]) -> str:
    """Return 'fold 0', 'folds 0, 1'."""
    return f"fold{'' if len(folds) == 1 else 's'} {', '.join(folds)}"


def gain_of(model: Candidate, other: Candidate, patients: Patients) -> Gain:
    """Compare two models on what both have validated."""
    return Gain(model, other, pair(model.dice, other.dice, patients))


def comparable(models: Sequence[Candidate], patients: Patients) -> list[Candidate]:
    """Return the models that have a patient in common with another one."""
    return [
        model
        for model in models
        if any(len(gain_of(model, m, patients).pairs) for m in models if m is not model)
    ]


def recommend(models: Sequence[Candidate], patients: Patients) -> Recommendation:
    """Compare two or more models that are `comparable` and say which one to use."""
    baseline, *others = sorted(models, key=lambda model: model.cost)
    gains = tuple(gain_of(model, baseline, patients) for model in others)
    ordered = [baseline, *others]
    fair = [model for model in ordered if not model.seen]
    seen = [model for model in ordered if model.seen]
    if compared := comparable(fair, patients):
        without = "".join(f"; {_too_good(model)} and does not count" for model in seen)
        sentence = f"{_choice(compared, patients)}{without}."
    else:
        sentence = f"{_kept_of_unfair(fair, seen, patients)}."
    return Recommendation(baseline, gains, patients, sentence)


def _choice(models: Sequence[Candidate], patients: Patients) -> str:
    """Say which of models to use that are sorted by cost and have not seen validation cases."""
    baseline, *others = models
    chosen, reason = baseline, None
    for number_of_cheaper, model in enumerate(others, start=1):
        gain = gain_of(model, chosen, patients)
        cheaper = models[:number_of_cheaper]
        is_worse = any(gain_of(model, other, patients).is_surely_less for other in cheaper)
        if gain.is_surely_more and not is_worse:
            chosen, reason = model, gain
    if reason is None:
        return _baseline_stays(baseline, others, patients)
    costlier = others[others.index(chosen) + 1 :]
    still = [gain_of(model, chosen, patients) for model in costlier]
    return f"Use {chosen.name}: {reason.text(patients)}{_no_better(still)}"


def _too_good(model: Candidate) -> str:
    return (
        f"{model.name} has seen validation cases in training, {model.seen}, so its Dice is too good"
    )


def _kept_of_unfair(
    fair: Sequence[Candidate], seen: Sequence[Candidate], patients: Patients
) -> str:
    """Say what follows where each comparison has a model in it that has seen validation cases."""
    why = "; ".join(map(_too_good, seen))
    it = "it" if len(seen) == 1 else "them"
    again = f"{why}; train {it} again without these cases"
    if not fair:
        return f"No model can be recommended: {again}"
    kept = fair[0]
    gains = [gain for model in seen if (gain := gain_of(kept, model, patients)).pairs.patients]
    if gains and all(gain.is_surely_more for gain in gains):  # over Dice that are too good
        least = min(gains, key=lambda gain: gain.pairs.mean)
        return f"Use {kept.name}: {least.text(patients)}; {why}, and yet it is worse"
    return f"No model can be recommended: {again}, and until then take {kept.name}"


def _no_better(gains: Sequence[Gain]) -> str:
    """Name the costlier model that may be better than the one that is recommended."""
    promising = [gain for gain in gains if gain.pairs.decides and gain.pairs.mean > 0]
    if not promising:
        return ""
    best = max(promising, key=lambda gain: gain.pairs.mean)
    return (
        f"; {best.model.name} is not surely better still ({best.pairs.mean:+.3f}, "
        f"{best.interval_text()})"
    )


def _baseline_stays(baseline: Candidate, others: Sequence[Candidate], patients: Patients) -> str:
    gains = [gain_of(model, baseline, patients) for model in others]
    validated = [gain for gain in gains if gain.pairs.patients]
    maybe_better = [gain for gain in validated if not gain.is_surely_less]
    best = max(maybe_better or validated, key=lambda gain: (gain.pairs.decides, gain.pairs.mean))
    if not maybe_better:
        return f"Use {baseline.name}: {gain_of(baseline, best.model, patients).text(patients)}"
    why = _why(baseline, best.model)
    if not best.pairs.decides:
        number = len(best.pairs)
        return (
            f"{patients.count(number)} {'decides' if number == 1 else 'decide'} nothing: "
            f"{best.model.name} has Dice {best.pairs.mean:+.3f} over {baseline.name}, "
            f"{folds_text(best.folds)}; train more folds of both, and until then take "
            f"{baseline.name}{why}"
        )
    return (
        f"No model is surely better: {best.model.name} has {best.text(patients)}; take "
        f"{baseline.name}{why}"
    )


def _why(kept: Candidate, other: Candidate) -> str:
    """Say why one of two models that may be equal is taken."""
    reasons = []
    if other.needs_unlabeled and not kept.needs_unlabeled:
        reasons.append("needs no unlabeled scans")
    if kept.seconds < other.seconds:
        reasons.append("takes less time to train")
    return f", which {' and '.join(reasons)}" if reasons else ""
