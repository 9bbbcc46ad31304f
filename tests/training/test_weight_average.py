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


def test_a_longer_training_averages_its_own_last_epochs():
    network, average = nn.Linear(1, 1), WeightAverage(0.5)
    for epoch, epochs in ((1, 2), (2, 2), (3, 6), (4, 6), (5, 6), (6, 6)):
        nn.init.constant_(network.weight, epoch)
        average.add(network, epoch, epochs)
    assert average.fill(network)
    assert network.weight.item() == 5.0


def test_without_a_share_nothing_is_averaged_or_stored():
    network, average = nn.Linear(1, 1), WeightAverage(0.0)
    average.add(network, 1, 1)
    assert average.state() == {}
    assert average.fill(network) == ""
