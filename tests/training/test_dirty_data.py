"""Preprocessed cases that turn out to be damaged while a training runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.methods import nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl
from nnunetv2_spmc.unlabeled.plans_record import record_file
from nnunetv2_spmc.unlabeled.preprocessed_files import FILES_KEY
from nnunetv2_spmc.unlabeled.scan_record import RECORD_FILE
from tests.in_process import leave_out_plots
from tests.training_logs import log_of

WORKERS = pytest.mark.parametrize("workers", [0, 2])
PREPROCESS = "nnUNetv2_preprocess -d 500 -plans_name nnUNetPlans -c 2d_small"


@pytest.fixture
def data(planned_phantom, make_trainer, monkeypatch, tmp_path):
    """A copy of the preprocessed phantom with 24 unlabeled cases, without raw data."""
    folder = tmp_path / "preprocessed" / planned_phantom.name
    shutil.copytree(planned_phantom.preprocessed, folder)
    unlabeled = folder / "nnUNetPlans_2d_unlabeled"
    for number in range(4, 24):
        for ending in (".b2nd", "_seg.b2nd", ".pkl"):
            source = unlabeled / f"unlabeled_{number % 4:03d}{ending}"
            shutil.copy(source, unlabeled / f"unlabeled_{number:03d}{ending}")
    (folder / RECORD_FILE).unlink()  # it knows four scans
    files = record_file(unlabeled)
    content = json.loads(files.read_text())
    del content[FILES_KEY]  # 004 to 023 are copies of those that it knows
    files.write_text(json.dumps(content))
    monkeypatch.setenv("nnUNet_preprocessed", str(folder.parent))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    leave_out_plots(monkeypatch)
    return folder


def damage(folder, case):
    """Overwrite what is inside of a file: it keeps its ends and its size."""
    file = folder / f"{case}.b2nd"
    content = bytearray(file.read_bytes())
    content[200:-200] = b"\xff" * (len(content) - 400)
    file.write_bytes(content)


def train(make_trainer, monkeypatch, workers, trainer=nnUNetTrainerSPMC, **settings):
    monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
    made = make_trainer(trainer, epochs=1, iterations_per_epoch=12, **settings)
    try:
        made.run_training()
    finally:
        for loader in (made.dataloader_train, made.dataloader_val):
            if workers and loader is not None:
                loader._finish()
    return made


# ---- unlabeled cases ----------------------------------------------------------------------------


@pytest.mark.supported("stability", "an unlabeled case that cannot be read is left out and listed")
@WORKERS
@pytest.mark.slow
def test_an_unlabeled_case_is_named_left_out_and_listed_at_the_end(
    data, make_trainer, monkeypatch, capfd, workers
):
    damage(data / "nnUNetPlans_2d_unlabeled", "unlabeled_007")
    trainer = train(make_trainer, monkeypatch, workers, unlabeled_batch_size=16)
    assert (Path(trainer.output_folder) / "checkpoint_final.pth").is_file()
    log = log_of(trainer)
    assert log.count("The unlabeled case unlabeled_007 cannot be read (") == 1
    last = log.strip().splitlines()[-1]
    assert "1 of 24 preprocessed unlabeled cases cannot be read and were left out (unlabel" in last
    assert last.rstrip().endswith("-c 2d_small -p nnUNetPlans --verify.")
    assert "Traceback" not in capfd.readouterr().err


@WORKERS
@pytest.mark.slow
def test_more_than_a_twentieth_of_them_stop_the_training(data, make_trainer, monkeypatch, workers):
    for case in ("unlabeled_007", "unlabeled_011"):
        damage(data / "nnUNetPlans_2d_unlabeled", case)
    with pytest.raises(DataError, match=r"2 of 24 .* --verify\. That is more than 5% of them"):
        train(make_trainer, monkeypatch, workers, unlabeled_batch_size=16)


@pytest.fixture
def unlabeled_loader(data, make_trainer):
    trainer = make_trainer()
    trainer.on_train_start()
    return trainer.dataloader_train.data_loader.unlabeled


def test_cases_with_shares_keep_them_when_one_is_left_out(data, unlabeled_loader):
    damage(data / "nnUNetPlans_2d_unlabeled", "unlabeled_001")
    unlabeled_loader.indices = unlabeled_loader.indices[:3]
    unlabeled_loader.sampling_probabilities = np.array([0.25, 0.5, 0.25])
    drawn = [next(unlabeled_loader) for _ in range(20)]
    assert drawn[-1]["unreadable"].keys() == {"unlabeled_001"}
    assert {key for batch in drawn for key in batch["keys"]} == {"unlabeled_000", "unlabeled_002"}
    assert unlabeled_loader.sampling_probabilities.tolist() == [0.5, 0.5]


def test_when_none_is_left_the_last_one_is_named(data, unlabeled_loader):
    damage(data / "nnUNetPlans_2d_unlabeled", "unlabeled_001")
    unlabeled_loader.indices = unlabeled_loader.indices[1:2]
    with pytest.raises(DataError, match="No unlabeled case can be read; unlabeled_001: "):
        next(unlabeled_loader)


# ---- labeled cases ------------------------------------------------------------------------------


@pytest.mark.supported(
    "stability", "a labeled case that cannot be read stops the training and is named"
)
@pytest.mark.slow
@WORKERS
@pytest.mark.parametrize("trainer", [nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl])
def test_a_labeled_case_stops_the_training_with_its_name_and_the_remedy(
    data, make_trainer, monkeypatch, capfd, workers, trainer
):
    damage(data / "nnUNetPlans_2d", "train_003")
    sentence = rf"labeled case train_003 in .*nnUNetPlans_2d cannot be read \(.*\); .* {PREPROCESS}"
    with pytest.raises(DataError, match=sentence):
        train(make_trainer, monkeypatch, workers, trainer)
    if trainer is nnUNetTrainerSPMC:  # the control has nnU-Net's workers, which print more
        assert "Traceback" not in capfd.readouterr().err


def cut(folder, case):
    file = folder / f"{case}_seg.b2nd"
    file.write_bytes(file.read_bytes()[:-1])


def remove(folder, case):
    (folder / f"{case}.pkl").unlink()


@pytest.mark.parametrize("spoil", [cut, remove])
@pytest.mark.parametrize("trainer", [nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl])
def test_a_labeled_case_that_is_not_whole_is_refused_at_the_start(
    data, make_trainer, spoil, trainer
):
    spoil(data / "nnUNetPlans_2d", "train_001")
    made = make_trainer(trainer)
    with pytest.raises(
        DataError, match=rf"1 preprocessed labeled .* \(train_001\); .*{PREPROCESS}"
    ):
        made.run_training()


def test_a_validation_case_is_named_in_the_final_validation(data, make_trainer, monkeypatch):
    made = make_trainer()
    made.initialize()
    made.was_initialized = True
    (case,) = made.do_split()[1]
    damage(data / "nnUNetPlans_2d", case)

    class Predictor:
        def manual_initialization(self, *_):
            pass

    monkeypatch.setattr(
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.nnUNetPredictor", lambda **_: Predictor()
    )
    with pytest.raises(DataError, match=f"labeled case {case} in .* cannot be read"):
        made.perform_actual_validation()


# ---- workers and mistakes -----------------------------------------------------------------------


@pytest.mark.slow
@WORKERS
def test_a_mistake_of_the_program_names_the_case_and_keeps_its_traceback(
    data, make_trainer, monkeypatch, capfd, workers
):
    monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
    trainer = make_trainer(nnUNetTrainerSPMC)
    trainer.on_train_start()
    if workers:
        trainer.dataloader_train._finish()

    def fail(**_):
        raise ZeroDivisionError("in a transform")

    trainer.dataloader_train.data_loader.labeled.transforms = fail
    with pytest.raises(RuntimeError) as raised:
        next(trainer.dataloader_train)
    said = capfd.readouterr().err if workers else f"{raised.value} {raised.value.__cause__!r}"
    assert "Loading the labeled case train_00" in said
    assert "ZeroDivisionError" in said
    if workers:
        trainer.dataloader_val._finish()
