"""What is on the report page, and how it shall be made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from nnunetv2_spmc.evaluation.case_metrics import METRICS
from nnunetv2_spmc.evaluation.patients import Patients
from nnunetv2_spmc.raw.cases import count_of
from nnunetv2_spmc.reports.answers import Answer, answers
from nnunetv2_spmc.reports.case_views import CaseView
from nnunetv2_spmc.reports.methods import MethodRuns, methods_of
from nnunetv2_spmc.reports.predictions import Kind, Predictions
from nnunetv2_spmc.reports.run_record import RunRecord

Log = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to show, and how to make it.

    Args:
        num_cases: how many of the worst and how many of the best cases to show.
        with_maps: predict what is not stored: test cases, and maps of the cases that are shown.
        test_cases: judge by the test cases of the dataset, where it has labeled ones.
        predictions: of the test cases, a folder per run; by default the folder `test` of each run.
        num_processes: that measure, see `evaluate_folder`.
        show_progress: show progress bars.
        log: receives a line per step that takes time.
    """

    num_cases: int = 2
    with_maps: bool = True
    test_cases: bool = True
    predictions: Sequence[Path] = ()
    num_processes: int | None = 0
    show_progress: bool = False
    log: Log = print


@dataclass
class Report:
    """Everything on the page, before it is turned into HTML.

    Args:
        runs: name on the page -> run.
        kind: which cases it judges by.
        predictions: name -> its predicted cases; runs without any are absent.
        cases: identifier -> the case, in a run of each method, worst cases first.
        patients: whose the cases are.
        notes: what the page lacks and why, one sentence each.
        failed: run, or case of run -> why it is not on the page: something of it is damaged.
    """

    runs: dict[str, RunRecord]
    kind: Kind = "validation"
    predictions: dict[str, Predictions] = field(default_factory=dict)
    cases: dict[str, list[CaseView]] = field(default_factory=dict)
    patients: Patients = field(default_factory=Patients)
    notes: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, pd.DataFrame]:
        """Name of a run -> one row per case and class."""
        return {name: found.metrics for name, found in self.predictions.items()}

    @property
    def methods(self) -> list[MethodRuns]:
        """The runs as trainings of methods."""
        return methods_of(self.runs)

    @property
    def answers(self) -> list[Answer]:
        """How the methods compare with the first one."""
        return answers(
            self.methods, self.metrics, self.patients, kind=self.kind, seen=self.trained_on_cases
        )

    @property
    def trained_on_cases(self) -> list[str]:
        """Runs whose validation cases are their training cases."""
        if self.kind == "test":
            return []
        return [name for name in self.predictions if self.runs[name].fold == "all"]

    @property
    def shown_metrics(self) -> list[str]:
        """Metrics that some run has."""
        return [m for m in METRICS if any(t[m].notna().any() for t in self.metrics.values())]

    @property
    def judged_by(self) -> str:
        """Which cases the report judges by, '18 test cases' for example; empty without any."""
        cases = {case for table in self.metrics.values() for case in table["case"]}
        return count_of(len(cases), f"{self.kind} case") if cases else ""

    @property
    def class_names(self) -> dict[int, str]:
        """Label value -> class, of the first run."""
        return next(iter(self.runs.values())).class_of_value
