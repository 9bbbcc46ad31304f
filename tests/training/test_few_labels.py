import json
import os
import shutil
from pathlib import Path

import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.methods import nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl
from nnunetv2_spmc.training.few_labels import ensure_fold_exists
from tests.killed_at import killed_at
from tests.training_logs import log_of


@pytest.fixture
def make_trainer_with(make_trainer, planned_phantom, monkeypatch, tmp_path):
    """A trainer on a copy of the phantom that keeps a few of its labeled cases, and no split."""

    def make(cases, trainer=nnUNetTrainerSPMC, **options):
        copy = tmp_path / "preprocessed" / planned_phantom.name
        shutil.copytree(planned_phantom.preprocessed, copy)
        (copy / "splits_final.json").unlink(missing_ok=True)
        labeled = copy / "nnUNetPlans_2d"
        names = sorted(file.stem for file in labeled.glob("*.pkl"))
        for name in names[cases:]:
            for file in labeled.glob(f"{name}*"):
                file.unlink()
        made = make_trainer(trainer, epochs=1, **options)
        made.preprocessed_dataset_folder_base = str(copy)
        made.preprocessed_dataset_folder = str(labeled)
        return made, copy / "splits_final.json", names[:cases]

    return make


@pytest.mark.slow
@pytest.mark.supported("few labels", "2 to 4 labeled cases: leave one out")
@pytest.mark.parametrize("cases", [2, 4])
def test_few_cases_are_validated_leaving_one_out(make_trainer_with, cases):
    trainer, file, names = make_trainer_with(cases, fold=cases - 1)
    trainer.run_training()
    splits = json.loads(file.read_text(encoding="utf-8"))
    assert [split["val"] for split in splits] == [[name] for name in names]
    assert all(sorted(split["train"] + split["val"]) == names for split in splits)
    folds = " ".join(map(str, range(cases)))
    assert f"after training them, nnUNetv2_predict -f {folds}" in log_of(trainer)


@pytest.mark.slow
@pytest.mark.supported("few labels", "1 labeled case: trained and validated on, with a warning")
@pytest.mark.parametrize("trainer", [nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl])
def test_a_single_case_is_trained_and_validated_on_with_a_warning(make_trainer_with, trainer):
    trainer, file, names = make_trainer_with(1, trainer)
    trainer.run_training()
    assert json.loads(file.read_text(encoding="utf-8")) == [{"train": names, "val": names}]
    assert "WARNING: fold 0 in " in log_of(trainer)
    assert "its validation Dice says nothing" in log_of(trainer)


@pytest.mark.supported("few labels", "a fold that such a dataset does not have", refused=True)
def test_a_fold_that_does_not_exist_is_refused(make_trainer_with):
    trainer, *_ = make_trainer_with(3, fold=3)
    with pytest.raises(DataError, match=r"no fold 3 for the 3 labeled cases: .* has 3 folds"):
        trainer.run_training()


@pytest.mark.slow
def test_the_end_of_a_training_says_how_to_predict(make_trainer):
    trainer = make_trainer(epochs=1, fold="all")
    trainer.run_training()
    expected = "nnUNetv2_predict -d Dataset500_Phantom -c 2d_small -p nnUNetPlans "
    assert f"{expected}-tr nnUNetTrainerSPMC -f all -i INPUT -o OUTPUT" in log_of(trainer)


def write_splits(folder, splits):
    file = folder / "splits_final.json"
    file.write_text(json.dumps(splits), encoding="utf-8")
    return file


def test_without_folds_nothing_is_written(tmp_path):
    ensure_fold_exists(tmp_path, ["a", "b"], "all", log=pytest.fail)
    assert list(tmp_path.iterdir()) == []


