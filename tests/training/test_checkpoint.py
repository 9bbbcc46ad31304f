import os
from pathlib import Path

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_spmc.cli.export import main as export_command
from nnunetv2_spmc.common.whole_file import WRITING_PREFIX, WriteError
from nnunetv2_spmc.inference.export import ExportError, export_model
from nnunetv2_spmc.methods import nnUNetTrainerSPMC_noUnlabeled, nnUNetTrainerSupervisedControl
from nnunetv2_spmc.training.checkpoint import CheckpointError, reopen_finished, write_whole
from tests.full_disk import file_size_limit
from tests.in_process import leave_out_plots
from tests.killed_at import of_ended_process


@pytest.fixture
def trained(make_trainer):
    trainer = make_trainer(epochs=1)
    trainer.run_training()
    return trainer


def final(trainer):
    return Path(trainer.output_folder) / "checkpoint_final.pth"


def test_network_weights_are_the_main_branch_alone_under_stock_names(trained):
    checkpoint = torch.load(final(trained), weights_only=False)
    assert checkpoint["network_weights"].keys() == trained.network.state_dict().keys()
    auxiliary = checkpoint["semi_supervised"]["parts"]
    assert all(key.startswith("auxiliary_decoder.") for key in auxiliary)


def test_stock_nnunet_predicts_with_the_main_branch_bit_by_bit(trained, monkeypatch):
    from nnunetv2_spmc import discovery

    monkeypatch.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))
    predictor = nnUNetPredictor(device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(trained.output_folder_base, use_folds=(0,))
    stock = nnUNetTrainer.build_network_architecture(
        trained.plans_manager,
        trained.configuration_manager,
        trained.num_input_channels,
        trained.label_manager.num_segmentation_heads,
        enable_deep_supervision=False,
    )
    stock.load_state_dict(torch.load(final(trained), weights_only=False)["network_weights"])
    images = torch.randn(1, 1, 16, 16)
    trained.set_deep_supervision_enabled(False)
    with torch.inference_mode():
        expected = trained.network.eval()(images)
        assert torch.equal(predictor.network.eval()(images), expected)
        assert torch.equal(stock.eval()(images), expected)


def test_resuming_restores_both_branches_the_optimizer_and_the_ramp_up(trained, make_trainer):
    resumed = make_trainer(epochs=1)
    resumed.load_checkpoint(str(final(trained)))
    before, after = trained.joint_network.state_dict(), resumed.joint_network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    momenta = [
        [state["momentum_buffer"] for state in t.optimizer.state.values()]
        for t in (trained, resumed)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))
    assert resumed.current_epoch == 1


@pytest.mark.slow
@pytest.mark.supported("resume", "`--c` after Ctrl-C")
def test_an_interrupted_training_goes_on_to_the_same_schedule(make_trainer, monkeypatch):
    uninterrupted = make_trainer(epochs=3, save_every=1)
    uninterrupted.run_training()

    interrupted = make_trainer(epochs=3, save_every=1)
    start_epoch = interrupted.on_train_epoch_start

    def start_first_epoch_only():
        if interrupted.current_epoch == 1:
            raise KeyboardInterrupt
        start_epoch()

    monkeypatch.setattr(interrupted, "on_train_epoch_start", start_first_epoch_only)
    with pytest.raises(SystemExit) as exit_:
        interrupted.run_training()
    assert exit_.value.code == 130
    latest = Path(interrupted.output_folder) / "checkpoint_latest.pth"
    resumed = make_trainer(epochs=3, save_every=1)
    resumed.load_checkpoint(str(latest))
    resumed.run_training()
    ours, theirs = resumed.logger.get_checkpoint(), uninterrupted.logger.get_checkpoint()
    assert resumed.iteration == uninterrupted.iteration == 6
    assert ours["lrs"] == theirs["lrs"]
    assert ours["lambda"] == theirs["lambda"]


