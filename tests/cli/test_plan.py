from __future__ import annotations

import json
import shutil

import pytest

from nnunetv2_spmc.cli.plan import main


@pytest.fixture
def planned(planned_phantom, tmp_path, monkeypatch):
    """The plans of the phantom, to be changed; returns their file."""
    folder = tmp_path / planned_phantom.name
    folder.mkdir()
    shutil.copy(planned_phantom.preprocessed / "nnUNetPlans.json", folder)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    return folder / "nnUNetPlans.json"


def assert_refused(words, options):
    with pytest.raises(SystemExit) as ended:
        main(options)
    assert ended.value.code.startswith("error: ")
    assert words in ended.value.code
    assert "\n" not in ended.value.code


def test_a_small_configuration_is_named_after_its_parent_and_shares_its_data(planned, capsys):
    before = json.loads(planned.read_text())["configurations"]
    del before["2d_small"]
    planned.write_text(json.dumps({"configurations": before}))
    main(["small", "-d", "500", "-c", "2d", "--patch_size", "16", "16"])
    assert capsys.readouterr().out == f"Added the configuration 2d_small to {planned}\n"
    after = json.loads(planned.read_text())["configurations"]
    small = after.pop("2d_small")
    assert after == before
    assert small["inherits_from"] == "2d"
    assert "data_identifier" not in small
    assert small["patch_size"] == [16, 16]
    assert small["architecture"]["arch_kwargs"]["features_per_stage"] == [16, 32, 64]


def test_every_option_reaches_the_plans(planned):
    planned.rename(planned.with_name("nnUNetOtherPlans.json"))
    options = "--name mini --features 4 8 --batch_size 3 --coarser 2"
    main(["small", "-d", "500", "-c", "2d", "-p", "nnUNetOtherPlans", *options.split()])
    plans = json.loads(planned.with_name("nnUNetOtherPlans.json").read_text())
    parent, mini = (plans["configurations"][name] for name in ("2d", "mini"))
    assert mini["batch_size"] == 3
    assert mini["patch_size"] == parent["patch_size"]
    assert mini["spacing"] == [2 * length for length in parent["spacing"]]
    assert mini["architecture"]["arch_kwargs"]["features_per_stage"][:3] == [4, 8, 8]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("-d 499 -c 2d", "has no nnUNetPlans.json of dataset 499; plan it first, with nnUNetv2_"),
        ("-d 500 -c 3d", "no configuration 3d with an architecture of its own; take one of 2d, "),
        ("-d 500 -c 2d --patch_size 15 16", "--patch_size [15, 16] must be a multiple of"),
        ("-d 500 -c 2d --patch_size 16", "--patch_size needs 2 numbers, got 1."),
        ("-d 500 -c 2d --name ../x", "--name must be a plain name, not a path: got '../x'."),
        ("-d 500 -c 2d -p ../Dataset500_Phantom/nnUNetPlans", "-p must be a plain name"),
        ("-d 500 -c 2d --name 2d", "2d in "),
        (
            "-d 500 -c 2d --name 3d_fullres",
            "is planned by nnU-Net and would be lost; choose",
        ),
        ("-d 500 -c 2d --features 0 0", "--features takes numbers from 1 to 10000, got [0, 0]."),
        ("-d 500 -c 2d --features 4 -8", "--features takes numbers from 1 to 10000, got [4, -8]."),
        ("-d 500 -c 2d --patch_size 0 16", "--patch_size takes numbers from 1 to 10000, got [0"),
        ("-d 500 -c 2d --batch_size 0", "--batch_size takes numbers from 1 to 10000, got [0]."),
        ("-d 500 -c 2d --coarser nan", "--coarser takes a number from 0.0001 to 10000, got nan."),
        ("-d 500 -c 2d --coarser 0", "--coarser takes a number from 0.0001 to 10000, got 0.0."),
        ("-d 500 -c 2d --coarser 1e23", "--coarser takes a number from 0.0001 to 10000, got 1e+23"),
        ("-d ../500 -c 2d", "has no nnUNetPlans.json of dataset ../500"),
    ],
)
def test_bad_input_gets_one_sentence_and_leaves_the_plans(planned, options, words):
    before = planned.read_text()
    assert_refused(words, ["small", *options.split()])
    assert planned.read_text() == before
    assert [path.name for path in planned.parent.iterdir()] == [planned.name]


def test_damaged_plans_are_named(planned):
    planned.write_text(planned.read_text()[:100])
    assert_refused(f"{planned} is not valid JSON", ["small", "-d", "500", "-c", "2d"])


def test_two_datasets_with_one_id_are_named(planned):
    shutil.copytree(planned.parent, planned.parent.with_name("Dataset500_Other"))
    words = "have the id 500: Dataset500_Other, Dataset500_Phantom; give the name"
    assert_refused(words, ["small", "-d", "500", "-c", "2d"])
    main(["small", "-d", planned.parent.name, "-c", "2d", "--name", "mini"])
    assert "mini" in json.loads(planned.read_text())["configurations"]


def test_an_unset_folder_is_named(monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    assert_refused("nnUNet_preprocessed is not set", ["small", "-d", "500", "-c", "2d"])


def test_without_a_kind_the_usage_is_shown(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "usage: nnUNetv2_spmc_plan" in capsys.readouterr().err
