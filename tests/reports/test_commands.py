"""nnUNetv2_spmc_uncertainty, _rank and _report, called as the commands are."""

import csv
import shutil
from functools import partial

import nibabel
import pytest
import torch

from nnunetv2_spmc.cli import rank, report, uncertainty
from nnunetv2_spmc.inference import ranking
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
    empty, channels = tmp_path / "empty", tmp_path / "channels"
    empty.mkdir()
    channels.mkdir()
    for number in range(2):
        shutil.copy(image, channels / f"case_000{number}.nii.gz")
    options = ("-o", tmp_path / "out", "-device", "cpu")
    assert "has no image: files must end in _0000.nii.gz" in refused(
        uncertainty, "-i", empty, "-m", model, *options
    )
    assert "case in" in refused(uncertainty, "-i", channels, "-m", model, *options)
    assert "has the channels 0000, 0001, but the model needs 0000 to 0000 (MRI)" in refused(
        uncertainty, "-i", channels, "-m", model, *options
    )
    assert "has no checkpoint_final.pth in fold_7" in refused(
        uncertainty, "-i", image.parent, "-m", model, "-f", "7", *options
    )
    assert not (tmp_path / "out").exists()


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
    assert f"| 1    | {rows[0]['case']}" in capsys.readouterr().out


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
    run(report, *runs, "-o", path, "--cases", 1, "--no_viewer", "--no_maps", "--title", "Phantom")
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
