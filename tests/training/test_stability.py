import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from nnunetv2_spmc.methods import nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl
from nnunetv2_spmc.training.stability import (
    TAKEN,
    DivergedError,
    DivergenceCheck,
    EpochValues,
    average,
    collapse_warnings,
    skipped_line,
    steps_noted,
)
from tests.training.processes import run_in_two_processes
from tests.training_logs import log_of

KEYS = ["cdps_main", "cps_main", "total_loss"]
CPU = torch.device("cpu")
EPOCH_END = Path(__file__).with_name("distributed_epoch_end.py")


def an_epoch(steps, taken=None, weight=1.0):
    """Average rows of values as a trainer does at the end of an epoch."""
    taken = [True] * len(steps) if taken is None else taken
    optimizer = torch.optim.SGD([nn.Parameter(torch.tensor(weight))], lr=0.1)
    outputs = [
        dict(zip(KEYS, torch.as_tensor(row).unbind(), strict=True)) | {TAKEN: was_taken}
        for row, was_taken in zip(steps, taken, strict=True)
    ]
    return average(outputs, optimizer, CPU)


# ---- which steps were taken ---------------------------------------------------------------------


def step_with_scaler(gradient, fused=False, enabled=True):
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, enabled=enabled)
    scaler.scale((parameter * gradient).sum()).backward()
    with steps_noted(optimizer) as taken:
        scaler.step(optimizer)
        scaler.update()
    assert bool(taken) == (not torch.equal(parameter.detach(), torch.ones(2)))
    return bool(taken)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_is_noted_as_skipped(fused):
    assert step_with_scaler(1.0, fused)
    assert not step_with_scaler(math.inf, fused)


def test_without_scaling_every_step_is_taken():
    assert step_with_scaler(math.inf, enabled=False)


def test_steps_are_noted_inside_only():
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    parameter.grad = torch.ones(2)
    with steps_noted(optimizer) as taken:
        optimizer.step()
    optimizer.step()
    assert taken == [True]


# ---- what is averaged, what stops ---------------------------------------------------------------


def test_a_term_is_averaged_over_the_steps_that_have_it_and_were_taken():
    optimizer = torch.optim.SGD([nn.Parameter(torch.tensor(1.0))], lr=0.1)
    outputs = [
        {"loss": torch.tensor(1.0), TAKEN: True},
        {"loss": torch.tensor(2.0), "cps": torch.tensor(4.0), TAKEN: True},
        {"loss": torch.tensor(6.0), "cps": torch.tensor(8.0), TAKEN: True},
        {"loss": torch.tensor(9.0), "cps": torch.tensor(1.0), "rare": torch.ones(()), TAKEN: False},
    ]
    values = average(outputs, optimizer, CPU)
    assert values.means == {"loss": 3.0, "cps": 6.0}
    assert values.steps.shape == (4, 2)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_broken_term_and_its_step_are_named(tmp_path, value):
    steps = torch.zeros(4, 3)
    steps[2, [1, 2]] = value
    steps[3] = math.nan  # what follows from it
    with pytest.raises(DivergedError, match=r"because cps_main became NaN .* at step 2 of epoch 7"):
        DivergenceCheck(tmp_path)(an_epoch(steps), 7)


def test_finite_values_pass(tmp_path):
    DivergenceCheck(tmp_path)(an_epoch(torch.ones(2, 3)), 0)


