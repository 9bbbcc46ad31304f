import math
from pathlib import Path

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.lr_schedule.nnUNetTrainerCosAnneal import (
    nnUNetTrainerCosAnneal,
)

from nnunetv2_spmc.common.errors import DataError, UnsupportedError
from nnunetv2_spmc.common.setting_checks import SettingsError
from nnunetv2_spmc.methods import (
    nnUNetTrainerSPMC,
    nnUNetTrainerSPMC_noUnlabeled,
    nnUNetTrainerSupervisedControl,
)
from nnunetv2_spmc.networks.unwrap import unwrapped
from nnunetv2_spmc.training import passes
from nnunetv2_spmc.training.epoch_log import all_panels
from nnunetv2_spmc.training.step import Labeled, Unlabeled
from tests.training_logs import log_of

# the unlabeled loss acts on the patches as they were drawn
SAME_PATCHES = {"views": "same", "paste_from": "nothing", "turns": False}


def ready(trainer):
    """Start a trainer up to its first step."""
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    return trainer


def gradients(trainer):
    parameters = trainer.joint_network.named_parameters()
    return {name: p.grad.clone() for name, p in parameters if p.grad is not None}


def test_the_two_backward_passes_give_the_gradient_of_the_joint_loss(make_trainer, monkeypatch):
    trainer = ready(make_trainer(noise=0.0, lambda_max=1.0, **SAME_PATCHES))
    monkeypatch.setattr(trainer, "_optimizer_step", lambda: None)
    trainer.iteration = 4  # t_max, so that the unlabeled part weighs as much as it ever does
    batch = next(trainer.dataloader_train)
    trainer.train_step(batch)
    two_passes = gradients(trainer)

    trainer.optimizer.zero_grad()
    labeled = Labeled(batch["data"], batch["target"])
    labeled_loss, _ = trainer.labeled_loss(trainer.joint_network(labeled.images), labeled)
    unlabeled = Unlabeled(batch["unlabeled"]["data"])
    unlabeled_loss, _ = trainer.unlabeled_loss(trainer.joint_network(unlabeled.images), unlabeled)
    (labeled_loss + 1.0 * unlabeled_loss).backward()
    joint = gradients(trainer)

    assert two_passes.keys() == joint.keys()
    for name in joint:
        torch.testing.assert_close(two_passes[name], joint[name], rtol=1e-4, atol=1e-6)


def test_a_step_reports_the_weighted_sum_of_its_parts(make_trainer):
    trainer = ready(make_trainer(noise=0.0))
    trainer.iteration = 2
    weight = trainer.ramp_up_weight()
    values = trainer.train_step(next(trainer.dataloader_train))
    beta = trainer.method_settings.beta
    expected = sum(
        values[f"supervised_{branch}"]
        + beta * values[f"cdps_{branch}"]
        + weight * (values[f"cps_{branch}"] + beta * values[f"splat_{branch}"])
        for branch in ("main", "auxiliary")
    )
    torch.testing.assert_close(values["total_loss"], expected)


def test_every_parameter_of_both_branches_is_trained(make_trainer):
    trainer = ready(make_trainer(shared_encoder=False))
    trainer.train_step(next(trainer.dataloader_train))
    without = {
        name
        for name, parameter in trainer.joint_network.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    }
    # InstanceNorm takes out a bias before it; the lowest output has deep supervision weight 0
    assert all(name.endswith("conv.bias") or "seg_layers.0" in name for name in without), without
    assert any(name.startswith("auxiliary_encoder.") for name in gradients(trainer))


def test_the_learning_rate_is_that_of_stock_nnunet_for_both_branches(make_trainer):
    trainer = ready(make_trainer())
    trainer.current_epoch = 1
    trainer.on_train_epoch_start()
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    assert rates == [0.01 * 0.5**0.9] * 2


def test_with_a_scheduler_of_pytorch_both_branches_have_its_learning_rate(make_trainer):
    class WithCosine(nnUNetTrainerCosAnneal, nnUNetTrainerSPMC):
        pass

    trainer = ready(make_trainer(WithCosine))
    trainer.current_epoch = 1
    trainer.on_train_epoch_start()
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    assert rates == pytest.approx([0.005] * 2)


