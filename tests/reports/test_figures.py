import shutil

import pytest
import torch
from matplotlib.image import imread

from nnunetv2_spmc import load_run
from scripts import figures


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
    assert "no run has an auxiliary branch" in capsys.readouterr().out


def test_bad_input_is_a_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"error: .* is no folder"):
        figures.main([str(tmp_path / "nowhere"), "-o", str(tmp_path)])
