import json
import shutil

import nibabel
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from nnunetv2_spmc.reports.case_views import case_view
from nnunetv2_spmc.reports.run_record import RunRecord
from scripts import demo_figure, figures
from tests.reports.oriented_scans import side_of_block, view_of, write_scan

CLASSES = {1: "organ", 2: "core"}


@pytest.fixture
def with_snapshots(phantom_runs, tmp_path):
    """A run whose folder holds checkpoints of epochs 1 and 2, one of them twice."""
    folder = shutil.copytree(phantom_runs.spmc.parent, tmp_path / "model") / "fold_all"
    checkpoint = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    for name, epoch in (("epoch_1", 1), ("best", 2)):
        torch.save(checkpoint | {"current_epoch": epoch}, folder / f"checkpoint_{name}.pth")
    return folder


def test_checkpoints_are_ordered_by_epoch_each_once(with_snapshots):
    assert figures.checkpoints_over_time(RunRecord.load(with_snapshots)) == {
        1: "checkpoint_epoch_1.pth",
        2: "checkpoint_final.pth",
    }


def test_all_figures_are_drawn(phantom_runs, with_snapshots, tmp_path, capsys):
    output = tmp_path / "docs"
    arguments = [str(phantom_runs.control), str(with_snapshots), "-o", str(output)]
    figures.main([*arguments, "--case", "train_001", "--slice", "7"])
    names = ["common_difficulty.png", "epochs.png", "uncertainty.png"]
    assert sorted(path.name for path in output.iterdir()) == names
    for name in names:
        assert imread(output / name).std() > 0.1
        assert (output / name).stat().st_size < 300_000
    # fold_all: every labeled scan is one of the training
    assert "train_001, slice 8 of 16 (axial), a training scan" in capsys.readouterr().out


def panel_titles(figure):
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_every_panel_has_a_name_of_its_own_and_the_figure_that_of_the_scan(phantom_runs):
    runs = [RunRecord.load(folder) for folder in (phantom_runs.control, phantom_runs.spmc)]
    images = runs[1].validation_images("train_001")
    maps = {name: run.predict(images) for name, run in zip("ab", runs, strict=True)}
    shown = figures.Slice(
        case_view(runs[1], "train_001", with_maps=False), 7, "a training scan", CLASSES
    )
    for figure, number in (
        (figures.draw_uncertainty(shown, maps), 6),
        (figures.draw_common_difficulty(shown, maps["b"], 0.7), 8),
        (figures.draw_epochs(shown, {1: maps["b"], 2: maps["b"]}), 4),
    ):
        titles = panel_titles(figure)
        assert len(set(titles)) == len(titles) == number, titles
        assert figure.get_suptitle() == "a training scan"
        (legend,) = figure.legends
        assert {"organ", "core"} <= {text.get_text() for text in legend.get_texts()}
    assert titles[1:3] == ["epoch 1", "epoch 2"]


def test_without_auxiliary_branch_the_first_figure_is_drawn_alone(phantom_runs, tmp_path, capsys):
    figures.main([str(phantom_runs.control), "-o", str(tmp_path), "--case", "train_001"])
    assert [path.name for path in tmp_path.iterdir()] == ["uncertainty.png"]
    assert "no run has a second branch" in capsys.readouterr().out


def test_bad_input_is_a_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .* is no folder"):
        figures.main([str(tmp_path / "nowhere"), "-o", str(tmp_path)])


@pytest.mark.parametrize(("name", "letters"), [("LAS", "RLAP"), ("RPI", "RLAP"), ("PSR", "APSI")])
def test_the_figures_of_the_method_are_radiological_too(name, letters, tmp_path):
    view = view_of(write_scan(tmp_path, name))
    shown = figures.Slice(view, figures.slice_with_most(view.reference), name, CLASSES)
    _, ((plain, labels, confidence, mask),) = shown.grid(1, 4)
    shown.image(plain)
    shown.prediction(labels, view.prediction)
    shown.confidence(confidence, view.confidence)
    shown.mask(mask, view.common_difficulty)
    for axes in (plain, labels, confidence, mask):
        assert "".join(text.get_text() for text in axes.texts) == letters
    assert side_of_block(plain.images[0].get_array()) == ("left", "top")
    for axes in (labels, mask):
        assert side_of_block(axes.images[-1].get_array().mask == 0) == ("left", "top")
    assert side_of_block(-confidence.images[0].get_array()) == ("left", "top")


@pytest.fixture
def demo_folders(tmp_path):
    """Images, labels and a prediction folder of a scan whose header runs to the left and back."""
    scan = nibabel.load(write_scan(tmp_path, "LPI"))
    block = (scan.get_fdata() > 150).astype(np.uint8)
    images, labels, prediction = (tmp_path / name for name in ("images", "labels", "spmc"))
    for folder in (images, labels, prediction):
        folder.mkdir()
    nibabel.save(scan, images / "scan_0000.nii.gz")
    for folder in (labels, prediction):
        nibabel.save(nibabel.Nifti1Image(block, scan.affine), folder / "scan.nii.gz")
    probabilities = np.stack([1 - 0.4 * block.T, 0.4 * block.T])
    np.savez(prediction / "scan.npz", probabilities=probabilities)
    summary = {"mean": {"1": {"Dice": 0.9}}, "foreground_mean": {"Dice": 0.9}}
    (prediction / "summary.json").write_text(json.dumps(summary))
    return images, labels, prediction


def test_the_figure_of_the_demo_is_radiological_and_names_its_slice(demo_folders):
    images, labels, prediction = demo_folders
    figure = demo_figure.draw(images, labels, [prediction])
    panels = [axes for axes in figure.axes if axes.images and axes.texts]
    assert len(panels) == 4
    for axes in panels:
        assert "".join(text.get_text() for text in axes.texts) == "RLAP"
    assert side_of_block(panels[0].images[0].get_array()) == ("left", "top")
    stored = nibabel.load(labels / "scan.nii.gz").get_fdata()
    first = int(stored.any(axis=(0, 1)).argmax())
    assert panels[0].get_title() == f"scan, slice {first + 1} of {stored.shape[2]} (axial)"
