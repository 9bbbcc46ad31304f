"""Models that commands are given: by folder, or by dataset, configuration and trainers."""

from __future__ import annotations

import pytest

from nnunetv2_spmc.cli.model_options import add_model, model_folders
from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.reports.report import folds_of


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Two models of a dataset, the first with two folds."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    for name in ("SPMC", "SupervisedControl"):
        model = tmp_path / "Dataset510_Liver" / f"nnUNetTrainer{name}__nnUNetPlans__2d"
        (model / "fold_0").mkdir(parents=True)
        (model / "plans.json").touch()
    (tmp_path / "Dataset510_Liver" / "nnUNetTrainerSPMC__nnUNetPlans__2d" / "fold_1").mkdir()
    return tmp_path / "Dataset510_Liver"


def named(*arguments):
    parser = Parser(prog="program")
    add_model(parser, several=True)
    return model_folders(parser, parser.parse_args(arguments))


def test_several_models_are_named_by_their_trainers(results):
    trainers = ["nnUNetTrainerSupervisedControl", "nnUNetTrainerSPMC"]
    found = named("-d", "510", "-c", "2d", "-tr", *trainers)
    assert [folder.name.partition("__")[0] for folder in found] == trainers
    assert named("-d", "510", "-c", "2d") == found[1:]
    assert named("-m", *map(str, found)) == found
    assert named() == []


def test_folds_are_all_that_are_there_or_those_chosen(results):
    models = named("-d", "510", "-c", "2d")
    assert [fold.name for fold in folds_of(models, None)] == ["fold_0", "fold_1"]
    assert [fold.name for fold in folds_of(models, ["1"])] == ["fold_1"]
    with pytest.raises(DataError, match=r"has no fold_3; there is fold_0, fold_1: choose with -f"):
        folds_of(models, ["3"])


def test_a_model_that_is_not_there_is_named_with_those_that_are(results):
    with pytest.raises(DataError, match=r"has no model nnUNetTrainerCPS__nnUNetPlans__2d; there"):
        named("-d", "510", "-c", "2d", "-tr", "nnUNetTrainerCPS")
