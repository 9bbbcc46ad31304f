import sys
from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_spmc.methods import nnUNetTrainerSupervisedControl
from nnunetv2_spmc.training.checkpoint import CheckpointError
from nnunetv2_spmc.training.warm_start import (
    has_seen_validation_cases,
    load_pretrained_main_branch,
    pretrained_weights_file,
    source_of_weights,
)
from tests.training_logs import log_of


@pytest.fixture
def warm_started(make_trainer, monkeypatch):
    """Start as `nnUNetv2_train -pretrained_weights FILE` does, up to the first step."""

    def start(file, on_command_line=True, **options):
        arguments = ["nnUNetv2_train", "500", "2d_small", "0", "-pretrained_weights", str(file)]
        monkeypatch.setattr(sys, "argv", arguments if on_command_line else arguments[:1])
        trainer = make_trainer(seed=1, **options)
        trainer.initialize()
        untouched = {k: v.clone() for k, v in trainer.joint_network.state_dict().items()}
        maybe_load_checkpoint(trainer, False, False, str(file))
        trainer.on_train_start()
        return trainer.joint_network.state_dict(), untouched, trainer

    return start


@pytest.fixture
def pretrained(make_trainer, tmp_path):
    def write(trainer=None, **options):
        source = make_trainer(trainer, seed=0, **options)
        source.initialize()
        file = tmp_path / "pretrained.pth"
        source.save_checkpoint(str(file))
        return source, file

    return write


@pytest.mark.supported("warm start", "`-pretrained_weights` from stock nnU-Net")
@pytest.mark.parametrize("shared_encoder", [True, False])
def test_from_stock_weights_both_branches_start_where_they_fit(
    warm_started, pretrained, shared_encoder
):
    stock, file = pretrained(nnUNetTrainer)
    weights, untouched, trainer = warm_started(file, shared_encoder=shared_encoder)
    main = stock.network.state_dict()
    taken = 0
    for key, value in weights.items():
        counterpart = key.removeprefix("main.").removeprefix("auxiliary_")
        fits = counterpart in main and main[counterpart].shape == value.shape
        if fits and ".seg_layers." not in key:
            assert torch.equal(value, main[counterpart]), key
            taken += key.startswith("auxiliary_")
        else:
            assert torch.equal(value, untouched[key]), key
    assert taken > 0
    assert f"Warm start: {taken} of " in log_of(trainer)
    assert f": {taken} from the main branch" in log_of(trainer)


@pytest.mark.supported("warm start", "`-pretrained_weights` from an SPMC model")
def test_from_spmc_weights_the_auxiliary_branch_continues_its_own(warm_started, pretrained):
    source, file = pretrained()
    weights, untouched, trainer = warm_started(file)
    expected = source.joint_network.state_dict()
    for key, value in weights.items():
        is_segmentation_layer = ".seg_layers." in key
        assert torch.equal(value, (untouched if is_segmentation_layer else expected)[key]), key
    assert f"from the same parts in {file}" in log_of(trainer)


def test_where_the_file_is_not_known_the_main_branch_is_the_source(warm_started, pretrained):
    _, file = pretrained()
    weights, _, trainer = warm_started(file, on_command_line=False)
    key = "decoder.stages.0.convs.0.conv.weight"
    assert torch.equal(weights[f"auxiliary_{key}"], weights[f"main.{key}"])
    assert "from the main branch" in log_of(trainer)


@pytest.mark.supported("warm start", "fine-tuning with other labels")
def test_other_labels_can_be_learned(warm_started, pretrained, planned_phantom):
    _, file = pretrained()
    dataset_json = planned_phantom.dataset_json()
    dataset_json["labels"] |= {"third": 3}
    weights, _, trainer = warm_started(file, dataset_json=dataset_json)
    assert weights["main.decoder.seg_layers.1.weight"].shape[0] == 4
    assert weights["auxiliary_decoder.seg_layers.1.weight"].shape[0] == 4
    trainer.on_train_epoch_start()
    values = trainer.train_step(next(trainer.dataloader_train))
    assert values["total_loss"].isfinite()


def test_a_resumed_run_is_not_warm_started(make_trainer, monkeypatch):
    first = make_trainer(epochs=2, save_every=1)
    first.on_train_start()
    path = str(Path(first.output_folder) / "checkpoint_latest.pth")
    first.save_checkpoint(path)
    resumed = make_trainer(epochs=2, save_every=1)
    maybe_load_checkpoint(resumed, True, False)
    resumed.on_train_start()
    assert "Warm start" not in log_of(resumed)


