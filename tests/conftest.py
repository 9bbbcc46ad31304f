from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetv2_spmc.dataset_conversion.phantom import write_phantom
from nnunetv2_spmc.training.small_plans import small_configuration
from nnunetv2_spmc.unlabeled.preprocessing import PreprocessingOptions, preprocess_unlabeled
from tests.full_disk import SmallDisk, mounted_disk
from tests.in_process import FewVoxels, use_threads_for_pools
from tests.phantom_runs import phantom_runs

__all__ = ["phantom_runs"]  # a fixture

hypothesis.settings.register_profile("untimed", deadline=None)  # tests assert no wall time
hypothesis.settings.load_profile("untimed")
os.environ["npm_config_offline"] = "true"  # reports would fetch their viewer; tests install nothing
TINY_SETTINGS = {
    "epochs": 2,
    "iterations_per_epoch": 2,
    "validation_iterations": 1,
    "seed": 0,
    "unlabeled_every": 1,  # so that any step has unlabeled patches
}


TRAINING_FIXTURES = {"phantom_runs", "trained"}  # who uses one of these trains


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what trains by its fixtures."""
    for item in items:
        if TRAINING_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


class Folders(NamedTuple):
    raw: Path
    preprocessed: Path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real scans that are not part of the repository; SPMC_TEST_DATA says where they are."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SPMC_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set SPMC_TEST_DATA")
    return folder


@pytest.fixture
def nnunet_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """Empty nnUNet_raw and nnUNet_preprocessed, set in the environment."""
    folders = Folders(tmp_path / "nnUNet_raw", tmp_path / "nnUNet_preprocessed")
    for name, folder in folders._asdict().items():
        folder.mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(folder))
    return folders


@pytest.fixture
def write_volume() -> Callable[..., Path]:
    """Write a volume: random voxels from `seed`, or `fill` in a small box, or an array."""

    def write(
        path: Path,
        array: np.ndarray | None = None,
        *,
        seed: int | None = None,
        fill: float = 1,
        spacing: tuple[float, ...] = (1, 1, 2),
        origin: tuple[float, ...] = (0, 0, 0),
        direction: tuple[float, ...] = (1, 0, 0, 0, 1, 0, 0, 0, 1),
    ) -> Path:
        if array is None and seed is not None:
            array = np.random.default_rng(seed).integers(0, 999, (4, 6, 8)).astype(np.int16)
        elif array is None:
            array = np.zeros((4, 6, 8), np.uint8)
            array[1:3, 2:4, 2:5] = fill
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image.SetDirection(direction)
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(path))
        return path

    return write


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 256 KB; only root can have it."""
    with mounted_disk(tmp_path / "small_disk", 256) as disk:
        yield disk


@dataclass(frozen=True)
class PlannedPhantom:
    """A phantom of 5 labeled, 4 unlabeled and 1 test case, planned and preprocessed."""

    root: Path
    name: str = "Dataset500_Phantom"

    @property
    def preprocessed(self) -> Path:
        return self.root / "nnUNet_preprocessed" / self.name

    @property
    def raw(self) -> Path:
        return self.root / "nnUNet_raw" / self.name

    def plans(self) -> dict[str, Any]:
        return json.loads((self.preprocessed / "nnUNetPlans.json").read_text())

    def dataset_json(self) -> dict[str, Any]:
        return json.loads((self.preprocessed / "dataset.json").read_text())


def plan_and_preprocess(phantom: PlannedPhantom) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
        preprocess_dataset,
    )

    extract_fingerprint_dataset(500, FewVoxels, num_processes=1, show_progress_bar=False)
    plan_experiment_dataset(500)
    plans = phantom.plans()
    for parent, patch_size in (("2d", [16, 16]), ("3d_fullres", [8, 16, 16])):
        plans["configurations"][f"{parent}_small"] = small_configuration(
            plans["configurations"][parent],
            parent,
            features=(4, 8),
            patch_size=patch_size,
            batch_size=2,
        )
    (phantom.preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans))
    preprocess_dataset(500, configurations=["2d", "3d_fullres"], num_processes=[1, 1])
    options = PreprocessingOptions(num_processes=0, show_progress=False)
    for configuration in ("2d", "3d_fullres"):
        preprocess_unlabeled(500, configuration, options=options)


@pytest.fixture(scope="session")
def planned_phantom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlannedPhantom]:
    phantom = PlannedPhantom(tmp_path_factory.mktemp("phantom"))
    with pytest.MonkeyPatch.context() as patch:
        for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (phantom.root / folder).mkdir()
            patch.setenv(folder, str(phantom.root / folder))
        write_phantom(phantom.raw.parent, labeled=5, unlabeled=4, test=1, size=(24, 24, 16))
        with patch.context() as pools:
            use_threads_for_pools(pools)
            plan_and_preprocess(phantom)
        yield phantom


@pytest.fixture
def make_trainer(
    planned_phantom: PlannedPhantom,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Callable[..., Any]:
    """Build a trainer on the phantom as nnUNetv2_train does, with results in a fresh folder.

    It takes single steps in any test, but goes through epochs in those marked slow only.
    """
    is_slow = request.node.get_closest_marker("slow") is not None
    monkeypatch.setenv("nnUNet_raw", str(planned_phantom.raw.parent))
    monkeypatch.setenv("nnUNet_preprocessed", str(planned_phantom.preprocessed.parent))
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")

    def make(
        trainer: type | None = None,
        configuration: str = "2d_small",
        fold: int | str = 0,
        dataset_json: dict[str, Any] | None = None,
        device: str = "cpu",
        **settings: Any,
    ) -> Any:
        monkeypatch.setenv("nnUNet_spmc_settings", json.dumps(TINY_SETTINGS | settings))
        plans = planned_phantom.plans() | {"continue_training": False}
        dataset_json = dataset_json or planned_phantom.dataset_json()
        if trainer is None:
            from nnunetv2_spmc.methods import nnUNetTrainerSPMC as trainer
        made = trainer(plans, configuration, fold, dataset_json, torch.device(device))
        if not is_slow:
            made.on_epoch_start = lambda: pytest.fail("Mark a test that trains as slow.")
        return made

    return make
