"""nnUNetv2_spmc_uncertainty, _rank, _report and _export, called as the commands are."""

import csv
import json
import re
import shutil
from functools import partial
from pathlib import Path

import nibabel
import pytest
import torch

from nnunetv2_spmc import discovery
from nnunetv2_spmc.cli import export, rank, report, uncertainty
from nnunetv2_spmc.inference import ranking
from nnunetv2_spmc.reports import run_record
from tests.damaged_files import halved, with_nan
from tests.full_disk import file_size_limit

NAMES = ["", "auxiliary", "common_difficulty", "confidence", "suspicious"]


def refused(command, *arguments):
    """Run a command that must end with a sentence; return it."""
    with pytest.raises(SystemExit) as ended:
        command.main([str(argument) for argument in arguments])
    assert isinstance(ended.value.code, str)
    return ended.value.code


def run(command, *arguments):
    command.main([str(argument) for argument in arguments])


@pytest.fixture
def model(phantom_runs):
    return phantom_runs.spmc.parent


# ---- nnUNetv2_spmc_uncertainty -------------------------------------------------------------------


def test_uncertainty_writes_every_map_in_the_geometry_of_the_image(model, phantom_runs, tmp_path):
    images = phantom_runs.raw / "imagesTs"
    run(uncertainty, "-i", images, "-o", tmp_path, "-m", model, "-device", "cpu")
    (image,) = images.iterdir()
    case = image.name.replace("_0000", "")
    for name in NAMES:
        written = nibabel.load(tmp_path / name / case)
        assert (written.affine == nibabel.load(image).affine).all()
    assert {path.name for path in tmp_path.iterdir()} == {case, *NAMES[1:]}


def test_uncertainty_of_a_stock_model_says_what_is_missing(phantom_runs, tmp_path, capsys):
    model, images = phantom_runs.control.parent, phantom_runs.raw / "imagesTs"
    run(uncertainty, "-i", images, "-o", tmp_path, "-m", model, "-device", "cpu", "--disable_tta")
    assert (
        "has no second branch: segmentation and confidence are written" in capsys.readouterr().out
    )
    assert not (tmp_path / "common_difficulty").exists()
    assert any((tmp_path / "confidence").iterdir())


def test_uncertainty_goes_on_where_it_stopped(model, phantom_runs, tmp_path, capsys):
    (image,) = (phantom_runs.raw / "imagesTs").iterdir()
    (tmp_path / image.name.replace("_0000", "")).write_text("there already")
    arguments = ("-i", image.parent, "-o", tmp_path, "-m", model, "-device", "cpu")
    run(uncertainty, *arguments, "--continue_prediction")
    assert "Wrote 0 of 1 cases" in capsys.readouterr().out


@pytest.fixture
def images(test_image, tmp_path):
    """A folder with a whole scan, half of it, and one with NaN."""
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(test_image, folder / "whole_0000.nii.gz")
    halved(test_image, folder / "half_0000.nii.gz")
    with_nan(test_image, folder / "nan_0000.nii.gz")
    return folder


def assert_failures_are_last(errors):
    *failed, last = errors.splitlines()[-3:]
    assert failed[0].startswith("failed: half: ")
    assert "half_0000.nii.gz is truncated or damaged" in failed[0]
    assert failed[1].startswith("failed: nan: ")
    assert "nan_0000.nii.gz has " in failed[1]
    assert "NaN or infinite voxels" in failed[1]
    assert last == "2 of 3 cases failed."


