from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_spmc.cli.compare import main
from nnunetv2_spmc.evaluation.case_metrics import ClassMetrics
from nnunetv2_spmc.evaluation.metrics_csv import write_metrics_csv
from tests.full_disk import file_size_limit
from tests.model_folders import write_fold


@pytest.fixture
def runs(tmp_path):
    """Two seeds of two methods on eight cases, as arguments."""
    arguments = []
    for number, name in enumerate(("control", "spmc")):
        for seed in (0, 1):
            folder = tmp_path / f"{name}_seed{seed}"
            folder.mkdir()
            dice = np.random.default_rng(seed).uniform(0.5, 0.8, 8) + 0.1 * number
            rows = [
                ClassMetrics(f"case{i}", "organ", d, d / 2, *[1 / d] * 4, 10, 10, "ok")
                for i, d in enumerate(dice)
            ]
            write_metrics_csv(folder / "metrics.csv", rows)
            arguments.append(f"{name}={folder}")
    return arguments


def test_tables_csv_and_plot_of_two_methods(runs, tmp_path, capsys) -> None:
    main([*runs, "-o", str(tmp_path / "out")])
    output = capsys.readouterr().out
    assert "| organ | control | 2     |" in output
    assert (
        "| organ | spmc   | Dice    | +0.1000    | +0.1000 to +0.1000 | 0.008 | 8     |" in output
    )
    assert "Differences to control" in output
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "comparison.csv",
        "comparison.png",
    }


def test_nothing_is_written_without_an_output_folder(runs, tmp_path) -> None:
    before = sorted(tmp_path.rglob("*"))
    main(runs)
    assert sorted(tmp_path.rglob("*")) == before


def test_runs_that_cannot_be_compared_are_one_sentence(runs, tmp_path) -> None:
    file = tmp_path / "spmc_seed1" / "metrics.csv"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:-1]), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main([*runs, "-o", str(tmp_path / "out")])
    message = str(ended.value.code)
    assert message.startswith("error: ")
    assert "spmc_seed1" in message
    assert "no case7" in message
    assert not (tmp_path / "out").exists()


def test_a_plot_that_cannot_be_written_takes_the_table_along(runs, tmp_path) -> None:
    with file_size_limit(8000), pytest.raises(SystemExit) as ended:  # the table fits
        main([*runs, "-o", str(tmp_path / "new" / "out")])
    expected = f"error: {tmp_path}/new/out/comparison.png could not be written: file too large"
    assert str(ended.value.code).startswith(expected)
    assert not (tmp_path / "new").exists()


