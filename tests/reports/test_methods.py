"""Runs that differ in seed or fold only are trainings of one method."""

from dataclasses import replace

import pytest

from nnunetv2_spmc import load_run
from nnunetv2_spmc.reports.methods import methods_of
from nnunetv2_spmc.reports.run_names import run_labels


@pytest.fixture
def runs(phantom_runs):
    return load_run(phantom_runs.control), load_run(phantom_runs.spmc)


def changed(run, **settings):
    return replace(run, settings={**run.settings, **settings})


def names_of(*runs):
    return {
        method.name: len(method.runs)
        for method in methods_of(dict(zip(run_labels(runs), runs, strict=True)))
    }


def test_seeds_are_one_method(runs):
    control, spmc = runs
    assert names_of(control, spmc, changed(control, seed=1), changed(spmc, seed=1)) == {
        "SupervisedControl": 2,
        "SPMC": 2,
    }


def test_other_settings_are_another_method_and_named(runs):
    _, spmc = runs
    assert names_of(spmc, changed(spmc, tau=0.9)) == {"SPMC, tau 0.7": 1, "SPMC, tau 0.9": 1}


def test_settings_that_a_training_does_not_use_make_no_other_method(runs):
    control, _ = runs
    assert names_of(control, changed(control, lambda_max=0.5)) == {"SupervisedControl": 2}


def test_how_often_checkpoints_are_saved_makes_no_other_method(runs):
    _, spmc = runs
    assert names_of(spmc, changed(spmc, save_every=7)) == {"SPMC": 2}


def test_runs_are_named_by_what_differs(runs):
    control, spmc = runs
    assert run_labels([control, spmc]) == ["nnUNetTrainerSupervisedControl", "nnUNetTrainerSPMC"]
    assert run_labels([spmc, changed(spmc, seed=1)]) == [
        "nnUNetTrainerSPMC, seed 0",
        "nnUNetTrainerSPMC, seed 1",
    ]
    assert run_labels([spmc, spmc]) == ["1: nnUNetTrainerSPMC", "2: nnUNetTrainerSPMC"]


def test_a_method_with_an_allowed_overlap_is_marked(runs):
    _, spmc = runs
    assert list(names_of(replace(spmc, overlap="none found"))) == ["SPMC (overlap allowed)"]


def test_the_control_is_what_methods_are_compared_with_wherever_it_stands(runs):
    control, spmc = runs
    assert list(names_of(spmc, control)) == ["SupervisedControl", "SPMC"]
    assert list(names_of(changed(spmc, tau=0.9), spmc)) == ["SPMC, tau 0.9", "SPMC, tau 0.7"]