def test_a_term_that_broke_in_another_process_is_named(tmp_path):
    means = dict.fromkeys(KEYS, 0.0) | {"cdps_main": math.nan}
    values = EpochValues(torch.zeros(2, 3), means, 2, weights_are_finite=True)
    with pytest.raises(DivergedError, match=r"cdps_main became NaN .* in another process"):
        DivergenceCheck(tmp_path)(values, 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_skipped_step_neither_counts_nor_stops(tmp_path, value):
    values = an_epoch([[1.0, 2.0, 3.0], [value] * 3, [3.0, 4.0, 5.0]], [True, False, True])
    DivergenceCheck(tmp_path)(values, 0)
    assert values.means == dict(zip(KEYS, [2.0, 3.0, 4.0], strict=True))
    assert values.skipped == 1


def test_broken_weights_stop_before_a_loss_shows_them(tmp_path):
    values = an_epoch(torch.ones(2, 3), weight=math.nan)
    with pytest.raises(
        DivergedError, match="because the weights became NaN or infinite in epoch 4"
    ):
        DivergenceCheck(tmp_path)(values, 4)


def check_epochs(folder, steps_per_epoch, skipped_in_epochs):
    check = DivergenceCheck(folder)
    for epoch, skipped in enumerate(skipped_in_epochs):
        taken = [False] * skipped + [True] * (steps_per_epoch - skipped)
        check(an_epoch(torch.ones(steps_per_epoch, 3), taken), epoch)


@pytest.mark.parametrize(
    ("steps_per_epoch", "skipped_in_epochs"),
    [
        (5, [5]),  # the scaler may look for its scale
        (5, [5, 0, 5, 0]),
        (10, [5, 5, 5]),  # a half is not too many
        (2, [2, 2, 2, 2]),  # less than ten steps
        (250, [125]),
    ],
)
def test_skipped_steps_that_are_no_majority_of_ten_do_not_stop(
    tmp_path, steps_per_epoch, skipped_in_epochs
):
    check_epochs(tmp_path, steps_per_epoch, skipped_in_epochs)


@pytest.mark.parametrize(
    ("steps_per_epoch", "skipped_in_epochs", "message"),
    [
        (5, [5, 1], "6 of the last 10 steps were skipped, up to epoch 1"),
        (5, [0] * 100 + [3, 3], "6 of the last 10 steps were skipped, up to epoch 101"),
        (4, [3, 2, 2], "7 of the last 12 steps were skipped, up to epoch 2"),
        (250, [0, 126], "126 of the last 250 steps were skipped, up to epoch 1"),
    ],
)
def test_a_majority_of_skipped_steps_stops(tmp_path, steps_per_epoch, skipped_in_epochs, message):
    (tmp_path / "checkpoint_latest.pth").touch()
    with pytest.raises(DivergedError, match=rf"{message}: (.|\n)*checkpoint_latest.pth; go on"):
        check_epochs(tmp_path, steps_per_epoch, skipped_in_epochs)


def test_the_line_on_skipped_steps_names_their_number_and_the_scale():
    values = an_epoch(torch.ones(3, 3), [False, True, False])
    assert skipped_line(values, 8192.0).startswith("2 of 3 steps were skipped")
    assert skipped_line(values, 8192.0).endswith("the gradient scale is now 8192.")


# ---- trainings ----------------------------------------------------------------------------------


class Float16(nnUNetTrainerSPMC):
    """Half precision and gradient scaling as on a GPU."""

    def autocast(self):
        return torch.autocast("cpu", dtype=torch.float16)


def scaler(scale, backoff=2.0**-20):
    return torch.amp.GradScaler("cpu", init_scale=scale, backoff_factor=backoff)


def test_a_skipped_step_leaves_the_weights_and_says_so(make_trainer):
    trainer = make_trainer(Float16)
    trainer.on_train_start()
    trainer.on_train_epoch_start()
    trainer.grad_scaler = scaler(2.0**60)
    before = [p.detach().clone() for p in trainer.joint_network.parameters()]
    batch = next(trainer.dataloader_train)
    taken = []
    while not any(taken):
        values = trainer.train_step(batch)
        taken.append(values[TAKEN])
        after = trainer.joint_network.parameters()
        unchanged = all(map(torch.equal, before, after))
        assert unchanged == (not values[TAKEN])
    assert taken[0] is False
    assert trainer.iteration == len(taken)  # of the schedule, which skipped steps do not lengthen


@pytest.mark.slow
@pytest.mark.supported("stability", "fp16 steps that the gradient scaler skips: one line per epoch")
def test_a_training_goes_on_after_skipped_steps(make_trainer):
    trainer = make_trainer(Float16, epochs=2, iterations_per_epoch=5)
    trainer.grad_scaler = scaler(2.0**60)
    trainer.run_training()
    log = log_of(trainer)
    assert log.count("of 5 steps were skipped because gradients overflowed in fp16") == 1
    assert log.index("steps were skipped") < log.index("Epoch 1")
    assert f"the gradient scale is now {trainer.grad_scaler.get_scale():g}." in log
    curves = trainer.logger.get_checkpoint()
    assert all(math.isfinite(value) for value in curves["total_loss"])
    assert (Path(trainer.output_folder) / "checkpoint_final.pth").is_file()


@pytest.mark.slow
def test_an_epoch_without_any_step_leaves_gaps_in_the_curves(make_trainer):
    trainer = make_trainer(Float16, epochs=3, iterations_per_epoch=3)
    trainer.grad_scaler = scaler(2.0**90)  # one epoch, three steps: 2**30
    trainer.run_training()
    curves = trainer.logger.get_checkpoint()
    assert [math.isnan(value) for value in curves["total_loss"]] == [True, False, False]
    assert [math.isnan(value) for value in curves["train_losses"]] == [True, False, False]
    assert "3 of 3 steps were skipped" in log_of(trainer)


@pytest.mark.slow
@pytest.mark.supported("stability", "more than half of the last steps are skipped: training stops")
@pytest.mark.parametrize("base", [nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl])
def test_steps_that_are_skipped_for_good_stop_the_training(make_trainer, base):
    class Overflowing(base):
        def _build_loss(self):
            loss = super()._build_loss()
            return lambda *arguments: loss(*arguments) * torch.tensor(math.inf)

    trainer = make_trainer(Overflowing, epochs=5, iterations_per_epoch=5)
    trainer.grad_scaler = torch.amp.GradScaler("cpu")
    with pytest.raises(DivergedError, match="10 of the last 10 steps were skipped, up to epoch 1"):
        trainer.run_training()
    log = log_of(trainer)
    assert "5 of 5 steps were skipped" in log
    assert "looking for NaN" not in log
    kept = torch.load(
        Path(trainer.output_folder) / "checkpoint_best.pth", map_location="cpu", weights_only=False
    )
    assert kept["current_epoch"] == 1
    assert all(weight.isfinite().all() for weight in kept["network_weights"].values())


@pytest.mark.slow
@pytest.mark.supported(
    "stability", "a NaN or infinite loss term stops the training; the last good checkpoint stays"
)
@pytest.mark.parametrize("broken_epoch", [0, 1])
@pytest.mark.parametrize("scaled", [False, True])
def test_training_stops_and_keeps_the_last_good_checkpoint(make_trainer, broken_epoch, scaled):
    """A scaler looks at gradients, so that a step with a broken value may still be taken."""

    class Broken(nnUNetTrainerSPMC):
        def labeled_loss(self, outputs, labeled):
            loss, values = super().labeled_loss(outputs, labeled)
            if self.iteration == 2 * broken_epoch + 1:
                values["cdps_main"] = values["cdps_main"] * math.nan
                loss = loss if scaled else loss + values["cdps_main"]
            return loss, values

    trainer = make_trainer(Broken, epochs=3, save_every=1)
    trainer.grad_scaler = scaler(1.0) if scaled else None
    kept = "checkpoint_latest.pth" if broken_epoch else "There is no checkpoint from before it"
    with pytest.raises(DivergedError, match=f"cdps_main became NaN(.|\n)*{kept}"):
        trainer.run_training()
    assert_kept_before(trainer, broken_epoch)


@pytest.mark.slow
@pytest.mark.parametrize("base", [nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl])
def test_weights_that_break_in_the_last_step_of_an_epoch_reach_no_checkpoint(make_trainer, base):
    """The losses of that epoch were all finite."""

    class Broken(base):
        def train_step(self, batch):
            values = super().train_step(batch)
            self.count = getattr(self, "count", 0) + 1
            if self.count == 4:
                with torch.no_grad():
                    next(self.network.parameters()).mul_(math.nan)
            return values

    trainer = make_trainer(Broken, epochs=3, save_every=1)
    with pytest.raises(DivergedError, match="the weights became NaN or infinite in epoch 1"):
        trainer.run_training()
    assert_kept_before(trainer, 1)


@pytest.mark.slow
def test_the_control_stops_at_a_loss_that_is_not_finite(make_trainer):
    class Broken(nnUNetTrainerSupervisedControl):
        def _build_loss(self):
            loss = super()._build_loss()
            return lambda *arguments: loss(*arguments) * math.nan

    trainer = make_trainer(Broken, epochs=2)
    with pytest.raises(DivergedError, match="because loss became NaN or infinite at step 0 of"):
        trainer.run_training()
    assert_kept_before(trainer, 0)


@pytest.mark.slow
@pytest.mark.parametrize("base", [Float16, nnUNetTrainerSupervisedControl])
def test_a_loss_that_overflows_in_a_skipped_step_is_left_out(make_trainer, base):
    class Overflowing(base):
        def train_step(self, batch):
            if self.current_epoch == 0 and not hasattr(self, "overflowed"):
                self.overflowed = True
                batch["data"] = batch["data"] * math.inf
            return super().train_step(batch)

    trainer = make_trainer(Overflowing, epochs=2, iterations_per_epoch=3)
    trainer.grad_scaler = scaler(16.0)
    trainer.run_training()
    assert "1 of 3 steps were skipped" in log_of(trainer)
    curves = trainer.logger.get_checkpoint()
    assert all(math.isfinite(value) for value in curves["train_losses"])


def assert_kept_before(trainer, epoch):
    checkpoints = [
        torch.load(file, weights_only=False) for file in Path(trainer.output_folder).glob("*.pth")
    ]
    assert {checkpoint["current_epoch"] for checkpoint in checkpoints} == ({epoch} - {0})
    for checkpoint in checkpoints:
        assert all(weight.isfinite().all() for weight in checkpoint["network_weights"].values())


@pytest.mark.slow
def test_two_processes_stop_together_or_not_at_all(make_trainer, planned_phantom, tmp_path):
    make_trainer(iterations_per_epoch=10)  # leaves its settings in the environment
    inputs = {
        "plans": planned_phantom.plans(),
        "dataset_json": planned_phantom.dataset_json(),
        "epochs": {  # name -> per rank: what is broken at which step, which steps are skipped
            "fine": [{}, {}],
            "a value in one process": [{}, {"broken": 3}],
            "a broken value of a skipped step": [{"broken": 3, "skipped": 4}, {"skipped": 4}],
            "skips in one process": [{"skipped": 10}, {}],
            "more skips than steps": [{"skipped": 10}, {"skipped": 1}],
        },
    }
    torch.save(inputs, tmp_path / "inputs.pt")
    run_in_two_processes([sys.executable, str(EPOCH_END), str(tmp_path)])
    outcomes = [torch.load(tmp_path / f"rank_{rank}.pt") for rank in range(2)]
    message = "of the last 10 steps were skipped"
    assert [outcomes[rank]["fine"] for rank in range(2)] == [1.0, 1.0]
    assert "supervised_main became NaN" in outcomes[1]["a value in one process"]
    assert "in another process" in outcomes[0]["a value in one process"]
    assert [o["a broken value of a skipped step"] for o in outcomes] == [1.0, 1.0]
    assert [o["skips in one process"] for o in outcomes] == [1.0, 1.0]
    assert all(f"5.5 {message}" in o["more skips than steps"] for o in outcomes)


# ---- warnings -----------------------------------------------------------------------------------


def test_a_branch_of_one_class_for_a_whole_epoch_is_a_warning():
    means = {"single_class_main": 0.99, "single_class_auxiliary": 1.0, "cps_main": 1.0}
    (warning,) = collapse_warnings(means)
    assert "the auxiliary branch predicted a single class" in warning


@pytest.mark.slow
@pytest.mark.supported("stability", "a branch that predicts one class for a whole epoch: a warning")
def test_a_collapse_is_written_into_the_log(make_trainer):
    trainer = make_trainer(epochs=1, initial_lr=1e-9)
    trainer.initialize()
    layer = trainer.joint_network.main.decoder.seg_layers[-1]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    trainer.run_training()
    log = log_of(trainer)
    assert "WARNING: the main branch predicted a single class" in log
    assert trainer.logger.get_checkpoint()["single_class_main"] == [1.0]