@pytest.mark.slow
def test_a_run_with_few_unlabeled_steps_resumes_as_if_uninterrupted(make_trainer, monkeypatch):
    leave_out_plots(monkeypatch)
    few = {"iterations_per_epoch": 3, "unlabeled_every": 2}  # the second epoch starts without
    whole, killed, resumed = (
        make_trainer(epochs=3, save_every=1, lambda_max=1.0, ramp_start=0.0, **few)
        for _ in range(3)
    )
    whole.run_training()
    on_epoch_end = killed.on_epoch_end

    def end_after_an_epoch():
        on_epoch_end()
        raise InterruptedError

    killed.on_epoch_end = end_after_an_epoch
    with pytest.raises(InterruptedError):
        killed.run_training()
    resumed.load_checkpoint(str(Path(killed.output_folder) / "checkpoint_latest.pth"))
    assert resumed.current_epoch == 1
    resumed.run_training()
    ours, theirs = (t.joint_network.state_dict() for t in (resumed, whole))
    assert [key for key, value in ours.items() if not torch.equal(value, theirs[key])] == []
    ours, theirs = (t.logger.get_checkpoint() for t in (resumed, whole))
    assert ours["cps_main"] == theirs["cps_main"]


@pytest.mark.supported(
    "resume",
    "`--c` with other settings; `nnUNet_spmc_allow_changed=1` allows it",
    refused=True,
)
def test_changed_settings_are_refused_with_what_differs(trained, make_trainer, monkeypatch):
    resumed = make_trainer(epochs=2, tau=0.6, iterations_per_epoch=1)
    resumed.load_checkpoint(str(final(trained)))
    with pytest.raises(CheckpointError, match=r": iterations_per_epoch: 2 -> 1; tau: 0.7 -> 0.6\."):
        resumed.run_training()
    assert sorted(file.name for file in Path(trained.output_folder).glob("*.pth")) == [
        "checkpoint_best.pth",
        "checkpoint_final.pth",
    ]
    monkeypatch.setenv("nnUNet_spmc_allow_changed", "1")
    resumed.run_training()
    assert resumed.current_epoch == 2


def printed_log(trainer):
    return "".join(file.read_text() for file in Path(trainer.output_folder).glob("*.txt"))


@pytest.mark.supported("resume", "`--c` with more epochs or other intervals, also after the end")
def test_a_finished_training_goes_on_with_more_epochs(trained, make_trainer):
    short = torch.load(final(trained), weights_only=False)
    intervals = {"save_every": 2, "validation_iterations": 2, "keep_every": 3}
    resumed = make_trainer(epochs=4, **intervals)
    resumed.load_checkpoint(str(final(trained)))
    resumed.run_training()
    whole = make_trainer(epochs=4)
    whole.run_training()

    logged = printed_log(resumed)
    assert "epochs 1 -> 4: learning rate and ramp follow the new length from here" in logged
    assert "save_every 50 -> 2" in logged
    ours, theirs = (t.logger.get_checkpoint() for t in (resumed, whole))
    assert ours["lrs"] == theirs["lrs"]  # the first epoch starts alike
    assert ours["lambda"][1:] == theirs["lambda"][1:]
    assert ours["lambda"][0] != theirs["lambda"][0]
    kept = Path(trained.output_folder) / "checkpoint_epoch_1.pth"
    kept = torch.load(kept, weights_only=False)
    assert kept["current_epoch"] == 1
    assert torch.equal(*(next(iter(c["network_weights"].values())) for c in (short, kept)))


@pytest.mark.slow
def test_a_longer_training_that_is_stopped_goes_on_from_its_last_epoch(make_trainer):
    """And not from the final checkpoint of the shorter one, which `--c` takes first."""
    trained = make_trainer(nnUNetTrainerSupervisedControl, epochs=1)
    trained.run_training()
    resumed = make_trainer(nnUNetTrainerSupervisedControl, epochs=5, save_every=1)
    resumed.load_checkpoint(str(final(trained)))
    start_epoch = resumed.on_train_epoch_start

    def stop_in_the_fourth_epoch():
        if resumed.current_epoch == 3:
            raise KeyboardInterrupt
        start_epoch()

    resumed.on_train_epoch_start = stop_in_the_fourth_epoch
    with pytest.raises(SystemExit):
        resumed.run_training()
    assert not final(trained).exists()
    again = make_trainer(nnUNetTrainerSupervisedControl, epochs=5, save_every=1)
    maybe_load_checkpoint(again, continue_training=True, validation_only=False)
    assert again.current_epoch == 3


@pytest.mark.slow
def test_a_finished_training_stays_finished_where_nothing_can_be_written(make_trainer):
    trained = make_trainer(nnUNetTrainerSupervisedControl, epochs=1)
    trained.run_training()
    resumed = make_trainer(nnUNetTrainerSupervisedControl, epochs=2)
    resumed.disable_checkpointing = True
    resumed.load_checkpoint(str(final(trained)))
    resumed.run_training()
    assert torch.load(final(trained), weights_only=False)["current_epoch"] == 1


