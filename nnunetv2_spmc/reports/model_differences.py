"""How trained models differ besides their method, which may explain a difference in Dice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.evaluation.case_metrics import ClassMetrics
from nnunetv2_spmc.evaluation.methods import Key, Method, Seed
from nnunetv2_spmc.evaluation.pairs import Place
from nnunetv2_spmc.evaluation.patients import Patients
from nnunetv2_spmc.evaluation.recommendation import folds_text
from nnunetv2_spmc.methods import nnUNetTrainerViewControl
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.reports.compared_models import ComparedModel
from nnunetv2_spmc.reports.run_record import NO_OVERLAP, RunRecord
from nnunetv2_spmc.reports.used_settings import used_settings
from nnunetv2_spmc.training.warm_start import has_seen_validation_cases

SETTINGS = ("epochs", "iterations_per_epoch", "initial_lr", "labeled_views", "average_last")
VIEWED = "viewed_pass"
MANY = 10  # cases that a sentence names
AS_LONG = 1.15  # times the hours of another model, at most


def check_same_references(models: Sequence[ComparedModel]) -> None:
    """Raise DataError if a case that two runs validated has other classes or other labels."""
    first: dict[tuple[Place, str], tuple[int, RunRecord]] = {}
    classes: dict[Place, tuple[set[str], RunRecord]] = {}
    for fold, run, table in _measured(models):
        for case, rows in table.groupby("case"):
            labels = set(rows["label"])
            known, other = classes.setdefault((fold, case), (labels, run))
            if labels != known:
                raise DataError(
                    f"{run.folder} and {other.folder} have different classes "
                    f"({', '.join(sorted(labels))}; {', '.join(sorted(known))}); choose models of "
                    "the same classes with -tr and -p."
                )
        for row in table.itertuples():
            key = ((fold, row.case), row.label)
            voxels, other = first.setdefault(key, (row.reference_voxels, run))
            if voxels != row.reference_voxels:
                raise DataError(
                    f"{run.folder} and {other.folder} were validated against different labels of "
                    f"{row.case} ({row.label}); validate both again with --val."
                )


def differences(models: Sequence[ComparedModel]) -> list[str]:
    """Describe in what the models differ, and what makes one look too good; a sentence each."""
    found = list(_folds(models))
    for fold in _all_folds(models):
        some = [model for model in models if fold in model.folds]
        found += _validation_cases(some, fold)
        trained = {m.name: [run.case_counts[0] for run in m.folds[fold]] for m in some}
        found += _unlike(trained, f"the number of labeled cases of fold {fold}")
    for key in SETTINGS:
        if key == "epochs" and _trained_as_long(models):
            continue  # more epochs of a cheaper method are what makes a comparison fair
        found += _unlike({m.name: [run.settings.get(key) for run in m.runs] for m in models}, key)
    found += _viewed_passes(models)
    for model in models:
        found += _unfinished(model)
        found += _warm_start(model)
        found += _trained_on_validation(model)
    return found


def _trained_as_long(models: Sequence[ComparedModel]) -> bool:
    seconds = [model.seconds for model in models]
    return not np.isnan(seconds).any() and max(seconds) <= AS_LONG * min(seconds)


def as_methods(
    models: Sequence[ComparedModel], patients: Patients
) -> tuple[list[Method], Patients]:
    """Return what `evaluation.comparison_report` compares: the cases that all runs validated.

    A case that several folds validated is several, of one patient. A seed is what one of the
    folders of results has of a model.

    Raises:
        DataError: there is no such case.
    """
    seeds: dict[str, dict[Path, dict[Place, list[dict[str, Any]]]]] = {}
    for model in models:
        of_model = seeds.setdefault(model.name, {})
        for fold, run, table in _measured([model]):
            rows = of_model.setdefault(run.folder.parent, {})
            for row in table.to_dict("records"):
                rows.setdefault((fold, row["case"]), []).append(row)
    common = set.intersection(
        *(set(rows) for of_model in seeds.values() for rows in of_model.values())
    )
    if not common:
        raise DataError(
            "No validation case is common to all models, so there is nothing to write with -o; "
            "choose models with -tr."
        )
    counts = Counter(case for _, case in common)
    names = {(f, c): c if counts[c] == 1 else f"{c} (fold {f})" for f, c in sorted(common)}
    methods = [
        Method(name, tuple(_seed(folder, rows, names) for folder, rows in of_model.items()))
        for name, of_model in seeds.items()
    ]
    of_case = {name: patients.of(case) for (_, case), name in names.items()}
    return methods, Patients(of_case, patients.are_known)


def _seed(
    folder: Path, rows: Mapping[Place, list[dict[str, Any]]], names: Mapping[Place, str]
) -> Seed:
    return Seed(
        folder,
        {
            Key(name, row["label"]): ClassMetrics(**{**row, "case": name})
            for place, name in names.items()
            for row in rows[place]
        },
    )


def _measured(models: Iterable[ComparedModel]) -> Iterator[tuple[str, RunRecord, Any]]:
    for model in models:
        for fold, runs in model.folds.items():
            for run, table in zip(runs, model.tables[fold], strict=True):
                yield fold, run, table


def _all_folds(models: Sequence[ComparedModel]) -> list[str]:
    return sorted({fold for model in models for fold in model.folds}, key=int)


def _folds(models: Sequence[ComparedModel]) -> Iterator[str]:
    if len({frozenset(model.folds) for model in models}) > 1:
        listed = "; ".join(
            f"{model.name} {', '.join(sorted(model.folds, key=int))}" for model in models
        )
        yield f"the models have other folds ({listed}); those count that two of them have"


def _validation_cases(models: Sequence[ComparedModel], fold: str) -> Iterator[str]:
    per_run = [set(table["case"]) for m in models for table in m.tables[fold]]
    odd = set.union(*per_run) - set.intersection(*per_run)
    if odd:
        yield (
            f"{folds_text([fold])} has other validation cases in one model than in another, so the "
            f"split was another one ({name_some(sorted(odd), MANY)}); only shared ones are compared"
        )


def _unlike(values: Mapping[str, Iterable[Any]], what: str) -> Iterator[str]:
    """Say where models differ in a number; None is one that is not known."""
    known = {
        name: sorted({float(value) for value in of_runs if isinstance(value, (int, float))})
        for name, of_runs in values.items()
    }
    if len({tuple(found) for found in known.values() if found}) > 1:
        listed = ", ".join(
            f"{name} {' or '.join(f'{value:g}' for value in found)}"
            for name, found in known.items()
            if found
        )
        yield f"the models differ in {what} ({listed}), which may be what makes the difference"


def _viewed_passes(models: Sequence[ComparedModel]) -> Iterator[str]:
    """Say where models differ in when they see labeled patches once more."""
    known = {
        model.name: sorted(
            {used_settings(model.trainer, run.settings).get(VIEWED, "never") for run in model.runs}
        )
        for model in models
        if model.trainer != nnUNetTrainerViewControl.__name__  # where it is the method
    }
    if len({value for values in known.values() for value in values}) > 1:
        listed = ", ".join(f"{name} {' or '.join(values)}" for name, values in known.items())
        yield f"the models differ in {VIEWED} ({listed}), which may be what makes the difference"


def _unfinished(model: ComparedModel) -> Iterator[str]:
    for run in model.runs:
        if not run.is_finished:
            yield (
                f"{run.name} is not finished ({run.epochs_done} epochs done), so its validation is "
                "of an earlier state"
            )


def _warm_start(model: ComparedModel) -> Iterator[str]:
    for run in model.runs:
        source, fold = run.pretrained_weights, run.fold
        if seen := has_seen_validation_cases(source, run.dataset_name, fold):
            yield f"{run.name}: {seen}"
        elif source:
            yield f"{run.name} started from {source}, so it has learned for longer than its epochs"


def _trained_on_validation(model: ComparedModel) -> Iterator[str]:
    for fold, runs in model.folds.items():
        if seen := model.seen[fold]:
            yield (
                f"{model.name} was trained on validation cases of fold {fold} as unlabeled ones "
                f"({name_some(seen, MANY)}), so its Dice is too good"
            )
            continue
        for overlap in {run.overlap for run in runs} - {"", NO_OVERLAP}:
            yield (
                f"{model.name} was trained with allow_overlap in fold {fold} ({overlap}), so its "
                "Dice may be too good"
            )
