from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import accuracy_datasets
import accuracy_methods
import pytest
import torch
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

from nnunetv2_spmc import discovery, methods
from nnunetv2_spmc.evaluation.case_metrics import ClassMetrics
from nnunetv2_spmc.evaluation.metrics_csv import write_metrics_csv
from scripts import benchmark_accuracy, benchmark_tables

SCRIPT = Path(benchmark_tables.__file__)


def write_run(folder: Path, method: str, seed: int, dice: float, cases: int = 6) -> None:
    """Write a finished run in which every case has the given Dice."""
    name = f"acdc-small-2x3-{method}-seed{seed}"
    (folder / name).mkdir(parents=True)
    values = dict.fromkeys(("jaccard", "hd95_mm", "asd_mm", "hd95_voxel", "asd_voxel"), 0.5)
    rows = [
        ClassMetrics(
            f"case{i}", label, dice, **values, reference_voxels=9, predicted_voxels=9, status="ok"
        )
        for i in range(cases)
        for label in ("RV", "LV")
    ]
    write_metrics_csv(folder / name / "metrics.csv", rows)
    (folder / name / "curves.csv").write_text("epoch,seconds,mean_fg_dice\n0,5,0.1\n1,9,0.2\n")
    row: dict[str, Any] = {
        "dataset": "acdc",
        "method": method,
        "seed": seed,
        "plans": "small",
        "epochs": 2,
        "folder": name,
        "validation_dice": dice - 0.1,
        "seconds": 10.0 * seed,
        "machine": "2 CPU cores, x86_64",
        "versions": "torch 2",
        "settings": json.dumps({"seed": seed}),
        "train": f"nnUNetv2_train 502 2d_small 0 -tr {method}",
        "predict": "nnUNetv2_predict",
        "evaluate": "nnUNetv2_spmc_evaluate",
    }
    benchmark_accuracy.append_row(folder / "runs.csv", row)


def test_every_method_names_a_trainer_that_nnunet_finds() -> None:
    folder = str(Path(discovery.__file__).parent)
    for trainer in {method.trainer for method in accuracy_methods.METHODS.values()}:
        found = recursive_find_python_class(
            folder, trainer, None, cleanup_imports_from_base_folder=True
        )
        assert found.__name__ == trainer


def test_gap_closed_is_measured_between_the_means_of_control_and_all_labels(
    tmp_path: Path,
) -> None:
    for method, seed, dice in (
        ("control", 1, 0.58),
        ("control", 2, 0.62),
        ("all_labels", 1, 0.8),
        ("spmc", 1, 0.7),
        ("spmc", 2, 0.8),
    ):
        write_run(tmp_path, method, seed, dice)
    (rows,) = benchmark_tables.read_groups(tmp_path).values()
    means = benchmark_tables.overall(
        benchmark_tables.compare_runs(tmp_path, rows, tmp_path / "group")
    )
    assert benchmark_tables.gap_closed(means, "spmc") == pytest.approx(0.75)
    # share, Dice of the validation cases, seconds
    assert "| 75 % | 0.650 | 15 |" in benchmark_tables.table(rows, means)
    del means["all_labels"]
    assert benchmark_tables.gap_closed(means, "spmc") is None


def test_tables_are_made_from_the_csvs_alone_and_name_every_command(tmp_path: Path) -> None:
    write_run(tmp_path, "control", 1, 0.6)
    write_run(tmp_path, "spmc", 1, 0.7)
    kept = tmp_path / "acdc-small-2x3-spmc-seed1" / "over_time.csv"
    kept.write_text("epochs,seconds,test_dice\n1,30,0.41236\n2,66,0.7\n")
    subprocess.run([sys.executable, SCRIPT, tmp_path], check=True)
    text = (tmp_path / "tables.md").read_text()
    assert "## acdc-small-2x3" in text
    for method in ("control", "spmc"):
        assert f"nnUNetv2_train 502 2d_small 0 -tr {method}" in text
    for figure in ("comparison.png", "curves.png", "over_time.png"):
        assert (tmp_path / "acdc-small-2x3" / figure).stat().st_size > 1000
    before = text
    subprocess.run([sys.executable, SCRIPT, tmp_path], check=True)
    assert (tmp_path / "tables.md").read_text() == before


def test_the_page_gets_the_tables_between_its_markers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "benchmarks"
    write_run(folder, "control", 1, 0.6)
    write_run(folder, "spmc", 1, 0.7)
    kept = folder / "acdc-small-2x3-spmc-seed1" / "over_time.csv"
    kept.write_text("epochs,seconds,test_dice\n1,30,0.41236\n2,66,0.7\n")
    tried = {"dataset": "acdc", "method": "x", "seed": 1, "validation_dice": 0.5, "settings": "{}"}
    benchmark_accuracy.append_row(folder / "validation.csv", tried)
    page = tmp_path / "benchmarks.md"
    markers = [
        f"<!-- {name} --><!-- end of {name} -->"
        for name in ("validation.csv", "runs.csv: acdc", "runs.csv: time")
    ]
    page.write_text("\n".join(["before", *markers, "after"]))
    monkeypatch.setattr(benchmark_tables, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["benchmark_tables.py", str(folder)])
    benchmark_tables.main()
    text = page.read_text()
    assert text.startswith("before")
    assert text.endswith("after")
    assert "| acdc | x | 1 | 0.5 | `{}` |" in text
    assert text.index("| spmc |") < text.index("| control |")  # best first
    assert "| spmc | 1 | 0.412 (0.5), 0.700 (1.1) |" in text


