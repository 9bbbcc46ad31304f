from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_spmc.cli.evaluate import build_parser, main
from nnunetv2_spmc.evaluation import folder_evaluation

DATASET = {"labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}


@pytest.fixture
def folders(tmp_path, write_volume):
    """References, and predictions with the dataset.json that nnU-Net writes next to them."""
    for case in ("a", "b"):
        write_volume(tmp_path / "labels" / f"{case}.nii.gz")
        write_volume(tmp_path / "predictions" / f"{case}.nii.gz")
    (tmp_path / "predictions" / "dataset.json").write_text(json.dumps(DATASET), encoding="utf-8")
    return tmp_path


def arguments(folder, *options):
    paths = ["-ref", str(folder / "labels"), "-pred", str(folder / "predictions")]
    return [*paths, "-np", "0", "--no_pbar", *options]


def assert_refused(words, options):
    with pytest.raises(SystemExit) as ended:
        main(options)
    message = str(ended.value.code)
    assert message.startswith("error: ")
    assert words in message
    assert "\n" not in message


def test_the_table_is_shown_and_the_files_lie_beside_the_predictions(folders, capsys) -> None:
    main(arguments(folders))
    output = capsys.readouterr().out
    assert "| organ | 1.000 +- 0.000 |" in output
    assert "2 cases, mean +- standard deviation over cases." in output
    for name in ("metrics.csv", "metrics.json"):
        assert (folders / "predictions" / name).is_file()
        assert str(folders / "predictions" / name) in output
    main(arguments(folders))  # the files of the first run are no predictions


def test_results_go_to_another_folder_by_another_dataset_json(folders, tmp_path) -> None:
    (folders / "predictions" / "dataset.json").rename(tmp_path / "other.json")
    main(arguments(folders, "-djfile", str(tmp_path / "other.json"), "-o", str(tmp_path / "out")))
    assert (tmp_path / "out" / "metrics.json").is_file()
    assert not (folders / "predictions" / "metrics.csv").exists()


def test_a_refused_evaluation_writes_nothing(folders, capsys, write_volume) -> None:
    file = folders / "predictions" / "b.nii.gz"
    write_volume(file, np.full((4, 6, 8), 2, np.uint8))
    write_volume(folders / "predictions" / "a.nii.gz", np.full((4, 6, 8), 2, np.uint8))
    options = arguments(folders, "-o", str(folders / "out"))
    assert_refused("a.nii.gz has label values 2, allowed are [0, 1]", options)
    write_volume(folders / "predictions" / "a.nii.gz")
    file.unlink()
    assert_refused("no prediction for 1 of 2 cases: b", options)
    assert not (folders / "out").exists()
    main([*options, "--chill"])
    assert "no prediction: 1 of 2 cases (b)" in capsys.readouterr().out


def test_a_bad_case_is_named_last_and_the_others_are_written(folders, capsys) -> None:
    file = folders / "predictions" / "b.nii.gz"
    file.write_bytes(b"no image")
    with pytest.raises(SystemExit) as ended:
        main(arguments(folders))
    assert ended.value.code == 1
    output = capsys.readouterr()
    failed, last = output.err.splitlines()[-2:]
    assert failed.startswith(f"failed: b: {file} ")
    assert last == "1 of 2 cases failed."
    assert "Written: " in output.out
    assert "b," not in (folders / "predictions" / "metrics.csv").read_text(encoding="utf-8")


def test_a_folder_that_does_not_exist_is_named_and_not_made(folders) -> None:
    (folders / "predictions").rename(folders / "elsewhere")
    assert_refused("predictions is not a folder", arguments(folders))
    assert not (folders / "predictions").exists()


def test_an_output_folder_that_is_a_file_is_an_error(folders) -> None:
    (folders / "out").write_text("", encoding="utf-8")
    assert_refused(str(folders / "out"), arguments(folders, "-o", str(folders / "out")))


def test_a_negative_number_of_processes_is_refused(folders) -> None:
    assert_refused("must not be negative, got -1", arguments(folders, "-np", "-1"))


def test_an_interrupted_run_says_that_nothing_was_written(folders, capsys, monkeypatch) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_evaluation, "evaluate_folder", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(arguments(folders))
    assert ended.value.code == 130
    assert "nothing was written" in capsys.readouterr().err


def test_the_installed_command_works_with_its_defaults(folders) -> None:
    command = Path(sys.executable).parent / "nnUNetv2_spmc_evaluate"
    done = subprocess.run(
        [command, *arguments(folders)[:4]], capture_output=True, encoding="utf-8", timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "| organ |" in done.stdout


def test_the_empty_mask_policy_is_in_the_help_which_does_not_wait_for_nnunet() -> None:
    assert "Dice and Jaccard are 0, and there is no distance" in " ".join(
        build_parser().format_help().split()
    )
    code = (
        "import sys; from nnunetv2_spmc.cli.evaluate import build_parser; "
        "build_parser().format_help(); sys.exit('scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
