"""BRATS 2013 cases under names of 2018, from the files as downloaded to a trained network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.run.run_training import get_trainer_from_args

from nnunetv2_spmc import discovery

REGIONS = {0: 0, 2: 1, 1: 2, 4: 3}
# One seed, to know the weights it starts from; no mirroring, which costs the validation a minute.
SETTINGS = {"seed": 0, "mirroring": False}
FOLD = Path("Dataset503_BraTS", "nnUNetTrainerSPMC_smoke__nnUNetPlans__3d_fullres_small", "fold_0")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))
    monkeypatch.setenv("nnUNet_spmc_settings", json.dumps(SETTINGS))
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    return tmp_path


def run(command: str, *arguments: str) -> None:
    program = [str(Path(sys.executable).parent / command), *arguments]
    done = subprocess.run(program, env=dict(os.environ), capture_output=True, encoding="utf-8")
    assert done.returncode == 0, f"{program}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def voxels(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


@pytest.mark.slow
def test_real_scans_are_converted_preprocessed_and_trained_on(shared_data, folders) -> None:
    source = shared_data / "brats_2013"
    if not source.is_dir():
        pytest.skip(f"no BRATS 2013 scans in {source}")
    options = ["--modalities", "flair", "t1ce", "--target", "regions", "--labeled", "1"]
    run("nnUNetv2_spmc_convert", "brats", "-i", str(source), *options, "-np", "1")
    raw = folders / "nnUNet_raw" / "Dataset503_BraTS"
    written = {
        file.name: file for part in ("Tr", "Un", "Ts") for file in raw.glob(f"labels{part}/*")
    }
    own = {
        f"{file.name.removesuffix('_seg.nii.gz')}.nii.gz": file for file in source.rglob("*_seg*")
    }
    assert written.keys() == own.keys()
    assert len(own) == 4
    for name, file in own.items():
        original, mapped = voxels(file), voxels(written[name])
        assert {0, 1, 2, 4} == set(np.unique(original))
        for old, new in REGIONS.items():
            assert np.array_equal(original == old, mapped == new)

    configuration = ["-d", "503", "-c", "3d_fullres"]
    run("nnUNetv2_plan_and_preprocess", *configuration, "-np", "1", "-npfp", "1")
    small = ["--features", "4", "8", "--patch_size", "32", "32", "32"]
    run("nnUNetv2_spmc_plan", "small", *configuration, *small)
    run("nnUNetv2_spmc_preprocess", *configuration, "-np", "1")
    training = ("503", "3d_fullres_small", "0", "-tr", "nnUNetTrainerSPMC_smoke", "-device", "cpu")
    run("nnUNetv2_train", *training)

    fold = folders / "nnUNet_results" / FOLD
    checkpoint = torch.load(fold / "checkpoint_final.pth", weights_only=False, map_location="cpu")
    assert checkpoint["current_epoch"] == 2
    untrained = get_trainer_from_args(
        *training[:3], "nnUNetTrainerSPMC_smoke", device=torch.device("cpu")
    )
    untrained.initialize()
    before, after = untrained.network.state_dict(), checkpoint["network_weights"]
    convolutions = [key for key in after if key.endswith("conv.weight")]
    assert len(convolutions) > 10
    assert all(torch.isfinite(weight).all() for weight in after.values())
    assert before.keys() == after.keys()
    for key in convolutions:
        change = (after[key] - before[key]).abs().max()
        assert 0 < change < 0.5  # it moved, and it is the same network that did
    assert set(np.unique(voxels(next(fold.glob("validation/*.nii.gz"))))) <= {0, 1, 2, 3}