def test_rankings_and_ablations_are_compared_apart(tmp_path: Path) -> None:
    for method, dice in (
        ("noCDPS", 0.7),
        ("control", 0.5),
        ("all_labels", 0.9),
        ("spmc", 0.8),
        ("annotate_difficulty", 0.8),
        ("annotate_random1", 0.6),
        ("annotate_random2", 0.7),
    ):
        write_run(tmp_path, method, 1, dice)
    groups = benchmark_tables.read_groups(tmp_path)
    assert {name: sorted(row["method"] for row in rows) for name, rows in groups.items()} == {
        "acdc-small-2x3": ["all_labels", "control", "spmc"],
        "acdc-small-2x3-ablations": ["all_labels", "control", "noCDPS", "spmc"],
        "acdc-small-2x3-ranking": [
            "all_labels",
            "annotate_difficulty",
            "annotate_random",
            "annotate_random",
            "control",
        ],
    }
    means = benchmark_tables.overall(
        benchmark_tables.compare_runs(tmp_path, groups["acdc-small-2x3-ranking"], tmp_path / "out")
    )
    assert benchmark_tables.gap_closed(means, "annotate_random") == pytest.approx(0.375)


def test_a_method_that_is_there_for_ablations_makes_no_table_of_its_own(tmp_path: Path) -> None:
    for method in ("control", "noCDPS"):
        write_run(tmp_path, method, 1, 0.5)
    assert benchmark_tables.read_groups(tmp_path).keys() == {"acdc-small-2x3-ablations"}


def test_the_committed_rows_have_the_settings_of_their_methods() -> None:
    """Otherwise their commands would train something else."""
    schedule = {"epochs", "iterations_per_epoch", "validation_iterations", "seed", "keep_every"}
    for name in ("runs.csv", "validation.csv"):
        with (benchmark_accuracy.BENCHMARKS / name).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                settings = json.loads(row["settings"])
                own = {key: settings[key] for key in settings.keys() - schedule}
                assert own == accuracy_methods.METHODS[row["method"]].settings, row["folder"]
                assert row["folder"].endswith(f"-{row['method']}-seed{settings['seed']}")


def test_a_finished_run_is_known_by_its_row(tmp_path: Path) -> None:
    assert benchmark_accuracy.finished(tmp_path / "runs.csv") == set()
    write_run(tmp_path, "control", 1, 0.6)
    write_run(tmp_path, "control", 2, 0.6)
    assert benchmark_accuracy.finished(tmp_path / "runs.csv") == {
        "acdc-small-2x3-control-seed1",
        "acdc-small-2x3-control-seed2",
    }


def test_the_doubled_batch_inherits_everything_else(tmp_path: Path) -> None:
    plans = tmp_path / "nnUNetPlans.json"
    plans.write_text(json.dumps({"configurations": {"2d": {"batch_size": 7}}}))
    accuracy_datasets.add_double_batch(plans, "2d")
    configurations = json.loads(plans.read_text())["configurations"]
    assert configurations["2d_2x"] == {"inherits_from": "2d", "batch_size": 14}