def test_gradients_are_clipped_per_branch(make_trainer):
    trainer = ready(make_trainer())
    main, auxiliary = (group["params"] for group in trainer.optimizer.param_groups)
    for parameter in [*main, *auxiliary]:
        parameter.grad = torch.zeros_like(parameter)
    main[0].grad += 1e6
    auxiliary[0].grad += 1e-3
    small = auxiliary[0].grad.clone()
    trainer._optimizer_step()
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in main]))
    assert norm.item() == pytest.approx(12, rel=1e-3)
    assert torch.equal(auxiliary[0].grad, small)


def test_the_ramp_up_counts_iterations_over_the_whole_training(make_trainer):
    trainer = ready(make_trainer(lambda_max=0.1, ramp_start=0.0, ramp_end=1.0))
    assert trainer.ramp_up_weight() == pytest.approx(0.1 * math.exp(-5))
    trainer.train_step(next(trainer.dataloader_train))
    assert trainer.iteration == 1
    trainer.current_epoch = 1
    trainer.on_train_epoch_start()
    assert trainer.iteration == 2
    trainer.iteration = 4
    assert trainer.ramp_up_weight() == 0.1


def test_the_ramp_up_lies_between_its_start_and_its_end(make_trainer):
    trainer = make_trainer(
        epochs=10, iterations_per_epoch=3, lambda_max=2.0, ramp_start=0.2, ramp_end=0.5
    )
    weights = [trainer.ramp_up_weight(iteration) for iteration in range(30)]
    assert weights[:6] == [0.0] * 6
    assert weights[6] == pytest.approx(2.0 * math.exp(-5))
    assert weights[6:16] == sorted(set(weights[6:16]))  # ever larger
    assert weights[15:] == [2.0] * 15


def test_at_least_the_last_epoch_sees_unlabeled_patches(make_trainer):
    trainer = make_trainer(epochs=2, iterations_per_epoch=3, ramp_start=0.75, ramp_end=1.0)
    assert [trainer.ramp_up_weight(iteration) > 0 for iteration in range(6)] == [False] * 3 + [
        True
    ] * 3


def test_supervised_epochs_pass_no_unlabeled_patch_through_the_network(make_trainer, monkeypatch):
    trainer = ready(make_trainer(ramp_start=0.5, ramp_end=1.0))
    monkeypatch.setattr(passes, "unlabeled_pass", lambda *_: pytest.fail("was called"))
    values = trainer.train_step(next(trainer.dataloader_train))
    assert "cps_main" not in values
    trainer.iteration = 2
    with pytest.raises(pytest.fail.Exception):
        trainer.train_step(next(trainer.dataloader_train))


def test_validation_runs_the_planned_network_alone(make_trainer):
    trainer = ready(make_trainer())
    assert type(unwrapped(trainer.network)).__name__ == "PlainConvUNet"
    assert unwrapped(trainer.joint_network).main is unwrapped(trainer.network)
    trainer.on_validation_epoch_start()
    assert not trainer.network.training
    trainer.on_train_epoch_start()
    assert all(module.training for module in trainer.joint_network.modules())


def test_without_unsupervised_weight_unlabeled_cases_are_not_touched(make_trainer, monkeypatch):
    trainer = make_trainer(nnUNetTrainerSPMC_noUnlabeled)
    monkeypatch.setattr(trainer.stream, "find_cases", lambda: pytest.fail("looked for them"))
    ready(trainer)
    batch = next(trainer.dataloader_train)
    assert "unlabeled" not in batch
    values = trainer.train_step(batch)
    assert "cdps_main" in values
    assert "cps_main" not in values


@pytest.mark.slow
def test_an_epoch_is_logged_and_drawn(make_trainer):
    trainer = make_trainer(epochs=1)
    trainer.run_training()
    curves = trainer.logger.get_checkpoint()
    assert {len(curve) for curve in curves.values()} == {1}
    shown = [key for keys in all_panels(trainer.panels, trainer.branches).values() for key in keys]
    shown.remove("viewed_main")  # of a second labeled pass, if there is one
    assert set(shown) <= set(curves)
    assert all(math.isfinite(curves[key][0]) for key in shown)
    assert curves["train_losses"][0] == pytest.approx(curves["supervised_main"][0])
    folder = Path(trainer.output_folder)
    assert (folder / "progress_semi.png").stat().st_size > 10_000
    log = log_of(trainer)
    assert "loss terms: cdps_main " in log
    assert "Each step: 2 labeled and 2 unlabeled patches; 4 unlabeled cases." in log


