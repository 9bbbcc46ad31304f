from __future__ import annotations

import json
import shutil

import pytest

from nnunetv2_spmc.training.expectations import MANY_LABELED, many_labels
from tests.training_logs import log_of


def names(prefix, number):
    return [f"{prefix}{i}" for i in range(number)]


@pytest.fixture
def preprocessed(planned_phantom, make_trainer, tmp_path, monkeypatch):
    """A copy of the preprocessed phantom, without raw data, to change."""
    source = planned_phantom.preprocessed
    copy = shutil.copytree(source, tmp_path / "copy" / source.parent.name / source.name)
    monkeypatch.setenv("nnUNet_preprocessed", str(copy.parent))
    monkeypatch.delenv("nnUNet_raw")
    return copy


def test_few_labels_and_many_unlabeled_cases_are_what_was_measured():
    assert many_labels(names("l", 7), names("u", 63), {}) == ""


def test_more_labeled_cases_than_unlabeled_ones_are_many():
    assert many_labels(names("l", 8), names("u", 8), {}) == ""
    expected = "there are more labeled cases (9) than unlabeled ones (8)"
    assert many_labels(names("l", 9), names("u", 8), {}) == expected


def test_many_labels_are_counted_by_patient():
    labeled, unlabeled = names("l", 2 * MANY_LABELED), names("u", 1000)
    patients = {case: f"patient{i // 2}" for i, case in enumerate(labeled)}
    assert many_labels(labeled, unlabeled, patients) == ""
    assert many_labels(labeled, unlabeled, {}) == "there are many labels (200 cases)"
    patients["l0"] = "another"
    assert many_labels(labeled, unlabeled, patients) == "there are many labels (101 patients)"


def test_a_training_on_the_phantom_warns_of_nothing(preprocessed, make_trainer):
    trainer = make_trainer(fold=0)  # 4 labeled cases, 4 unlabeled ones
    trainer.on_train_start()
    assert "WARNING" not in log_of(trainer)


def test_a_training_with_many_labels_says_how_to_see_whether_it_helps(preprocessed, make_trainer):
    trainer = make_trainer(fold="all")
    trainer.on_train_start()
    (line,) = (text.strip() for text in log_of(trainer).splitlines() if "WARNING" in text)
    assert (
        "there are more labeled cases (5) than unlabeled ones (4), so unlabeled scans may" in line
    )
    assert line.endswith("nnUNetv2_spmc_compare -d 500 -c 2d_small")


def test_a_training_names_the_largest_difference_between_sites(preprocessed, make_trainer):
    file = preprocessed / "spmc_scans.json"
    record = json.loads(file.read_text())
    for scan in record["folders"]["imagesUn"].values():
        x, y, z = scan["facts"]["spacing_mm"]
        scan["facts"]["spacing_mm"] = [x, y, 9 * z]
        scan["facts"]["size"][2] //= 2
    file.write_text(json.dumps(record))
    trainer = make_trainer(fold=0)
    trainer.on_train_start()
    (line,) = (text.strip() for text in log_of(trainer).splitlines() if "WARNING" in text)
    assert "unlabeled scans differ from labeled ones, so they may not help" in line
    assert "cannot show whether they do harm: the median spac" in line
    command = "nnUNetv2_spmc_preprocess -d Dataset500_Phantom -c 2d_small -p nnUNetPlans"
    assert line.endswith(f"All differences: {command}")
