import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import nnunetv2_spmc
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.evaluation.case_metrics import ClassMetrics
from nnunetv2_spmc.evaluation.metrics_csv import write_metrics_csv
from nnunetv2_spmc.reports.run_files import case_counts, curves


@pytest.fixture
def run(phantom_runs):
    return nnunetv2_spmc.load_run(phantom_runs.spmc)


@pytest.fixture
def run_folder(phantom_runs, tmp_path):
    """A copy of the fold folder to damage."""
    return shutil.copytree(phantom_runs.spmc.parent, tmp_path / "model") / "fold_all"


def test_importing_the_package_does_not_import_torch():
    code = "import sys, nnunetv2_spmc; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_repr_of_a_run_fits_a_line(run, tmp_path):
    assert repr(run).startswith(f"<Run {run.dataset_name}: SPMC, ")
    folder = tmp_path / "Dataset510_Liver" / run.folder.parent.name / "fold_0"
    long = replace(
        run,
        folder=folder,
        trainer="nnUNetTrainerSupervisedControl",
        configuration="3d_fullres",
        epochs_done=1000,
    )
    text = "<Run Dataset510_Liver: SupervisedControl, 3d_fullres, fold 0, 1000 epochs>"
    assert repr(long) == text
    assert len(text) < 80


def test_curves_are_those_of_the_logger(run, phantom_runs):
    logging = torch.load(phantom_runs.spmc / "checkpoint_final.pth", weights_only=False)["logging"]
    assert isinstance(run.curves, pd.DataFrame)
    assert list(run.curves.index) == [0, 1]
    assert run.curves["lambda"].tolist() == logging["lambda"]
    assert run.curves["train_losses"].tolist() == logging["train_losses"]
    per_class = np.array(logging["dice_per_class_or_region"], dtype=float)
    assert np.allclose(run.curves[["dice_organ", "dice_core"]], per_class, equal_nan=True)
    seconds = np.subtract(logging["epoch_end_timestamps"], logging["epoch_start_timestamps"])
    assert np.allclose(run.curves["seconds"], seconds)


def test_curves_of_unequal_length_are_filled_with_nan():
    """A killed training may have logged the loss, but not the end of its last epoch."""
    logging = {
        "train_losses": [1.0, 0.5],
        "dice_per_class_or_region": [[0.1, 0.2]],
        "other": [math.nan, [0.3, 0.4]],
        "epoch_start_timestamps": [10.0, 20.0],
        "epoch_end_timestamps": [19.0],
    }
    table = curves(logging, ["liver", "tumor"])
    assert table["train_losses"].tolist() == [1.0, 0.5]
    assert table["dice_tumor"][0] == 0.2
    assert math.isnan(table["dice_tumor"][1])
    assert table["other_liver"][1] == 0.3
    assert math.isnan(table["other_liver"][0])
    assert table["seconds"][0] == 9.0


def test_settings_and_facts(run):
    assert run.settings["tau"] == 0.7
    assert run.settings["epochs"] == run.epochs_done == 2
    assert run.is_finished
    assert (run.trainer, run.configuration, run.fold) == ("nnUNetTrainerSPMC", "2d_small", "all")
    assert run.case_counts == (5, 5)
    assert len(run.unlabeled_cases) == 4
    assert run.versions["nnunetv2-spmc"] == nnunetv2_spmc.__version__
    assert run.resume_command == "nnUNetv2_train 500 2d_small all -tr nnUNetTrainerSPMC --c"


def test_settings_of_a_stock_run_come_from_debug_json(run_folder):
    file = run_folder / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    del checkpoint["semi_supervised"]
    torch.save(checkpoint | {"trainer_name": "nnUNetTrainer"}, file)
    stock = nnunetv2_spmc.load_run(run_folder)
    assert stock.settings["epochs"] == 2
    assert stock.settings["initial_lr"] == 0.01
    assert list(stock.unlabeled_cases) == []


def test_metrics_are_those_of_the_summary(run, phantom_runs):
    summary = json.loads((phantom_runs.spmc / "validation" / "summary.json").read_text())
    first = summary["metric_per_case"][0]["metrics"]["2"]
    row = run.metrics.query("case == 'train_000' and label == 'core'").iloc[0]
    assert row["dice"] == pytest.approx(first["Dice"], nan_ok=True)
    assert row["reference_voxels"] == first["n_ref"]
    assert math.isnan(row["hd95_mm"])
    assert len(run.metrics) == 10


def test_metrics_csv_is_preferred(run_folder):
    row = ClassMetrics("train_000", "organ", 0.5, 0.25, 3.0, 1.0, 3.0, 1.0, 10, 12, "ok")
    write_metrics_csv(run_folder / "validation" / "metrics.csv", [row])
    metrics = nnunetv2_spmc.load_run(run_folder).metrics
    assert metrics["hd95_mm"].tolist() == [3.0]