def test_curves_that_a_checkpoint_does_not_have_are_filled(make_trainer):
    trainer = ready(make_trainer())
    curves = trainer.logger.local_logger.my_fantastic_logging
    for epoch in range(3):  # epochs of a version that did not log our values
        trainer.logger.log("train_losses", 1.0, epoch)
    trainer.current_epoch = 3
    trainer.on_train_epoch_end([trainer.train_step(next(trainer.dataloader_train))])
    assert len(curves["agreement"]) == 4
    assert all(math.isnan(value) for value in curves["agreement"][:3])


def test_a_term_that_is_switched_off_later_does_not_stop_the_curves(make_trainer):
    trainer = ready(make_trainer())
    curves = trainer.logger.local_logger.my_fantastic_logging
    trainer.logger.local_logger.my_fantastic_logging["retired_term"] = [1.0]
    trainer.current_epoch = 1
    trainer.logger.log("train_losses", 1.0, 0)
    trainer.on_train_epoch_end([trainer.train_step(next(trainer.dataloader_train))])
    assert curves["retired_term"][0] == 1.0
    assert math.isnan(curves["retired_term"][1])


@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["2d_small", "3d_fullres_small"])
def test_a_training_runs_with_worker_processes(make_trainer, monkeypatch, configuration):
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    trainer = make_trainer(configuration=configuration, epochs=1)
    trainer.run_training()
    assert (Path(trainer.output_folder) / "checkpoint_final.pth").is_file()


def test_the_control_is_the_stock_trainer_with_the_same_schedule(make_trainer):
    control = make_trainer(nnUNetTrainerSupervisedControl, epochs=7, initial_lr=0.005)
    assert (control.num_epochs, control.num_iterations_per_epoch) == (7, 2)
    assert control.initial_lr == 0.005
    for name in ("get_dataloaders", "_build_loss", "configure_optimizers"):
        assert getattr(nnUNetTrainerSupervisedControl, name) is getattr(nnUNetTrainer, name)


def test_the_control_may_see_labeled_patches_through_the_views_of_a_method(make_trainer):
    batch = {"data": torch.randn(2, 1, 16, 16), "target": torch.zeros(2, 1, 16, 16)}
    for share in (0.0, 1.0):
        control = make_trainer(
            nnUNetTrainerSupervisedControl, labeled_views=share, paste_from="labeled"
        )
        control.initialize()
        images, _ = control.labeled_view(batch["data"], batch["target"])
        assert torch.equal(images, batch["data"]) == (share == 0)


def test_a_step_of_the_control_is_that_of_the_stock_trainer(make_trainer):
    control, stock = make_trainer(nnUNetTrainerSupervisedControl), make_trainer(nnUNetTrainer)
    ready(control)
    stock.initialize()
    stock.network.load_state_dict(control.network.state_dict())
    stock.set_deep_supervision_enabled(stock.enable_deep_supervision)
    stock.on_train_epoch_start()
    batch = next(control.dataloader_train)
    assert control.train_step(batch)["loss"] == stock.train_step(batch)["loss"]
    ours, theirs = control.network.state_dict(), stock.network.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_an_ablation_cannot_be_undone_by_a_setting(make_trainer):
    with pytest.raises(SettingsError, match=r"lambda_max is 0\.0 in this trainer, as its name"):
        make_trainer(nnUNetTrainerSPMC_noUnlabeled, lambda_max=0.2)


def test_a_resumed_run_draws_other_patches_and_noise(make_trainer):
    def first_random_numbers(epoch):
        trainer = make_trainer()
        trainer.initialize()
        trainer.current_epoch = epoch
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        return next(trainer.dataloader_train)["data"], torch.rand(3)

    (patches, noise), (patches_again, noise_again) = map(first_random_numbers, (0, 0))
    assert torch.equal(patches, patches_again)
    assert torch.equal(noise, noise_again)
    patches_later, noise_later = first_random_numbers(5)
    assert not torch.equal(patches, patches_later)
    assert not torch.equal(noise, noise_later)


