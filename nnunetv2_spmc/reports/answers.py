"""What people ask first: is a method better, by how much, and how sure is that?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nnunetv2_spmc.evaluation.case_metrics import OVERLAPS
from nnunetv2_spmc.evaluation.comparison import (
    MEAN,
    MIN_PAIRS,
    Difference,
    paired_difference,
)
from nnunetv2_spmc.evaluation.comparison_report import FEW_CASES
from nnunetv2_spmc.evaluation.text_table import number
from nnunetv2_spmc.reports.methods import MethodRuns

AXES = {"index": "case", "columns": "label"}  # both in the order of the rows
Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Answer:
    """A comparison of a method with the first one, or what a single method reached.

    Args:
        headline: the sentence.
        details: on what it rests, and what to beware of.
        differences: class, or the mean over classes -> the paired differences in Dice.
    """

    headline: str
    details: str
    differences: Mapping[str, Difference]


def unit_values(
    tables: Sequence[pd.DataFrame], patients: Mapping[str, str], metric: str = "dice"
) -> pd.DataFrame:
    """Return a row per patient, a column per class and one for their mean if there are several.

    A patient counts with the mean over the cases. A class without a defined Dice is in neither mask
    and counts in no mean; a class without a defined distance may be a failure, and leaving it out
    would reward that: then there is no mean.

    Args:
        tables: metrics of the trainings of a method.
        patients: case -> patient; a case that is not named is a patient of its own.
        metric: one of their columns.
    """
    return _by_patient(case_means(tables, metric), patients, skipna=metric in OVERLAPS)


def case_means(tables: Sequence[pd.DataFrame], metric: str = "dice") -> pd.DataFrame:
    """Return a row per case and a column per class: means over the trainings that have the case.

    They are NaN where the metric is undefined in one of these: a mean over the others would reward
    the failure.
    """
    rows = pd.concat(tables, ignore_index=True)
    means = rows.groupby(["case", "label"])[metric].agg(lambda values: values.mean(skipna=False))
    order = {name: list(dict.fromkeys(rows[column])) for name, column in AXES.items()}
    return means.unstack("label").reindex(**order)


def _by_patient(
    values: pd.DataFrame, patients: Mapping[str, str], *, skipna: bool = True
) -> pd.DataFrame:
    if len(values.columns) > 1:
        values = values.assign(**{MEAN: values.mean(axis=1, skipna=skipna)})
    units = [patients.get(str(case), str(case)) for case in values.index]
    return values.groupby(units, sort=False).agg(lambda cases: cases.mean(skipna=skipna))


def answers(
    methods: Sequence[MethodRuns],
    tables: Tables,
    patients: Mapping[str, str],
    *,
    kind: str,
    seen: Sequence[str] = (),
) -> list[Answer]:
    """Return an answer per method but the first, or one for the only method.

    Args:
        methods: the first one is what the others are compared with.
        tables: run -> its metrics; runs without any are absent.
        patients: case -> patient, as far as known.
        kind: of the cases: "test" or "validation".
        seen: runs that were trained on these very cases.
    """
    measured = [m for m in methods if any(name in tables for name in m.runs)]
    if not measured:
        return []
    cases = {case for table in tables.values() for case in table["case"]}
    units = "patients" if cases & set(patients) else "cases"
    seen_here = [m.name for m in measured if any(name in seen for name in m.runs)]
    caution = ""
    if seen_here:
        caution = (
            f" Beware: these are the training cases of {' and '.join(seen_here)}. The numbers say "
            "how well the training was learned, not how well it generalizes."
        )
    first, *others = measured
    units = f"{kind} {units}"
    if not others:
        values = unit_values(_tables_of(first, tables), patients)
        return [_single(first, values, units, caution)]
    theirs = case_means(_tables_of(first, tables))
    found = []
    for method in others:
        ours = case_means(_tables_of(method, tables))
        if method.dataset != first.dataset:  # whose cases may have the same names
            ours = ours.iloc[:0]
        pair = _paired(ours, theirs, patients)
        found.append(_compared(method, first, *pair, units, caution))
    return found


def _paired(
    ours: pd.DataFrame, theirs: pd.DataFrame, patients: Mapping[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the values of the patients of both methods, from what is defined in both."""
    labels = [label for label in theirs.columns if label in ours.columns]
    cases = [case for case in theirs.index if case in ours.index]
    ours, theirs = ours.loc[cases, labels], theirs.loc[cases, labels]
    both = ours.notna() & theirs.notna()
    return _by_patient(ours.where(both), patients), _by_patient(theirs.where(both), patients)


