"""Folders as trainings leave them in nnUNet_results, with made-up Dice and without weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

CLASSES = ("1", "2")  # organ and core of the phantom


def write_fold(
    results: Path,
    phantom: Any,
    trainer: str,
    dice: Mapping[str, float],
    *,
    fold: str = "0",
    configuration: str = "2d_small",
    plans: str = "nnUNetPlans",
    settings: Mapping[str, Any] | None = None,
    unlabeled: Sequence[str] = (),
    overlap: str = "",
    pretrained_weights: str = "",
    seconds: float = 60,
    labeled: int = 4,
    reference_voxels: int = 100,
    checkpoint: str = "checkpoint_final.pth",
) -> Path:
    """Write a fold of a model whose validation cases have the given Dice in both classes."""
    model = results / phantom.name / f"{trainer}__{plans}__{configuration}"
    folder = model / f"fold_{fold}"
    (folder / "validation").mkdir(parents=True)
    (model / "plans.json").write_text(json.dumps(phantom.plans() | {"plans_name": plans}))
    (model / "dataset.json").write_text(json.dumps(phantom.dataset_json()))
    settings = {"epochs": 2, "iterations_per_epoch": 2, **(settings or {})}
    settings |= {"allow_overlap": True} if overlap else {}
    state = {
        "method": trainer,
        "settings": settings,
        "unlabeled_cases": list(unlabeled),
        "overlap": overlap,
        "pretrained_weights": pretrained_weights,
    }
    content = {
        "network_weights": {},
        "init_args": {"configuration": configuration},
        "trainer_name": trainer,
        "current_epoch": 2,
        "logging": {"epoch_start_timestamps": [0.0], "epoch_end_timestamps": [seconds]},
        "semi_supervised": state,
    }
    torch.save(content, folder / checkpoint)
    log = f"This split has {labeled} training and {len(dice)} validation cases."
    (folder / "training_log_2026_1_1_00_00_00.txt").write_text(log)
    write_summary(folder, dice, reference_voxels)
    return folder


def write_summary(folder: Path, dice: Mapping[str, float], reference_voxels: int = 100) -> None:
    """Write what nnU-Net's validation measured."""
    cases = [
        {
            "prediction_file": f"/somewhere/validation/{case}.nii.gz",
            "reference_file": f"/somewhere/gt_segmentations/{case}.nii.gz",
            "metrics": {
                label: {
                    "Dice": value,
                    "IoU": value / (2 - value),
                    "n_ref": reference_voxels,
                    "n_pred": 100,
                }
                for label in CLASSES
            },
        }
        for case, value in dice.items()
    ]
    summary = {"metric_per_case": cases}
    (folder / "validation" / "summary.json").write_text(json.dumps(summary))