def test_fewer_epochs_than_are_trained_are_refused(make_trainer):
    trainer = make_trainer(nnUNetTrainerSupervisedControl, epochs=3)
    trainer.initialize()
    trainer.current_epoch = 2  # of which 3 are done when it is saved
    trainer.logger.local_logger.my_fantastic_logging = {}
    trainer.save_checkpoint(str(final(trainer)))
    resumed = make_trainer(nnUNetTrainerSupervisedControl, epochs=2)
    resumed.load_checkpoint(str(final(trainer)))
    with pytest.raises(CheckpointError, match="has 3 epochs of training, and the setting epochs i"):
        resumed.run_training()
    assert final(trainer).is_file()


def test_a_finished_training_is_kept_on_a_disk_without_links(tmp_path, monkeypatch):
    torch.save({"epoch": 7}, tmp_path / "checkpoint_final.pth")
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links")))
    assert "kept as checkpoint_epoch_7.pth" in reopen_finished(tmp_path, 7)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "checkpoint_epoch_7.pth",
        "checkpoint_latest.pth",
    ]
    assert torch.load(tmp_path / "checkpoint_epoch_7.pth") == {"epoch": 7}


@pytest.mark.supported(
    "resume",
    "`--c` with other unlabeled cases; `nnUNet_spmc_allow_changed=1` allows it",
    refused=True,
)
def test_a_changed_list_of_unlabeled_cases_is_refused(trained, make_trainer, monkeypatch):
    resumed = make_trainer(epochs=1)
    resumed.load_checkpoint(str(final(trained)))
    monkeypatch.setattr(resumed.stream, "find_cases", lambda: None)
    resumed.stream.cases = trained.stream.cases[1:]
    with pytest.raises(CheckpointError, match="1 gone, 0 new, such as unlabeled_000"):
        resumed.run_training()


@pytest.mark.slow
def test_the_control_refuses_changed_settings_too(make_trainer):
    control = make_trainer(nnUNetTrainerSupervisedControl, epochs=1)
    control.run_training()
    resumed = make_trainer(nnUNetTrainerSupervisedControl, epochs=1, initial_lr=0.1)
    resumed.load_checkpoint(str(final(control)))
    with pytest.raises(CheckpointError, match=r"initial_lr: 0\.01 -> 0\.1"):
        resumed.run_training()


def test_validation_alone_does_not_ask_for_the_settings(trained, make_trainer):
    resumed = make_trainer(epochs=5, tau=0.6)
    resumed.load_checkpoint(str(final(trained)))  # what --val does; no refusal


@pytest.mark.supported("resume", "`--c` from a checkpoint of stock nnU-Net", refused=True)
def test_a_checkpoint_of_the_stock_trainer_is_refused_with_the_remedy(make_trainer, tmp_path):
    stock = make_trainer(nnUNetTrainer)
    stock.initialize()
    stock.save_checkpoint(str(tmp_path / "checkpoint_final.pth"))
    with pytest.raises(CheckpointError, match=r"written by nnUNetTrainer .*-pretrained_weights"):
        make_trainer().load_checkpoint(str(tmp_path / "checkpoint_final.pth"))


def test_another_auxiliary_architecture_is_refused(trained, make_trainer):
    with pytest.raises(CheckpointError, match="another architecture"):
        make_trainer(shared_encoder=False).load_checkpoint(str(final(trained)))


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [None, nnUNetTrainerSupervisedControl])
def test_checkpoints_of_some_epochs_can_be_kept(make_trainer, trainer):
    trained = make_trainer(trainer, epochs=5, keep_every=2)
    trained.run_training()
    kept = sorted(Path(trained.output_folder).glob("checkpoint_epoch_*.pth"))
    assert [path.name for path in kept] == ["checkpoint_epoch_2.pth", "checkpoint_epoch_4.pth"]
    epochs = [torch.load(path, weights_only=False)["current_epoch"] for path in kept]
    assert epochs == [2, 4]
    resumed = make_trainer(trainer, epochs=5, keep_every=2)
    resumed.load_checkpoint(str(kept[1]))
    assert resumed.current_epoch == 4


