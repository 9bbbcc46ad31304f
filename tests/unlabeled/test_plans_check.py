from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from nnunetv2_spmc.cli.preprocess import main
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.methods import nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl

SPACING = [2.0, 1.5, 1.5]
MISNAMED = (
    "myplans.json calls itself nnUNetPlans and writes into the same folder: give plans_name and "
    "data_identifier names of their own"
)


@pytest.fixture
def phantom(planned_phantom, tmp_path, monkeypatch):
    """The phantom's plans, to be changed; its folder in nnUNet_preprocessed."""
    folder = tmp_path / "preprocessed" / planned_phantom.name
    shutil.copytree(planned_phantom.preprocessed, folder)
    monkeypatch.setenv("nnUNet_raw", str(planned_phantom.raw.parent))
    monkeypatch.setenv("nnUNet_preprocessed", str(folder.parent))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    return folder


def change(folder, configurations=None, file="nnUNetPlans", **keys):
    """Write plans like nnUNetPlans.json but for some keys."""
    plans = json.loads((folder / "nnUNetPlans.json").read_text()) | keys
    for name, values in (configurations or {}).items():
        plans["configurations"][name] = plans["configurations"].get(name, {}) | values
    (folder / f"{file}.json").write_text(json.dumps(plans))


def refusal_of_preprocessing(configuration="2d", plans="nnUNetPlans", *options):
    with pytest.raises(SystemExit) as ended:
        main(["-d", "500", "-c", configuration, "-p", plans, "-np", "0", "--no_pbar", *options])
    assert "\n" not in ended.value.code
    return ended.value.code


def train(folder, configuration="2d_small", plans="nnUNetPlans", trainer=nnUNetTrainerSPMC):
    content = json.loads((folder / f"{plans}.json").read_text()) | {"continue_training": False}
    dataset_json = json.loads((folder / "dataset.json").read_text())
    return trainer(content, configuration, 0, dataset_json, torch.device("cpu"))


def refusal_of_training(folder, **arguments):
    messages = set()
    for trainer in (nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl):
        with pytest.raises(DataError) as caught:
            train(folder, trainer=trainer, **arguments)
        messages.add(str(caught.value))
    assert not (folder.parents[1] / "results").exists()
    (message,) = messages
    return message


def test_plans_that_were_copied_and_edited_are_named_by_their_file(phantom) -> None:
    change(phantom, {"2d": {"spacing": SPACING}}, file="myplans")
    for refusal in (
        refusal_of_preprocessing(plans="myplans"),
        refusal_of_preprocessing("2d", "myplans", "--overwrite"),
        refusal_of_training(phantom, configuration="2d", plans="myplans"),
    ):
        assert MISNAMED in refusal
        assert "spacing of 2d differs from that of 2d in nnUNetPlans.json" in refusal


def test_edited_plans_are_named_by_their_file_where_only_the_record_knows(phantom) -> None:
    change(phantom, {"2d": {"spacing": SPACING}}, file="myplans")
    (phantom / "nnUNetPlans.json").unlink()
    refusal = refusal_of_preprocessing(plans="myplans")
    assert MISNAMED in refusal
    assert "were made with another spacing" in refusal


def test_a_copy_of_the_plans_is_used_as_the_plans_are(phantom, capsys) -> None:
    shutil.copy(phantom / "nnUNetPlans.json", phantom / "myplans.json")
    main(["-d", "500", "-c", "2d", "-p", "myplans", "-np", "0", "--no_pbar"])
    assert "4 were finished" in capsys.readouterr().out
    train(phantom, plans="myplans")


@pytest.mark.parametrize(
    "iso",
    [
        {"inherits_from": "2d", "spacing": SPACING},
        {"inherits_from": "3d_fullres", "data_identifier": "nnUNetPlans_2d", "spacing": SPACING},
    ],
)
def test_two_configurations_that_differ_do_not_share_a_folder(phantom, iso, capsys) -> None:
    change(phantom, {"iso": iso})
    for refusal in (
        refusal_of_preprocessing("iso"),
        refusal_of_preprocessing("iso", "nnUNetPlans", "--overwrite"),
        refusal_of_training(phantom, configuration="iso"),
    ):
        assert "iso in nnUNetPlans.json and 2d in nnUNetPlans.json have one data_iden" in refusal
        assert "but differ in spacing" in refusal
        assert "give iso a data_identifier of its own" in refusal
    main(["-d", "500", "-c", "2d", "-np", "0", "--no_pbar"])
    assert "4 were finished" in capsys.readouterr().out
    train(phantom)


