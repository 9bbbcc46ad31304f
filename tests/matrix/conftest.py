"""Tiny datasets of every kind, really planned and preprocessed by nnU-Net, and one training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetv2_spmc import discovery
from nnunetv2_spmc.dataset_conversion.phantom import phantom_arrays
from nnunetv2_spmc.training.small_plans import small_configuration
from nnunetv2_spmc.unlabeled.preprocessing import PreprocessingOptions, preprocess_unlabeled
from tests.in_process import FewVoxels, leave_out_plots, use_threads_for_pools
from tests.matrix.cases import DATASETS, PLANNERS, Cell, Dataset

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
SIZE, TEST_SIZE = (36, 36, 20), (24, 20, 16)  # x, y, z
LABELED, UNLABELED = 5, 2
GPU_MEMORY_GB = 0.01  # so little that the planner takes small patches and plans 3d_lowres too
SETTINGS = {"epochs": 1, "iterations_per_epoch": 2, "validation_iterations": 1, "seed": 0}


@dataclass(frozen=True)
class Workspace:
    """nnU-Net's folders with the datasets of the matrix."""

    root: Path

    def name(self, dataset: Dataset) -> str:
        """Return nnU-Net's name of a dataset."""
        return f"Dataset{self.number(dataset)}_{dataset.name}"

    def number(self, dataset: Dataset) -> int:
        """Return nnU-Net's id of a dataset."""
        return 601 + DATASETS.index(dataset)

    def raw(self, dataset: Dataset) -> Path:
        """Return the folder of the scans."""
        return self.root / "nnUNet_raw" / self.name(dataset)

    def preprocessed(self, dataset: Dataset) -> Path:
        """Return the folder of the plans."""
        return self.root / "nnUNet_preprocessed" / self.name(dataset)

    def plans(self, cell: Cell) -> dict[str, Any]:
        """Read the plans of a cell, with its patch size."""
        plans = json.loads(
            (self.preprocessed(cell.dataset) / f"{PLANNERS[cell.planner]}.json").read_text("utf-8")
        )
        if cell.patch_size is not None:
            shrink(plans, cell.configuration, patch_size=list(cell.patch_size))
        return plans

    def dataset_json(self, dataset: Dataset) -> dict[str, Any]:
        """Read dataset.json."""
        return json.loads((self.preprocessed(dataset) / "dataset.json").read_text("utf-8"))


def write_raw(folder: Path, dataset: Dataset) -> None:
    """Write labeled, unlabeled and test cases of a dataset as nnU-Net expects them."""
    rng = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr", "imagesUn", "imagesTs"):
        (folder / part).mkdir(parents=True)
    parts = ["imagesTr"] * LABELED + ["imagesUn"] * UNLABELED + ["imagesTs"]
    for number, part in enumerate(parts):
        image, label = phantom_arrays(rng, TEST_SIZE if part == "imagesTs" else SIZE)
        for channel in range(len(dataset.channels)):
            contrast = image if channel == 0 else 1000 - image // 2
            file = folder / part / f"case{number}_{channel:04d}.nii.gz"
            write(file, contrast, dataset.spacing)
        if part == "imagesTr":
            if dataset.ignore_label is not None:  # whole slices without annotation
                label[rng.permutation(SIZE[2])[:10]] = dataset.ignore_label
            write(folder / "labelsTr" / f"case{number}.nii.gz", label, dataset.spacing)
    description = {
        "channel_names": dict(enumerate(dataset.channels)),
        "labels": dataset.labels,
        "numTraining": LABELED,
        "file_ending": ".nii.gz",
    }
    if dataset.regions_class_order:
        description["regions_class_order"] = dataset.regions_class_order
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def write(file: Path, array: np.ndarray, spacing: tuple[float, float, float]) -> None:
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing(spacing)
    sitk.WriteImage(volume, str(file))


def shrink(
    plans: dict[str, Any], configuration: str, *, patch_size: list[int] | None = None
) -> None:
    """Replace a configuration by one whose step takes milliseconds."""
    planned = plans["configurations"][configuration]
    small = small_configuration(
        planned, configuration, features=(4, 8), patch_size=patch_size, batch_size=2
    )
    del small["inherits_from"]
    planned.update(small)


def plan_and_preprocess(workspace: Workspace, dataset: Dataset) -> None:
    """Run nnU-Net's planners and preprocessing, and ours for the unlabeled cases."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiments,
        preprocess_dataset,
    )

    number = workspace.number(dataset)
    extract_fingerprint_dataset(number, FewVoxels, num_processes=1, show_progress_bar=False)
    preprocessed: set[str] = set()
    for planner, plans_name in PLANNERS.items():
        plan_experiments([number], planner, gpu_memory_target_in_gb=GPU_MEMORY_GB)
        file = workspace.preprocessed(dataset) / f"{plans_name}.json"
        plans = json.loads(file.read_text(encoding="utf-8"))
        planned = {c: v for c, v in plans["configurations"].items() if "architecture" in v}
        for configuration in planned:
            shrink(plans, configuration)
        file.write_text(json.dumps(plans), encoding="utf-8")
        # the residual encoder plans share the data of 2d and 3d_fullres with the default ones
        new = [c for c in planned if planned[c]["data_identifier"] not in preprocessed]
        preprocess_dataset(number, plans_name, new, num_processes=[1], show_progress_bar=False)
        for configuration in new:
            options = PreprocessingOptions(num_processes=0, show_progress=False)
            preprocess_unlabeled(number, configuration, plans_name, options)
        preprocessed |= {planned[c]["data_identifier"] for c in new}


@pytest.fixture(scope="session")
def matrix_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for the datasets of all cells; each is made when a cell first asks for it."""
    root = tmp_path_factory.mktemp("matrix")
    for folder in FOLDERS:
        (root / folder).mkdir()
    return root


@pytest.fixture
def workspace(matrix_root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Dataset], Workspace]:
    """Point nnU-Net's environment to the datasets of the matrix, and make the one asked for."""
    use_threads_for_pools(monkeypatch)
    for folder in FOLDERS:
        monkeypatch.setenv(folder, str(matrix_root / folder))
    monkeypatch.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))

    def prepare(dataset: Dataset) -> Workspace:
        workspace = Workspace(matrix_root)
        if not workspace.raw(dataset).is_dir():
            monkeypatch.setenv("nnUNet_n_proc_DA", "1")  # the planner takes it for threads
            write_raw(workspace.raw(dataset), dataset)
            plan_and_preprocess(workspace, dataset)
        return workspace

    return prepare


@pytest.fixture
def make_trainer(
    workspace: Callable[[Dataset], Workspace],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:
    """Build a trainer for a cell as nnUNetv2_train does, with results in a fresh folder."""
    leave_out_plots(monkeypatch)

    def make(
        cell: Cell,
        trainer: type | None = None,
        *,
        device: str = "cpu",
        plans: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Any:
        prepared = workspace(cell.dataset)
        monkeypatch.setenv("nnUNet_results", str(tmp_path / "nnUNet_results"))
        monkeypatch.setenv("nnUNet_n_proc_DA", "0")
        monkeypatch.setenv("nnUNet_spmc_settings", json.dumps(SETTINGS | settings))
        if trainer is None:
            from nnunetv2_spmc.methods import nnUNetTrainerSPMC as trainer
        plans = plans or prepared.plans(cell)
        return trainer(
            plans | {"continue_training": False},
            cell.configuration,
            cell.fold,
            prepared.dataset_json(cell.dataset),
            torch.device(device),
        )

    return make
