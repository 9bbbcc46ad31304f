from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK

from nnunetv2_spmc.cli.preprocess import build_parser, main
from tests.damaged_files import halved
from tests.full_disk import file_size_limit

DATASET = "Dataset511_Small"
CONFIGURATION = "2d"


def write_image(file, seed):
    array = np.random.default_rng(seed).normal(size=(4, 16, 16)).astype(np.float32)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(file))


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    root = tmp_path_factory.mktemp("planned")
    raw, preprocessed = root / "raw" / DATASET, root / "preprocessed" / DATASET
    for folder in (raw / "imagesTr", raw / "imagesTs", raw / "imagesUn", preprocessed):
        folder.mkdir(parents=True)
    for seed, name in enumerate(("imagesTr/l0", "imagesTs/t0", "imagesUn/u0", "imagesUn/u1")):
        write_image(raw / f"{name}_0000.nii.gz", seed)
    dataset = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    fingerprint = {
        "spacings": [[1.0, 1.0, 1.0]],
        "shapes_after_crop": [[4, 16, 16]],
        "foreground_intensity_properties_per_channel": {"0": {"mean": 0.0, "std": 1.0}},
        "median_relative_size_after_cropping": 1.0,
    }
    (raw / "dataset.json").write_text(json.dumps(dataset))
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_raw", str(raw.parent))
        patch.setenv("nnUNet_preprocessed", str(preprocessed.parent))
        from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
            ExperimentPlanner,
        )

        ExperimentPlanner(DATASET).plan_experiment()
    return root


@pytest.fixture
def raw(planned, tmp_path, monkeypatch):
    shutil.copytree(planned, tmp_path / "nnunet")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nnunet" / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "nnunet" / "preprocessed"))
    return tmp_path / "nnunet" / "raw" / DATASET


def command(*options, dataset="511", configuration=CONFIGURATION):
    main(["-d", dataset, "-c", configuration, "-np", "0", "--no_pbar", *options])