def test_metrics_of_earlier_predictions_do_not_count(run_folder):
    """After a longer training, nnU-Net validates again, and metrics.csv is of the old model."""
    validation = run_folder / "validation"
    file, summary = validation / "metrics.csv", validation / "summary.json"
    now = nnunetv2_spmc.load_run(run_folder).metrics
    rows = [ClassMetrics(**row) for row in now.assign(hd95_mm=3.0).to_dict("records")]
    write_metrics_csv(file, rows)
    os.utime(summary, (2e9, 2e9))  # a copy may be newer, too, of the same predictions
    assert nnunetv2_spmc.load_run(run_folder).metrics["hd95_mm"].eq(3.0).all()
    rows[0] = replace(rows[0], predicted_voxels=rows[0].predicted_voxels + 1)
    write_metrics_csv(file, rows)
    os.utime(file, (1e9, 1e9))
    assert nnunetv2_spmc.load_run(run_folder).metrics["hd95_mm"].isna().all()
    os.utime(summary, (5e8, 5e8))
    assert nnunetv2_spmc.load_run(run_folder).metrics["hd95_mm"].eq(3.0).all()


def test_regions_get_their_names(run_folder):
    dataset_file = run_folder.parent / "dataset.json"
    dataset = json.loads(dataset_file.read_text())
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    dataset_file.write_text(json.dumps(dataset | {"labels": labels, "regions_class_order": [1, 2]}))
    summary_file = run_folder / "validation" / "summary.json"
    summary_file.write_text(summary_file.read_text().replace('"1": {', '"(1, 2)": {'))
    assert set(nnunetv2_spmc.load_run(run_folder).metrics["label"]) == {"whole", "core"}
    labels["core"] = [2]
    dataset_file.write_text(json.dumps(dataset | {"labels": labels, "regions_class_order": [1, 2]}))
    summary_file.write_text(summary_file.read_text().replace('"2": {', '"(2,)": {'))
    assert set(nnunetv2_spmc.load_run(run_folder).metrics["label"]) == {"whole", "core"}


def test_predict_takes_one_file_or_one_per_channel(run, test_image):
    maps = run.predict(test_image)
    assert maps.segmentation.shape == (16, 24, 24)
    assert np.array_equal(run.predict([str(test_image)]).confidence, maps.confidence)
    with pytest.raises(DataError, match=r"nowhere\.nii\.gz does not exist"):
        run.predict("nowhere.nii.gz")


def test_plots_are_figures_with_content(run):
    case = run.mean_dice().index[0] if len(run.mean_dice()) else "train_000"
    for figure in (run.plot_curves(), run.plot_metrics(), run.plot_case(case)):
        assert isinstance(figure, Figure)
    titles = [axes.get_title() for axes in run.plot_curves().axes]
    assert "lambda (ramp-up weight)" in titles
    assert "common-difficulty voxels" in [a.get_title() for a in run.plot_case(case).axes]


def test_an_unfinished_run_is_loaded_from_its_latest_checkpoint(run_folder):
    final = run_folder / "checkpoint_final.pth"
    checkpoint = torch.load(final, weights_only=False)
    for name, epoch in (("latest", 1), ("best", 2)):
        torch.save(checkpoint | {"current_epoch": epoch}, run_folder / f"checkpoint_{name}.pth")
    final.unlink()
    run = nnunetv2_spmc.load_run(run_folder)
    assert not run.is_finished
    assert run.checkpoint_name == "checkpoint_best.pth"
    assert run.epochs_done == 2


def test_a_run_without_validation_says_how_to_get_it(run_folder):
    shutil.rmtree(run_folder / "validation")
    with pytest.raises(DataError, match=r"no validation results.* nnUNetTrainerSPMC --val"):
        _ = nnunetv2_spmc.load_run(run_folder).metrics


def test_a_run_without_checkpoint_is_refused(run_folder):
    for file in run_folder.glob("*.pth"):
        file.unlink()
    with pytest.raises(
        DataError, match="has no checkpoint: the training has not finished its first"
    ):
        nnunetv2_spmc.load_run(run_folder)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match="is no fold of a trained model"):
        nnunetv2_spmc.load_run(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        nnunetv2_spmc.load_run(tmp_path / "nowhere")


def test_a_model_folder_stands_for_its_only_fold(run_folder):
    assert nnunetv2_spmc.load_run(run_folder.parent).folder == run_folder
    (run_folder.parent / "fold_1").mkdir()
    with pytest.raises(DataError, match="with the folds: fold_1, fold_all; name one"):
        nnunetv2_spmc.load_run(run_folder.parent)


def test_the_numbers_of_cases_come_from_the_log(tmp_path):
    folder = tmp_path / "fold_0"
    folder.mkdir()
    assert case_counts(folder, {}) == (None, None)
    log = folder / "training_log_2026_01_01.txt"
    log.write_text("x: This split has 14 training and 20 validation cases. \n", encoding="utf-8")
    assert case_counts(folder, {}) == (14, 20)


def test_the_numbers_of_cases_come_from_the_newest_log(tmp_path):
    """In its names, nnU-Net writes the 9th of a month as 9."""
    folder = tmp_path / "fold_0"
    folder.mkdir()
    for day, number in ((9, 8), (10, 16)):
        log = folder / f"training_log_2026_11_{day}_12_00_00.txt"
        log.write_text(f"x: This split has {number} training and 2 validation cases. \n")
    assert case_counts(folder, {}) == (16, 2)


def test_a_metric_nobody_measured_is_refused(run):
    with pytest.raises(
        DataError, match="No run has the metric hd95_mm: run nnUNetv2_spmc_evaluate"
    ):
        run.plot_metrics("hd95_mm")
    with pytest.raises(DataError, match="There is no metric dise; take one of dice, jaccard"):
        run.plot_metrics("dise")
