"""nnU-Net's own tools on a finished cross-validation of our trainer, as a user runs them."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_spmc import discovery
from nnunetv2_spmc.methods import nnUNetTrainerSPMC
from tests.in_process import use_threads_for_pools

pytestmark = pytest.mark.slow

TRAINER = "nnUNetTrainerSPMC"
CONFIGURATIONS = ("2d_small", "3d_fullres_small")
FOLDS = (0, 1, 2, 3, 4)
SETTINGS = {"epochs": 1, "iterations_per_epoch": 6, "validation_iterations": 1, "seed": 0}


@pytest.fixture(scope="module")
def results(planned_phantom, tmp_path_factory):
    """nnUNet_results with all folds of two configurations, trained and validated with --npz."""
    folder = tmp_path_factory.mktemp("nnUNet_results")
    with pytest.MonkeyPatch.context() as patch:
        use_threads_for_pools(patch)
        patch.setenv("nnUNet_raw", str(planned_phantom.raw.parent))
        patch.setenv("nnUNet_preprocessed", str(planned_phantom.preprocessed.parent))
        patch.setenv("nnUNet_results", str(folder))
        patch.setenv("nnUNet_n_proc_DA", "0")
        patch.setenv("nnUNet_spmc_settings", json.dumps(SETTINGS))
        for configuration in CONFIGURATIONS:
            for fold in FOLDS:
                plans = planned_phantom.plans() | {"continue_training": False}
                trainer = nnUNetTrainerSPMC(
                    plans, configuration, fold, planned_phantom.dataset_json(), torch.device("cpu")
                )
                trainer.run_training()
                trainer.perform_actual_validation(save_probabilities=True)
    return folder


@pytest.fixture
def environment(results, planned_phantom, monkeypatch):
    """nnU-Net's folders, without nnUNet_extTrainer: a tool that needs it sets it itself."""
    use_threads_for_pools(monkeypatch)
    monkeypatch.setenv("nnUNet_raw", str(planned_phantom.raw.parent))
    monkeypatch.setenv("nnUNet_preprocessed", str(planned_phantom.preprocessed.parent))
    monkeypatch.setenv("nnUNet_results", str(results))
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    return monkeypatch


@pytest.fixture
def command(environment):
    """Run one of nnU-Net's commands through its entry point, in this process."""

    def run(name, *arguments):
        (entry_point,) = importlib.metadata.entry_points(group="console_scripts", name=name)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [name, *map(str, arguments)])
            entry_point.load()()

    return run


@pytest.fixture
def find_trainers(environment):
    environment.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))


@pytest.fixture
def test_images(planned_phantom):
    return planned_phantom.raw / "imagesTs"


def model_folder(results, configuration):
    return results / "Dataset500_Phantom" / f"{TRAINER}__nnUNetPlans__{configuration}"


def stock_predictor(model, folds=FOLDS):
    predictor = nnUNetPredictor(tile_step_size=1, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), folds)
    return predictor


def predict(model, images, output, folds=FOLDS):
    """Predict a folder by nnUNetPredictor in Python, with probabilities."""
    output.mkdir()
    stock_predictor(model, folds).predict_from_files_sequential(
        str(images), str(output), save_probabilities=True
    )
    return output


def segmentations(folder):
    """Read all segmentations of a folder: file name -> (z, y, x)."""
    files = sorted(folder.glob("*.nii.gz"))
    return {file.name: sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in files}


def dice(reference, prediction, label):
    a, b = reference == label, prediction == label
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def assert_equal_segmentations(ours, theirs):
    assert ours.keys() == theirs.keys() != set()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.supported("stock tools", "`nnUNetv2_accumulate_crossval_results`")
def test_accumulate_crossval_results(command, results, planned_phantom, tmp_path):
    for configuration in CONFIGURATIONS:
        output = tmp_path / configuration
        command(
            "nnUNetv2_accumulate_crossval_results",
            *(500, "-c", configuration, "-tr", TRAINER, "-o", output),
        )
        model = model_folder(results, configuration)
        folds = [segmentations(model / f"fold_{fold}" / "validation") for fold in FOLDS]
        assert [len(fold) for fold in folds] == [1] * 5
        merged = segmentations(output)
        assert_equal_segmentations(merged, {name: fold[name] for fold in folds for name in fold})
        references = segmentations(planned_phantom.raw / "labelsTr")
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
        for label in (1, 2):
            expected = np.mean([dice(references[name], merged[name], label) for name in merged])
            assert summary["mean"][str(label)]["Dice"] == pytest.approx(expected)


@pytest.mark.supported("stock tools", "`nnUNetv2_find_best_configuration`")
def test_find_best_configuration(command, results):
    command(
        "nnUNetv2_find_best_configuration",
        *(500, "-c", *CONFIGURATIONS, "-tr", TRAINER, "-np", 1),
    )
    dataset = results / "Dataset500_Phantom"
    found = json.loads((dataset / "inference_information.json").read_text(encoding="utf-8"))
    (ensemble,) = (dataset / "ensembles").iterdir()
    models = [model_folder(results, configuration) for configuration in CONFIGURATIONS]
    assert set(found["all_results"]) == {*(model.name for model in models), ensemble.name}
    best = found["best_model_or_ensemble"]
    assert best["result_on_crossval_pre_pp"] == max(found["all_results"].values())
    assert {m["trainer"] for m in best["selected_model_or_models"]} == {TRAINER}
    assert Path(best["postprocessing_file"]).is_file()
    instructions = (dataset / "inference_instructions.txt").read_text(encoding="utf-8")
    assert f"-f  0 1 2 3 4 -tr {TRAINER} -c " in instructions
    merged = segmentations(ensemble)
    assert len(merged) == 5
    for name, segmentation in merged.items():
        files = [
            next(model.glob(f"fold_*/validation/{name.replace('.nii.gz', '.npz')}"))
            for model in models
        ]
        probabilities = np.mean([np.load(file)["probabilities"] for file in files], axis=0)
        assert np.array_equal(segmentation, probabilities.argmax(axis=0))


