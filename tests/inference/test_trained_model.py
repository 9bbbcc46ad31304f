import shutil

import pytest
import torch

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.inference.trained_model import find_fold, load_model


@pytest.fixture
def model_folder(phantom_runs, tmp_path):
    """A copy of the model folder to damage."""
    return shutil.copytree(phantom_runs.spmc.parent, tmp_path / "model")


def test_the_only_fold_is_found_and_a_fold_folder_stands_for_itself(phantom_runs):
    assert find_fold(phantom_runs.spmc.parent) == phantom_runs.spmc
    assert find_fold(phantom_runs.spmc.parent, "all") == phantom_runs.spmc
    assert find_fold(phantom_runs.spmc) == phantom_runs.spmc


@pytest.mark.parametrize(
    ("fold", "checkpoint", "message"),
    [
        (
            "3",
            "checkpoint_final.pth",
            r"has no checkpoint_final\.pth in fold_3: finish the training",
        ),
        (None, "checkpoint_x.pth", r"in any fold: .*\(there is fold_all/checkpoint_best\.pth, "),
    ],
)
def test_a_missing_checkpoint_is_named_with_what_is_there(phantom_runs, fold, checkpoint, message):
    with pytest.raises(DataError, match=message):
        find_fold(phantom_runs.spmc.parent, fold, checkpoint)


def test_what_is_no_model_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"is not a model folder: it has no plans\.json"):
        find_fold(tmp_path)


def test_several_folds_ask_for_a_choice(model_folder):
    shutil.copytree(model_folder / "fold_all", model_folder / "fold_0")
    with pytest.raises(DataError, match="has the folds 0, all; choose one with -f"):
        find_fold(model_folder)


def test_a_damaged_checkpoint_is_named(model_folder):
    checkpoint = model_folder / "fold_all" / "checkpoint_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"checkpoint_final\.pth is no whole checkpoint"):
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