def test_plans_of_their_own_name_do_not_share_a_folder_with_others_that_differ(phantom) -> None:
    change(phantom, {"2d": {"spacing": SPACING}}, file="mine", plans_name="mine")
    for refusal in (
        refusal_of_preprocessing(plans="mine"),
        refusal_of_training(phantom, configuration="2d", plans="mine"),
    ):
        assert "2d in mine.json and 2d in nnUNetPlans.json have one data_identifier" in refusal


def test_plans_that_share_a_folder_and_do_not_differ_are_accepted(phantom, capsys) -> None:
    change(phantom, {"2d": {"batch_size": 7}}, file="mine", plans_name="mine")
    change(phantom, {"2d": {"spacing": SPACING}}, file="backup")  # which nobody preprocesses
    main(["-d", "500", "-c", "2d", "-p", "mine", "-np", "0", "--no_pbar"])
    assert "4 were finished" in capsys.readouterr().out
    train(phantom, configuration="2d", plans="mine")


def test_a_preset_goes_on_where_the_plans_it_shares_a_folder_with_are_of_fewer_cases(
    phantom, capsys
) -> None:
    change(phantom, {"2d": {"normalization_schemes": ["CTNormalization"]}})
    change(phantom, file="mine", plans_name="mine")
    options = ["-d", "500", "-c", "2d", "-p", "mine", "-np", "0", "--no_pbar"]
    main([*options, "--overwrite"])
    plans = json.loads((phantom / "nnUNetPlans.json").read_text())
    plans["foreground_intensity_properties_per_channel"]["0"]["mean"] += 1
    (phantom / "nnUNetPlans.json").write_text(json.dumps(plans))
    main(options)
    assert "4 were finished" in capsys.readouterr().out


def test_labeled_cases_are_not_written_where_unlabeled_ones_lie(phantom) -> None:
    change(phantom, {"2d": {"data_identifier": "nnUNetPlans_2d_unlabeled"}})
    assert "ends as the folders of unlabeled cases do" in refusal_of_preprocessing()
    assert "in _unlabeled; give it another name" in refusal_of_training(phantom, configuration="2d")


def test_plans_of_another_dataset_are_refused(phantom) -> None:
    change(phantom, dataset_name="Dataset501_Other")
    sentence = f"{phantom}/nnUNetPlans.json is of Dataset501_Other .*, not of Dataset500_Phantom; "
    assert re.search(sentence, refusal_of_preprocessing())
    assert re.search(sentence, refusal_of_training(phantom))
    shutil.copytree(phantom, phantom.with_name("Dataset501_Other"))
    dataset_json = phantom.parent / "Dataset501_Other" / "dataset.json"
    dataset_json.write_text(json.dumps(json.loads(dataset_json.read_text()) | {"name": "Other"}))
    assert re.search(sentence, refusal_of_training(phantom))
    train(dataset_json.parent)  # whose plans they are


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ""])
def test_names_in_plans_that_leave_their_folder_are_refused(phantom, name) -> None:
    for keys in (
        {"configurations": {"2d": {"data_identifier": name}}},
        {"plans_name": name},
    ):
        shutil.copy(phantom / "nnUNetPlans.json", phantom / "kept")
        change(phantom, **keys)
        key = "plans_name" if "plans_name" in keys else "data_identifier"
        sentence = f"The {key} in {phantom}/nnUNetPlans.json must be a plain name, not a path: got"
        assert sentence in refusal_of_preprocessing()
        if key == "data_identifier":
            assert sentence in refusal_of_training(phantom, configuration="2d")
        shutil.move(phantom / "kept", phantom / "nnUNetPlans.json")


def test_a_configuration_or_plans_that_leave_their_folder_are_refused(phantom) -> None:
    change(phantom, {"../x": {"inherits_from": "2d"}})
    assert "The configuration in " in refusal_of_preprocessing("../x")
    assert "The configuration in " in refusal_of_training(phantom, configuration="../x")
    sentence = "-p must be a plain name, not a path: got '../Dataset500_Phantom/nnUNetPlans'"
    assert sentence in refusal_of_preprocessing("2d", "../Dataset500_Phantom/nnUNetPlans")