@pytest.mark.supported("stock tools", "`nnUNetPredictor` in Python")
def test_the_predictor_in_python(find_trainers, results, test_images, tmp_path):
    """One array or files give the same, and five folds the mean of the logits of each."""
    model = model_folder(results, "3d_fullres_small")
    predictor = stock_predictor(model)
    (file,) = test_images.iterdir()
    image, properties = predictor.plans_manager.image_reader_writer_class().read_images([str(file)])
    from_array = predictor.predict_single_npy_array(image, properties)
    (from_file,) = segmentations(predict(model, test_images, tmp_path / "predicted")).values()
    assert np.array_equal(from_array, from_file)
    assert from_file.shape == image.shape[1:]
    assert set(np.unique(from_file)) <= {0, 1, 2}

    preprocessed = torch.randn(1, 12, 20, 24)
    single = [stock_predictor(model, (fold,)) for fold in FOLDS]
    logits = [p.predict_logits_from_preprocessed_data(preprocessed) for p in single]
    together = predictor.predict_logits_from_preprocessed_data(preprocessed)
    torch.testing.assert_close(together, torch.stack(logits).mean(dim=0), rtol=1e-2, atol=1e-2)
    assert not torch.allclose(logits[0], logits[1], rtol=1e-2, atol=1e-2)


@pytest.mark.supported("stock tools", "`nnUNetv2_export_model_to_zip`")
@pytest.mark.supported("stock tools", "`nnUNetv2_install_pretrained_model_from_zip`")
@pytest.mark.supported("stock tools", "`nnUNetv2_predict_from_modelfolder`")
def test_a_model_goes_to_another_machine_as_a_zip(
    command, environment, find_trainers, results, test_images, tmp_path
):
    model = model_folder(results, "2d_small")
    here = predict(model, test_images, tmp_path / "here")
    environment.delenv("nnUNet_extTrainer")  # neither exporting nor installing needs it
    archive, elsewhere = tmp_path / "model.zip", tmp_path / "results_elsewhere"
    command(
        "nnUNetv2_export_model_to_zip",
        *("-d", 500, "-o", archive, "-c", *CONFIGURATIONS, "-tr", TRAINER),
    )
    elsewhere.mkdir()
    environment.setenv("nnUNet_results", str(elsewhere))
    command("nnUNetv2_install_pretrained_model_from_zip", archive)
    for configuration in CONFIGURATIONS:
        for fold in FOLDS:
            file = Path(f"fold_{fold}") / "checkpoint_final.pth"
            installed = model_folder(elsewhere, configuration) / file
            assert (
                installed.read_bytes() == (model_folder(results, configuration) / file).read_bytes()
            )
    output = tmp_path / "there"
    predict_command = (
        "nnUNetv2_predict_from_modelfolder",
        *("-m", str(model_folder(elsewhere, "2d_small")), "-device", "cpu", "-step_size", "1"),
        *("-i", str(test_images), "-o", str(output), "-npp", "1", "-nps", "1"),
    )
    with pytest.raises(RuntimeError, match=rf"trainer {TRAINER} in .* nnUNet_extTrainer=$"):
        command(*predict_command)
    environment.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))
    environment.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    done = subprocess.run(predict_command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-2000:]
    assert_equal_segmentations(segmentations(output), segmentations(here))


@pytest.mark.supported("stock tools", "`nnUNetv2_ensemble`")
@pytest.mark.supported("stock tools", "`nnUNetv2_evaluate_folder`")
def test_predictions_are_ensembled_and_evaluated(
    command, find_trainers, results, planned_phantom, test_images, tmp_path
):
    members = [
        predict(model_folder(results, configuration), test_images, tmp_path / configuration)
        for configuration in CONFIGURATIONS
    ]
    ensemble = tmp_path / "ensemble"
    command("nnUNetv2_ensemble", "-i", *members, "-o", ensemble, "-np", 1)
    first, second = (segmentations(member) for member in members)
    assert not any(np.array_equal(first[name], second[name]) for name in first)
    ((name, segmentation),) = segmentations(ensemble).items()
    files = [member / name.replace(".nii.gz", ".npz") for member in members]
    probabilities = np.mean([np.load(file)["probabilities"] for file in files], axis=0)
    assert np.array_equal(segmentation, probabilities.argmax(axis=0))

    references = planned_phantom.raw / "labelsTs"
    command(
        "nnUNetv2_evaluate_folder",
        *(references, ensemble, "-np", 1),
        *("-djfile", members[0] / "dataset.json", "-pfile", members[0] / "plans.json"),
    )
    summary = json.loads((ensemble / "summary.json").read_text(encoding="utf-8"))
    for label in (1, 2):
        expected = dice(segmentations(references)[name], segmentation, label)
        assert summary["mean"][str(label)]["Dice"] == pytest.approx(expected)
