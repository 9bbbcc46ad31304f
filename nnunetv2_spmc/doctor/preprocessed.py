"""What is wrong with the plans, the folds and the preprocessed cases of a dataset."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.doctor.dataset import DatasetToCheck
from nnunetv2_spmc.doctor.finding import Finding, Severity
from nnunetv2_spmc.raw.cases import count_of, name_some
from nnunetv2_spmc.raw.layout import SPLITS_FINAL
from nnunetv2_spmc.raw.splits import NNUNET_FOLDS
from nnunetv2_spmc.training.few_labels import read_folds
from nnunetv2_spmc.unlabeled.cases import case_problem, failed_cases, finished_cases
from nnunetv2_spmc.unlabeled.plans_check import check_plans
from nnunetv2_spmc.unlabeled.plans_record import check_record
from nnunetv2_spmc.unlabeled.preprocessed_files import exchanged_cases
from nnunetv2_spmc.unlabeled.target import UnlabeledTarget


def check_labeled(dataset: DatasetToCheck, target: UnlabeledTarget) -> Iterator[Finding]:
    """Open every preprocessed labeled case of a configuration."""
    name = target.configuration_name
    check_plans(target)
    cases = target.labeled_cases()
    missing = sorted(set(dataset.labeled) - set(cases))
    if missing:
        what = f"Labeled cases are not preprocessed for {name}, so they are not trained on."
        yield Finding(name, "warning", what, tuple(missing), command=target.labeled_command)
    if not (target.labeled_folder / f"{cases[0]}.b2nd").is_file():
        yield Finding(name, "note", f"{target.labeled_folder} has files of an old nnU-Net.")
        return
    work = partial(_problem, target.labeled_folder, labeled=True)
    problems = dataset.in_workers(work, cases, f"Labeled cases, {name}")
    damaged = {c: why for c, why in zip(cases, problems, strict=True) if why is not None}
    yield from _damaged(damaged, f"labeled cases in {target.labeled_folder}", target, labeled=True)
    if not damaged:
        yield Finding(name, "ok", f"All {count_of(len(cases), 'labeled case')} could be opened.")


def check_unlabeled(dataset: DatasetToCheck, target: UnlabeledTarget) -> Iterator[Finding]:
    """Open every preprocessed unlabeled case of a configuration."""
    name, folder = target.configuration_name, target.folder
    present = _present(folder)
    check_record(target, present)
    problems = dataset.in_workers(
        partial(_problem, folder, labeled=False), present, f"Unlabeled cases, {name}"
    )
    damaged = {c: why for c, why in zip(present, problems, strict=True) if why is not None}
    yield from _damaged(damaged, f"unlabeled cases in {folder}", target, labeled=False)
    whole = [case for case in finished_cases(folder) if case not in damaged]
    exchanged = exchanged_cases(target, whole)
    if exchanged:
        first = next(iter(exchanged.values()))
        what = f"Preprocessed unlabeled cases are not their own scans but {first}."
        advice = "The command makes them again."
        yield Finding(name, "error", what, tuple(exchanged), advice, target.command)
    images = dataset.images
    if images is not None:
        wanted = set(images.cases) - set(dataset.annotated)
        failed = failed_cases(folder, {i: images.cases[i] for i in wanted})
        if failed:
            what = f"Unlabeled cases could not be preprocessed: {next(iter(failed.values()))}"
            advice = "Repair or remove their scans, then:"
            yield Finding(name, "warning", what, tuple(failed), advice, target.command)
        missing = sorted(wanted - set(present) - set(failed))
        if missing:
            severity: Severity = "warning" if present else "note"
            what = "Unlabeled cases are not preprocessed yet; a training does that at its start."
            yield Finding(name, severity, what, tuple(missing), command=target.command)
    if whole and not damaged and not exchanged:
        yield Finding(name, "ok", f"All {count_of(len(whole), 'unlabeled case')} could be opened.")


def _present(folder: Path) -> list[str]:
    names = (file.stem for file in folder.glob("*.b2nd")) if folder.is_dir() else ()
    return sorted(name for name in names if not name.endswith("_seg"))


def _problem(folder: Path, identifier: str, *, labeled: bool) -> str | None:
    return case_problem(folder, identifier, verify=True, labeled=labeled)


def _damaged(
    damaged: dict[str, str], which: str, target: UnlabeledTarget, *, labeled: bool
) -> Iterator[Finding]:
    if damaged:
        what = f"{len(damaged)} preprocessed {which} are damaged: {next(iter(damaged.values()))}."
        command = target.labeled_command if labeled else f"{target.command} --verify"
        yield Finding(target.configuration_name, "error", what, tuple(damaged), command=command)


def check_folds(dataset: DatasetToCheck, identifiers: Sequence[str]) -> Iterator[Finding]:
    """Look at the folds of the labeled cases."""
    assert dataset.preprocessed is not None
    file = dataset.preprocessed / SPLITS_FINAL
    folds = read_folds(dataset.preprocessed, identifiers)
    number = min(len(identifiers), NNUNET_FOLDS) if folds is None else len(folds)
    labeled = count_of(len(identifiers), "labeled case")
    known = {name for fold in folds or () for part in fold.values() for name in part}
    if unknown := sorted(known - set(identifiers)):
        what = f"{file} names cases that are not preprocessed."
        advice = "Preprocess them, or delete the file to make new folds."
        yield Finding("folds", "error", what, tuple(unknown), advice)
    if folds and (left_out := sorted(set(identifiers) - known)):
        what = f"{file} leaves labeled cases out."
        advice = "Delete the file to make new folds, or add them."
        yield Finding(
            "folds", "warning", what, tuple(left_out), advice, shlex.join(["rm", str(file)])
        )
    same = [str(i) for i, fold in enumerate(folds or ()) if fold["train"] == fold["val"]]
    if same or len(identifiers) == 1:
        which = f"Fold {name_some(same or ['0'])} trains and validates"
        what = f"{which} on the same cases: its validation Dice says nothing."
        yield Finding("folds", "warning", what, advice="Label a second case.")
    elif number < NNUNET_FOLDS:
        numbers = " ".join(map(str, range(number)))
        makes = "1 fold" if number == 1 else f"{number} folds"
        what = f"{labeled} in {makes}: after training, nnUNetv2_predict -f {numbers}"
        yield Finding("folds", "note", what)
    else:
        origin = f"in {file.name}" if folds else "that nnU-Net makes at the start of a training"
        yield Finding("folds", "ok", f"{labeled} in {number} folds {origin}.")


def not_preprocessed(target: UnlabeledTarget) -> str:
    """Say that the labeled cases of a configuration are not preprocessed; empty if they are."""
    try:
        target.labeled_cases()
    except DataError as error:
        return str(error)
    return ""
