"""What a training of the queue is: its data, its trainer, its settings and its commands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from nnunetv2_spmc import methods
from nnunetv2_spmc.training.settings import Resolved

PREFIX = "nnUNetTrainer"
STAGES = {
    "search": "chooses settings, on the validation cases: the test cases are not looked at",
    "confirm": "repeats what was chosen, with other seeds or on other data",
    "league": "compares methods as they were chosen",
    "bound": "the control with more labels than the others have",
    "older": "from before there were stages",
}
VEHICLES: dict[str, dict[str, int]] = {  # schedules: "small" goes with the small configurations
    "small": {"epochs": 30, "iterations_per_epoch": 100, "validation_iterations": 10},
    "full": {"epochs": 1000, "iterations_per_epoch": 250, "validation_iterations": 50},
}
ALL = "all"  # chosen_by: the labels of all training cases
ANNOTATED = 3  # patients whose labels a ranking adds
RANKINGS = {  # chosen_by -> options of nnUNetv2_spmc_rank
    "difficulty": f"--score difficulty -k {ANNOTATED}",
    "entropy": "--score entropy",
    **{f"random{seed}": f"--score random --seed {seed}" for seed in (1, 2, 3)},
}
CHOICES = (ALL, *RANKINGS)
CONTROL = "control"
FINAL = "checkpoint_final.pth"
DOUBLE = "_2x"  # ending of the configuration with twice the labeled batch


@dataclass(frozen=True)
class Dataset:
    """A dataset in which few cases keep their labels."""

    id: int
    name: str
    configuration: str
    fold: str
    few: int  # patients with labels
    all: int  # patients whose labels are known
    small: str  # options of nnUNetv2_spmc_plan small

    def with_labels(self, chosen_by: str) -> tuple[int, str]:
        """Return number and name of the dataset with more of the labels."""
        if not chosen_by:
            return self.id, self.name
        number = self.id + 50 + CHOICES.index(chosen_by)
        return number, f"Dataset{number}_{self.name.split('_')[1]}{chosen_by.capitalize()}Labels"

    def labels(self, chosen_by: str) -> int:
        """Return how many patients have labels."""
        return {"": self.few, ALL: self.all}.get(chosen_by, self.few + ANNOTATED)


ACDC = Dataset(
    id=502,
    name="Dataset502_ACDC",
    configuration="2d",
    fold="0",
    few=7,
    all=70,
    small="--patch_size 64 64 --batch_size 4 --coarser 2",
)
DATASETS = {
    "acdc": ACDC,
    "acdc3": replace(ACDC, id=531, name="Dataset531_ACDC3", few=3),  # the curve over labels
    "acdc14": replace(ACDC, id=541, name="Dataset541_ACDC14", few=14),
    "la": Dataset(
        id=511,
        name="Dataset511_LAhalf",
        configuration="3d_fullres",
        fold="all",
        few=8,
        all=80,
        small="--patch_size 16 32 32 --batch_size 2 --coarser 2",
    ),
    "hippocampus": Dataset(
        id=521,
        name="Dataset521_Hippocampus",
        configuration="2d",
        fold="0",
        few=8,
        all=160,
        small="--batch_size 8",
    ),
}


@dataclass(frozen=True)
class Run:
    """A training that is asked for: a row of queue.csv, or what a row of runs.csv asked for.

    Raises:
        ValueError: it is not one that can be trained; says why.
    """

    dataset: str
    method: str  # the trainer's name without nnUNetTrainer
    settings: str  # JSON of what differs from the trainer's defaults and the schedule, or ""
    labels: int
    stage: str
    seed: int
    epochs: int
    iterations: int
    name: str
    configuration: str
    chosen_by: str = ""
    pretrained: str = ""  # CONTROL: it starts from the weights of the control with its seed
    times: int = 0  # at how many times of the training the test cases are measured; 0: the end
    seconds: float = 0.0  # that it took, or is expected to take

    @classmethod
    def of_row(cls, row: Mapping[str, str]) -> Run:
        """Read a row of queue.csv or runs.csv."""
        numbers = {field.name: field.type for field in fields(cls) if field.type != "str"}
        values: dict[str, Any] = {field.name: row[field.name] for field in fields(cls)}
        for key, kind in numbers.items():
            values[key] = (float if kind == "float" else int)(values[key] or 0)
        return cls(**values)

    def row(self) -> dict[str, str]:
        """Return the row of queue.csv."""
        row = {field.name: str(getattr(self, field.name)) for field in fields(self)}
        return row | {"times": str(self.times or ""), "seconds": f"{self.seconds:g}"}

    def __post_init__(self) -> None:
        """Refuse what could not be trained, or would be another training than the row says."""
        self._require(self.dataset in DATASETS, f"dataset must be one of {', '.join(DATASETS)}")
        self._require(hasattr(methods, PREFIX + self.method), f"no trainer {PREFIX + self.method}")
        self._require(self.stage in STAGES, f"stage must be one of {', '.join(STAGES)}")
        self._require(self.chosen_by in ("", *CHOICES), f"chosen_by: one of {', '.join(CHOICES)}")
        self._require(self.pretrained in ("", CONTROL), f"pretrained must be {CONTROL} or empty")
        data = DATASETS[self.dataset]
        labels = data.labels(self.chosen_by)
        self._require(self.labels == labels, f"labels must be {labels}, got {self.labels}")
        self._require(self.iterations % self.epochs == 0, "epochs must divide the iterations")
        self._require(not self.times or self.epochs % self.times == 0, "times must divide epochs")
        planned = (data.configuration, f"{data.configuration}_small")
        possible = [name + ending for name in planned for ending in ("", DOUBLE)]
        known = self.configuration in possible
        self._require(known, f"configuration must be one of {', '.join(possible)}")
        if self.stage == "search":
            self._require(
                data.fold != "all", f"{self.dataset} has no validation cases to search on"
            )
            self._require(not self.times, "a search does not look at the test cases: no times")
        self.resolved()

    def _require(self, holds: bool, expected: str) -> None:
        if not holds:
            raise ValueError(
                f"The run {self.name} of {self.dataset}, seed {self.seed}: {expected}."
            )

    @property
    def run(self) -> str:
        """The name of its folder, and its key in the results."""
        length = f"{self.epochs}x{self.iterations // self.epochs}"
        return f"{self.dataset}-{self.vehicle}-{length}-{self.name}-seed{self.seed}"

    @property
    def vehicle(self) -> str:
        """The key of its plans and its schedule."""
        return "small" if "_small" in self.configuration else "full"

    @property
    def planned(self) -> str:
        """The configuration with the batch as it was planned."""
        return self.configuration.removesuffix(DOUBLE)

    @property
    def trainer(self) -> str:
        """The trainer's full name."""
        return PREFIX + self.method

    @property
    def fold(self) -> Path:
        """The folder of its fold, in the folder of the outputs."""
        data = DATASETS[self.dataset]
        _, dataset = data.with_labels(self.chosen_by)
        model = f"{self.trainer}__nnUNetPlans__{self.configuration}"
        return Path("runs", self.run, "results", dataset, model, f"fold_{data.fold}")

    @property
    def start(self) -> Run | None:
        """The training whose weights it starts from, None if it starts from random ones."""
        if not self.pretrained:
            return None
        schedule = VEHICLES[self.vehicle]
        return replace(
            self,
            method="SupervisedControl",
            settings="",
            epochs=schedule["epochs"],
            iterations=schedule["epochs"] * schedule["iterations_per_epoch"],
            name=CONTROL,
            pretrained="",
            times=0,
        )

    @property
    def looks_at_test_cases(self) -> bool:
        """Whether the test cases are predicted."""
        return self.stage != "search"

    def all_settings(self) -> dict[str, Any]:
        """Return the settings of the training: schedule, seed and what its row names."""
        own = json.loads(self.settings or "{}")
        schedule = VEHICLES[self.vehicle] | {
            "epochs": self.epochs,
            "iterations_per_epoch": self.iterations // self.epochs,
        }
        both = (schedule.keys() | {"seed", "keep_every"}) & own.keys()
        self._require(not both, f"{', '.join(sorted(both))} is no setting but has its own column")
        kept = {"keep_every": self.epochs // self.times} if self.times else {}
        return schedule | own | kept | {"seed": self.seed}

    def resolved(self) -> Resolved:
        """Return all settings, the trainer's defaults too.

        Raises:
            SettingsError: it names a setting that the trainer does not have.
        """
        trainer = getattr(methods, self.trainer)
        return trainer.resolved_settings({}, {"nnUNet_spmc_settings": self.environment()})

    def environment(self) -> str:
        """Return what nnUNet_spmc_settings is set to."""
        return json.dumps(self.all_settings())

    def commands(self, device: str) -> dict[str, str]:
        """Return what trains, predicts and evaluates it, in the folder of the outputs."""
        data = DATASETS[self.dataset]
        number, _ = data.with_labels(self.chosen_by)
        here = f"runs/{self.run}"
        model = f"-d {number} -c {self.configuration} -f {data.fold} -tr {self.trainer}"
        speed = "--disable_tta -npp 1 -nps 1 " if self.vehicle == "small" else ""
        train = (
            f"nnUNetv2_train {number} {self.configuration} {data.fold} "
            f"-tr {self.trainer} -device {device}"
        )
        weights = f" -pretrained_weights {self.start.fold / FINAL}" if self.start else " --c"
        return {
            "train": train + weights,
            "resume": f"{train} --c",  # nnU-Net refuses it with pretrained weights
            "predict": f"nnUNetv2_predict {model} -device {device} {speed}"
            f"-i nnUNet_raw/{data.name}/imagesTs -o {here}/predictions",
            "evaluate": f"nnUNetv2_spmc_evaluate -ref nnUNet_raw/{data.name}/labelsTs "
            f"-pred {here}/predictions -o {here}",
        }


QUEUE_COLUMNS = tuple(field.name for field in fields(Run))