def test_with_enough_cases_nnunets_folds_are_written_whole(tmp_path):
    """nnU-Net would write them in place: killed meanwhile, it could not read them the next time."""
    file, cases = tmp_path / "splits_final.json", list("bacdefg")

    def killed_while_writing():
        killed_at(lambda: ensure_fold_exists(tmp_path, cases, 4, log=pytest.fail), os, "replace")

    killed_while_writing()
    assert not file.exists()
    ensure_fold_exists(tmp_path, cases, 4, log=pytest.fail)
    folds = generate_crossval_split(sorted(cases), seed=12345, n_splits=5)
    assert json.loads(file.read_text(encoding="utf-8")) == folds
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("fold", [-1, 5, 7])
def test_a_fold_that_nnunet_would_invent_is_refused(tmp_path, fold):
    with pytest.raises(DataError, match=f"no fold {fold} .*train 0 to 4, or all"):
        ensure_fold_exists(tmp_path, list("abcde"), fold, log=pytest.fail)


def test_a_split_of_the_user_stays(tmp_path):
    splits = [{"train": ["a", "c"], "val": ["b"]}]
    file = write_splits(tmp_path, splits)
    log = []
    ensure_fold_exists(tmp_path, ["a", "b", "c"], 0, log=log.append)
    assert json.loads(file.read_text(encoding="utf-8")) == splits
    assert log == [f"{file} has the folds 0: after training them, nnUNetv2_predict -f 0"]
    with pytest.raises(DataError, match="train 0 to 0, or all"):
        ensure_fold_exists(tmp_path, ["a", "b", "c"], 1, log=log.append)


def test_with_more_labels_a_split_for_few_is_made_anew(tmp_path):
    file = write_splits(tmp_path, [{"train": ["a"], "val": ["a"]}])
    log = []
    ensure_fold_exists(tmp_path, ["a", "b", "c"], 2, log=log.append)
    assert len(json.loads(file.read_text(encoding="utf-8"))) == 3
    assert "was made for 1 labeled cases" in log[0]
    ensure_fold_exists(tmp_path, list("abcdef"), 4, log=log.append)
    folds = generate_crossval_split(list("abcdef"), seed=12345, n_splits=5)
    assert json.loads(file.read_text(encoding="utf-8")) == folds


def test_a_split_of_the_user_that_leaves_cases_out_is_a_warning(tmp_path):
    file = write_splits(tmp_path, [{"train": ["a", "b"], "val": ["c"]}])
    log = []
    ensure_fold_exists(tmp_path, list("abcd"), 0, log=log.append)
    assert file.exists()
    assert "leaves out 1 labeled cases (d)" in log[0]


@pytest.mark.parametrize(
    "splits", [{"train": []}, [], None, [1], [{"train": ["a"]}], [{"train": "a", "val": ["b"]}]]
)
def test_a_broken_split_is_named(tmp_path, splits):
    write_splits(tmp_path, splits)
    with pytest.raises(DataError, match=r"splits_final\.json is not a list of folds"):
        ensure_fold_exists(tmp_path, ["a"], 0, log=pytest.fail)


@pytest.mark.parametrize("content", [b"", b"[", b"\xff"])
def test_a_split_that_is_no_json_is_named(tmp_path, content):
    write_splits(tmp_path, []).write_bytes(content)
    with pytest.raises(DataError, match=r"splits_final\.json is not valid JSON .*; repair it"):
        ensure_fold_exists(tmp_path, ["a"], 0, log=pytest.fail)


def test_predictions_of_cases_that_a_fold_no_longer_validates_are_removed(make_trainer):
    """nnU-Net's validation measures all files that it finds in the folder."""
    trainer = make_trainer(nnUNetTrainerSupervisedControl, fold=0)
    folder, logged = Path(trainer.output_folder, "validation"), []
    trainer.print_to_log_file = lambda *words, **_: logged.append(" ".join(map(str, words)))
    _, validation = trainer.do_split()
    folder.mkdir()
    kept, removed = folder / f"{validation[0]}.nii.gz", folder / "earlier.nii.gz"
    for file in (kept, removed, folder / "summary.json"):
        file.write_bytes(b"")
    trainer.do_split()
    assert removed.exists()  # only a validation removes it
    trainer._validated = folder
    trainer.do_split()
    assert sorted(folder.iterdir()) == sorted([kept, folder / "summary.json"])
    assert "cases that this fold no longer validates: earlier." in logged[-1]
