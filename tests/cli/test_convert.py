from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from nnunetv2_spmc.cli.convert import build_parser, main
from nnunetv2_spmc.cli.runner import CLOSED_PIPE
from tests.in_process import closed_pipe

CONVERTERS = ("folder", "la", "acdc", "brats", "phantom")
FOLDER_CLASSES = ("--channels", "CT", "--labels", "background=0", "a=1")
PHANTOM = ["phantom", "--size", "16", "16", "16", "--test", "1", "--unlabeled", "1", "-np", "1"]


def test_phantom_prints_counts_and_the_next_commands(nnunet_folders, capsys) -> None:
    main([*PHANTOM, "-d", "7", "-n", "Tiny"])
    text = capsys.readouterr().out
    assert (nnunet_folders.raw / "Dataset007_Tiny" / "dataset.json").is_file()
    assert "6 cases -> imagesTr, labelsTr" in text
    assert "nnUNetv2_spmc_preprocess -d 7 -c 3d_fullres" in text
    assert "nnUNetv2_train 7 3d_fullres 0 -tr nnUNetTrainerSPMC" in text


def test_folder_takes_its_options(nnunet_folders, tmp_path, write_volume, capsys) -> None:
    for i in range(8):
        write_volume(tmp_path / "scans" / f"c{i}" / "flair.nii.gz", seed=2 * i)
        write_volume(tmp_path / "scans" / f"c{i}" / "t1.nii.gz", seed=2 * i + 1)
        write_volume(tmp_path / "scans" / f"c{i}" / "seg.nii.gz", fill=255)
    command = f"folder -i {tmp_path}/scans -d 9 -n Tumor --labels background=0 tumor=1 --map 255=1"
    patterns = "--channel_files T1=t1.nii.gz FLAIR=flair.nii.gz --label_file seg.nii.gz"
    split = "--test c7 --val 0.2 --labeled 3 --seed 2 --link -np 1"
    main(f"{command} {patterns} {split}".split())
    text = capsys.readouterr().out
    folder = nnunet_folders.raw / "Dataset009_Tumor"
    assert (folder / "imagesTr").is_dir()
    assert "labeled       3 cases" in text
    assert "validation     1 case" in text
    assert (folder / "imagesTs" / "c7_0001.nii.gz").resolve().name == "flair.nii.gz"


@pytest.mark.parametrize("names", ["t2f t1c", "flair t1ce"])
def test_brats_takes_contrasts_by_their_old_and_new_names(
    nnunet_folders, tmp_path, write_volume, capsys, names
) -> None:
    for i in range(5):
        stem = tmp_path / "scans" / f"BraTS-GLI-0000{i}-000"
        for n, contrast in enumerate(("t2f", "t1c")):
            write_volume(stem.with_name(f"{stem.name}-{contrast}.nii.gz"), seed=2 * i + n)
        write_volume(stem.with_name(f"{stem.name}-seg.nii.gz"))
    main(f"brats -i {tmp_path}/scans --labeled 1 --modalities {names} --dry_run".split())
    text = capsys.readouterr().out
    assert f"BraTS-GLI-00000-000_0000.nii.gz <- {tmp_path}/scans/BraTS-GLI-00000-000-t2f" in text
    assert f"BraTS-GLI-00000-000_0001.nii.gz <- {tmp_path}/scans/BraTS-GLI-00000-000-t1c" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["la", "-i", "nowhere"],
        ["acdc", "-i", "nowhere"],
        ["brats", "-i", "nowhere"],
        ["phantom", "-d", "0"],
        ["folder", *("-i", "nowhere", "-d", "1", "-n", "X"), *FOLDER_CLASSES],
    ],
)
def test_a_mistake_is_one_sentence(nnunet_folders, arguments) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "-np", "1"])
    assert isinstance(stopped.value.code, str)  # printed to stderr, exit status 1
    assert stopped.value.code.startswith("error: ")
    assert "\n" not in stopped.value.code


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("-d", "abc", "invalid int value: 'abc'"),
        ("-np", "x", "invalid integer value: 'x'"),
        ("-np", "0", "has to be 1 or more, got 0"),
        ("--seed", "-1", "has to be 0 or more, got -1"),
    ],
)
def test_a_senseless_number_names_its_option(option, value, message, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["brats", "-i", "nowhere", option, value])
    assert stopped.value.code == 2
    assert f"argument {option}: {message}" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_sentence(
    nnunet_folders, monkeypatch, tmp_path, capsys
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "file"))
    with pytest.raises(SystemExit, match=r"nnUNet_raw is .*file.* set it to another folder"):
        main(PHANTOM)


