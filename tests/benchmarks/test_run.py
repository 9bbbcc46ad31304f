from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import long_csv
from benchmarks.accuracy import datasets
from benchmarks.accuracy import run as command
from benchmarks.accuracy.methods import CHOICES, DATASETS, QUEUE_COLUMNS, Run
from nnunetv2_spmc.evaluation.case_metrics import ClassMetrics
from nnunetv2_spmc.evaluation.metrics_csv import write_metrics_csv
from tests.benchmarks.runs import make_run

NUMBERS = dict.fromkeys(("jaccard", "hd95_mm", "asd_mm", "hd95_voxel", "asd_voxel"), 0.5)
STOCK_CONTENT = {  # of every checkpoint
    "network_weights": {},
    "init_args": {"configuration": "2d_small"},
    "trainer_name": "nnUNetTrainerSPMC",
}
LOGGED = {
    "epoch_start_timestamps": [0.0, 10.0],
    "epoch_end_timestamps": [8.0, 19.0],
    "mean_fg_dice": [0.1, 0.2],
}


class Tools:
    """In place of nnU-Net's commands: writes what they would, and remembers them."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.commands: list[str] = []
        self.fails: set[int] = set()  # seeds whose training fails

    def __call__(self, line: str, **environment: str) -> None:
        self.commands.append(line)
        if line.startswith("nnUNetv2_train"):
            self.train(line, **environment)
        elif "evaluate" in line:
            folder = self.output / line.rpartition(" ")[2]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "metrics.json").write_text('{"mean": {"dice": {"mean": 0.41236}}}')
            rows = [
                ClassMetrics(
                    f"patient7_frame0{i}",
                    label,
                    0.7 + i / 10,
                    **NUMBERS,
                    reference_voxels=9,
                    predicted_voxels=9,
                    status="ok",
                )
                for i in (1, 2)
                for label in ("RV", "LV")
            ]
            write_metrics_csv(folder / "metrics.csv", rows)

    def train(self, line: str, nnUNet_results: str, nnUNet_spmc_settings: str) -> None:  # noqa: N803
        _, _, configuration, fold, _, trainer, *_ = line.split()
        model = Path(nnUNet_results, "Dataset502_ACDC", f"{trainer}__nnUNetPlans__{configuration}")
        folder = model / f"fold_{fold}" / "validation"
        folder.mkdir(parents=True, exist_ok=True)
        settings = json.loads(nnUNet_spmc_settings)
        if settings["seed"] in self.fails:
            raise ValueError("out of memory")
        run = make_run(seed=settings["seed"])
        kept = {"settings": run.resolved().flat() | settings}
        content = {"semi_supervised": kept | {"method": "SPMC"}, "logging": LOGGED}
        torch.save(STOCK_CONTENT | content, folder.parent / "checkpoint_final.pth")
        (folder / "summary.json").write_text('{"foreground_mean": {"Dice": 0.81236}}')
        for epochs in (1, 2):
            (folder.parent / f"checkpoint_epoch_{epochs}.pth").touch()


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    monkeypatch.chdir(tmp_path)
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer"):
        monkeypatch.setenv(variable, "")  # restores what the command sets
    found = Tools(tmp_path / "output")
    monkeypatch.setattr(command, "run", found)
    monkeypatch.setattr(command, "prepare", lambda *_: None)
    raw = tmp_path / "output" / "nnUNet_raw" / "Dataset502_ACDC"
    raw.mkdir(parents=True)
    groups = {f"patient7_frame0{i}": "patient7" for i in (1, 2)}
    (raw / "split.json").write_text(json.dumps({"groups": groups}))
    return found


def work_off(folder: Path, *runs: Run) -> list[dict[str, str]]:
    """Work off a queue of these runs; return the rows of runs.csv."""
    file = folder / "queue.csv"
    long_csv.write_file(file, QUEUE_COLUMNS, [run.row() for run in runs])
    arguments = ["--queue", str(file), "--results", str(folder / "results")]
    command.main([str(folder / "data"), str(folder / "output"), *arguments])
    return long_csv.read("runs", folder / "results")


def test_a_run_gets_its_rows_in_all_files(tmp_path: Path, tools: Tools) -> None:
    run = make_run(times=2)
    (row,) = work_off(tmp_path, run)
    assert Run.of_row(row | {"seconds": ""}) == run
    found = {key: row[key] for key in ("run", "mean_dice", "validation_dice", "seconds")}
    assert found == {
        "run": "acdc-small-2x3-spmc-seed1",
        "mean_dice": "0.8500",
        "validation_dice": "0.8124",
        "seconds": "17.0",
    }
    metrics = long_csv.read("metrics", tmp_path / "results")
    assert {(m["run"], m["unit"]) for m in metrics} == {(run.run, "patient7")}
    assert len(metrics) == 4
    curves = long_csv.read("curves", tmp_path / "results")
    assert [(c["epoch"], c["seconds"]) for c in curves] == [("0", "8.0"), ("1", "17.0")]
    times = long_csv.read("over_time", tmp_path / "results")
    assert [(t["epochs"], t["seconds"]) for t in times] == [("1", "8.0"), ("2", "17.0")]
    here = f"runs/{run.run}"
    assert any(
        f"-o {here}/predictions_after_1 -chk checkpoint_epoch_1" in c for c in tools.commands
    )
    again = f"-pred {here}/predictions_after_1 -o {here}/predictions_after_1"
    assert any(c.endswith(again) for c in tools.commands)


def test_what_is_done_is_not_done_again(tmp_path: Path, tools: Tools) -> None:
    rows = work_off(tmp_path, make_run())
    tools.commands.clear()
    assert work_off(tmp_path, make_run()) == rows
    assert tools.commands == []


def test_a_training_goes_on_and_a_finished_one_is_only_measured(
    tmp_path: Path, tools: Tools
) -> None:
    work_off(tmp_path, make_run())
    assert tools.commands[0].endswith("-tr nnUNetTrainerSPMC -device cpu --c")
    tools.commands.clear()
    (tmp_path / "results" / "runs.csv").unlink()  # it ended before its row was written
    assert len(work_off(tmp_path, make_run())) == 1
    assert [c.split()[0] for c in tools.commands] == ["nnUNetv2_predict", "nnUNetv2_spmc_evaluate"]
    assert len(long_csv.read("metrics", tmp_path / "results")) == 4  # not twice


def test_a_search_leaves_the_test_cases_alone(tmp_path: Path, tools: Tools) -> None:
    (row,) = work_off(tmp_path, make_run(stage="search"))
    assert (row["mean_dice"], row["validation_dice"]) == ("", "0.8124")
    assert [c.split()[0] for c in tools.commands] == ["nnUNetv2_train"]


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path: Path, tools: Tools) -> None:
    tools.fails = {1}
    first, second = make_run(seed=1, seconds=9), make_run(seed=2)
    with pytest.raises(SystemExit, match=f"these failed.*{first.run}"):
        work_off(tmp_path, first, second)
    assert [row["run"] for row in long_csv.read("runs", tmp_path / "results")] == [second.run]


def test_a_training_with_other_settings_is_refused(tmp_path: Path) -> None:
    settings = make_run(settings='{"tau": 0.8}').resolved().flat()
    checkpoint = tmp_path / "checkpoint_final.pth"
    own = {"semi_supervised": {"method": "SPMC", "settings": settings}}
    torch.save(STOCK_CONTENT | own, checkpoint)
    command.check_settings(checkpoint, make_run(settings='{"tau": 0.8}'))
    with pytest.raises(ValueError, match=r"was trained with tau: 0.8 -> 0.7"):
        command.check_settings(checkpoint, make_run())


def test_the_doubled_batch_inherits_everything_else(tmp_path: Path) -> None:
    plans = tmp_path / "nnUNetPlans.json"
    plans.write_text(json.dumps({"configurations": {"2d": {"batch_size": 7}}}))
    datasets.add_double_batch(plans, "2d")
    configurations = json.loads(plans.read_text())["configurations"]
    assert configurations["2d_2x"] == {"inherits_from": "2d", "batch_size": 14}
    assert "502 2d_small_2x 0" in make_run(configuration="2d_small_2x").commands("cpu")["train"]


@pytest.mark.parametrize(("kind", "few"), [("acdc3", 3), ("acdc", 7), ("acdc14", 14)])
def test_the_curve_over_labels_has_a_dataset_for_each_number(
    monkeypatch: pytest.MonkeyPatch, kind: str, few: int
) -> None:
    commands: list[str] = []
    monkeypatch.setattr(datasets, "run", commands.append)
    datasets.convert(kind, Path("data"), Path("output"))
    data = DATASETS[kind]
    assert f"-d {data.id} -n {data.name.partition('_')[2]} --labeled {few} " in commands[0]
    assert data.name.startswith(f"Dataset{data.id}_")
    run = make_run(dataset=kind, labels=few)
    assert f"nnUNetv2_train {data.id} " in run.commands("cpu")["train"]


def test_no_two_datasets_of_the_benchmarks_have_the_same_number() -> None:
    numbers = [
        data.with_labels(chosen)[0] for data in DATASETS.values() for chosen in ("", *CHOICES)
    ]
    assert len(set(numbers)) == len(numbers)


def test_all_labels_takes_over_plans_test_cases_and_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = DATASETS["acdc"]
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
    monkeypatch.setattr(datasets, "run", commands.append)

    run = make_run(chosen_by="all", labels=70)
    for _ in range(2):  # the second finds it done
        assert datasets.prepare_more_labels(run, None, tmp_path) == ["b"]

    number, name = few.with_labels("all")
    folder = tmp_path / "nnUNet_preprocessed" / name
    assert json.loads((folder / "splits_final.json").read_text()) == [
        {"train": ["a", "b"], "val": ["v"]}
    ]
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    assert plans == {"dataset_name": name, "x": 1}
    assert json.loads((folder / "dataset.json").read_text())["numTraining"] == 2
    images = tmp_path / "nnUNet_raw" / name / "imagesTr"
    assert sorted(file.name for file in images.iterdir()) == ["a_0000.nii.gz", "b_0000.nii.gz"]
    assert commands == [f"nnUNetv2_preprocess -d {number} -c 2d_small -np 2"]


def test_cases_are_chosen_again_when_another_model_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(chosen_by="entropy", labels=10)
    _, name = DATASETS["acdc"].with_labels("entropy")
    mark = tmp_path / "nnUNet_preprocessed" / name
    mark.mkdir(parents=True)
    source = {"few": DATASETS["acdc"].small, "ranker": "one"}
    (mark / "prepared_2d_small.json").write_text(json.dumps({"source": source, "cases": ["a"]}))
    assert datasets.prepare_more_labels(run, tmp_path / "one", tmp_path) == ["a"]

    def ranked(*_: Any) -> list[str]:
        raise InterruptedError

    monkeypatch.setattr(datasets, "cases_to_label", ranked)
    with pytest.raises(InterruptedError):
        datasets.prepare_more_labels(run, tmp_path / "two", tmp_path)


def test_the_model_that_ranks_is_trained_where_it_is_missing(
    tmp_path: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranker = datasets.ranker_of(make_run(chosen_by="entropy", labels=10))
    assert ranker is not None
    assert ranker.run == "acdc-small-30x100-all_voxels-seed1"
    trained: list[str] = []

    def stop(line: str, **_: str) -> None:
        trained.append(line)
        raise ValueError("stop")

    monkeypatch.setattr(command, "run", stop)
    with pytest.raises(SystemExit):
        work_off(tmp_path, make_run(chosen_by="entropy", labels=10))
    assert trained == [ranker.commands("cpu")["train"]]


def test_a_warm_start_trains_the_control_first_and_takes_its_weights_once(
    tmp_path: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = make_run(pretrained="control", name="spmc_warm")
    assert warm.start is not None
    assert warm.start.run == "acdc-small-30x100-control-seed1"
    weights = f"{warm.start.fold}/checkpoint_final.pth"
    monkeypatch.setattr(command, "check_settings", lambda *_: None)
    tools.fails = {1}
    with pytest.raises(SystemExit):
        work_off(tmp_path, warm)
    assert tools.commands == [warm.start.commands("cpu")["train"]]
    tools.fails.clear()
    work_off(tmp_path, warm)
    assert tools.commands[2].endswith(
        f"nnUNetTrainerSPMC -device cpu -pretrained_weights {weights}"
    )
    (tmp_path / "results" / "runs.csv").unlink()
    (tmp_path / "output" / warm.fold / "validation" / "summary.json").unlink()
    work_off(tmp_path, warm)
    assert tools.commands[-3].endswith("nnUNetTrainerSPMC -device cpu --c")  # it was interrupted
