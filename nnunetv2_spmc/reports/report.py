"""What the report page shows, gathered from one or several runs: nnUNetv2_spmc_report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.evaluation.patients import Patients, patients_of
from nnunetv2_spmc.reports.case_views import CaseView, case_view, on_axes_of
from nnunetv2_spmc.reports.content import Options, Report
from nnunetv2_spmc.reports.predictions import (
    Predictions,
    predicted_test_cases,
    predicted_validation_cases,
)
from nnunetv2_spmc.reports.run_files import AbsentError
from nnunetv2_spmc.reports.run_names import run_labels
from nnunetv2_spmc.reports.run_record import RunRecord

PROBLEMS = (DataError, OSError, RuntimeError)  # nnU-Net raises the latter


def gather_report(runs: Sequence[RunRecord], options: Options | None = None) -> Report:
    """Gather what the page shows.

    Args:
        runs: one or several, of the same dataset where cases are to be compared.
        options: what to show, and how to make it.
    """
    options = options or Options()
    report = Report(dict(zip(run_labels(runs), runs, strict=True)))
    for name, run in report.runs.items():
        report.notes += _remarks(name, run)
    _add_predictions(report, options)
    _add_patients(report)
    absent: dict[str, list[str]] = {}  # run -> a sentence per case
    chosen = extreme_cases(report.metrics, options.num_cases)
    for number, case in enumerate(chosen, start=1):
        views = _views(report, case, absent, options, f"[{number}/{len(chosen)}] {case}")
        if views:
            report.cases[case] = views
    for name, sentences in absent.items():
        more = f" ({name}: the same of {len(sentences) - 1} more)" if len(sentences) > 1 else ""
        report.notes.append(sentences[0] + more)
    report.notes += [f"{what} is not shown in full: {why}" for what, why in report.failed.items()]
    shown = [view for views in report.cases.values() for view in views]
    one_branch = dict.fromkeys(
        view.run_name
        for view in shown
        if view.confidence is not None and view.common_difficulty is None
    )
    if one_branch:
        report.notes.append(
            f"No common-difficulty voxels are shown for {', '.join(one_branch)}: they need the two "
            "branches of a training checkpoint of nnUNetTrainerSPMC."
        )
    return report


def _remarks(name: str, run: RunRecord) -> list[str]:
    """Say what to know of a run before anything is measured."""
    remarks = []
    if not run.is_finished:
        epochs = run.settings.get("epochs", "an unknown number of")
        remarks.append(
            f"{name} is not finished: {run.epochs_done} of {epochs} epochs. Go on with "
            f"{run.resume_command}"
        )
    if run.overlap:
        remarks.append(
            f"{name} was trained with allow_overlap ({run.overlap}): what is measured on those "
            "cases is too good."
        )
    return remarks


# ---- predictions ---------------------------------------------------------------------------------


def _add_predictions(report: Report, options: Options) -> None:
    """Take the test cases if all finished runs have them, else the validation cases."""
    if options.test_cases:
        found = _test_cases(report, options)
        if found:
            report.kind, report.predictions = "test", found
    if report.kind == "validation":
        for name, run in report.runs.items():
            try:
                report.predictions[name] = predicted_validation_cases(
                    run,
                    num_processes=options.num_processes,
                    show_progress=options.show_progress,
                    log=options.log,
                )
            except AbsentError as error:
                report.notes.append(f"{name} has no metrics: {error}")
            except DataError as error:
                report.failed[name] = str(error)
    for name, predictions in report.predictions.items():
        report.failed |= {f"{case} of {name}": why for case, why in predictions.failed.items()}


def _test_cases(report: Report, options: Options) -> dict[str, Predictions]:
    """Return the test cases of all finished runs; nothing, and a note, if some lack them."""
    folders = dict(zip(report.runs, options.predictions, strict=False))
    finished = {name: run for name, run in report.runs.items() if run.is_finished}
    found, absent = {}, {}
    for name, run in finished.items():
        try:
            found[name] = predicted_test_cases(
                run,
                folders.get(name),
                may_predict=options.with_maps,
                num_processes=options.num_processes,
                show_progress=options.show_progress,
                log=options.log,
            )
        except AbsentError as error:
            absent[name] = str(error)
        except PROBLEMS as error:
            absent[name] = str(error)
            report.failed[f"test cases of {name}"] = str(error)
    if not absent:
        return found
    if found or not all(why.startswith("nnUNet_raw has no test cases") for why in absent.values()):
        name, why = next(iter(absent.items()))
        report.notes.append(f"Validation cases are shown, because of {name}: {why.rstrip('.')}.")
    return {}


def _add_patients(report: Report) -> None:
    cases: dict[str, set[str]] = {}  # dataset -> its cases
    for name, table in report.metrics.items():
        cases.setdefault(report.runs[name].dataset_name, set()).update(table["case"])
    of_case: dict[str, str] = {}
    for dataset, of_dataset in cases.items():
        try:
            found = patients_of(dataset, of_dataset)
        except DataError as error:
            report.failed[f"patients of {dataset}"] = str(error)
            continue
        of_case |= found.of_case
        report.patients = Patients(of_case, report.patients.are_known or found.are_known)


# ---- cases ---------------------------------------------------------------------------------------


def extreme_cases(metrics: Mapping[str, pd.DataFrame], number_of_cases: int) -> list[str]:
    """Return the worst and the best cases by mean Dice over classes, then over runs, worst first.

    Cases that all runs have come into question; where there is none, those of any run.
    """
    if not metrics or number_of_cases == 0:
        return []
    per_run = [table.groupby("case")["dice"].mean().dropna() for table in metrics.values()]
    together = pd.concat(per_run, axis=1)
    common = together.dropna()
    order = list((common if len(common) else together).mean(axis=1).sort_values().index)
    if len(order) <= 2 * number_of_cases:
        return order
    return order[:number_of_cases] + order[-number_of_cases:]


def _views(
    report: Report, case: str, absent: dict[str, list[str]], options: Options, progress: str
) -> list[CaseView]:
    """Return the case in a run of each method; say in `absent` and `report.failed` where not."""
    views = []
    for method in report.methods:
        for name, run in method.runs.items():
            predictions = report.predictions.get(name)
            if predictions is None or case not in set(predictions.metrics["case"]):
                continue
            options.log(f"{progress}: {name}")
            try:
                views.append(
                    case_view(run, case, with_maps=options.with_maps, name=name, among=predictions)
                )
                break  # the next method
            except AbsentError as error:
                absent.setdefault(name, []).append(f"{case} of {name} is not shown: {error}")
            except PROBLEMS as error:
                report.failed[f"{case} of {name}"] = str(error)
    views = [on_axes_of(view, views[0]) for view in views]
    return [view for view in views if view.image.shape == views[0].image.shape]


def default_title(runs: Sequence[RunRecord]) -> str:
    """Return the heading of the page."""
    return f"Training report: {', '.join(dict.fromkeys(run.dataset_name for run in runs))}"


def unique_folders(folders: Sequence[Path]) -> list[Path]:
    """Drop runs that are named twice."""
    return list({folder.resolve(): folder for folder in folders}.values())


def folds_of(models: Sequence[Path], folds: Sequence[str] | None) -> list[Path]:
    """Return the folders of folds, finished or not, of model folders.

    Args:
        models: TRAINER__PLANS__CONFIGURATION inside nnUNet_results/DatasetXXX_Name.
        folds: "0" or "all", for example; None takes all that are there.

    Raises:
        DataError: a model has no such fold.
    """
    found = []
    for model in models:
        there = sorted(path.name for path in model.glob("fold_*") if path.is_dir())
        wanted = there if folds is None else [f"fold_{fold}" for fold in folds]
        missing = [name for name in wanted if name not in there]
        if missing or not wanted:
            raise DataError(
                f"{model} has no {', '.join(missing) or 'fold'}; there is "
                f"{', '.join(there) or 'none'}: choose with -f, or train it."
            )
        found += [model / name for name in wanted]
    return found
