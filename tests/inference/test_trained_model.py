import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunetv2_spmc import discovery
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.inference.case_maps import predict_case
from nnunetv2_spmc.inference.model_folders import find_folds, find_model
from nnunetv2_spmc.inference.trained_model import load_model


@pytest.fixture
def model_folder(phantom_runs, tmp_path):
    """A copy of the model folder to damage."""
    return shutil.copytree(phantom_runs.spmc.parent, tmp_path / "model")


def test_the_only_fold_is_found_and_a_fold_folder_stands_for_itself(phantom_runs):
    assert find_folds(phantom_runs.spmc.parent) == [phantom_runs.spmc]
    assert find_folds(phantom_runs.spmc.parent, ["all"]) == [phantom_runs.spmc]
    assert find_folds(phantom_runs.spmc) == [phantom_runs.spmc]
    with pytest.raises(DataError, match=r"is fold all, not fold 0; drop one of them"):
        find_folds(phantom_runs.spmc, ["0"])


@pytest.mark.parametrize(
    ("fold", "checkpoint", "message"),
    [
        (
            ["3"],
            "checkpoint_final.pth",
            r"has no checkpoint_final\.pth in fold_3: finish the training",
        ),
        (None, "checkpoint_x.pth", r"in any fold: .*\(there is fold_all/checkpoint_best\.pth, "),
    ],
)
def test_a_missing_checkpoint_is_named_with_what_is_there(phantom_runs, fold, checkpoint, message):
    with pytest.raises(DataError, match=message):
        find_folds(phantom_runs.spmc.parent, fold, checkpoint)


def test_what_is_no_model_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"is not a model folder: it has no plans\.json"):
        find_folds(tmp_path)


def test_several_folds_ask_for_a_choice(model_folder):
    shutil.copytree(model_folder / "fold_all", model_folder / "fold_0")
    with pytest.raises(DataError, match=r"has the folds 0, all; .*: -f 0 all"):
        find_folds(model_folder)
    names = [fold.name for fold in find_folds(model_folder, ["all", "0", "all"])]
    assert names == ["fold_all", "fold_0"]


def test_a_model_is_found_by_dataset_configuration_trainer_and_plans(model_folder, monkeypatch):
    dataset = model_folder.parent / "Dataset500_Phantom"
    dataset.mkdir()
    name = "nnUNetTrainerSPMC__nnUNetPlans__2d_small"
    model_folder.rename(dataset / name)
    monkeypatch.setenv("nnUNet_results", str(dataset.parent))
    asked = ("500", "2d_small", "nnUNetTrainerSPMC", "nnUNetPlans")
    assert find_model(*asked) == dataset / name
    with pytest.raises(DataError, match=rf"has no model .*__2d; there is {name}: choose with -tr"):
        find_model("500", "2d", *asked[2:])


def test_several_folds_predict_together_as_in_nnunetv2_predict(
    model_folder, test_image, tmp_path, monkeypatch
):
    monkeypatch.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))
    other = shutil.copytree(model_folder / "fold_all", model_folder / "fold_1")
    file = other / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    generator = torch.Generator().manual_seed(0)
    for weights in (checkpoint["network_weights"], checkpoint["semi_supervised"]["parts"]):
        for value in weights.values():
            value += 0.1 * torch.randn(value.shape, generator=generator)
    torch.save(checkpoint, file)
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model_folder), ("1", "all"))
    predictor.predict_from_files_sequential(
        [[str(test_image)]], [str(tmp_path / "case")], save_probabilities=True
    )
    expected = np.load(tmp_path / "case.npz")["probabilities"].max(axis=0)
    both = predict_case(load_model(find_folds(model_folder, ["1", "all"])), [test_image])
    assert np.array_equal(both.confidence, expected)
    alone = [
        predict_case(load_model(model_folder / f), [test_image]) for f in ("fold_1", "fold_all")
    ]
    assert not any(np.array_equal(each.confidence, expected) for each in alone)
    seconds = [each.second_confidence for each in (both, *alone)]
    assert not any(np.array_equal(seconds[0], second) for second in seconds[1:])


def with_changed_fold(model_folder, change):
    """Return two folds of a model, the second of which has another checkpoint."""
    other = shutil.copytree(model_folder / "fold_all", model_folder / "fold_1")
    file = other / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    change(checkpoint)
    torch.save(checkpoint, file)
    return find_folds(model_folder, ["all", "1"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.update(inference_allowed_mirroring_axes=(0,)),
            r"mirroring axes \(\(0, 1\); \(0,\)\)",
        ),
        (lambda c: c["semi_supervised"]["settings"].update(tau=0.9), r"setting tau \(0\.7; 0\.9\)"),
        (lambda c: c["semi_supervised"]["parts"].clear(), r"second branch \(auxiliary; none\)"),
        (
            lambda c: c.update(trainer_name="nnUNetTrainer"),
            r"trainer \(nnUNetTrainerSPMC; nnUNetTrainer\)",
        ),
    ],
)
def test_folds_that_predict_otherwise_are_refused(model_folder, change, message):
    folds = with_changed_fold(model_folder, change)
    with pytest.raises(DataError, match=rf"fold_all and fold_1 differ in the {message}, so they"):
        load_model(folds)


def test_folds_may_differ_in_what_does_not_predict(model_folder):
    def change(checkpoint):
        checkpoint["inference_allowed_mirroring_axes"] = [0]
        checkpoint["semi_supervised"]["settings"]["seed"] = 5

    folds = with_changed_fold(model_folder, change)
    assert load_model(folds, mirroring=False).tau == 0.7


def test_a_damaged_checkpoint_is_named(model_folder):
    checkpoint = model_folder / "fold_all" / "checkpoint_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"checkpoint_final\.pth is not a whole checkpoint"):
        load_model(model_folder / "fold_all")


def test_an_unknown_trainer_is_named_with_the_variable(model_folder):
    file = model_folder / "fold_all" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    torch.save(checkpoint | {"trainer_name": "nnUNetTrainerElsewhere"}, file)
    with pytest.raises(DataError, match=r"nnUNetTrainerElsewhere.* set nnUNet_extTrainer"):
        load_model(model_folder / "fold_all")


def test_an_exported_model_has_no_auxiliary_branch(model_folder):
    """What nnUNetv2_spmc_export writes: stock trainer, no state of ours."""
    file = model_folder / "fold_all" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    del checkpoint["semi_supervised"]
    torch.save(checkpoint | {"trainer_name": "nnUNetTrainer"}, file)
    model = load_model(model_folder / "fold_all")
    assert model.second is None
    assert model.tau is None


def test_both_branches_share_the_encoder_as_in_the_training(phantom_runs):
    model = load_model(phantom_runs.spmc)
    assert model.second.network.encoder is model.main.network.encoder
    assert model.tau == 0.7


def test_weights_of_another_method_are_not_taken_for_an_auxiliary_branch(model_folder):
    file = model_folder / "fold_all" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    weights = checkpoint["semi_supervised"]["parts"]
    checkpoint["semi_supervised"]["parts"] = {f"teacher.{k}": v for k, v in weights.items()}
    torch.save(checkpoint, file)
    assert load_model(model_folder / "fold_all").second is None
