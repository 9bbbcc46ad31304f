import math
from pathlib import Path

import pytest
import torch

from nnunetv2_spmc.methods import nnUNetTrainerSPMC
from nnunetv2_spmc.training.stability import DivergedError, check_finite, collapse_warnings

KEYS = ["cdps_main", "cps_main", "total_loss"]


def means_of(steps):
    return dict(zip(KEYS, steps.mean(dim=0).tolist(), strict=True))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_broken_term_and_its_step_are_named(tmp_path, value):
    steps = torch.zeros(4, 3)
    steps[2, [1, 2]] = value
    steps[3] = math.nan  # what follows from it
    with pytest.raises(DivergedError, match=r"because cps_main became NaN .* at step 2 of epoch 7"):
        check_finite(means_of(steps), KEYS, steps, 7, tmp_path)


def test_finite_values_pass(tmp_path):
    steps = torch.ones(2, 3)
    check_finite(means_of(steps), KEYS, steps, 0, tmp_path)


def test_a_term_that_broke_in_another_process_is_named(tmp_path):
    means = dict.fromkeys(KEYS, 0.0) | {"cdps_main": math.nan}
    with pytest.raises(DivergedError, match=r"cdps_main became NaN .* in another process"):
        check_finite(means, KEYS, torch.zeros(2, 3), 3, tmp_path)


@pytest.mark.supported(
    "stability", "a NaN or infinite loss term stops the training; the last good checkpoint stays"
)
@pytest.mark.parametrize("broken_epoch", [0, 1])
def test_training_stops_and_keeps_the_last_good_checkpoint(make_trainer, broken_epoch):
    class Broken(nnUNetTrainerSPMC):
        def labeled_loss(self, outputs, target):
            loss, values = super().labeled_loss(outputs, target)
            if self.iteration == 2 * broken_epoch + 1:
                values["cdps_main"] = values["cdps_main"] * math.nan
                loss = loss + values["cdps_main"]
            return loss, values

    trainer = make_trainer(Broken, epochs=3, save_every=1)
    kept = "checkpoint_latest.pth" if broken_epoch else "There is no checkpoint from before it"
    with pytest.raises(DivergedError, match=f"cdps_main became NaN(.|\n)*{kept}"):
        trainer.run_training()
    checkpoints = Path(trainer.output_folder).glob("*.pth")
    epochs = {torch.load(file, weights_only=False)["current_epoch"] for file in checkpoints}
    assert epochs == ({broken_epoch} if broken_epoch else set())
    for file in Path(trainer.output_folder).glob("*.pth"):
        weights = torch.load(file, weights_only=False)["network_weights"]
        assert all(weight.isfinite().all() for weight in weights.values())


def test_a_branch_of_one_class_for_a_whole_epoch_is_a_warning():
    means = {"single_class_main": 0.99, "single_class_auxiliary": 1.0, "cps_main": 1.0}
    (warning,) = collapse_warnings(means)
    assert "the auxiliary branch predicted a single class" in warning


@pytest.mark.supported("stability", "a branch that predicts one class for a whole epoch: a warning")
def test_a_collapse_is_written_into_the_log(make_trainer):
    trainer = make_trainer(epochs=1, initial_lr=1e-9)
    trainer.initialize()
    layer = trainer.training_network.main.decoder.seg_layers[-1]
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    trainer.run_training()
    log = next(Path(trainer.output_folder).glob("training_log*.txt")).read_text(encoding="utf-8")
    assert "WARNING: the main branch predicted a single class" in log
    assert trainer.logger.get_checkpoint()["single_class_main"] == [1.0]