def assert_refused(*words, **arguments):
    with pytest.raises(SystemExit) as ended:
        command(*arguments.pop("options", ()), **arguments)
    message = str(ended.value.code)
    assert message.startswith("error: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_worker_processes_do_the_cases_and_a_second_run_skips_them(raw, capsys):
    main(["-d", "511", "-c", CONFIGURATION, "-np", "2"])
    assert "2 preprocessed, 0 were finished" in capsys.readouterr().out
    main(["-d", DATASET, "-c", CONFIGURATION, "--verify", "-np", "0"])
    assert "0 preprocessed, 2 were finished" in capsys.readouterr().out


def test_failed_cases_are_listed_at_the_end_and_in_the_exit_status(raw, capsys):
    (raw / "imagesUn" / "u0_0000.nii.gz").write_bytes(b"no image")
    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 1
    output = capsys.readouterr()
    assert "1 preprocessed" in output.out
    assert "1 failed" in output.out
    assert output.err.startswith("failed: 2d u0: ")


def unlabeled_in(preprocessed):
    return preprocessed / DATASET / "nnUNetPlans_2d_unlabeled"


@pytest.mark.parametrize("processes", ["0", "1"])
def test_cases_that_ulimit_cuts_are_not_published(raw, tmp_path, capsys, processes):
    folder = unlabeled_in(tmp_path / "nnunet" / "preprocessed")
    arguments = ["-d", "511", "-c", CONFIGURATION, "--no_pbar", "-np", processes]
    with file_size_limit(3_000), pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    lines = capsys.readouterr().err.splitlines()[-2:]
    for identifier, line in zip(("u0", "u1"), lines, strict=True):
        assert line == (
            f"failed: 2d {identifier}: {folder / identifier}.b2nd could not be written: file too "
            "large, the limit of ulimit -f is 3000 bytes; raise it"
        )
    assert list(folder.iterdir()) == []  # and no note, so that a training tries again
    main(arguments)
    assert "2 preprocessed" in capsys.readouterr().out


@pytest.mark.parametrize("lacking", [".b2nd", "_seg.b2nd", ".pkl"])
def test_a_case_without_room_on_the_disk_is_not_published(
    raw, tmp_path, monkeypatch, small_disk, capsys, lacking
):
    """Whichever of its three files is the one that does not fit."""
    shutil.copytree(tmp_path / "nnunet" / "preprocessed", small_disk.folder, dirs_exist_ok=True)
    monkeypatch.setenv("nnUNet_preprocessed", str(small_disk.folder))
    folder = unlabeled_in(small_disk.folder)
    command()
    room = 0
    for ending in (".b2nd", "_seg.b2nd", ".pkl"):  # as nnU-Net writes them, in blocks of 4 KB
        file = folder / f"u0{ending}"
        room += -(-file.stat().st_size // 4096) * 4
        if ending == lacking:
            break
    for file in folder.glob("u0*"):
        file.unlink()
    capsys.readouterr()
    small_disk.leave_free(room - 4)
    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 1
    sentence = (
        f"failed: 2d u0: {folder}/u0{lacking} could not be written: no space left on its disk"
    )
    assert capsys.readouterr().err.startswith(sentence)
    assert sorted(path.name for path in folder.iterdir()) == ["u1.b2nd", "u1.pkl", "u1_seg.b2nd"]
    small_disk.leave_free(200)
    command()
    assert "1 preprocessed, 1 were finished" in capsys.readouterr().out


def test_a_bad_scan_is_named_although_the_disk_has_no_room_for_the_note(
    raw, tmp_path, monkeypatch, small_disk, capsys
):
    shutil.copytree(tmp_path / "nnunet" / "preprocessed", small_disk.folder, dirs_exist_ok=True)
    monkeypatch.setenv("nnUNet_preprocessed", str(small_disk.folder))
    command()
    file = raw / "imagesUn" / "u2_0000.nii.gz"
    halved(raw / "imagesUn" / "u1_0000.nii.gz", file)
    small_disk.leave_free(0)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"failed: 2d u2: {file} is truncated")


@pytest.mark.parametrize("variable", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_an_unset_variable_is_named(raw, monkeypatch, variable):
    monkeypatch.delenv(variable)
    assert_refused(variable, "is not set")


def test_an_unknown_dataset_is_named_beside_the_known_ones(raw):
    assert_refused("There is no dataset 7 in", DATASET, dataset="7")


def test_two_datasets_of_one_id_are_named(raw):
    (raw.parent / "Dataset511_Other").mkdir()
    assert_refused("Several datasets", "Dataset511_Other, Dataset511_Small")


def test_an_unplanned_dataset_is_to_be_planned_first(raw):
    assert_refused(
        "OtherPlans.json does not exist (its plans: nnUNetPlans; choose with -p)",
        "nnUNetv2_plan_and_preprocess -d 511",
        options=["-p", "OtherPlans"],
    )


def test_an_unknown_configuration_is_named_beside_the_known_ones(raw):
    assert_refused("have no configuration 4d, only 2d", configuration="4d")


def test_the_cascade_is_refused(raw):
    assert_refused("cascade", "not supported", configuration="3d_cascade_fullres")


def test_an_unlabeled_test_case_is_refused_unless_allowed(raw, capsys):
    shutil.copy(raw / "imagesTs" / "t0_0000.nii.gz", raw / "imagesUn")
    assert_refused("unlabeled and at the same time test: t0", "allow")
    command("--allow_overlap")
    output = capsys.readouterr().out
    assert "Overlap allowed" in output
    assert "3 preprocessed" in output


def test_a_folder_that_cannot_be_written_is_an_error(raw, tmp_path):
    (tmp_path / "nnunet" / "preprocessed" / DATASET / "nnUNetPlans_2d_unlabeled").write_text("")
    assert_refused("nnUNetPlans_2d_unlabeled")


def test_defaults_are_shown():
    text = build_parser().format_help()
    assert "default: nnUNetPlans" in text
    assert "default: 8 for 2d" in " ".join(text.split())


def test_help_does_not_wait_for_nnunet():
    code = (
        "import sys; from nnunetv2_spmc.cli.preprocess import build_parser; "
        "build_parser().format_help(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
