"""Leaks that only a training can find: after preprocessing, without raw data, by the fold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk
import torch

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.training.checkpoint import CheckpointError
from nnunetv2_spmc.unlabeled.scan_record import read_scan_record
from tests.training_logs import log_of


@pytest.fixture
def phantom(planned_phantom, make_trainer, tmp_path, monkeypatch):
    """A copy of the phantom that a test may change: (raw, preprocessed)."""
    folders = []
    for source in (planned_phantom.raw, planned_phantom.preprocessed):
        folders.append(tmp_path / "copy" / source.parent.name / source.name)
        shutil.copytree(source, folders[-1])
        monkeypatch.setenv(source.parent.name, str(folders[-1].parent))
    return folders


def first(folder):
    return sorted(folder.iterdir())[0]


def as_float(source, target):
    sitk.WriteImage(sitk.Cast(sitk.ReadImage(str(source)), sitk.sitkFloat32), str(target))


def name_of(file):
    return file.name.removesuffix("_0000.nii.gz")


def test_a_test_scan_that_was_added_after_preprocessing_is_found(phantom, make_trainer):
    unlabeled = first(phantom[0] / "imagesUn")
    as_float(unlabeled, phantom[0] / "imagesTs" / "late_0000.nii.gz")
    with pytest.raises(
        DataError, match=rf"case in imagesTs: {name_of(unlabeled)} \(= late\)\. Take them out"
    ):
        make_trainer().on_train_start()


def test_without_raw_data_the_recorded_scans_are_compared_and_their_date_is_said(
    phantom, make_trainer
):
    raw, preprocessed = phantom
    record = preprocessed / "spmc_scans.json"
    content = json.loads(record.read_text())
    (test,), unlabeled = content["folders"]["imagesTs"], sorted(content["folders"]["imagesUn"])
    shutil.rmtree(raw)
    trainer = make_trainer()
    trainer.on_train_start()
    assert f"with all scans as they were on {read_scan_record(preprocessed).date}" in log_of(
        trainer
    )
    content["folders"]["imagesTs"][test] = content["folders"]["imagesUn"][unlabeled[0]]
    record.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"in imagesTs: {unlabeled[0]} \(= {test}\)"):
        make_trainer().on_train_start()


def test_allowed_overlap_is_in_the_log_and_in_the_checkpoint(phantom, make_trainer, tmp_path):
    as_float(first(phantom[0] / "imagesUn"), phantom[0] / "imagesTs" / "late_0000.nii.gz")
    trainer = make_trainer(allow_overlap=True)
    trainer.on_train_start()
    assert "Overlap allowed: some cases are unlabeled with the same images" in log_of(trainer)
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    state = torch.load(tmp_path / "checkpoint.pth", weights_only=False)["semi_supervised"]
    assert state["settings"]["allow_overlap"] is True
    assert "(= late)" in state["overlap"]
    model = json.loads((Path(trainer.output_folder_base) / "dataset.json").read_text())
    assert model["spmc_overlap"] == state["overlap"]


def test_allowed_overlap_that_is_none_is_said(make_trainer):
    trainer = make_trainer(allow_overlap=True)
    trainer.on_train_start()
    assert "Overlap allowed: no unlabeled case is a labeled, validation or test case" in log_of(
        trainer
    )
    assert trainer.extra_state()["overlap"] == ""


def annotate(phantom, file):
    """Give an unlabeled case a label, as somebody does who segments it."""
    raw = phantom[0]
    label = first(raw / "labelsTr")
    shutil.copy(label, raw / "labelsTr" / f"{name_of(file)}.nii.gz")
    shutil.move(file, raw / "imagesTr")


def resumed(make_trainer, tmp_path, **settings):
    trainer = make_trainer(**settings)
    trainer.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    return trainer


def start_and_save(make_trainer, tmp_path):
    trainer = make_trainer()
    trainer.on_train_start()
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))


def test_a_run_goes_on_after_an_unlabeled_case_was_annotated(phantom, make_trainer, tmp_path):
    start_and_save(make_trainer, tmp_path)
    file = first(phantom[0] / "imagesUn")
    annotate(phantom, file)
    trainer = resumed(make_trainer, tmp_path)
    trainer.on_train_start()
    assert name_of(file) not in trainer.stream.cases
    logs = "".join(p.read_text() for p in Path(trainer.output_folder).glob("training_log*"))
    assert f"what was unlabeled and has a label now: {name_of(file)}." in logs


def test_a_run_does_not_go_on_without_a_case_that_is_simply_gone(phantom, make_trainer, tmp_path):
    start_and_save(make_trainer, tmp_path)
    first(phantom[0] / "imagesUn").unlink()
    with pytest.raises(CheckpointError, match="unlabeled cases: 1 gone, 0 new"):
        resumed(make_trainer, tmp_path).on_train_start()


def test_what_a_run_has_trained_on_cannot_validate_it(phantom, make_trainer, tmp_path):
    raw, preprocessed = phantom
    start_and_save(make_trainer, tmp_path)
    file = first(raw / "imagesUn")
    annotate(phantom, file)
    for ending in ("_seg.b2nd", ".pkl", ".b2nd"):  # as if nnU-Net had preprocessed it
        (labeled,) = {f.parent for f in preprocessed.glob(f"nnUNetPlans_2d/*{ending}")}
        source = sorted(labeled.glob(f"*{ending}"))[0]
        shutil.copy(source, labeled / f"{name_of(file)}{ending}")
    splits = [{"train": [name_of(f) for f in sorted((raw / "imagesTr").iterdir())], "val": []}]
    splits[0]["train"].remove(name_of(file))
    splits[0]["val"].append(name_of(file))
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    with pytest.raises(
        DataError,
        match=rf"^Some validation cases were trained on as .* epochs: {name_of(file)}\. Take them",
    ):
        resumed(make_trainer, tmp_path).on_train_start()
