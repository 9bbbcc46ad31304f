"""The methods among runs: runs that differ in seed or fold only are trainings of one method."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunetv2_spmc.reports.run_names import told_apart
from nnunetv2_spmc.reports.run_record import RunRecord, short_name
from nnunetv2_spmc.reports.used_settings import completed, used_settings
from nnunetv2_spmc.training.settings import SCHEDULE

# the schedule without its length: they change nothing of what is learned
IRRELEVANT = {"seed", *SCHEDULE} - {"epochs"}
CONTROLS = ("nnUNetTrainerSupervisedControl", "nnUNetTrainer")
VIEW_CONTROL = "nnUNetTrainerViewControl"
MAX_DIFFERING = 3  # settings that a name lists


@dataclass(frozen=True)
class MethodRuns:
    """A method, and its trainings on the page.

    Args:
        name: what the page calls it.
        runs: name on the page -> training.
    """

    name: str
    runs: Mapping[str, RunRecord]

    @property
    def dataset(self) -> str:
        """The name of the dataset; empty without a training."""
        return next((run.dataset_name for run in self.runs.values()), "")

    @property
    def trainer(self) -> str:
        """The class name of the trainer; empty without a training."""
        return next((run.trainer for run in self.runs.values()), "")

    @property
    def trainings(self) -> str:
        """How many trainings there are, '2 seeds' for example."""
        number = len(self.runs)
        folds = {run.fold for run in self.runs.values()}
        if len(folds) == number > 1:
            return f"{number} folds"
        return f"{number} {'training' if len(folds) > 1 else 'seed'}{'s' if number > 1 else ''}"


def methods_of(runs: Mapping[str, RunRecord]) -> list[MethodRuns]:
    """Group runs into methods: supervised controls first, then view controls, then the others.

    Args:
        runs: name on the page -> run.
    """
    groups: dict[str, dict[str, RunRecord]] = {}

    # what methods are compared with, however a shell orders them
    def control_first(item: tuple[str, RunRecord]) -> tuple[bool, bool]:
        return item[1].trainer not in CONTROLS, item[1].trainer != VIEW_CONTROL

    for name, run in sorted(runs.items(), key=control_first):
        groups.setdefault(_key(run), {})[name] = run
    firsts = [next(iter(group.values())) for group in groups.values()]
    names = told_apart(
        [short_name(run.trainer) for run in firsts],
        [run.configuration for run in firsts],
        [run.plans["plans_name"] for run in firsts],
        [run.dataset_name for run in firsts],
        _differing(firsts),
    )
    return [
        MethodRuns(f"{name} (overlap allowed)" if first.overlap else name, group)
        for name, first, group in zip(names, firsts, groups.values(), strict=True)
    ]


def _settings(run: RunRecord) -> dict[str, Any]:
    used = used_settings(run.trainer, completed(run.trainer, run.settings))
    return {key: value for key, value in used.items() if key not in IRRELEVANT}


def _key(run: RunRecord) -> str:
    """Return the same text for trainings of the same method."""
    identity = (run.dataset_name, run.trainer, run.configuration, run.plans["plans_name"])
    facts = (bool(run.overlap), len(run.unlabeled_cases), _settings(run))
    return json.dumps([identity, facts], sort_keys=True, default=str)


def _differing(runs: Sequence[RunRecord]) -> list[str]:
    """Return the settings in which the runs of one trainer differ, as text for each run."""
    texts = []
    for run in runs:
        mine = _settings(run)
        others = [_settings(other) for other in runs if other.trainer == run.trainer]
        keys = [
            key for key in mine if any(other.get(key, mine[key]) != mine[key] for other in others)
        ]
        texts.append(", ".join(f"{key} {mine[key]}" for key in keys[:MAX_DIFFERING]))
    return [text or "same settings" for text in texts]