def _tables_of(method: MethodRuns, tables: Tables) -> list[pd.DataFrame]:
    return [tables[name] for name in method.runs if name in tables]


def _single(method: MethodRuns, values: pd.DataFrame, units: str, caution: str) -> Answer:
    means = values.mean()
    classes = [label for label in values.columns if label != MEAN]
    of_classes = ", ".join(f"{label} {number(means[label], 'dice')}" for label in classes)
    details = f"{_over_classes(classes)}{_count(len(values), units)}, {method.trainings}."
    if len(classes) > 1:
        details += f" Classes: {of_classes}."
    headline = f"{method.name}: Dice {number(means.iloc[-1], 'dice')}."
    return Answer(headline, details + caution, {})


def _compared(
    method: MethodRuns,
    baseline: MethodRuns,
    ours: pd.DataFrame,
    theirs: pd.DataFrame,
    units: str,
    caution: str,
) -> Answer:
    labels = list(theirs.columns)
    if theirs.empty:
        text = f"{method.name} and {baseline.name} have no case in common: no difference to state."
        return Answer(text, "Evaluate them on the same cases." + caution, {})
    found = {
        label: paired_difference(
            method.name, baseline.name, label, "dice", (ours[label] - theirs[label]).to_numpy()
        )
        for label in labels
    }
    overall = found[labels[-1]]  # the mean over classes, or the only class
    classes = [label for label in labels if label != MEAN]
    reached = f"{number(ours[labels[-1]].mean(), 'dice')} against "
    reached += number(theirs[labels[-1]].mean(), "dice")
    details = f"Dice {reached}. {_over_classes(classes)}{_count(overall.pairs, units)}, "
    details += f"{_trainings(method, baseline)}.{_warning(overall, units, method, baseline)}"
    return Answer(_headline(overall), details + caution, found)


def _headline(found: Difference) -> str:
    difference = f"{number(found.mean, 'dice', sign=True)} Dice"
    if np.isnan(found.low):
        return f"{found.method} minus {found.baseline}: {difference}, without an interval."
    low, high = (number(end, "dice", sign=True) for end in (found.low, found.high))
    interval = f"{difference} (95 % interval {low} to {high})"
    if found.low > 0:
        return f"{found.method} is better than {found.baseline}: {interval}."
    if found.high < 0:
        return f"{found.method} is worse than {found.baseline}: {interval}."
    return f"{found.method} and {found.baseline} cannot be told apart: {interval}."


def _trainings(method: MethodRuns, baseline: MethodRuns) -> str:
    if method.trainings == baseline.trainings:
        return f"{method.trainings} each"
    return f"{method.trainings} against {baseline.trainings}"


def _warning(found: Difference, units: str, *methods: MethodRuns) -> str:
    """Say what the interval does not cover."""
    plural = units.split()[-1]
    text = ""
    if found.pairs < MIN_PAIRS:
        text = f" Fewer than {MIN_PAIRS} {plural} are too few for an interval."
    elif np.isnan(found.low):
        text = f" There is no interval: {found.remark}."
    elif found.pairs < FEW_CASES:
        text = f" With fewer than {FEW_CASES} {plural} the interval is too narrow."
    if found.left_out:
        text += f" Left out, without a defined Dice: {found.left_out}."
    if any(len(method.runs) == 1 for method in methods):
        text += (
            " Trainings that differ by chance alone can differ by 0.02 Dice and more: train "
            "several seeds."
        )
    return text


def _over_classes(classes: Sequence[str]) -> str:
    return f"Mean over {len(classes)} classes, " if len(classes) > 1 else ""


def _count(number_of_units: int, units: str) -> str:
    return f"{number_of_units} {units if number_of_units != 1 else units[:-1]}"
