"""Find the trained models of a dataset in nnUNet_results that can be compared."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.nnunet_folders import (
    PREPROCESSED,
    RAW,
    find_dataset,
    folder_if_set,
    number_of,
    results_folder,
)
from nnunetv2_spmc.evaluation.patients import Patients, patients_of
from nnunetv2_spmc.methods import nnUNetTrainerSPMC
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.reports.compared_models import CONTROL, ComparedModel
from nnunetv2_spmc.reports.run_files import SUMMARY_JSON, VALIDATION_FOLDER
from nnunetv2_spmc.reports.run_record import RunRecord
from nnunetv2_spmc.training.few_labels import validated_and_trained_on

FOLD = re.compile(r"fold_(\d+)")
DEFAULT_PLANS = "nnUNetPlans"


@dataclass(frozen=True)
class Question:
    """Which models to look for.

    Attributes:
        dataset: Name or id.
        configuration: Such as 3d_fullres.
        trainers: Their names; all where empty.
        plans: Their name; all where empty.
        results: Folders as nnUNet_results, which it is where there are none. The same training in
            several of them is one model, with a run in each.
        models: Their folders, in place of looking for them.
        folds: Such as "0"; all where empty.
    """

    dataset: str
    configuration: str
    trainers: tuple[str, ...] = ()
    plans: str = ""
    results: tuple[Path, ...] = ()
    models: tuple[Path, ...] = ()
    folds: tuple[str, ...] = ()


def question_of(models: Sequence[Path], folds: Sequence[str] = ()) -> Question:
    """Return the question that names models by their folders.

    Args:
        models: TRAINER__PLANS__CONFIGURATION inside nnUNet_results/DatasetXXX_Name.
        folds: "0", for example; all where empty.

    Raises:
        DataError: a folder is none of a model, or they are of several datasets or configurations.
    """
    kinds = set()
    for folder in map(Path.resolve, models):
        parts = folder.name.split("__")
        if len(parts) != 3 or not folder.is_dir():
            raise DataError(
                f"{folder} is not a model folder; give the folder TRAINER__PLANS__CONFIGURATION "
                "inside nnUNet_results/DatasetXXX_Name."
            )
        kinds.add((folder.parent.name, parts[2]))
    if len(kinds) > 1:
        listed = "; ".join(f"{dataset} {configuration}" for dataset, configuration in sorted(kinds))
        raise DataError(f"Models of one dataset and configuration can be compared, got {listed}.")
    ((dataset, configuration),) = kinds
    unique = tuple(dict.fromkeys(map(Path.resolve, models)))
    return Question(dataset, configuration, models=unique, folds=tuple(folds))


@dataclass(frozen=True)
class FoundModels:
    """What was found."""

    dataset_name: str
    models: tuple[ComparedModel, ...]
    notes: tuple[str, ...] = field(default=())

    def patients(self) -> Patients:
        """Return whose the validation cases are."""
        tables = (
            table for model in self.models for of_fold in model.tables.values() for table in of_fold
        )
        return patients_of(self.dataset_name, {case for table in tables for case in table["case"]})


def find_models(question: Question) -> FoundModels:
    """Find the models of a dataset that validated a fold.

    Raises:
        DataError: there are not two of them; says what to train.
    """
    name, folders = question.dataset, list(question.models)
    if not folders:
        roots = question.results or (results_folder(),)
        name = _dataset_name(question, roots[0])
        _check_roots(roots, name)
        folders = [folder for root in roots for folder in _model_folders(root / name, question)]
        _check_found(question, name, roots[0], folders)
    found: dict[tuple[str, str], dict[str, list[RunRecord]]] = {}
    notes: list[str] = []
    unfinished: set[str] = set()  # trainers
    for folder in folders:
        trainer, plans, _ = folder.name.split("__")
        of_model = found.setdefault((trainer, plans), {})
        for fold_folder in _validated(folder, name, question.folds, notes, unfinished):
            fold = fold_folder.name.removeprefix("fold_")
            of_model.setdefault(fold, []).append(RunRecord.load(fold_folder))
    several_plans = len({plans for (_, plans), folds in found.items() if folds}) > 1
    models = tuple(
        ComparedModel(
            trainer, plans, {fold: tuple(runs) for fold, runs in folds.items()}, several_plans
        )
        for (trainer, plans), folds in found.items()
        if folds
    )
    if len(models) < 2:
        raise _too_few(question, name, models, notes, unfinished)
    return FoundModels(name, models, tuple(notes))


def _dataset_name(question: Question, root: Path) -> str:
    try:
        return find_dataset(question.dataset, root)
    except DataError as error:
        for place in filter(None, map(folder_if_set, (PREPROCESSED, RAW))):
            try:
                name = find_dataset(question.dataset, place)
            except DataError:
                continue
            command = _training(question, name, "0", nnUNetTrainerSPMC.__name__)
            raise DataError(
                f"No model of {name} is trained: {root} has no such folder; train with {command}, "
                f"and with -tr {CONTROL}."
            ) from error
        raise


def _check_roots(roots: Sequence[Path], dataset_name: str) -> None:
    for number, root in enumerate(roots):
        if not (root / dataset_name).is_dir():
            raise DataError(f"{root} has no {dataset_name}; name folders such as nnUNet_results.")
        if root.resolve() in [other.resolve() for other in roots[:number]]:
            raise DataError(f"{root} is given twice; each run counts once.")


def _model_folders(dataset_folder: Path, question: Question) -> Iterator[Path]:
    """Return TRAINER__PLANS__CONFIGURATION that fit; they sort by name."""
    for folder in sorted(dataset_folder.glob("*__*__*")):
        trainer, plans, *configuration = folder.name.split("__")
        if (
            folder.is_dir()
            and configuration == [question.configuration]
            and (not question.trainers or trainer in question.trainers)
            and (not question.plans or plans == question.plans)
        ):
            yield folder


def _check_found(question: Question, name: str, root: Path, folders: Sequence[Path]) -> None:
    """Raise DataError if there is no model, or a trainer that is asked for has none."""
    trainers = {folder.name.split("__")[0] for folder in folders}
    if folders and trainers.issuperset(question.trainers):
        return
    any_trainer = replace(question, trainers=())
    there = {folder.name.split("__")[0] for folder in _model_folders(root / name, any_trainer)}
    what = f"{question.configuration}{f' with {question.plans}' if question.plans else ''}"
    if there:
        absent = sorted(set(question.trainers) - trainers)
        raise DataError(
            f"{root / name} has no model of {name_some(absent)} for {what}; those there are "
            f"{name_some(sorted(there), 20)}."
        )
    others = sorted(folder.name for folder in (root / name).glob("*__*__*"))
    has = f"; it has {name_some(others)}" if others else ""
    command = _training(question, name, "0", nnUNetTrainerSPMC.__name__)
    raise DataError(f"{root / name} has no model for {what}{has}; train with {command}.")


def _validated(
    folder: Path,
    dataset_name: str,
    wanted: Collection[str],
    notes: list[str],
    unfinished: set[str],
) -> Iterator[Path]:
    """Return the folds that can be compared; note the others, and trainers that go on."""
    trainer, plans, configuration = folder.name.split("__")
    folds = sorted(
        path
        for path in folder.glob("fold_*")
        if path.is_dir() and (not wanted or path.name.removeprefix("fold_") in wanted)
    )
    preprocessed = folder_if_set(PREPROCESSED)
    for fold_folder in folds:
        fold = FOLD.fullmatch(fold_folder.name)
        what = f"{fold_folder.name} of {trainer}"
        if fold is None:
            notes.append(
                f"{what} is left out: it has no validation cases, it was trained on all of them"
            )
        elif not (fold_folder / VALIDATION_FOLDER / SUMMARY_JSON).exists():
            question = Question(dataset_name, configuration, plans=plans)
            command = _training(question, dataset_name, fold[1], trainer)
            unfinished.add(trainer)
            notes.append(
                f"{what} is left out: it is not validated; finish it with {command} --c, or --val "
                "if it is trained"
            )
        elif preprocessed is not None and (
            both := validated_and_trained_on(preprocessed / dataset_name, int(fold[1]))
        ):
            notes.append(
                f"{what} is left out: it validates cases that it was trained on ({name_some(both)})"
            )
        else:
            yield fold_folder


def _too_few(
    question: Question,
    name: str,
    models: Sequence[ComparedModel],
    notes: Sequence[str],
    unfinished: Collection[str],
) -> DataError:
    because = "".join(f"; {note}" for note in notes)
    if not models:
        what = f"fold {', '.join(question.folds)}" if question.folds else "a fold"
        remedy = "; choose others with -f, or train it" if question.folds else ""
        return DataError(
            f"No model of {name} for {question.configuration} has validated {what}{because}"
            f"{remedy}."
        )
    (model,) = models
    text = (
        f"There is only one model of {name} for {question.configuration} to compare, {model.name}"
        f"{because}."
    )
    other = CONTROL if model.trainer != CONTROL else nnUNetTrainerSPMC.__name__
    if other in unfinished:
        return DataError(text)
    folds = sorted(model.folds)
    more = f" (then {', '.join(folds[1:])})" if len(folds) > 1 else ""
    command = _training(replace(question, plans=model.plans), name, folds[0], other)
    return DataError(f"{text} Train another one on the same folds: {command}{more}.")


def _training(question: Question, dataset_name: str, fold: str, trainer: str) -> str:
    words = f"nnUNetv2_spmc_train {number_of(dataset_name)} {question.configuration} {fold}"
    plans = "" if question.plans in ("", DEFAULT_PLANS) else f" -p {question.plans}"
    return f"{words} -tr {trainer}{plans}"