def test_half_a_scan_is_not_segmented_and_does_not_stop_the_others(model, images, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run(uncertainty, "-i", images, "-o", tmp_path / "out", "-m", model, "-device", "cpu")
    assert ended.value.code == 1
    output = capsys.readouterr()
    assert_failures_are_last(output.err)
    assert "Wrote 1 of 3 cases" in output.out
    written = {path.name for path in (tmp_path / "out").rglob("*.nii.gz")}
    assert written == {"whole.nii.gz"}


def test_a_model_with_nan_in_its_weights_is_refused(model, phantom_runs, tmp_path):
    spoiled = shutil.copytree(model, tmp_path / "model")
    file = spoiled / "fold_all" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    next(iter(checkpoint["network_weights"].values())).view(-1)[0] = float("nan")
    torch.save(checkpoint, file)
    out = tmp_path / "out"
    images = phantom_runs.raw / "imagesTs"
    for command, arguments in ((uncertainty, ("-i", images, "-o", out)), (rank, ("-d", 500))):
        message = refused(command, *arguments, "-m", spoiled, "-device", "cpu")
        assert f"error: {file} has NaN or infinite weights" in message
        assert "\n" not in message
    assert not out.exists()


def assert_nothing_is_published(command, out, message, capsys):
    """Run a command that has no room for the confidence of the only case."""
    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 1
    *_, failed, last = capsys.readouterr().err.splitlines()
    assert failed.startswith("failed: ")
    assert f"{out / 'confidence'}" in failed
    assert message in failed
    assert last == "1 of 1 cases failed."
    assert list(out.iterdir()) == []


def test_maps_that_ulimit_cuts_are_not_published(model, phantom_runs, tmp_path, capsys):
    arguments = ("-i", phantom_runs.raw / "imagesTs", "-o", tmp_path, "-m", model)
    command = partial(run, uncertainty, *arguments, "-device", "cpu", "--disable_tta")
    with file_size_limit(5_000):
        message = "could not be written: file too large, the limit of ulimit -f is 5000 bytes"
        assert_nothing_is_published(command, tmp_path, message, capsys)
    command()
    assert "Wrote 1 of 1 cases" in capsys.readouterr().out


def test_a_folder_into_which_no_map_fits_is_not_left(model, phantom_runs, tmp_path):
    out = tmp_path / "new" / "maps"
    arguments = ("-i", phantom_runs.raw / "imagesTs", "-o", out, "-m", model)
    with file_size_limit(5_000), pytest.raises(SystemExit):
        run(uncertainty, *arguments, "-device", "cpu", "--disable_tta")
    assert list(tmp_path.iterdir()) == []


def test_maps_are_not_published_on_a_full_disk(model, phantom_runs, small_disk, capsys):
    small_disk.resize(16)
    out = small_disk.folder
    arguments = ("-i", phantom_runs.raw / "imagesTs", "-o", out, "-m", model)
    command = partial(run, uncertainty, *arguments, "-device", "cpu", "--disable_tta")
    message = "could not be written: no space left on its disk"
    assert_nothing_is_published(command, out, message, capsys)
    small_disk.resize(1000)
    command()
    assert {path.name for path in out.iterdir() if path.is_dir()} == set(NAMES[1:])


def test_bad_input_of_uncertainty_gets_a_sentence(model, phantom_runs, tmp_path):
    image = next((phantom_runs.raw / "imagesTs").iterdir())
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "case_0000.mgz").write_bytes(b"")
    options = ("-o", tmp_path / "out", "-device", "cpu")
    message = refused(uncertainty, "-i", empty, "-m", model, *options)
    assert "has no image: files must end in _0000.nii.gz" in message
    assert "(there is case_0000.mgz)" in message
    assert "has no checkpoint_final.pth in fold_7" in refused(
        uncertainty, "-i", image.parent, "-m", model, "-f", "7", *options
    )
    assert not (tmp_path / "out").exists()


@pytest.fixture
def odd_images(test_image, tmp_path):
    """A whole scan, cases that lack something, and files that are not images."""
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("whole_0000", "two_0000", "two_0001", "unnamed"):
        shutil.copy(test_image, folder / f"{name}.nii.gz")
    (folder / "gone_0000.nii.gz").symlink_to("nowhere.nii.gz")
    (folder / "garbage_0000.nii.gz").write_bytes(b"no image")
    for name in ("other_0000.nii", "other_0000.Nii.gz", "plans.json", ".hidden"):
        (folder / name).write_bytes(b"")
    return folder


def assert_odd_ones_are_named(output, folder):
    failed = dict(line.split(": ", 2)[1:] for line in output.err.splitlines()[-5:-1])
    assert failed.keys() == {"two", "unnamed.nii.gz", "gone", "garbage"}
    assert f"{folder} has the channels 0000, 0001, expected 0000 (MRI)" in failed["two"]
    assert "unnamed.nii.gz has no channel suffix" in failed["unnamed.nii.gz"]
    assert "gone_0000.nii.gz is a link to nowhere.nii.gz" in failed["gone"]
    assert str(folder / "garbage_0000.nii.gz") in failed["garbage"]
    assert output.err.splitlines()[-1] == "4 of 5 cases failed."
    note = f"note: {folder}: 2 files left out, not ending in .nii.gz (other_0000.Nii.gz, other_"
    assert note in output.out