def test_the_installed_command_works(runs) -> None:
    command = Path(sys.executable).parent / "nnUNetv2_spmc_compare"
    done = subprocess.run([command, *runs], capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Wilcoxon" in done.stdout


# ---- trained models ----------------------------------------------------------------------------


@pytest.fixture
def models(planned_phantom, tmp_path, monkeypatch):
    """Two models of the phantom on six validation cases, in nnUNet_results."""
    for name, folder in (
        ("raw", planned_phantom.raw),
        ("preprocessed", planned_phantom.preprocessed),
    ):
        monkeypatch.setenv(f"nnUNet_{name}", str(folder.parent))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    cases = [f"case{i}" for i in range(6)]
    for number, trainer in enumerate(("nnUNetTrainer", "nnUNetTrainerSPMC")):
        dice = {case: 0.5 + 0.01 * i * number for i, case in enumerate(cases)}
        write_fold(tmp_path / "results", planned_phantom, trainer, dice)
    return ["-d", "500", "-c", "2d_small"]


def test_trained_models_are_compared_in_a_table_then_one_sentence(models, capsys) -> None:
    main(models)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| nnUNetTrainer     | 0.017 | 0     | 6     | 0.500 | -")
    assert lines[3].startswith("| nnUNetTrainerSPMC | 0.017 | 0     | 6     | 0.525 | 0.500")
    assert lines[-1].startswith(
        "Use nnUNetTrainerSPMC: Dice +0.025 over nnUNetTrainer (95 % interval"
    )
    assert lines[-1].endswith(" on 6 cases, fold 0.")


def test_trained_models_are_written_as_evaluations_are(models, tmp_path, capsys) -> None:
    main([*models, "-o", str(tmp_path / "out")])
    assert capsys.readouterr().out.splitlines()[-1].startswith("Use nnUNetTrainerSPMC: ")
    with (tmp_path / "out" / "comparison.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (mean,) = (
        row
        for row in rows
        if (row["method"], row["label"], row["metric"]) == ("nnUNetTrainerSPMC", "mean", "dice")
    )
    assert (mean["baseline"], mean["pairs"]) == ("nnUNetTrainer", "6")
    assert float(mean["difference"]) == pytest.approx(0.025)
    assert (tmp_path / "out" / "comparison.png").is_file()


def test_both_ways_pair_the_cases_of_a_patient(models, planned_phantom, tmp_path, capsys) -> None:
    groups = {f"case{i}": f"patient{i // 2}" for i in range(6)}
    raw = tmp_path / "raw" / planned_phantom.name
    raw.mkdir(parents=True)
    (raw / "split.json").write_text(json.dumps({"groups": groups}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_raw", str(raw.parent))
        main([*models, "-o", str(tmp_path / "out")])
        assert capsys.readouterr().out.splitlines()[-1].startswith("3 patients decide nothing: ")
        with (tmp_path / "out" / "comparison.csv").open(encoding="utf-8") as file:
            assert {row["pairs"] for row in csv.DictReader(file)} == {"", "3", "0"}
    settings = {"references": str(raw / "labelsTr")}
    for name in ("a", "b"):
        rows = [ClassMetrics(case, "organ", 0.5, 0.4, *[1.0] * 4, 10, 10, "ok") for case in groups]
        (tmp_path / name).mkdir()
        write_metrics_csv(tmp_path / name / "metrics.csv", rows)
        (tmp_path / name / "metrics.json").write_text(json.dumps({"settings": settings}))
    main([str(tmp_path / "a"), str(tmp_path / "b")])
    output = capsys.readouterr().out
    assert "Differences to a, patient by patient, each case averaged over seeds" in output
    assert "| fewer than 6 patients | 3        |" in output


def test_what_cannot_be_written_of_trained_models_leaves_no_folder(
    models, planned_phantom, tmp_path
) -> None:
    results = tmp_path / "results"
    write_fold(results, planned_phantom, "nnUNetTrainerCPS", {"case0": 0.5}, fold="1")
    write_fold(results, planned_phantom, "nnUNetTrainerSPMC", {"case0": 0.5}, fold="1")
    with pytest.raises(SystemExit) as ended:
        main([*models, "-o", str(tmp_path / "out")])
    assert "No validation case is common to all models" in str(ended.value.code)
    assert not (tmp_path / "out").exists()


def test_models_named_by_their_folders_are_compared_as_found_ones(models, tmp_path, capsys) -> None:
    main(models)
    found = capsys.readouterr().out
    folders = sorted((tmp_path / "results").glob("Dataset500_*/*__*__*"))
    main(["-m", *map(str, folders), "-f", "0"])
    assert capsys.readouterr().out == found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give -d and -c, or -m, or folders with a metrics.csv."),
        (["-d", "500"], "-c is missing."),
        (["-c", "2d"], "-d is missing."),
        (["-d", "500", "-c", "2d", "run"], "-d compares trained models, and run is a folder of"),
        (["run", "-tr", "nnUNetTrainer"], "-tr compares trained models, and run is a folder of"),
    ],
)
def test_the_two_ways_are_not_mixed(arguments, message, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_real_trainings_are_compared(phantom_runs, planned_phantom, models, tmp_path, capsys):
    """Those of the phantom are trained as fold all: a fold's number makes them folds."""
    for fold in (phantom_runs.spmc, phantom_runs.control):
        model = tmp_path / "real" / planned_phantom.name / fold.parent.name
        shutil.copytree(fold.parent, model)
        (model / "fold_all").rename(model / "fold_7")
    main([*models, "--results", str(tmp_path / "real")])
    output = capsys.readouterr().out
    assert "warning" not in output
    assert output.splitlines()[2].startswith("| nnUNetTrainerSupervisedControl | ")
    sentence = output.splitlines()[-1]
    assert "nnUNetTrainerSupervisedControl, fold 7; train more folds of both" in sentence
    assert sentence.startswith("5 cases decide nothing: ")
