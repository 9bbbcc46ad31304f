"""Two tiny finished trainings on the phantom: SPMC and the supervised control."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from nnunetv2.evaluation.evaluate_predictions import compute_metrics, save_summary_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from nnunetv2_spmc import discovery
from nnunetv2_spmc.methods import nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl

SETTINGS = {"epochs": 2, "iterations_per_epoch": 2, "validation_iterations": 1, "seed": 0}


class PhantomRuns(NamedTuple):
    """Fold folders, and the dataset in nnUNet_raw."""

    spmc: Path
    control: Path
    raw: Path


def stock_predictor(fold: Path) -> nnUNetPredictor:
    """The predictor of nnUNetv2_predict, on the CPU."""
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(
        str(fold.parent), (fold.name.removeprefix("fold_"),)
    )
    return predictor


def validate(fold: Path, raw: Path) -> None:
    """What nnU-Net's validation leaves behind, made in one process by its own functions."""
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    images = [[str(raw / "imagesTr" / f"{case}_0000.nii.gz")] for case in cases]
    output = fold / "validation"
    output.mkdir(exist_ok=True)
    files = [str(output / case) for case in cases]
    stock_predictor(fold).predict_from_files_sequential(images, files)
    per_case = [
        compute_metrics(
            str(raw / "labelsTr" / f"{case}.nii.gz"),
            str(output / f"{case}.nii.gz"),
            SimpleITKIO(),
            [1, 2],
        )
        for case in cases
    ]
    summary = {"metric_per_case": per_case, "mean": {}, "foreground_mean": {}}
    recursive_fix_for_json_export(summary)
    save_summary_json(summary, str(output / "summary.json"))


@pytest.fixture(scope="session")
def phantom_runs(planned_phantom, tmp_path_factory) -> PhantomRuns:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_raw", str(planned_phantom.raw.parent))
        patch.setenv("nnUNet_preprocessed", str(planned_phantom.preprocessed.parent))
        patch.setenv("nnUNet_results", str(tmp_path_factory.mktemp("results")))
        patch.setenv("nnUNet_n_proc_DA", "0")
        patch.setenv("nnUNet_spmc_settings", json.dumps(SETTINGS))
        patch.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))
        folders = []
        for trainer_class in (nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl):
            trainer = trainer_class(
                planned_phantom.plans() | {"continue_training": False},
                "2d_small",
                "all",
                planned_phantom.dataset_json(),
                torch.device("cpu"),
            )
            trainer.run_training()
            folders.append(Path(trainer.output_folder))
            validate(folders[-1], planned_phantom.raw)
    return PhantomRuns(*folders, raw=planned_phantom.raw)


@pytest.fixture
def environment_of_runs(planned_phantom, monkeypatch) -> None:
    """The folders of the phantom; no nnUNet_extTrainer, which these commands do not need."""
    monkeypatch.setenv("nnUNet_raw", str(planned_phantom.raw.parent))
    monkeypatch.setenv("nnUNet_preprocessed", str(planned_phantom.preprocessed.parent))
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)


@pytest.fixture
def test_image(planned_phantom) -> Path:
    return next((planned_phantom.raw / "imagesTs").iterdir())


@pytest.fixture
def box() -> np.ndarray:
    """A (4, 6, 8) mask with 24 voxels set."""
    array = np.zeros((4, 6, 8), bool)
    array[1:3, 2:5, 2:6] = True
    return array