def test_a_full_disk_is_one_sentence(nnunet_folders, monkeypatch, small_disk) -> None:
    monkeypatch.setenv("nnUNet_raw", str(small_disk.folder))
    small_disk.resize(64)
    command = ["phantom", "--size", "32", "32", "32", "-np", "1"]
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert re.fullmatch(
        r"error: Case \S+: images../\S+_0000\.nii\.gz could not be written: no space left on its "
        r"disk; free some and try again\. \d+ more cases with problems: .*",
        stopped.value.code,
    )
    assert list(small_disk.folder.iterdir()) == []
    small_disk.resize(10_000)
    main(command)
    assert [path.name for path in small_disk.folder.iterdir()] == ["Dataset500_Phantom"]


def test_a_closed_pipe_is_not_called_a_failure(nnunet_folders) -> None:
    with closed_pipe(), pytest.raises(SystemExit) as stopped:
        main(PHANTOM)
    assert stopped.value.code == CLOSED_PIPE
    assert (nnunet_folders.raw / "Dataset500_Phantom" / "dataset.json").is_file()


def test_split_json_names_files_relative_to_the_input(
    nnunet_folders, tmp_path, write_volume, monkeypatch
) -> None:
    for i in range(6):
        write_volume(tmp_path / "images" / f"c{i}.nii.gz", seed=i)
        if i < 5:
            write_volume(tmp_path / "labels" / f"c{i}.nii.gz")
    monkeypatch.chdir(tmp_path)
    folders = ["folder", "-i", "images", "-l", "labels", "-d", "9", "-n", "A"]
    main([*folders, "--labels", "background=0", "a=1", "--channels", "CT", "-np", "1"])
    text = (nnunet_folders.raw / "Dataset009_A" / "split.json").read_text()
    content = json.loads(text)
    assert content["source"] == "images"
    assert content["files"]["c0"] == {"images": ["c0.nii.gz"], "label": "../labels/c0.nii.gz"}
    assert content["options"]["labels"] == "../labels"
    assert str(tmp_path) not in text


def test_channels_are_asked_for_with_all_else_that_folder_requires(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["folder"])
    assert stopped.value.code == 2
    text = capsys.readouterr().err
    assert "required: -d, -n, -i, --channels, --labels" in text
    assert "[--channels " not in text


def test_channel_files_name_the_channels_before_or_after_other_options() -> None:
    for options in (["--channel_files", "CT=ct.nii.gz"], ["--channels", "CT"]):
        command = ["folder", "-d", "1", "-n", "X", *options, "-i", "no", "--labels", "a=1"]
        build_parser().parse_args(command)
    with pytest.raises(SystemExit):
        build_parser().parse_args([part for part in command if part not in options])


def test_a_scan_whose_name_is_not_utf8_is_one_sentence(
    nnunet_folders, tmp_path, write_volume
) -> None:
    for i in range(6):
        write_volume(tmp_path / "images" / f"c{i}.nii.gz", seed=i)
        if i < 5:
            write_volume(tmp_path / "labels" / f"c{i}.nii.gz")
    (tmp_path / "images" / "c5.nii.gz").rename(tmp_path / "images" / "c\udcff.nii.gz")
    command = f"folder -i {tmp_path}/images -l {tmp_path}/labels -d 9 -n A --channels CT -np 1"
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--labels", "background=0", "a=1"])
    assert re.search(r"error: The name .*/c\\xff\.nii\.gz is not UTF-8", str(stopped.value.code))
    assert list(nnunet_folders.raw.iterdir()) == []


@pytest.mark.parametrize("converter", CONVERTERS)
def test_help_shows_defaults(converter, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([converter, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "default" in text
    assert "--overwrite" in text
    if converter != "folder":
        assert "dataset id, 1 to 999 (default: 50" in text


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_interrupted_run_leaves_nothing(nnunet_folders, stop) -> None:
    command = [sys.executable, "-c", "from nnunetv2_spmc.cli.convert import main; main()"]
    process = subprocess.Popen(
        [*command, "phantom", "--unlabeled", "5000", "-np", "2"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
        # under nohup, or in the background of a script, the tests may be told to ignore it
        preexec_fn=partial(signal.signal, stop, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(nnunet_folders.raw.glob(".writing-*/imagesTr/*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + stop
    assert "Traceback" not in errors
    assert list(nnunet_folders.raw.iterdir()) == []