def test_the_file_is_read_off_the_command_line():
    assert pretrained_weights_file(["500", "2d", "0", "-pretrained_weights", "a b.pth", "--c"]) == (
        Path("a b.pth")
    )
    assert pretrained_weights_file(["500", "-pretrained_weights=a.pth"]) == Path("a.pth")
    assert pretrained_weights_file([]) is None
    assert pretrained_weights_file(["500", "2d", "0", "-p", "nnUNetPlans"]) is None


def test_weights_of_another_architecture_are_refused_by_the_first_difference(
    make_trainer, pretrained
):
    _, file = pretrained(nnUNetTrainer)
    other = make_trainer(configuration="3d_fullres_small")
    other.initialize()
    with pytest.raises(CheckpointError, match=r"does not fit these plans \(first difference: enc"):
        load_pretrained_main_branch(other.network, file)


@pytest.mark.parametrize("content", ["missing", "other"])
def test_the_stock_command_is_refused_before_it_loads_such_weights(
    make_trainer, pretrained, monkeypatch, tmp_path, content
):
    file = tmp_path / "missing.pth" if content == "missing" else pretrained(nnUNetTrainer)[1]
    expected = "does not exist" if content == "missing" else "does not fit these plans"
    command = ["nnUNetv2_train", "500", "3d_fullres_small", "0", "-pretrained_weights", str(file)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(CheckpointError, match=expected):
        make_trainer(configuration="3d_fullres_small").initialize()
    monkeypatch.setattr(sys, "argv", [*command, "--val"])
    make_trainer(configuration="3d_fullres_small").initialize()  # nnU-Net reads no such file then


def test_distributed_processes_fill_the_main_branch_as_nnunet_does(make_trainer, pretrained):
    _, file = pretrained(nnUNetTrainer)
    ours, stock = make_trainer(seed=1), make_trainer(nnUNetTrainer)
    ours.initialize()
    stock.initialize()
    stock.network.load_state_dict(ours.network.state_dict())
    load_pretrained_main_branch(ours.network, file)
    maybe_load_checkpoint(stock, False, False, str(file))
    expected = stock.network.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in ours.network.state_dict().items())


def fold_file(name, fold, phantom):
    return f"/results/{phantom.name}/{name}__nnUNetPlans__2d_small/fold_{fold}/checkpoint_final.pth"


def test_the_checkpoint_says_what_it_started_from_also_after_a_resume(
    make_trainer, pretrained, monkeypatch, tmp_path
):
    _, file = pretrained(nnUNetTrainerSupervisedControl)
    monkeypatch.setattr(sys, "argv", ["train", "-pretrained_weights", str(file)])
    started = make_trainer(nnUNetTrainerSupervisedControl)
    started.initialize()
    started.save_checkpoint(str(tmp_path / "latest.pth"))
    monkeypatch.setattr(sys, "argv", ["train", "--c"])
    resumed = make_trainer(nnUNetTrainerSupervisedControl)
    assert resumed.extra_state()["pretrained_weights"] == ""
    resumed.load_checkpoint(str(tmp_path / "latest.pth"))
    assert resumed.extra_state()["pretrained_weights"] == str(file)


def test_a_training_that_goes_on_starts_from_no_pretrained_weights():
    assert source_of_weights(["-pretrained_weights", "/a.pth"]) == "/a.pth"
    assert source_of_weights(["-pretrained_weights", "/a.pth", "--val"]) == ""
    assert source_of_weights(["510", "2d", "0"]) == ""


@pytest.mark.parametrize("fold", ["1", "all"])
def test_weights_of_another_fold_of_the_dataset_are_warned_of(
    make_trainer, monkeypatch, planned_phantom, fold
):
    source = fold_file("nnUNetTrainer", fold, planned_phantom)
    monkeypatch.setattr("nnunetv2_spmc.training.configured.source_of_weights", lambda: source)
    trainer = make_trainer(nnUNetTrainerSupervisedControl)
    trainer.initialize()
    expected = f"WARNING: the pretrained weights come from fold_{fold}, which was trained on valid"
    assert expected in log_of(trainer)


def test_weights_of_the_same_fold_or_of_another_dataset_are_not(planned_phantom):
    name = planned_phantom.name
    source = fold_file("nnUNetTrainer", 0, planned_phantom)
    assert has_seen_validation_cases(source, name, 0) == ""
    assert has_seen_validation_cases(source, "Dataset001_Other", 1) == ""
    assert has_seen_validation_cases(source, name, "all") == ""
    assert has_seen_validation_cases("", name, 0) == ""
    assert has_seen_validation_cases(source, name, 1) != ""
