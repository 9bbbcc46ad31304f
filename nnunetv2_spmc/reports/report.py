"""What the report page shows, gathered from one or several runs: nnUNetv2_spmc_report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.evaluation.case_metrics import METRICS
from nnunetv2_spmc.evaluation.folder_evaluation import evaluate_folder
from nnunetv2_spmc.evaluation.metrics_csv import METRICS_COLUMNS
from nnunetv2_spmc.reports.case_views import CaseView, case_view, on_axes_of, reference_of
from nnunetv2_spmc.reports.run_files import VALIDATION_FOLDER, AbsentError
from nnunetv2_spmc.reports.run_record import RunRecord, run_labels

Log = Callable[[str], None]


@dataclass
class Report:
    """Everything on the page, before it is turned into HTML.

    Args:
        runs: name on the page -> run.
        metrics: name -> one row per validation case and class; runs without validation are absent.
        cases: identifier -> the case in the runs that have it, worst cases first.
        notes: what the page lacks and why, one sentence each.
        failed: run, or case of run -> why it is not on the page: something of it is damaged.
    """

    runs: dict[str, RunRecord]
    metrics: dict[str, pd.DataFrame] = field(default_factory=dict)
    cases: dict[str, list[CaseView]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def shown_metrics(self) -> list[str]:
        """Metrics that some run has."""
        return [m for m in METRICS if any(t[m].notna().any() for t in self.metrics.values())]

    @property
    def class_names(self) -> list[str]:
        """Classes of the first run, in the order of their label values."""
        return list(next(iter(self.runs.values())).classes)


def gather_report(
    runs: Sequence[RunRecord], *, num_cases: int = 2, with_maps: bool = True, log: Log = print
) -> Report:
    """Gather what the page shows.

    Args:
        runs: one or several, of the same dataset where cases are to be compared.
        num_cases: how many of the worst and how many of the best validation cases to show.
        with_maps: predict those cases once more for confidence and common-difficulty voxels.
        log: receives a line per step that takes time.
    """
    report = Report(dict(zip(run_labels(runs), runs, strict=True)))
    for name, run in report.runs.items():
        if not run.is_finished:
            epochs = run.settings.get("epochs", "an unknown number of")
            report.notes.append(
                f"{name} is not finished: {run.epochs_done} of {epochs} epochs. Go on with "
                f"{run.resume_command}"
            )
        if run.overlap:
            report.notes.append(
                f"{name} was trained with allow_overlap ({run.overlap}): what is measured on those "
                "cases is too good."
            )
        try:
            report.metrics[name], unmeasured = with_distances(run, log)
            report.failed |= {f"{case} of {name}": why for case, why in unmeasured.items()}
        except AbsentError as error:
            report.notes.append(f"{name} has no metrics: {error}")
        except DataError as error:
            report.failed[name] = str(error)
    absent: dict[str, list[str]] = {}  # run -> a sentence per case
    for case in extreme_cases(report.metrics, num_cases):
        views = _views(report, case, absent, with_maps=with_maps, log=log)
        if views:
            report.cases[case] = views
    for name, sentences in absent.items():
        more = f" ({name}: the same of {len(sentences) - 1} more)" if len(sentences) > 1 else ""
        report.notes.append(sentences[0] + more)
    report.notes += [f"{what} is not shown in full: {why}" for what, why in report.failed.items()]
    shown = [view for views in report.cases.values() for view in views]
    one_branch = {
        v.run_name for v in shown if v.confidence is not None and v.common_difficulty is None
    }
    for name in (name for name in report.runs if name in one_branch):
        report.notes.append(
            f"{name} has no second branch in its checkpoint, or no tau: its confidence is shown, "
            "common-difficulty voxels need both, as in a training checkpoint of nnUNetTrainerSPMC."
        )
    return report


def with_distances(run: RunRecord, log: Log = print) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the metrics of the validation cases, with surface distances if they can be measured.

    Returns:
        The metrics, and the cases that cannot be measured, with the reason: these have no distance.

    Raises:
        AbsentError: the run has not been validated.
        DataError: its metrics are damaged.
    """
    table = run.metrics
    if table["hd95_mm"].notna().any() or table.empty:
        return table, {}
    reference = reference_of(run, str(table["case"].iloc[0]))
    if reference is None:
        return table, {}
    log(f"Measuring surface distances of {run.name}")
    try:
        evaluation = evaluate_folder(
            reference.parent,
            run.folder / VALIDATION_FOLDER,
            run.folder.parent / "dataset.json",
            num_processes=0,
            allow_missing=True,
            show_progress=False,
        )
    except DataError as error:
        log(f"note: no surface distances: {error}")
        return table, {}
    measured = pd.DataFrame([vars(row) for row in evaluation.rows], columns=METRICS_COLUMNS)
    if not evaluation.failed:
        return measured, {}
    others = table[table["case"].isin(list(evaluation.failed))]
    return pd.concat([measured, others], ignore_index=True), evaluation.failed


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
    report: Report, case: str, absent: dict[str, list[str]], *, with_maps: bool, log: Log
) -> list[CaseView]:
    """Return the case in all runs that have it; say in `absent` and `report.failed` where not."""
    views = []
    for name, run in report.runs.items():
        if name not in report.metrics or case not in set(report.metrics[name]["case"]):
            continue
        log(f"{'Predicting' if with_maps else 'Reading'} {case} of {name}")
        try:
            views.append(case_view(run, case, with_maps=with_maps, name=name))
        except AbsentError as error:
            absent.setdefault(name, []).append(f"{case} of {name} is not shown: {error}")
        except (DataError, OSError, RuntimeError) as error:  # nnU-Net raises the latter
            report.failed[f"{case} of {name}"] = str(error)
    views = [on_axes_of(view, views[0]) for view in views]
    return [view for view in views if view.image.shape == views[0].image.shape]


def default_title(runs: Sequence[RunRecord]) -> str:
    """Return the heading of the page."""
    return f"Training report: {', '.join(dict.fromkeys(run.dataset_name for run in runs))}"


def unique_folders(folders: Sequence[Path]) -> list[Path]:
    """Drop runs that are named twice."""
    return list({folder.resolve(): folder for folder in folders}.values())
