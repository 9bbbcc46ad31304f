"""What scripts/benchmark_accuracy.py compares: datasets with few labels, trainers, settings."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

SCHEDULES: dict[str, dict[str, Any]] = {
    "small": {"epochs": 30, "iterations_per_epoch": 100, "validation_iterations": 10},
    "full": {},  # nnU-Net's own
}
FEW, ALL = "few", "all"
RANKER = "all_voxels", 1  # method and seed
ANNOTATED = 3  # patients whose labels are added; which ones, nnUNetv2_spmc_rank says
RANKINGS = {  # label set -> options of the command
    "difficulty": f"--score difficulty -k {ANNOTATED}",
    "entropy": "--score entropy",
    **{f"random{seed}": f"--score random --seed {seed}" for seed in (1, 2, 3)},
}
LABELS = (ALL, *RANKINGS)


@dataclass(frozen=True)
class Dataset:
    """A dataset with few labels."""

    id: int
    name: str
    configuration: str
    fold: str
    small: str  # options of nnUNetv2_spmc_plan small

    def with_labels(self, of: str) -> Dataset:
        """The same training and test cases with more of their labels."""
        if of == FEW:
            return self
        number = self.id + 50 + LABELS.index(of)
        name = f"Dataset{number}_{self.name.split('_')[1]}{of.capitalize()}Labels"
        return replace(self, id=number, name=name)


@dataclass(frozen=True)
class Method:
    """A trainer with its settings."""

    trainer: str
    settings: dict[str, Any] = field(default_factory=dict)
    labels: str = FEW  # or one of LABELS
    double_batch: bool = False
    longer: int = 1  # times as many epochs


CONTROL = "nnUNetTrainerSupervisedControl"
DATASETS = {
    "acdc": Dataset(
        502, "Dataset502_ACDC", "2d", "0", "--patch-size 64 64 --batch-size 4 --coarser 2"
    ),
    "la": Dataset(
        511,
        "Dataset511_LAhalf",
        "3d_fullres",
        "all",
        "--patch-size 16 32 32 --batch-size 2 --coarser 2",
    ),
}
LITERAL: dict[str, Any] = {  # the schedule of the paper and nothing of ours
    "lambda_max": 0.1,
    "ramp_start": 0.0,
    "ramp_end": 1.0,
    "views": "same",
    "paste_from": "nothing",
    "reduction": "all",
}
MAIN_METHODS = {
    "control": Method(CONTROL),
    "spmc": Method("nnUNetTrainerSPMC"),
    "spmc_paper": Method("nnUNetTrainerSPMC_paper"),
    "cps": Method("nnUNetTrainerSPMC_cpsOnly", LITERAL),
    "noUnlabeled": Method(
        "nnUNetTrainerSPMC_noUnlabeled",
        {key: value for key, value in LITERAL.items() if key != "lambda_max"},
    ),
    "all_labels": Method(CONTROL, labels=ALL),
    "control_2x": Method(CONTROL, double_batch=True),
    "control_longer": Method(CONTROL, longer=4),
}
ABLATIONS = {
    "all_voxels": Method("nnUNetTrainerSPMC", {"reduction": "all"}),  # of what is ours
    "no_paste": Method("nnUNetTrainerSPMC", {"paste_from": "nothing"}),
    "same_view": Method("nnUNetTrainerSPMC", {"paste_from": "nothing", "views": "same"}),
    **{  # tables 4 and 5 of the paper
        name: Method(f"nnUNetTrainerSPMC_{name}") for name in ("noNoise", "noCDPS", "noSPLAT")
    },
    "cpsOnly": Method("nnUNetTrainerSPMC", {"noise": 0.0, "cdps": False, "splat": False}),
    **{
        name: Method(f"nnUNetTrainerSPMC_{name}")
        for name in ("ordinaryToLow", "highToOrdinary", "separateEncoders")
    },
    "paper_noNoise": Method("nnUNetTrainerSPMC_noNoise", LITERAL),
    **{f"tau_{tau}": Method("nnUNetTrainerSPMC", {"tau": tau}) for tau in (0.6, 0.8)},
    **{f"beta_{beta}": Method("nnUNetTrainerSPMC", {"beta": beta}) for beta in (0.3, 0.7)},
}
PASTE: dict[str, Any] = {  # earlier candidates for the default, compared on validation cases
    "lambda_max": 1.0,
    "ramp_start": 0.25,
    "ramp_end": 0.5,
    "views": "weak-to-strong",
    "paste_from": "labeled",
    "reduction": "all",
}
CANDIDATES = {
    "paste": Method("nnUNetTrainerSPMC", PASTE),
    "early": Method("nnUNetTrainerSPMC", PASTE | {"ramp_start": 0.1, "ramp_end": 0.3}),
}
VIEW_CONTROLS = {  # the views of SPMC without unlabeled scans
    "control_again": Method(CONTROL),  # on the machine of these: what a machine changes
    "view_control_boxes": Method("nnUNetTrainerViewControl"),
    "view_control_boxes_turns": Method("nnUNetTrainerViewControl", {"turns": True, "flips": True}),
}
ANNOTATE = {f"annotate_{labels}": Method(CONTROL, labels=labels) for labels in RANKINGS}
METHODS = MAIN_METHODS | ABLATIONS | CANDIDATES | VIEW_CONTROLS | ANNOTATE
