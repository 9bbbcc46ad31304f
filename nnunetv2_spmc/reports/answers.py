"""What people ask first: is a method better, by how much, and how sure is that?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nnunetv2_spmc.evaluation.case_metrics import OVERLAPS
from nnunetv2_spmc.evaluation.comparison import (
    MEAN,
    Difference,
    classes_and_mean,
    difference_of,
)
from nnunetv2_spmc.evaluation.pairs import (
    MIN_PATIENTS,
    Values,
    by_patient,
    mean_of,
    over_seeds,
    pair,
)
from nnunetv2_spmc.evaluation.patients import Patients
from nnunetv2_spmc.evaluation.text_table import number
from nnunetv2_spmc.raw.cases import count_of
from nnunetv2_spmc.reports.methods import CONTROLS, VIEW_CONTROL, MethodRuns
from nnunetv2_spmc.reports.run_files import values_of

Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class Answer:
    """A comparison of two methods, or what a single method reached.

    Args:
        headline: the sentence.
        details: on what it rests, and what to beware of.
        differences: class, or the mean over classes -> the paired differences in Dice.
    """

    headline: str
    details: str
    differences: Mapping[str, Difference]


def unit_values(
    tables: Sequence[pd.DataFrame], patients: Patients, metric: str = "dice"
) -> pd.DataFrame:
    """Return a row per patient, a column per class and one for their mean if there are several.

    A patient counts with the mean over the cases. A class without a defined Dice is in neither mask
    and counts in no mean; a class without a defined distance may be a failure, and leaving it out
    would reward that: then there is no mean.

    Args:
        tables: metrics of the trainings of a method.
        patients: whose the cases are.
        metric: one of their columns.
    """
    values = over_seeds(values_of(table, metric) for table in tables)
    columns = {}
    for name, labels in classes_and_mean(_classes(values)).items():
        of_labels = {
            place: {label: of_case.get(label, np.nan) for label in labels}
            for place, of_case in values.items()
        }
        columns[name] = by_patient(of_labels, patients, skip_undefined=metric in OVERLAPS)
    return pd.DataFrame(columns)


def _classes(values: Values) -> list[str]:
    return list(dict.fromkeys(label for of_case in values.values() for label in of_case))


def answers(
    methods: Sequence[MethodRuns],
    tables: Tables,
    patients: Patients,
    *,
    kind: str,
    seen: Sequence[str] = (),
) -> list[Answer]:
    """Return an answer per comparison of two methods, or one for the only method.

    All are compared with the first one, and semi-supervised methods with the view control as well:
    it has their views and no unlabeled scan, so that difference is what unlabeled scans give.

    Args:
        methods: the first one is what the others are compared with.
        tables: run -> its metrics; runs without any are absent.
        patients: whose the cases are.
        kind: of the cases: "test" or "validation".
        seen: runs that were trained on these very cases.
    """
    measured = [m for m in methods if any(name in tables for name in m.runs)]
    if not measured:
        return []
    seen_here = [m.name for m in measured if any(name in seen for name in m.runs)]
    caution = ""
    if seen_here:
        caution = (
            f" Beware: these are the training cases of {' and '.join(seen_here)}. The numbers say "
            "how well the training was learned, not how well it generalizes."
        )
    first, *others = measured
    units = f"{kind} {patients.unit}s"
    if not others:
        values = unit_values(_tables_of(first, tables), patients)
        return [_single(first, values, units, caution)]
    pairs = [(method, first) for method in others]
    for control in others:
        if control.trainer == VIEW_CONTROL:
            pairs += [(m, control) for m in others if m.trainer not in (*CONTROLS, VIEW_CONTROL)]
    dice = {method.name: _dice(method, tables) for method in measured}
    found = []
    for method, baseline in pairs:
        ours, theirs = dice[method.name], dice[baseline.name]
        if method.dataset != baseline.dataset:  # whose cases may have the same names
            ours = {}
        found.append(_compared(method, baseline, ours, theirs, patients, units, caution))
    return found


def _dice(method: MethodRuns, tables: Tables) -> Values:
    return over_seeds(map(values_of, _tables_of(method, tables)))


def _tables_of(method: MethodRuns, tables: Tables) -> list[pd.DataFrame]:
    return [tables[name] for name in method.runs if name in tables]


def _single(method: MethodRuns, values: pd.DataFrame, units: str, caution: str) -> Answer:
    means = values.mean()
    classes = [label for label in values.columns if label != MEAN]
    of_classes = ", ".join(f"{label} {number(means[label], 'dice')}" for label in classes)
    rests_on = f"{_count(len(values), units)}, {method.trainings}"
    details = f"{_over_classes(classes)}Classes: {of_classes}." if len(classes) > 1 else ""
    headline = f"{method.name}: Dice {number(means.iloc[-1], 'dice')}, on {rests_on}."
    return Answer(headline, (details + caution).strip(), {})


def _compared(
    method: MethodRuns,
    baseline: MethodRuns,
    ours: Values,
    theirs: Values,
    patients: Patients,
    units: str,
    caution: str,
) -> Answer:
    classes = [label for label in _classes(theirs) if label in _classes(ours)]
    if not classes or not ours.keys() & theirs.keys():
        text = f"{method.name} and {baseline.name} have no case in common: no difference to state."
        return Answer(text, "Evaluate them on the same cases." + caution, {})
    names, found = (method.name, baseline.name), {}
    for label, counted in classes_and_mean(classes).items():
        pairs = pair(ours, theirs, patients, counted)
        found[label] = difference_of(*names, label, "dice", pairs, patients)
    overall = found[label]  # the last one: the mean over classes, or the only class
    reached = " against ".join(number(mean_of(v), "dice") for v in (pairs.ours, pairs.theirs))
    details = f"Dice {reached}. {_over_classes(classes)}Better on {overall.better} of "
    details += f"{overall.pairs}." + _warning(overall, patients, method, baseline)
    rests_on = f"{_count(overall.pairs, units)}, {_trainings(method, baseline)}"
    return Answer(_headline(overall, rests_on), details + caution, found)


def _headline(found: Difference, rests_on: str) -> str:
    difference = f"{number(found.mean, 'dice', sign=True)} Dice"
    if np.isnan(found.low):
        return (
            f"{found.method} minus {found.baseline}: {difference}, without an interval, on "
            f"{rests_on}."
        )
    low, high = (number(end, "dice", sign=True) for end in (found.low, found.high))
    interval = f"{difference} (95 % interval {low} to {high}), on {rests_on}"
    if found.low > 0:
        return f"{found.method} is better than {found.baseline}: {interval}."
    if found.high < 0:
        return f"{found.method} is worse than {found.baseline}: {interval}."
    return f"{found.method} and {found.baseline} cannot be told apart: {interval}."


def _trainings(method: MethodRuns, baseline: MethodRuns) -> str:
    if method.trainings == baseline.trainings:
        return f"{method.trainings} each"
    return f"{method.trainings} against {baseline.trainings}"


def _warning(found: Difference, patients: Patients, *methods: MethodRuns) -> str:
    """Say what the interval does not cover."""
    text = ""
    if found.pairs < MIN_PATIENTS:
        text = f" Fewer than {patients.count(MIN_PATIENTS)} are too few for an interval."
    if found.left_out:
        text += f" Left out, without a defined Dice: {count_of(found.left_out, 'case')}."
    if any(len(method.runs) == 1 for method in methods):
        text += (
            " Trainings that differ by chance alone can differ by 0.02 Dice and more: train "
            "several seeds."
        )
    return text


def _over_classes(classes: Sequence[str]) -> str:
    return f"Mean over {len(classes)} classes. " if len(classes) > 1 else ""


def _count(number_of_units: int, units: str) -> str:
    return f"{number_of_units} {units if number_of_units != 1 else units[:-1]}"
