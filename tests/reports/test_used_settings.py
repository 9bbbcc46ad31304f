"""The page lists what a training used of the settings that every trainer stores."""

import pytest

from nnunetv2_spmc.methods import (
    TRAINERS,
    nnUNetTrainerSPMC,
    nnUNetTrainerSPMC_noUnlabeled,
    nnUNetTrainerSupervisedControl,
    nnUNetTrainerViewControl,
)
from nnunetv2_spmc.reports.used_settings import OF_UNLABELED, OF_VIEWS, completed, used_settings


def used(trainer, **changes):
    return used_settings(
        trainer.__name__, trainer.resolved_settings({}, {}).flat() | changes
    ).keys()


def test_the_control_uses_the_schedule_alone():
    found = used(nnUNetTrainerSupervisedControl)
    assert {"epochs", "iterations_per_epoch", "initial_lr", "seed", "mirroring"} <= found
    assert not found & {*OF_UNLABELED, *OF_VIEWS, "lambda_max"}


def test_the_control_with_views_of_labeled_patches_uses_these():
    found = used(nnUNetTrainerSupervisedControl, labeled_views=0.5, paste_from="labeled")
    assert set(OF_VIEWS) <= found
    assert not found & {"lambda_max", "viewed_pass"}


def test_the_view_control_uses_views_and_nothing_of_unlabeled_scans():
    found = used(nnUNetTrainerViewControl)
    assert {*OF_VIEWS, "viewed_pass"} <= found
    assert not found & {*OF_UNLABELED, "lambda_max"}


def test_spmc_uses_all_but_what_is_switched_off():
    everything = nnUNetTrainerSPMC.resolved_settings({}, {}).flat().keys()
    assert used(nnUNetTrainerSPMC) == everything
    assert everything - used(nnUNetTrainerSPMC, splat=False, noise=0.0) == {
        "temperature",
        "sharpening",
        "trust_on",
        "teaching",
        "noise_levels",
    }
    assert "paste_probability" not in used(nnUNetTrainerSPMC, paste_from="nothing")


def test_without_unlabeled_scans_their_settings_are_not_used():
    found = used(nnUNetTrainerSPMC_noUnlabeled)
    assert "lambda_max" in found
    assert not found & set(OF_UNLABELED)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_trainer_uses_its_schedule(trainer):
    assert {"epochs", "initial_lr", "seed"} <= used(trainer)


def test_of_an_unknown_trainer_all_settings_are_shown():
    assert used_settings("nnUNetTrainerElsewhere", {"lambda_max": 1, "own": 2}) == {
        "lambda_max": 1,
        "own": 2,
    }


@pytest.mark.parametrize("trainer", [nnUNetTrainerSPMC, nnUNetTrainerViewControl])
def test_what_an_older_training_does_not_know_was_off(trainer):
    """Else its seeds would be another method than those of today."""
    settings = trainer.resolved_settings({}, {}).flat()
    older = {key: value for key, value in settings.items() if key != "viewed_pass"}
    assert completed(trainer.__name__, older) == settings
    older.pop("turns")
    assert completed(trainer.__name__, older)["turns"] is False
    assert completed("nnUNetTrainer", {"epochs": 2}) == {"epochs": 2}