def test_uncertainty_goes_on_beside_cases_that_lack_something(model, odd_images, tmp_path, capsys):
    arguments = ("-i", odd_images, "-o", tmp_path / "out", "-m", model, "-device", "cpu")
    with pytest.raises(SystemExit) as ended:
        run(uncertainty, *arguments, "--disable_tta")
    assert ended.value.code == 1
    output = capsys.readouterr()
    assert_odd_ones_are_named(output, odd_images)
    assert "Wrote 1 of 5 cases" in output.out
    assert (tmp_path / "out" / "whole.nii.gz").is_file()


def test_rank_goes_on_beside_cases_that_lack_something(model, odd_images, tmp_path, capsys):
    file = tmp_path / "ranking.csv"
    arguments = ("-d", 500, "-i", odd_images, "-m", model, "-device", "cpu", "--disable_tta")
    with pytest.raises(SystemExit) as ended:
        run(rank, *arguments, "-o", file)
    assert ended.value.code == 1
    assert_odd_ones_are_named(capsys.readouterr(), odd_images)
    with file.open(encoding="utf-8", newline="") as rows:
        assert [row["case"] for row in csv.DictReader(rows)] == ["whole"]


def test_a_model_whose_channels_are_called_modality_predicts(model, test_image, tmp_path, capsys):
    renamed = shutil.copytree(model, tmp_path / "model")
    content = json.loads((renamed / "dataset.json").read_text())
    content["modality"] = content.pop("channel_names")
    (renamed / "dataset.json").write_text(json.dumps(content))
    options = ("-m", renamed, "-device", "cpu", "--disable_tta")
    run(uncertainty, "-i", test_image.parent, "-o", tmp_path / "out", *options)
    run(rank, "-d", 500, "-i", test_image.parent, *options)
    page = tmp_path / "report.html"
    run(report, renamed / "fold_all", "-o", page, "--no_maps", "--no_viewer", "-np", 0)
    assert "MRI" in page.read_text(encoding="utf-8")


# ---- nnUNetv2_spmc_rank --------------------------------------------------------------------------


