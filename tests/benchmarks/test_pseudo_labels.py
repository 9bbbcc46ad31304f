from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import long_csv
from benchmarks.accuracy import over_time, pictures, pseudo_labels, voxel_counts
from nnunetv2_spmc import methods
from tests.conftest import PlannedPhantom
from tests.in_process import leave_out_plots


def voxels(*foreground: float) -> torch.Tensor:
    """Return probabilities of two classes, (2, voxels)."""
    probabilities = torch.tensor(foreground)
    return torch.stack([1 - probabilities, probabilities])


def test_voxels_are_counted_where_they_matter() -> None:
    counts = voxel_counts.Counts(classes=2, tau=0.7, temperature=0.1)
    # sure and right; unsure and wrong with a right teacher; unsure and right with an unsure
    # teacher, whose sharpened 0.5 is not trusted; sure and wrong
    main, auxiliary = voxels(0.9, 0.4, 0.6, 0.95), voxels(0.8, 0.8, 0.5, 0.9)
    counts.add(main, auxiliary, torch.tensor([1, 1, 1, 0]))
    summary = counts.summary()
    assert summary["wrong"] == 4 / 8  # an undecided branch says background
    assert summary["wrong_confident"] == 2 / 4
    assert summary["suspicious"] == 3 / 8
    # the second voxel of the main branch, the third of the auxiliary one
    assert summary["taught"] == 2 / 8
    assert summary["taught_student_right"] == 0
    assert summary["taught_teacher_right"] == 1
    assert summary["different"] == 0.5
    assert summary["different_main_right"] == summary["different_auxiliary_right"] == 0.5
    assert summary["dice_main"] == pytest.approx(2 * 2 / (3 + 3))
    assert summary["dice_auxiliary"] == pytest.approx(2 * 2 / (3 + 3))


def test_calibration_says_how_many_voxels_of_a_confidence_are_right() -> None:
    counts = voxel_counts.Counts(classes=2, tau=0.7, temperature=0.1)
    counts.add(voxels(0.92, 0.64), voxels(0.94, 0.02), torch.tensor([1, 1]))
    assert counts.calibration() == [
        {"confidence_above": 0.6, "share": "0.25", "right": "1"},
        {"confidence_above": 0.9, "share": "0.75", "right": "0.66667"},
    ]


@pytest.mark.parametrize("trainer", [methods.nnUNetTrainerSPMC, methods.nnUNetTrainerSPMC_paper])
def test_the_terms_add_up_to_the_gradient_of_a_step(
    make_trainer: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, trainer: Any
) -> None:
    leave_out_plots(monkeypatch)
    made = make_trainer(trainer, tau=0.9)
    made.on_train_start()
    made.current_epoch = 1  # lambda > 0
    made.on_train_epoch_start()
    batch = next(made.dataloader_train)
    torch.manual_seed(3)
    terms = pseudo_labels.term_gradients(made, batch)
    assert terms.keys() == {"supervised", "cdps", "cps", "splat"}
    assert all(gradient.norm() > 0 for gradient in terms.values())
    torch.manual_seed(3)  # the same noise and boxes
    monkeypatch.setattr(made, "_optimizer_step", lambda: None)  # leaves the gradients unclipped
    made.train_step(batch)
    step = torch.cat(
        [
            (torch.zeros_like(p) if p.grad is None else p.grad).double().flatten()
            for p in made.network.parameters()
        ]
    )
    torch.testing.assert_close(torch.stack(list(terms.values())).sum(0), step, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_run_is_measured_and_shown(
    make_trainer: Callable[..., Any],
    planned_phantom: PlannedPhantom,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    leave_out_plots(monkeypatch)
    run = tmp_path / "out" / "runs" / "phantom-spmc-seed1"
    run.mkdir(parents=True)
    for folder in (planned_phantom.raw.parent, planned_phantom.preprocessed.parent):
        (tmp_path / "out" / folder.name).symlink_to(folder)
    (tmp_path / "csv").mkdir()
    trainer = make_trainer(methods.nnUNetTrainerSPMC, epochs=2, keep_every=1)
    trainer.run_training()
    (run / "results").symlink_to(Path(os.environ["nnUNet_results"]))
    monkeypatch.setenv("nnUNet_spmc_settings", "")  # restores what the command sets
    arguments = ["--results", str(tmp_path / "csv"), "--batches", "2"]
    pseudo_labels.main([str(tmp_path / "out"), run.name, *arguments])
    rows = long_csv.read("pseudo_labels", tmp_path / "csv")
    assert {row["run"] for row in rows} == {run.name}
    times = over_time.read_times(rows)
    assert list(times[run.name]) == [1, 2]
    assert [at["lambda"] for at in times[run.name].values()] == [1.0, 1.0]  # 0.3 of two epochs
    titles = {run.name: "spmc, seed 1"}
    assert over_time.pseudo_label_table(times, titles).count("| spmc, seed 1 |") == 2
    assert over_time.gradient_table(times, titles).count("| spmc, seed 1 |") == 2
    bins = over_time.read_calibration(rows)
    assert sum(at["share"] for at in bins[run.name].values()) == pytest.approx(1, abs=1e-3)
    assert "spmc, seed 1: right (of all voxels)" in over_time.calibration_table(bins, titles)
    pictures.draw_pseudo_labels(times, titles, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 0


def test_a_run_without_checkpoints_of_the_way_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_n_proc_DA"):
        monkeypatch.setenv(variable, "")  # restores what the command sets
    with pytest.raises(SystemExit, match="a-run kept no checkpoints: train it with times"):
        pseudo_labels.main([str(tmp_path), "a-run"])
