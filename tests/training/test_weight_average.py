"""The mean of the last weights as what is saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from nnunetv2_spmc.methods import nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl
from nnunetv2_spmc.training.weight_average import WeightAverage
from tests.in_process import leave_out_plots
from tests.training_logs import log_of


def weights(folder, name):
    return torch.load(Path(folder) / name, weights_only=False)["network_weights"]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl])
def test_the_final_weights_are_the_mean_of_those_after_the_last_epochs(
    make_trainer, monkeypatch, trainer
):
    leave_out_plots(monkeypatch)
    made = make_trainer(trainer, epochs=4, average_last=0.5, keep_every=1, seed=1)
    made.run_training()
    folder = made.output_folder
    kept = [weights(folder, f"checkpoint_epoch_{epoch}.pth") for epoch in (3, 4)]
    for key, value in weights(folder, "checkpoint_final.pth").items():
        torch.testing.assert_close(value, (kept[0][key] + kept[1][key]) / 2, rtol=1e-5, atol=1e-7)
    assert "The weights are the mean of those after the last 2 epochs." in log_of(made)


@pytest.mark.slow
def test_a_resumed_training_averages_as_the_uninterrupted_one(make_trainer, monkeypatch):
    leave_out_plots(monkeypatch)
    settings = {"epochs": 4, "average_last": 0.75, "save_every": 1, "seed": 1}
    whole = make_trainer(**settings)
    whole.run_training()
    expected = weights(whole.output_folder, "checkpoint_final.pth")

    class StoppedError(Exception):
        pass

    stopped = make_trainer(**settings)
    on_epoch_start = stopped.on_epoch_start

    def stop():
        if stopped.current_epoch == 3:
            raise StoppedError
        on_epoch_start()

    stopped.on_epoch_start = stop
    with pytest.raises(StoppedError):
        stopped.run_training()
    resumed = make_trainer(**settings)
    resumed.load_checkpoint(str(Path(stopped.output_folder) / "checkpoint_latest.pth"))
    resumed.run_training()
    for key, value in weights(resumed.output_folder, "checkpoint_final.pth").items():
        assert torch.equal(value, expected[key]), key


def averaged(average, epochs):
    """The value of a weight that is the number of the epoch."""
    network = nn.Linear(1, 1)
    for epoch in epochs:
        nn.init.constant_(network.weight, epoch)
        average.add(network, epoch)
    average.fill(network)
    return network.weight.item()


def test_a_longer_training_averages_its_own_last_epochs():
    short = WeightAverage(0.5, 10)
    averaged(short, range(1, 11))
    longer = WeightAverage(0.5, 12)
    longer.load(short.state(), nn.Linear(1, 1))
    assert averaged(longer, [11, 12]) == 11.5
    assert averaged(WeightAverage(0.5, 12), range(1, 13)) == 9.5


def test_what_was_averaged_is_forgotten_when_nothing_shall_be():
    before, now = WeightAverage(0.5, 4), WeightAverage(0.0, 4)
    averaged(before, [1, 2, 3])
    now.load(before.state(), nn.Linear(1, 1))
    assert averaged(now, [4]) == 4.0


def test_a_small_share_is_one_epoch_and_none_is_none():
    assert averaged(WeightAverage(0.1, 4), range(1, 5)) == 4.0
    without = WeightAverage(0.0, 1)
    averaged(without, [1])
    assert without.state() == {}


@pytest.mark.slow
def test_both_branches_are_averaged_and_each_weight_is_kept_once(make_trainer, monkeypatch):
    leave_out_plots(monkeypatch)
    made = make_trainer(epochs=2, average_last=1 - 1e-9, keep_every=1, seed=1)
    made.run_training()
    folder = Path(made.output_folder)
    contents = [
        torch.load(folder / f"checkpoint_{name}.pth", weights_only=False)["semi_supervised"]
        for name in ("epoch_1", "epoch_2", "final")
    ]
    first, second, final = (content["parts"] for content in contents)
    for key, value in final.items():
        torch.testing.assert_close(value, (first[key] + second[key]) / 2, rtol=1e-5, atol=1e-7)
    kept = contents[2]["average"]["mean"]
    assert len(kept) == len(list(made.joint_network.parameters()))