def epochs_that_write_the_latest(trainer, monkeypatch, minutes_per_epoch):
    """Train with epochs of so many minutes; return after how many epochs it was written."""
    now, written, save = [0.0], [], trainer.save_checkpoint
    start_epoch = trainer.on_epoch_start

    def on_epoch_start():
        now[0] += 60 * minutes_per_epoch
        start_epoch()

    def save_checkpoint(filename):
        save(filename)
        if Path(filename).name == "checkpoint_latest.pth":
            written.append(torch.load(filename, weights_only=False)["current_epoch"])

    monkeypatch.setattr(trainer, "clock", lambda: now[0])
    monkeypatch.setattr(trainer, "on_epoch_start", on_epoch_start)
    monkeypatch.setattr(trainer, "save_checkpoint", save_checkpoint)
    trainer.run_training()
    return written


@pytest.mark.slow
@pytest.mark.supported("resume", "at most ten minutes and an epoch are lost, whatever ends a run")
@pytest.mark.parametrize("trainer", [None, nnUNetTrainerSupervisedControl])
@pytest.mark.parametrize(
    ("settings", "minutes_per_epoch", "written"),
    [
        ({}, 4, [3, 6]),  # not the last one: that is final
        ({}, 25, [1, 2, 3, 4, 5, 6]),
        ({}, 1, []),
        ({"save_minutes": 5}, 4, [2, 4, 6]),
        ({"save_minutes": 0}, 25, []),
        ({"save_every": 2}, 4, [2, 4, 6]),  # nnU-Net's own count too
    ],
)
def test_an_epoch_that_ends_ten_minutes_after_the_latest_checkpoint_writes_it(
    make_trainer, monkeypatch, trainer, settings, minutes_per_epoch, written
):
    leave_out_plots(monkeypatch)
    trained = make_trainer(trainer, epochs=7, iterations_per_epoch=1, **settings)
    assert epochs_that_write_the_latest(trained, monkeypatch, minutes_per_epoch) == written


def test_other_minutes_between_checkpoints_are_no_change(trained, make_trainer):
    resumed = make_trainer(epochs=1, save_minutes=3)
    resumed.load_checkpoint(str(final(trained)))
    resumed.run_training()  # no refusal
    resumed = make_trainer(epochs=1)
    resumed.load_checkpoint(str(final(trained)))
    del resumed.resumed_from["settings"]["save_minutes"]  # of an older version
    resumed.run_training()


@pytest.mark.slow
def test_disabled_checkpointing_writes_nothing(make_trainer):
    trainer = make_trainer(nnUNetTrainerSPMC_noUnlabeled, epochs=1)
    trainer.disable_checkpointing = True
    trainer.run_training()
    assert not list(Path(trainer.output_folder).glob("*.pth*"))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pth"
    write_whole({"epoch": 1}, path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("killed here")))
    with pytest.raises(WriteError, match="killed here"):
        write_whole({"epoch": 2}, path)
    assert torch.load(path)["epoch"] == 1
    assert list(tmp_path.iterdir()) == [path]


LARGE = {"weights": torch.randn(100_000, generator=torch.Generator().manual_seed(0))}


def assert_the_old_one_stays(path, message):
    write_whole({"epoch": 1}, path)
    with pytest.raises(WriteError, match=rf"checkpoint\.pth could not be written: {message}"):
        write_whole(LARGE, path)
    assert torch.load(path)["epoch"] == 1
    assert list(path.parent.iterdir()) == [path]


def test_a_checkpoint_without_room_on_the_disk_leaves_the_old_one(small_disk):
    assert_the_old_one_stays(small_disk.folder / "checkpoint.pth", "no space left on its disk")


def test_a_checkpoint_that_ulimit_cuts_leaves_the_old_one(tmp_path):
    with file_size_limit(100_000):
        assert_the_old_one_stays(tmp_path / "checkpoint.pth", "file too large, the limit of ulimit")


@pytest.mark.slow
def test_a_training_removes_the_unfinished_checkpoint_of_a_killed_one(make_trainer):
    trainer = make_trainer(nnUNetTrainerSPMC_noUnlabeled, epochs=1)
    unfinished = Path(trainer.output_folder) / of_ended_process(WRITING_PREFIX)
    unfinished.mkdir(parents=True)
    (unfinished / "checkpoint_latest.pth").write_bytes(b"half")
    trainer.run_training()
    assert not unfinished.exists()


