"""The commands of the README's first run, run as they are written, on scans of a few voxels."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetv2_spmc.dataset_conversion.phantom import phantom_arrays

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
SETTINGS = {"epochs": 2, "iterations_per_epoch": 2, "validation_iterations": 1, "seed": 0}
MODEL = "nnUNet_results/Dataset510_Liver/nnUNetTrainerSPMC__nnUNetPlans__3d_fullres"


def first_run_commands():
    block = README.partition("## A first run")[2].split("\n\n")[1]
    return [line.strip() for line in block.splitlines()]


def write_scan(path, array):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1, 1, 2))
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder with images, labels and IN as a user has them, and the environment of nnU-Net."""
    folder = tmp_path_factory.mktemp("readme")
    for number in range(11):
        image, label = phantom_arrays(np.random.default_rng(number), (24, 24, 16))
        name = f"scan{number:02d}"
        if number == 10:
            write_scan(folder / "IN" / f"{name}_0000.nii.gz", image)
            write_scan(folder / "reference" / f"{name}.nii.gz", (label > 0).astype(np.uint8))
            continue
        write_scan(folder / "images" / f"{name}.nii.gz", image)
        if number < 6:
            write_scan(folder / "labels" / f"{name}.nii.gz", (label > 0).astype(np.uint8))
    environment = dict(os.environ)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (folder / name).mkdir()
        environment[name] = str(folder / name)
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "nnUNet_spmc_settings": json.dumps(SETTINGS),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "1",
    }
    return folder, environment


def run(command, workspace, *, expect=0):
    folder, environment = workspace
    # ITK, used by other tests, may have left this process in a locale without UTF-8
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == expect, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_first_run_of_the_readme(workspace):
    install, export, *commands = first_run_commands()
    assert install == "pip install ."  # in a clone, as the environment of the tests was made
    assert len(commands) == 5
    for command in commands:
        on_cpu = command.startswith(("nnUNetv2_train", "nnUNetv2_predict"))
        run(f"{export}; {command}" + (" -device cpu" if on_cpu else ""), workspace)
    folder, _ = workspace
    prediction = sitk.ReadImage(str(folder / "OUT" / "scan10.nii.gz"))
    assert prediction.GetSize() == (24, 24, 16)
    assert {path.name for path in (folder / MODEL / "fold_0").iterdir()} >= {
        "checkpoint_final.pth",
        "progress.png",
        "progress_semi.png",
        "validation",
    }


@pytest.mark.slow
def test_the_exported_model_predicts_the_same_without_this_package(workspace):
    folder, environment = workspace
    if not (folder / MODEL / "fold_0" / "checkpoint_final.pth").is_file():
        pytest.fail("the first run has to pass before")
    assert "nnUNet_extTrainer" not in environment
    output = run(
        f'export nnUNet_extTrainer="$(nnUNetv2_spmc_trainers)"; '
        f"nnUNetv2_spmc_export -i {MODEL} -o exported",
        workspace,
    )
    assert "Exported fold 0" in output
    run(
        "nnUNetv2_predict_from_modelfolder -m exported -i IN -o OUT_exported -f 0 -device cpu",
        workspace,
    )
    ours, theirs = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(folder / name / "scan10.nii.gz")))
        for name in ("OUT", "OUT_exported")
    )
    assert np.array_equal(ours, theirs)
    checkpoint = torch.load(folder / "exported/fold_0/checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"


@pytest.mark.slow
def test_training_preprocesses_what_is_missing_and_says_so(workspace):
    folder, _ = workspace
    unlabeled = folder / "nnUNet_preprocessed/Dataset510_Liver/nnUNetPlans_3d_fullres_unlabeled"
    if not unlabeled.is_dir():
        pytest.fail("the first run has to pass before")
    for file in unlabeled.glob("scan09*"):
        file.unlink()
    output = run(
        'export nnUNet_extTrainer="$(nnUNetv2_spmc_trainers)"; '
        "nnUNetv2_train 510 3d_fullres 1 -tr nnUNetTrainerSPMC_smoke -device cpu",
        workspace,
    )
    assert "1 of 4 unlabeled cases are not preprocessed; doing it now" in output
    assert "nnUNetv2_spmc_preprocess -d Dataset510_Liver -c 3d_fullres" in output
    assert (unlabeled / "scan09.b2nd").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("0 -tr nnUNetTrainerSPMC --val", "Mean Validation Dice"),
        ("0 -tr nnUNetTrainerSPMC --c --val_best", "Mean Validation Dice"),
        (
            "2 -tr nnUNetTrainerSPMC_smoke "
            f"-pretrained_weights {MODEL}/fold_0/checkpoint_final.pth",
            "Loading pretrained weights from file",
        ),
    ],
)
def test_options_of_stock_training_work(workspace, arguments, expected):
    output = run(
        'export nnUNet_extTrainer="$(nnUNetv2_spmc_trainers)"; '
        f"nnUNetv2_train 510 3d_fullres {arguments} -device cpu",
        workspace,
    )
    assert expected in output


@pytest.mark.slow
def test_continuing_under_other_settings_is_refused(workspace):
    output = run(
        'export nnUNet_extTrainer="$(nnUNetv2_spmc_trainers)" '
        "nnUNet_spmc_settings='{\"tau\": 0.6}'; "
        "nnUNetv2_train 510 3d_fullres 0 -tr nnUNetTrainerSPMC --c -device cpu",
        workspace,
        expect=1,
    )
    refusal = output.splitlines()[-1]
    assert "The run to continue was started differently: " in refusal
    assert "; tau: 0.7 -> 0.6." in refusal


def test_every_command_line_of_the_readme_is_one_of_ours_or_of_nnunet():
    known = {path.name for path in Path(sys.executable).parent.iterdir()} | {"pip", "export"}
    lines = [line.strip() for line in README.splitlines() if line.startswith("    ")]
    assert len(lines) >= 10
    for line in lines:
        program, *arguments = shlex.split(line)
        if program == "bash":
            assert (Path(__file__).parents[1] / arguments[0]).is_file()
        else:
            assert program in known, line
