import json
import shutil

import nibabel
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from nnunetv2_spmc import load_run
from scripts import demo_figure, figures
from tests.reports.oriented_scans import side_of_block, view_of, write_scan


@pytest.fixture
def with_snapshots(phantom_runs, tmp_path):
    """A run whose folder holds checkpoints of epochs 1 and 2, one of them twice."""
    folder = shutil.copytree(phantom_runs.spmc.parent, tmp_path / "model") / "fold_all"
    checkpoint = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    for name, epoch in (("epoch_1", 1), ("best", 2)):
        torch.save(checkpoint | {"current_epoch": epoch}, folder / f"checkpoint_{name}.pth")
    return folder


def test_checkpoints_are_ordered_by_iteration_each_once(with_snapshots):
    assert figures.checkpoints_over_time(load_run(with_snapshots)) == {
        2: "checkpoint_epoch_1.pth",
        4: "checkpoint_final.pth",
    }


def test_all_figures_are_drawn(phantom_runs, with_snapshots, tmp_path, capsys):
    output = tmp_path / "docs"
    arguments = [str(phantom_runs.control), str(with_snapshots), "-o", str(output)]
    figures.main([*arguments, "--case", "train_001", "--slice", "7"])
    names = ["common_difficulty.png", "iterations.png", "uncertainty.png"]
    assert sorted(path.name for path in output.iterdir()) == names
    for name in names:
        assert imread(output / name).std() > 0.1
        assert (output / name).stat().st_size < 300_000
    assert "Case train_001, slice 8 of 16" in capsys.readouterr().out


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
    shown = figures.Slice(view, figures.slice_with_most(view.reference))
    _, ((plain, labels, confidence, mask),) = shown.grid(1, 4)
    shown.image(plain)
    shown.labels(labels, view.reference)
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