def test_rank_lists_all_unlabeled_cases_with_their_patients(model, tmp_path, capsys):
    arguments = ("-d", 500, "-m", model, "-device", "cpu", "--disable_tta")
    run(rank, *arguments, "-k", 2, "-o", tmp_path / "out" / "ranking.csv")
    with (tmp_path / "out" / "ranking.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    assert {row["case"] for row in rows} == {f"unlabeled_{i:03d}" for i in range(4)}
    assert all(row["patient"] for row in rows)
    scores = [float(row["score"]) for row in rows]
    assert scores[0] == max(scores)
    assert scores[2] >= scores[3]
    for row in rows:
        parts = float(row["common_difficulty"]), float(row["disagreement"])
        assert float(row["score"]) == pytest.approx(sum(parts) / 2)
    assert f"| 1 *  | {rows[0]['case']}" in capsys.readouterr().out
    assert [row["chosen"] for row in rows] == ["1", "1", "0", "0"]


def test_rank_takes_the_dataset_of_the_model(model, images, monkeypatch, capsys):
    options = ("-m", model, "-device", "cpu", "--disable_tta", "--score", "random")
    run(rank, *options)
    assert "| 4    |" in capsys.readouterr().out  # imagesUn of the dataset in the model's plans
    for name in ("half", "nan"):
        (images / f"{name}_0000.nii.gz").unlink()
    monkeypatch.delenv("nnUNet_raw")  # images of their own need no dataset
    run(rank, *options, "-i", images)
    assert "| 1    | whole" in capsys.readouterr().out


def test_rank_of_a_stock_model_needs_another_score(phantom_runs, capsys):
    arguments = ("-d", 500, "-m", phantom_runs.control.parent, "-device", "cpu", "--disable_tta")
    assert "which the score difficulty needs: take the training checkpoint" in refused(
        rank, *arguments
    )
    run(rank, *arguments, "--score", "entropy", "--by_patient")
    assert "| 4    |" in capsys.readouterr().out


def test_rank_knows_the_scores_of_the_ranking():
    assert rank.SCORES == ranking.SCORES


def test_bad_input_of_rank_gets_a_sentence(model, tmp_path, monkeypatch):
    options = ("-m", model, "-device", "cpu")
    assert "There is no dataset 777 in " in refused(rank, "-d", 777, *options)
    assert "has no image" in refused(rank, "-d", 500, "-i", tmp_path, *options)
    monkeypatch.delenv("nnUNet_raw")
    assert "nnUNet_raw is not set" in refused(rank, "-d", 500, *options)


def test_rank_names_half_a_scan_and_leaves_it_out(model, images, tmp_path, capsys):
    file = tmp_path / "ranking.csv"
    arguments = ("-d", 500, "-i", images, "-m", model, "-device", "cpu", "--disable_tta")
    with pytest.raises(SystemExit) as ended:
        run(rank, *arguments, "-o", file)
    assert ended.value.code == 1
    output = capsys.readouterr()
    assert_failures_are_last(output.err)
    assert "| 1    | whole" in output.out
    assert "half  " not in output.out
    with file.open(encoding="utf-8", newline="") as rows:
        assert [row["case"] for row in csv.DictReader(rows)] == ["whole"]


def test_rank_of_damaged_scans_only_writes_nothing(model, images, tmp_path, capsys):
    (images / "whole_0000.nii.gz").unlink()
    file = tmp_path / "ranking.csv"
    arguments = ("-d", 500, "-i", images, "-m", model, "-device", "cpu", "--by_patient", "-k", 1)
    with pytest.raises(SystemExit) as ended:
        run(rank, *arguments, "-o", file)
    assert ended.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == "2 of 2 cases failed."
    assert not file.exists()


def test_a_ranking_that_cannot_be_written_is_shown_before(model, small_disk, capsys):
    (small_disk.folder / "data").write_bytes(bytes(256 * 1024))
    file = small_disk.folder / "ranking.csv"
    arguments = ("-d", 500, "-m", model, "-device", "cpu", "--disable_tta")
    assert f"{file} could not be written: no space left" in refused(rank, *arguments, "-o", file)
    assert "| 4    |" in capsys.readouterr().out
    assert [path.name for path in small_disk.folder.iterdir()] == ["data"]


# ---- nnUNetv2_spmc_report ------------------------------------------------------------------------


def test_report_writes_one_file(phantom_runs, tmp_path, capsys):
    path = tmp_path / "new" / "report.html"
    runs = (phantom_runs.control, phantom_runs.spmc, phantom_runs.spmc)
    run(
        report,
        *runs,
        "-o",
        path,
        "--cases",
        1,
        "--no_viewer",
        "--no_maps",
        "--title",
        "Phantom",
        "-np",
        0,
    )
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    assert "<h1>Phantom</h1>" in path.read_text(encoding="utf-8")
    assert "Wrote " in capsys.readouterr().out


def test_bad_input_of_report_gets_a_sentence(phantom_runs, tmp_path):
    page = tmp_path / "report.html"
    assert "is no folder" in refused(report, tmp_path / "nowhere", "-o", page)
    assert "is no fold of a trained model" in refused(report, tmp_path, "-o", page)
    unstarted = shutil.copytree(phantom_runs.spmc.parent, tmp_path / "model") / "fold_all"
    for file in unstarted.glob("*.pth"):
        file.unlink()
    assert "has no checkpoint" in refused(report, unstarted, "-o", page)
    assert not page.exists()


def test_report_takes_a_device_processes_and_predictions():
    parser = report.build_parser()
    arguments = parser.parse_args(
        ["a", "b", "-o", "r.html", "-device", "mps", "-np", "3", "-pred", "p", "q"]
    )
    assert arguments.runs == [Path("a"), Path("b")]
    assert (arguments.device, arguments.np) == ("mps", 3)
    assert arguments.pred == [Path("p"), Path("q")]
    assert parser.parse_args(["a", "-o", "r.html"]).device is None


@pytest.mark.parametrize(
    "wrong",
    [
        ("-np", -1),
        ("-device", "tpu"),
        ("-pred", "one", "two"),
        ("-pred", "one", "--validation"),
        ("--cases", -1),
        ("-o", "report"),
    ],
)
def test_wrong_options_of_report_end_with_status_2(phantom_runs, tmp_path, wrong):
    with pytest.raises(SystemExit) as ended:
        run(report, phantom_runs.spmc, "-o", tmp_path / "report.html", *wrong)
    assert ended.value.code == 2


@pytest.mark.parametrize(("device", "gpu"), [("cuda", "GPU"), ("mps", "Apple GPU")])
def test_a_device_that_is_not_there_is_a_sentence(phantom_runs, tmp_path, monkeypatch, device, gpu):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    page = tmp_path / "report.html"
    message = refused(report, phantom_runs.spmc, "-o", page, "-device", device)
    assert re.search(f"There is no {gpu} that PyTorch can use.*; take -device cpu", message)


def test_report_predicts_on_the_device_that_is_asked_for(copied_run, tmp_path, monkeypatch):
    fold, _ = copied_run
    devices = []
    original = run_record.load_model

    def load(*arguments, device):
        devices.append(device)
        return original(*arguments, device="cpu")

    monkeypatch.setattr(run_record, "load_model", load)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    options = ("-o", tmp_path / "report.html", "-np", 0, "--no_viewer")
    run(report, fold, *options, "-device", "cuda")
    assert devices == ["cuda"]


def test_report_says_what_it_does_and_what_came_out(copied_run, tmp_path, capsys):
    fold, _ = copied_run
    run(report, fold, "-o", tmp_path / "report.html", "-np", 0, "--no_viewer", "-device", "cpu")
    lines = capsys.readouterr().out.splitlines()
    expected = (
        "Predicting 1 test case of nnUNetTrainerSPMC",
        "[1/1] test_000: mean confidence",
        "Measuring the test cases of nnUNetTrainerSPMC",
        "[1/1] test_000: nnUNetTrainerSPMC",
        "Drawing the page",
        "SPMC: Dice ",
        "Wrote ",
    )
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)