def test_all_labels_takes_over_plans_test_cases_and_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = accuracy_methods.DATASETS["acdc"]
    raw, preprocessed = (
        tmp_path / folder / few.name for folder in ("nnUNet_raw", "nnUNet_preprocessed")
    )
    for folder, case in (("imagesTr", "a_0000"), ("imagesUn", "b_0000")):
        (raw / folder).mkdir(parents=True)
        (raw / folder / f"{case}.nii.gz").touch()
    for folder, case in (("labelsTr", "a"), ("labelsUn", "b")):
        (raw / folder).mkdir()
        (raw / folder / f"{case}.nii.gz").touch()
    (raw / "dataset.json").write_text(json.dumps({"numTraining": 1, "file_ending": ".nii.gz"}))
    preprocessed.mkdir(parents=True)
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps({"dataset_name": few.name, "x": 1}))
    (preprocessed / "dataset_fingerprint.json").write_text("{}")
    splits = [{"train": ["a"], "val": ["v"]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    commands: list[str] = []
    monkeypatch.setattr(accuracy_datasets, "run", commands.append)

    for _ in range(2):  # the second finds it done
        added = accuracy_datasets.prepare_more_labels(few, "all", tmp_path, tmp_path, "2d_small")
        assert added == ["b"]

    whole = few.with_labels("all")
    folder = tmp_path / "nnUNet_preprocessed" / whole.name
    assert json.loads((folder / "splits_final.json").read_text()) == [
        {"train": ["a", "b"], "val": ["v"]}
    ]
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    assert plans == {"dataset_name": whole.name, "x": 1}
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 2
    images = tmp_path / "nnUNet_raw" / whole.name / "imagesTr"
    assert sorted(file.name for file in images.iterdir()) == ["a_0000.nii.gz", "b_0000.nii.gz"]
    assert commands == [f"nnUNetv2_preprocess -d {whole.id} -c 2d_small -np 2"]


def test_a_ranking_by_another_model_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = accuracy_methods.DATASETS["acdc"]
    mark = tmp_path / "nnUNet_preprocessed" / few.with_labels("entropy").name
    mark.mkdir(parents=True)
    source = {"few": few.small, "ranker": "one"}
    (mark / "prepared_2d_small.json").write_text(json.dumps({"source": source, "cases": ["a"]}))
    prepare = accuracy_datasets.prepare_more_labels
    assert prepare(few, "entropy", tmp_path / "one", tmp_path, "2d_small") == ["a"]

    def ranked(*_: Any) -> list[str]:
        raise InterruptedError

    monkeypatch.setattr(accuracy_datasets, "cases_to_label", ranked)
    with pytest.raises(InterruptedError):
        prepare(few, "entropy", tmp_path / "two", tmp_path, "2d_small")


def test_a_training_with_other_settings_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint_final.pth"
    trainer = methods.nnUNetTrainerSPMC
    given = '{"seed": 3, "tau": 0.8}'
    settings = trainer.resolved_settings({}, {"nnUNet_spmc_settings": given}).flat()
    torch.save({"semi_supervised": {"method": "SPMC", "settings": settings}}, checkpoint)
    check = benchmark_accuracy.check_settings
    check(checkpoint, "nnUNetTrainerSPMC", given)
    with pytest.raises(SystemExit, match=r"was trained with tau: 0.8 -> 0.7"):
        check(checkpoint, "nnUNetTrainerSPMC", '{"seed": 3}')


def test_a_longer_run_has_more_epochs() -> None:
    schedule = {"epochs": 20, "iterations_per_epoch": 10}
    assert benchmark_accuracy.lengthened(schedule, 1) == schedule
    assert benchmark_accuracy.lengthened(schedule, 3) == schedule | {"epochs": 60}
    assert benchmark_accuracy.lengthened({}, 3) == {"epochs": 3000}


def test_checkpoints_of_the_way_are_measured_as_the_last_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, fold = tmp_path / "runs" / "one", tmp_path / "fold"
    fold.mkdir()
    here.mkdir(parents=True)
    (here / "curves.csv").write_text("epoch,seconds\n0,10\n1,20\n2,30\n")
    commands: list[str] = []

    def run(command: str, **_: str) -> None:
        commands.append(command)
        if "evaluate" in command:
            output = tmp_path / command.rpartition(" ")[2]
            output.mkdir(parents=True)
            dice = {"mean": len(commands) / 10}
            (output / "metrics.json").write_text(json.dumps({"classes": {"LA": {"dice": dice}}}))

    for epochs in (3, 2):
        (fold / f"checkpoint_epoch_{epochs}.pth").touch()
    monkeypatch.setattr(benchmark_accuracy, "run", run)
    given = {
        "predict": "predict -o runs/one/predictions",
        "evaluate": "evaluate -pred runs/one/predictions -o runs/one",
    }
    benchmark_accuracy.measure_kept(given, fold, here, {})
    assert {
        "predict -o runs/one/predictions_after_2 -chk checkpoint_epoch_2.pth",
        "evaluate -pred runs/one/predictions_after_2 -o runs/one/predictions_after_2",
    } < set(commands)
    with (here / "over_time.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epochs"], row["seconds"]) for row in rows] == [("2", "20"), ("3", "30")]
    assert {row["test_dice"] for row in rows} == {"0.2", "0.4"}


def test_the_end_of_a_training_is_among_the_times_that_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "output"
    arguments = ["x", str(tmp_path), str(output), "--epochs", "10", "--keep", "3"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit, match="--keep 3 must divide the epochs"):
        benchmark_accuracy.main()
    assert not output.exists()


def test_the_validation_dice_is_nnunets(tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    summary.write_text(json.dumps({"foreground_mean": {"Dice": 0.81236}}))
    assert benchmark_accuracy.read_validation_dice(summary) == 0.8124


def test_rows_are_appended_under_one_header(tmp_path: Path) -> None:
    runs = tmp_path / "runs.csv"
    for seed in (1, 2):
        benchmark_accuracy.append_row(runs, {"seed": seed, "settings": '{"a": 1}'})
    with runs.open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"seed": "1", "settings": '{"a": 1}'},
            {"seed": "2", "settings": '{"a": 1}'},
        ]
