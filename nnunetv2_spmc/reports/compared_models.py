"""A trained model among others: its folds, and what their validations measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.evaluation.pairs import over_seeds
from nnunetv2_spmc.evaluation.recommendation import Candidate
from nnunetv2_spmc.methods import TRAINERS, nnUNetTrainerSupervisedControl
from nnunetv2_spmc.reports.run_files import (
    SUMMARY_JSON,
    VALIDATION_FOLDER,
    summary_table,
    values_of,
)
from nnunetv2_spmc.reports.run_record import RunRecord
from nnunetv2_spmc.training.warm_start import weights_have_seen
from nnunetv2_spmc.unlabeled.overlap import may_touch_validation

CONTROL = nnUNetTrainerSupervisedControl.__name__
OWN = {trainer.__name__ for trainer in TRAINERS} - {CONTROL}


@dataclass(frozen=True, eq=False)
class ComparedModel:
    """A trainer with its plans: validated folds, each with one run or several."""

    trainer: str
    plans: str
    folds: Mapping[str, tuple[RunRecord, ...]]
    names_plans: bool = False

    @cached_property
    def name(self) -> str:
        """What every table and sentence calls it; says so if its Dice may be too good."""
        marks = [self.plans] if self.names_plans else []
        if any(run.overlap for run in self.runs):
            marks.append("overlap allowed")
        elif self.how_seen:
            marks.append("validation cases seen")
        return f"{self.trainer} ({', '.join(marks)})" if marks else self.trainer

    @property
    def runs(self) -> list[RunRecord]:
        """All runs, fold by fold."""
        return [run for runs in self.folds.values() for run in runs]

    @cached_property
    def tables(self) -> dict[str, list[pd.DataFrame]]:
        """What the validation measured, per fold and run."""
        return {fold: [_measured(run) for run in runs] for fold, runs in self.folds.items()}

    @cached_property
    def seen(self) -> dict[str, list[str]]:
        """The validation cases per fold that were unlabeled cases of the training."""
        return {
            fold: sorted(
                {
                    case
                    for run, table in zip(self.folds[fold], tables, strict=True)
                    for case in set(table["case"]).intersection(run.unlabeled_cases)
                }
            )
            for fold, tables in self.tables.items()
        }

    @cached_property
    def how_seen(self) -> str:
        """How it has seen validation cases in training, 'as unlabeled ones'; '' if it has not."""
        found = []
        if any(
            weights_have_seen(run.pretrained_weights, run.dataset_name, fold, set(table["case"]))
            for fold, tables in self.tables.items()
            for run, table in zip(self.folds[fold], tables, strict=True)
        ):
            found.append("through its pretrained weights")
        if any(self.seen.values()):
            found.append("as unlabeled ones")
        elif any(may_touch_validation(run.overlap) for run in self.runs):
            found.append("as allow_overlap let it")
        return " and ".join(found)

    @cached_property
    def seconds(self) -> float:
        """How long a training of a fold took, NaN where that is unknown."""
        seconds = [sum(run.curves["seconds"].dropna()) for run in self.runs]
        return float(np.mean(seconds)) if all(seconds) else np.nan

    def candidate(self) -> Candidate:
        """Return what decides whether it is used."""
        dice = over_seeds(
            values_of(table, fold=fold) for fold, tables in self.tables.items() for table in tables
        )
        needs_unlabeled = any(run.unlabeled_cases for run in self.runs)
        rank = 2 if needs_unlabeled else 1 if self.trainer in OWN else 0
        return Candidate(self.name, dice, rank, needs_unlabeled, self.seconds, self.how_seen)


def _measured(run: RunRecord) -> pd.DataFrame:
    table = summary_table(run.folder, run.dataset_json)
    if table is None:
        raise DataError(
            f"{run.folder / VALIDATION_FOLDER / SUMMARY_JSON} has no case; validate again with "
            "nnUNetv2_spmc_train ... --val."
        )
    return table
