import json
import shutil

import nibabel
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from nnunetv2_spmc.evaluation.case_metrics import ClassMetrics
from nnunetv2_spmc.evaluation.metrics_csv import write_metrics_csv
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
def demo(tmp_path):
    """The folder of a demo with two scans; the scan of the test runs to the left and back."""
    folder = tmp_path / "demo"
    raw = folder / "nnUNet_raw" / "Dataset500_Phantom"
    for name in ("imagesTs", "labelsTs"):
        (raw / name).mkdir(parents=True)
    scan = nibabel.load(write_scan(tmp_path, "LPI"))
    block = nibabel.Nifti1Image((scan.get_fdata() > 150).astype(np.uint8), scan.affine)
    (raw / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "organ": 1}}))
    (raw / "split.json").write_text(json.dumps({"seed": 3}))
    dice = {"control": (0.5, 0.7), "view_control": (0.6, 0.6), "spmc": (0.8, 0.7)}
    for name, values in (dice | {"all_labels": (0.9, 0.9)}).items():
        (folder / name).mkdir()
        rows = [
            ClassMetrics(case, "organ", value, value / 2, 1.0, 1.0, 1.0, 1.0, 10, 10, "ok")
            for case, value in zip("ab", values, strict=True)
        ]
        write_metrics_csv(folder / name / "metrics.csv", rows)
        for case in "ab":
            nibabel.save(block, folder / name / f"{case}.nii.gz")
    for case in "ab":
        nibabel.save(scan, raw / "imagesTs" / f"{case}_0000.nii.gz")
        nibabel.save(block, raw / "labelsTs" / f"{case}.nii.gz")
    return folder


def test_the_demo_prints_its_results_and_shows_the_scan_in_the_middle(demo, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["demo_figure.py", str(demo)])
    demo_figure.main()
    printed = capsys.readouterr().out
    assert "SPMC minus control: +0.150" in printed
    assert "SPMC minus view control: +0.150" in printed
    results = {"control": 0.6, "view_control": 0.6, "spmc": 0.75, "all_labels": 0.9}
    assert json.loads((demo / "results.json").read_text()) == results
    assert imread(demo / "demo.png").std() > 0.1
    # differences to the control: 0.3 on a, 0 on b, the lower one of the two in the middle
    assert demo_figure.median_scan(demo_figure.compared(demo)["control"]) == "b"


def test_demos_of_several_seeds_are_a_table(demo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["demo_figure.py", str(demo)])
    demo_figure.main()
    capsys.readouterr()
    other = shutil.copytree(demo, tmp_path / "other")
    (other / "nnUNet_raw" / "Dataset500_Phantom" / "split.json").write_text(json.dumps({"seed": 4}))
    better = {"control": 0.7, "view_control": 0.8, "spmc": 0.75, "all_labels": 0.9}
    (other / "results.json").write_text(json.dumps(better))
    monkeypatch.setattr("sys.argv", ["demo_figure.py", str(demo), str(other)])
    demo_figure.main()
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| 3 | 0.600 | 0.600 | 0.750 | 0.900 | +0.150 | +0.150 |",
        "| 4 | 0.700 | 0.800 | 0.750 | 0.900 | +0.050 | -0.050 |",
        "| mean | 0.650 | 0.700 | 0.750 | 0.900 | +0.100 | +0.050 |",
    ]


@pytest.mark.parametrize("folders", [["nowhere"], ["demo", "nowhere"], ["demo", "demo"]])
def test_what_is_no_finished_demo_is_named(folders, demo, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["demo_figure.py", *(str(tmp_path / f) for f in folders)])
    missing = {"nowhere": r"nowhere has no nnUNet_raw", "demo": r"demo has no results\.json"}
    with pytest.raises(SystemExit, match=f"error: .*{missing[folders[0]]}.*; "):
        demo_figure.main()


def test_the_scans_of_the_demo_are_radiological_and_named(demo):
    raw = demo / "nnUNet_raw" / "Dataset500_Phantom"
    views = {name: demo_figure.read_view(raw, demo / name, "a") for name in ("control", "spmc")}
    figure = demo_figure.draw(
        {"control": 0.6, "spmc": 0.75}, demo_figure.compared(demo), views, "a", {"organ": 1}
    )
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == ["image", "control", "SPMC"]
    for axes in panels:
        assert "".join(text.get_text() for text in axes.texts) == "RLAP"
    assert side_of_block(panels[0].images[0].get_array()) == ("left", "top")
    (below,) = [part for part in figure.subfigs if part.get_suptitle()]
    assert "a, slice" in below.get_suptitle()
    assert "(axial)" in below.get_suptitle()