def test_report_judges_by_validation_cases_if_asked(copied_run, tmp_path):
    fold, _ = copied_run
    page = tmp_path / "report.html"
    run(report, fold, "-o", page, "-np", 0, "--no_viewer", "--no_maps", "--validation")
    assert "Metrics of the validation cases" in page.read_text(encoding="utf-8")
    assert not (fold / "test").exists()


@pytest.fixture
def copied_run(phantom_runs, tmp_path, monkeypatch):
    """A copy of the run and of its raw images that a test may damage: (fold, imagesTr)."""
    raw = shutil.copytree(phantom_runs.raw, tmp_path / "raw" / phantom_runs.raw.name)
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    return shutil.copytree(phantom_runs.spmc.parent, tmp_path / "model") / "fold_all", raw


def dangling(file):
    file.unlink()
    file.symlink_to("nowhere.nii.gz")


@pytest.mark.parametrize("damage", [lambda file: halved(file, file), dangling])
def test_report_goes_on_beside_a_bad_scan_and_names_it_last(copied_run, tmp_path, capsys, damage):
    fold, raw = copied_run
    file = raw / "imagesTr" / "train_000_0000.nii.gz"
    damage(file)
    page = tmp_path / "report.html"
    with pytest.raises(SystemExit) as ended:
        run(report, fold, "-o", page, "--no_maps", "--no_viewer", "--cases", 9, "-np", 0)
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith(f"failed: train_000 of nnUNetTrainerSPMC: {file} ")
    text = page.read_text(encoding="utf-8")
    assert "train_001, nnUNetTrainerSPMC: image" in text
    assert "train_000, nnUNetTrainerSPMC: image" not in text
    assert f"{file} is" in text


def test_report_measures_the_other_cases_beside_a_bad_prediction(copied_run, tmp_path, capsys):
    fold, _ = copied_run
    file = fold / "validation" / "train_000.nii.gz"
    halved(file, file)
    with pytest.raises(SystemExit) as ended:
        run(
            report,
            fold,
            "-o",
            tmp_path / "report.html",
            "--no_maps",
            "--no_viewer",
            "--cases",
            0,
            "-np",
            0,
        )
    assert ended.value.code == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"failed: train_000 of nnUNetTrainerSPMC: {file} is truncated")


@pytest.mark.parametrize("content", ["{", "{}", '{"metric_per_case": [{"metrics": {}}]}'])
def test_a_damaged_summary_does_not_stop_the_report(copied_run, tmp_path, capsys, content):
    fold, _ = copied_run
    file = fold / "validation" / "summary.json"
    file.write_text(content)
    with pytest.raises(SystemExit) as ended:
        run(report, fold, "-o", tmp_path / "report.html", "--no_maps", "--no_viewer", "-np", 0)
    assert ended.value.code == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"failed: nnUNetTrainerSPMC: {file} ")
    assert line.endswith("validate again with nnUNetv2_train --val.")