def test_export_keeps_only_what_inference_needs(trained, tmp_path, monkeypatch):
    from nnunetv2_spmc import discovery

    monkeypatch.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))
    output = tmp_path / "exported"
    assert export_model(Path(trained.output_folder_base), output) == ["0"]
    exported = torch.load(output / "fold_0" / "checkpoint_final.pth", weights_only=False)
    assert exported["trainer_name"] == "nnUNetTrainer"
    assert "semi_supervised" not in exported
    assert "optimizer_state" not in exported
    monkeypatch.delenv("nnUNet_extTrainer")  # the other machine does not have this package
    predictor = nnUNetPredictor(device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(str(output), use_folds=None)
    assert predictor.trainer_name == "nnUNetTrainer"
    assert list(tmp_path.glob(".exported*")) == []


def test_export_refuses_what_is_no_finished_model(trained, tmp_path):
    model = Path(trained.output_folder_base)
    with pytest.raises(ExportError, match=r"is not a model folder: it has no plans\.json"):
        export_model(model / "fold_0", tmp_path / "out")
    with pytest.raises(ExportError, match=r"has no checkpoint_final\.pth in fold_3"):
        export_model(model, tmp_path / "out", folds=["3"])
    with pytest.raises(ExportError, match="exists already"):
        export_model(model, tmp_path)
    assert not (tmp_path / "out").exists()


def test_export_refuses_nan_weights(trained, tmp_path):
    checkpoint = torch.load(final(trained), weights_only=False)
    next(iter(checkpoint["network_weights"].values())).view(-1)[0] = float("nan")
    torch.save(checkpoint, final(trained))
    with pytest.raises(ExportError, match=r"checkpoint_final\.pth has NaN or infinite weights"):
        export_model(Path(trained.output_folder_base), tmp_path / "out")
    assert list(tmp_path.glob("*out*")) == []


def test_an_export_without_room_on_the_disk_is_one_sentence(trained, small_disk):
    small_disk.resize(20)
    output = small_disk.folder / "out"
    with pytest.raises(SystemExit) as ended:
        export_command(["-i", trained.output_folder_base, "-o", str(output)])
    assert ended.value.code.startswith(f"error: {output}/")
    assert ended.value.code.endswith(
        "could not be written: no space left on its disk; free some and try again"
    )
    assert list(small_disk.folder.iterdir()) == []


def test_export_compares_what_it_wrote(trained, tmp_path, monkeypatch):
    """Other weights in the exported file than in the trained model must be found."""
    from nnunetv2_spmc import discovery
    from nnunetv2_spmc.inference import export as model_export

    monkeypatch.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))
    reduce = model_export.stock_checkpoint

    def damaged(path, dataset_json):
        checkpoint = reduce(path, dataset_json)
        next(iter(checkpoint["network_weights"].values()))[:] = 0
        return checkpoint

    monkeypatch.setattr(model_export, "stock_checkpoint", damaged)
    with pytest.raises(ExportError, match=r"Fold 0 of .* give different logits"):
        export_model(Path(trained.output_folder_base), tmp_path / "out")
    assert list(tmp_path.glob("*out*")) == []


def test_export_without_the_trainers_names_the_variable(trained, tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    with pytest.raises(ExportError, match="set nnUNet_extTrainer first"):
        export_model(Path(trained.output_folder_base), tmp_path / "out")


def test_the_latest_checkpoint_knows_a_best_epoch_of_the_same_moment(make_trainer):
    """Going on from it, a worse epoch would be taken for the best otherwise."""
    trainer = make_trainer()
    trainer.initialize()
    folder = Path(trainer.output_folder)
    curve = trainer.logger.local_logger.my_fantastic_logging["ema_fg_dice"]
    latest, best = folder / "checkpoint_latest.pth", folder / "checkpoint_best.pth"
    for epoch, (dice, best_dice) in enumerate([(0.1, 0.1), (0.5, 0.5), (0.3, 0.5)]):
        curve.append(dice)
        trainer.current_epoch = epoch
        trainer.save_checkpoint(str(latest))  # in nnU-Net's on_epoch_end, before the best
        assert torch.load(latest, weights_only=False)["_best_ema"] == best_dice
    assert torch.load(best, weights_only=False)["current_epoch"] == 2