def test_gradient_scaling_changes_nothing_but_the_scale(make_trainer):
    def weights_after_a_step(scaler):
        trainer = ready(make_trainer(noise=0.0))
        trainer.grad_scaler = scaler
        trainer.train_step(next(trainer.dataloader_train))
        return trainer.joint_network.state_dict()

    plain = weights_after_a_step(None)
    scaled = weights_after_a_step(torch.amp.GradScaler("cpu", init_scale=1024.0))
    for key in plain:
        torch.testing.assert_close(plain[key], scaled[key], rtol=1e-4, atol=1e-6)


def test_without_the_raw_dataset_the_log_says_what_was_not_compared(make_trainer, monkeypatch):
    trainer = make_trainer(epochs=1)
    monkeypatch.delenv("nnUNet_raw")
    trainer.on_train_start()
    log = log_of(trainer)
    assert "unlabeled cases are not compared with test cases" in log


@pytest.mark.parametrize("trainer", [None, nnUNetTrainerSupervisedControl])
def test_regions_from_which_the_labels_cannot_come_back_are_warned_of(
    make_trainer, planned_phantom, trainer
):
    changes = {"labels": {"background": 0, "a": 1, "b": [1, 2]}, "regions_class_order": [2, 1]}
    made = make_trainer(trainer, dataset_json=planned_phantom.dataset_json() | changes)
    made.initialize()
    (log,) = Path(made.output_folder).glob("training_log*.txt")
    sentence = "warning: dataset.json: The regions a, b cannot be written as 2, 1 in this order"
    assert log.read_text().count(sentence) == 1


def test_the_same_seed_gives_the_same_start_for_control_and_method(make_trainer):
    control, method = make_trainer(nnUNetTrainerSupervisedControl), make_trainer()
    control.initialize()
    method.initialize()
    ours, theirs = method.network.state_dict(), control.network.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_the_cascade_is_refused_before_a_folder_is_made(make_trainer, planned_phantom, tmp_path):
    plans = planned_phantom.plans()
    plans["configurations"]["cascade"] = {
        "inherits_from": "2d_small",
        "previous_stage": "2d",
    }
    plans["continue_training"] = False
    with pytest.raises(UnsupportedError, match="cannot train the configuration cascade"):
        nnUNetTrainerSPMC(plans, "cascade", 0, planned_phantom.dataset_json())
    assert list(tmp_path.iterdir()) == []


def test_a_bad_setting_is_refused_before_a_folder_is_made(make_trainer, tmp_path):
    with pytest.raises(SettingsError, match="tau must be in"):
        make_trainer(tau=2)
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_for_results_the_variable_is_named(make_trainer, monkeypatch):
    monkeypatch.delenv("nnUNet_results")
    with pytest.raises(DataError, match="nnUNet_results is not set; export nnUNet_results="):
        make_trainer()


def test_an_architecture_that_cannot_be_estimated_trains_without(make_trainer, monkeypatch):
    def fail(*_, **__):
        raise NotImplementedError("no such kernel for meta tensors")

    monkeypatch.setattr("nnunetv2_spmc.training.memory.step_memory", fail)
    trainer = make_trainer()
    trainer.on_train_start()
    log = log_of(trainer)
    assert "No estimate of the memory that a step needs (no such kernel" in log


def test_training_before_preprocessing_names_the_command(make_trainer, monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    with pytest.raises(DataError, match="run nnUNetv2_preprocess -d 500 -plans_name nnU"):
        make_trainer().run_training()


@pytest.mark.parametrize("trainer", [nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl])
def test_without_mirroring_neither_training_nor_prediction_mirrors(make_trainer, trainer):
    def mirrors(mirroring):
        made = make_trainer(trainer, mirroring=mirroring)
        made.on_train_start()
        loader = made.dataloader_train.data_loader
        transforms = getattr(loader, "labeled", loader).transforms.transforms
        names = {type(transform).__name__ for transform in transforms}
        return "MirrorTransform" in names, made.inference_allowed_mirroring_axes

    assert mirrors(True) == (True, (0, 1))
    assert mirrors(False) == (False, None)