# ---- damaged model folders -----------------------------------------------------------------------


def without(key):
    def change(file):
        content = json.loads(file.read_text())
        del content[key]
        file.write_text(json.dumps(content))

    return change


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("plans.json", lambda file: file.write_text("{"), "is not valid JSON"),
        ("plans.json", lambda file: file.write_text("[]"), "holds a list"),
        ("plans.json", without("configurations"), "has no 'configurations'"),
        ("dataset.json", lambda file: file.write_bytes(b"\xff"), "not UTF-8 text"),
        ("dataset.json", without("labels"), "has no 'labels'"),
        ("dataset.json", without("channel_names"), "has no 'channel_names'"),
        ("fold_all/checkpoint_final.pth", lambda file: file.write_bytes(b""), "not a whole ch"),
        ("fold_all/checkpoint_final.pth", lambda f: torch.save([1], f), "not a whole checkpoint"),
    ],
)
def test_a_damaged_model_folder_is_one_sentence_in_every_command(
    model, test_image, tmp_path, name, damage, message
):
    damaged, out = shutil.copytree(model, tmp_path / "model"), tmp_path / "out"
    page = tmp_path / "out.html"
    damage(damaged / name)
    options = ("-m", damaged, "-device", "cpu")
    for sentence in (
        refused(uncertainty, "-i", test_image.parent, "-o", out, *options),
        refused(rank, "-d", 500, *options),
        refused(export, "-i", damaged, "-o", out),
        refused(report, damaged / "fold_all", "-o", page, "--no_viewer"),
    ):
        assert sentence.startswith(f"error: {damaged / name}")
        assert message in sentence
        assert "\n" not in sentence
    assert not out.exists()
    assert not page.exists()
    assert list(tmp_path.glob(".*")) == []


def change_checkpoint(file, **changes):
    torch.save(torch.load(file, weights_only=False) | changes, file)


def test_weights_that_do_not_fit_the_plans_are_one_sentence(model, test_image, tmp_path):
    damaged, out = shutil.copytree(model, tmp_path / "model"), tmp_path / "out"
    file = damaged / "fold_all" / "checkpoint_final.pth"
    weights = torch.load(file, weights_only=False)["network_weights"]
    change_checkpoint(file, network_weights=dict(list(weights.items())[1:]))
    options = ("-m", damaged, "-device", "cpu")
    sentence = refused(uncertainty, "-i", test_image.parent, "-o", out, *options)
    assert sentence.startswith(f"error: {file} does not fit {damaged / 'plans.json'}")
    assert "cannot be loaded: " in refused(export, "-i", damaged, "-o", out)
    change_checkpoint(file, init_args={"configuration": "3d_huge"})
    sentence = refused(uncertainty, "-i", test_image.parent, "-o", out, *options)
    assert "plans.json has no configuration 3d_huge" in sentence
    assert "has no init_args.plans, init_args.fold" in refused(export, "-i", damaged, "-o", out)


def test_an_exported_model_has_no_training_to_report(phantom_runs, tmp_path, monkeypatch):
    folder = Path(discovery.__file__).parent
    monkeypatch.setenv("nnUNet_extTrainer", str(folder))
    run(export, "-i", phantom_runs.spmc.parent, "-o", tmp_path / "out")
    sentence = refused(report, tmp_path / "out" / "fold_all", "-o", tmp_path / "report.html")
    assert "does not hold 'logging'" in sentence


def test_a_damaged_fingerprint_is_not_exported(model, tmp_path):
    damaged = shutil.copytree(model, tmp_path / "model")
    (damaged / "dataset_fingerprint.json").write_text("{")
    sentence = refused(export, "-i", damaged, "-o", tmp_path / "out")
    assert "dataset_fingerprint.json is not valid JSON" in sentence
    assert not (tmp_path / "out").exists()


def test_a_ranking_is_not_written_onto_a_folder(model, tmp_path):
    with pytest.raises(SystemExit) as ended:
        run(rank, "-d", 500, "-m", model, "-o", tmp_path)
    assert ended.value.code == 2
