from __future__ import annotations

import json
import shutil

import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.reports.found_models import Question, question_of
from nnunetv2_spmc.reports.model_choice import choose
from tests.model_folders import write_fold, write_summary

CASES = [f"case{i}" for i in range(6)]
CONTROL, SPMC = "nnUNetTrainerSupervisedControl", "nnUNetTrainerSPMC"
CONTROL_DICE = dict.fromkeys(CASES, 0.5)
SPMC_DICE = {case: 0.51 + 0.01 * i for i, case in enumerate(CASES)}
RESULT = "Dice +0.035 over nnUNetTrainerSupervisedControl (95 % interval +0.017 to +0.053) on 6 "


@pytest.fixture
def results(tmp_path, monkeypatch):
    folder = tmp_path / "nnUNet_results"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_results", str(folder))
    return folder


@pytest.fixture
def write(results, planned_phantom):
    """Write a fold of the control or of SPMC."""

    def write_one(trainer, dice=None, *, into=results, **options):
        dice = dice or (CONTROL_DICE if trainer == CONTROL else SPMC_DICE)
        return write_fold(into, planned_phantom, trainer, dice, **options)

    return write_one


@pytest.fixture
def both(write):
    return write(CONTROL), write(SPMC, unlabeled=["unlabeled0"])


def asked(**options):
    return choose(Question("500", "2d_small", **options))


def refusal(**options):
    with pytest.raises(DataError) as refused:
        asked(**options)
    return str(refused.value)


def test_the_models_of_a_dataset_are_found_and_one_is_recommended(both):
    choice = asked()
    assert choice.sentence == f"Use nnUNetTrainerSPMC: {RESULT}cases, fold 0."
    assert choice.warnings == choice.notes == ()
    assert "There is one run of each: other seeds may differ as much" in choice.text()


def test_models_and_folds_can_be_named(write, both):
    write(CONTROL, dict.fromkeys(CASES, 0.9), fold="1")
    write(SPMC, dict.fromkeys(CASES, 0.8), fold="1")
    models = [fold.parent for fold in both]
    assert choose(question_of(models, ["0"])).sentence == asked(folds=("0",)).sentence
    assert choose(question_of(models, ["0"])).sentence.endswith("on 6 cases, fold 0.")
    assert ", folds 0, 1" in choose(question_of(models)).sentence


def test_a_fold_that_nobody_validated_is_named(both):
    with pytest.raises(
        DataError, match=r"has validated fold 3; choose others with -f, or train it"
    ):
        choose(question_of([fold.parent for fold in both], ["3"]))


def test_folders_that_are_no_models_to_compare_are_refused(both, tmp_path):
    with pytest.raises(DataError, match=r"fold_0 is not a model folder; give the folder TRAINER__"):
        question_of(both)
    other = both[0].parent.with_name(f"{CONTROL}__nnUNetPlans__3d_fullres")
    shutil.copytree(both[0].parent, other)
    with pytest.raises(DataError, match=r"one dataset and configuration can be compared, got"):
        question_of([both[1].parent, other])


def test_patients_come_from_split_json(both, planned_phantom, monkeypatch, tmp_path):
    raw = tmp_path / "raw" / planned_phantom.name
    raw.mkdir(parents=True)
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    groups = {case: f"patient{i // 2}" for i, case in enumerate(CASES)}
    (raw / "split.json").write_text(json.dumps({"groups": groups}))
    choice = asked()
    assert choice.sentence.startswith("3 patients decide nothing: ")
    assert "each counts as its own" not in choice.text()


def test_without_raw_data_patients_come_from_the_record_of_scans(
    both, planned_phantom, monkeypatch, tmp_path
):
    folder = tmp_path / "preprocessed" / planned_phantom.name
    folder.mkdir(parents=True)
    monkeypatch.delenv("nnUNet_raw")
    monkeypatch.setenv("nnUNet_preprocessed", str(folder.parent))
    record = {"date": "", "groups": dict.fromkeys(CASES, "one"), "folders": {}}
    (folder / "spmc_scans.json").write_text(json.dumps(record))
    assert asked().sentence.startswith("1 patient decides nothing: ")


def test_the_newest_validation_counts_not_an_older_evaluation_beside_it(both):
    spmc = both[1]
    (spmc / "validation" / "metrics.csv").write_text("of an earlier state\n")
    write_summary(spmc, CONTROL_DICE)
    assert asked().sentence.startswith("No model is surely better: ")


def test_runs_in_several_folders_of_results_are_averaged(both, write, tmp_path, results):
    other = tmp_path / "seed1"
    write(CONTROL, into=other)
    write(SPMC, {case: value + 0.2 for case, value in SPMC_DICE.items()}, into=other)
    choice = asked(results=(results, other))
    assert choice.sentence.startswith("Use nnUNetTrainerSPMC: Dice +0.135 over ")
    assert "There is one run of each" not in choice.text()


def test_a_folder_of_results_without_the_dataset_or_given_twice_is_refused(both, results, tmp_path):
    assert "has no Dataset500_Phantom" in refusal(results=(results, tmp_path))
    assert "is given twice" in refusal(results=(results, results))


def test_only_folds_and_cases_that_two_models_have_are_compared(both, write):
    write(SPMC, {"case9": 0.1}, fold="1")
    write_summary(both[0], CONTROL_DICE | {"extra": 0.9})
    choice = asked()
    assert choice.sentence.endswith(f"{RESULT}cases, fold 0.")
    folds, cases = choice.warnings
    assert folds.startswith("the models have other folds (nnUNetTrainerSupervisedControl 0; ")
    assert cases.startswith("fold 0 has other validation cases in one model than in another")
    assert "(extra)" in cases


def test_what_differs_beside_the_method_is_a_warning(write):
    write(CONTROL, labeled=8, settings={"initial_lr": 0.01})
    write(SPMC, settings={"epochs": 5, "initial_lr": 0.01}, seconds=150)
    labeled, epochs = asked().warnings
    names = "(nnUNetTrainerSupervisedControl {}, nnUNetTrainerSPMC {})"
    assert f"the number of labeled cases of fold 0 {names.format(8, 4)}" in labeled
    assert f"differ in epochs {names.format(2, 5)}, which may be what" in epochs


def test_a_model_that_took_longer_is_named(write):
    write(SPMC, seconds=150)
    write(CONTROL, seconds=60)
    assert asked().warnings == ()
    longer = f"{SPMC} took 2.5 times as long as {CONTROL}, which may gain from more epochs as well."
    assert longer in asked().text()


def test_more_epochs_in_the_same_time_are_a_fair_comparison(write):
    write(SPMC, seconds=150)
    write(CONTROL, settings={"epochs": 5}, seconds=150)
    assert asked().warnings == ()
    assert "times as long" not in asked().text()


def test_a_second_pass_over_labeled_patches_is_a_warning(write):
    write(CONTROL)
    write(SPMC, settings={"viewed_pass": "always"})
    (warning,) = asked().warnings
    models = "nnUNetTrainerSupervisedControl never, nnUNetTrainerSPMC always"
    assert f"differ in viewed_pass ({models}), which may be what makes the difference" in warning


def test_the_second_pass_of_the_view_control_is_its_method(write):
    write(CONTROL)
    write("nnUNetTrainerViewControl", SPMC_DICE, settings={"viewed_pass": "always"})
    assert asked().warnings == ()


def test_validation_cases_that_were_unlabeled_ones_are_named_in_the_sentence_too(write):
    write(CONTROL)
    write(SPMC, unlabeled=["case2", "other"])
    choice = asked()
    (warning,) = choice.warnings
    assert (
        "validation cases of fold 0 as unlabeled ones (case2), so its Dice is too good" in warning
    )
    assert choice.sentence == (
        "No model can be recommended: nnUNetTrainerSPMC (validation cases seen) has seen "
        "validation cases in training, as unlabeled ones, so its Dice is too good; train it again "
        "without these cases, and until then take nnUNetTrainerSupervisedControl."
    )


def test_an_overlap_that_was_allowed_is_in_every_line(write):
    write(CONTROL)
    write(SPMC, overlap="some cases are unlabeled and at the same time test: t1")
    choice = asked()
    (warning,) = choice.warnings
    assert "allow_overlap in fold 0 (some cases are unlabeled and at the same time test" in warning
    assert choice.sentence.startswith("Use nnUNetTrainerSPMC (overlap allowed): ")


@pytest.mark.parametrize(
    "overlap",
    [
        "some cases are unlabeled and at the same time validation: case2",
        "some cases are unlabeled and at the same time test: t; unlabeled, but of a patient of a "
        "validation case: case2b",
        "some cases are unlabeled with the same images as a case in imagesTr: u (= case2)",
        "some validation cases were trained on as unlabeled ones in earlier epochs: case2",
    ],
)
def test_an_overlap_with_validation_cases_keeps_a_model_from_being_recommended(write, overlap):
    write(CONTROL)
    write(SPMC, overlap=overlap)
    assert asked().sentence.startswith(
        "No model can be recommended: nnUNetTrainerSPMC (overlap allowed) has seen validation "
        "cases in training, as allow_overlap let it, so its Dice is too good; "
    )


def test_an_overlap_that_was_allowed_and_not_found_changes_nothing(write):
    write(CONTROL)
    write(SPMC, settings={"allow_overlap": True})
    assert asked().sentence.startswith("Use nnUNetTrainerSPMC (overlap allowed): ")


def test_a_model_whose_pretrained_weights_saw_validation_cases_is_not_recommended(
    write, planned_phantom
):
    model = f"/results/{planned_phantom.name}/nnUNetTrainer__nnUNetPlans__2d_small"
    write(CONTROL)
    write(SPMC, pretrained_weights=f"{model}/fold_1/checkpoint_final.pth")
    assert asked().sentence == (
        "No model can be recommended: nnUNetTrainerSPMC (validation cases seen) has seen "
        "validation cases in training, through its pretrained weights, so its Dice is too good; "
        "train it again without these cases, and until then take nnUNetTrainerSupervisedControl."
    )


@pytest.mark.parametrize(
    ("how", "is_seen"),
    [
        ({"pretrained_weights": "{model}/fold_all/checkpoint_final.pth"}, True),
        ({"unlabeled": ["case2"]}, True),
        ({"unlabeled": ["other"]}, False),
        ({"pretrained_weights": "{model}/fold_0/checkpoint_final.pth"}, False),  # its own
    ],
)
def test_what_pretrained_weights_started_from_counts_too(write, planned_phantom, how, is_seen):
    first = write("nnUNetTrainerCPS")
    change = {"pretrained_weights": how.get("pretrained_weights", "").format(model=first.parent)}
    shutil.rmtree(first)
    write("nnUNetTrainerCPS", unlabeled=how.get("unlabeled", ()), **change)
    write(CONTROL)
    write(SPMC, pretrained_weights=str(first / "checkpoint_final.pth"))
    sentence = asked(trainers=(CONTROL, SPMC)).sentence
    assert sentence.startswith("No model can be recommended: ") == is_seen


def test_an_unfinished_training_is_warned_of(write):
    write(CONTROL)
    write(SPMC, checkpoint="checkpoint_latest.pth")
    (warning,) = asked().warnings
    assert warning.startswith("nnUNetTrainerSPMC, 2d_small, fold 0 is not finished (2 epochs done)")


def test_a_warm_start_is_warned_of_and_more_so_from_another_fold(write, planned_phantom):
    model = f"/results/{planned_phantom.name}/nnUNetTrainer__nnUNetPlans__2d_small"
    write(CONTROL, pretrained_weights=f"{model}/fold_0/checkpoint_final.pth")
    write(SPMC, pretrained_weights=f"{model}/fold_all/checkpoint_final.pth")
    same, other = asked().warnings
    assert "fold_0/checkpoint_final.pth, so it has learned for longer than its epochs" in same
    assert other.startswith("nnUNetTrainerSPMC, 2d_small, fold 0: the pretrained weights come from")
    assert "fold_all, which was trained on validation cases of fold_0 with their labels" in other


def test_the_control_stays_in_doubt_even_if_it_took_longer(write):
    write(CONTROL, {case: 0.5 + 0.02 * (-1) ** i for i, case in enumerate(CASES)}, seconds=900)
    write(SPMC, CONTROL_DICE, unlabeled=["unlabeled0"])
    choice = asked()
    assert choice.models[0].trainer == CONTROL
    assert choice.sentence.endswith(
        "; take nnUNetTrainerSupervisedControl, which needs no unlabeled scans."
    )


def test_models_of_several_plans_are_told_apart(both, write):
    write(SPMC, plans="nnUNetResEncUNetMPlans")
    names = [model.name for model in asked().models]
    assert "nnUNetTrainerSPMC (nnUNetPlans)" in names
    assert "nnUNetTrainerSPMC (nnUNetResEncUNetMPlans)" in names
    assert [m.name for m in asked(plans="nnUNetPlans").models] == [CONTROL, SPMC]


def test_other_labels_of_the_same_case_are_refused(both):
    write_summary(both[1], SPMC_DICE, reference_voxels=99)
    assert "were validated against different labels of case0" in refusal()


def test_other_classes_are_refused(both):
    file = both[1].parent / "dataset.json"
    file.write_text(file.read_text().replace('"organ"', '"liver"'))
    assert "have different classes (core, organ; core, liver)" in refusal()


def test_a_third_model_that_shares_no_case_is_left_out_and_named(both, write):
    write("nnUNetTrainerCPS", fold="3")
    choice = asked()
    assert choice.notes == ("nnUNetTrainerCPS is left out: no other model has validated its cases",)
    assert choice.sentence.startswith("Use nnUNetTrainerSPMC: ")


# ---- what cannot be compared -------------------------------------------------------------------


def test_a_single_model_is_told_how_to_train_the_control(write):
    write(SPMC, fold="1")
    write(SPMC, fold="2")
    assert refusal() == (
        "There is only one model of Dataset500_Phantom for 2d_small to compare, nnUNetTrainerSPMC. "
        "Train another one on the same folds: nnUNetv2_spmc_train 500 2d_small 1 -tr "
        "nnUNetTrainerSupervisedControl (then 2)."
    )


def test_a_single_control_is_told_how_to_train_the_method(write):
    write(CONTROL, plans="nnUNetOtherPlans")
    expected = "nnUNetv2_spmc_train 500 2d_small 0 -tr nnUNetTrainerSPMC -p nnUNetOtherPlans."
    assert refusal().endswith(expected)


def test_a_fold_without_validation_is_named_with_the_command_that_ends_it(write):
    write(SPMC)
    (write(CONTROL) / "validation" / "summary.json").unlink()
    assert refusal().endswith(
        "to compare, nnUNetTrainerSPMC; fold_0 of nnUNetTrainerSupervisedControl is left out: it "
        "is not validated; finish it with nnUNetv2_spmc_train 500 2d_small 0 -tr "
        "nnUNetTrainerSupervisedControl --c, or --val if it is trained."
    )


def test_fold_all_has_no_validation(write):
    write(SPMC, fold="all")
    write(CONTROL, fold="all")
    text = refusal()
    assert text.startswith("No model of Dataset500_Phantom for 2d_small has validated a fold; ")
    assert "fold_all of nnUNetTrainerSPMC is left out: it has no validation cases" in text


def test_a_fold_that_validates_what_it_trained_on_is_left_out(
    both, planned_phantom, monkeypatch, tmp_path
):
    folder = tmp_path / "preprocessed" / planned_phantom.name
    folder.mkdir(parents=True)
    monkeypatch.setenv("nnUNet_preprocessed", str(folder.parent))
    (folder / "splits_final.json").write_text(json.dumps([{"train": CASES, "val": CASES}]))
    assert "it validates cases that it was trained on (case0, case1, " in refusal()


def test_folds_that_do_not_overlap_are_listed(write):
    write(CONTROL, fold="0")
    write(SPMC, fold="1")
    assert (
        "No two models of Dataset500_Phantom have validated the same case (folds: nnUNetTrainerSPMC"
        " 1; nnUNetTrainerSupervisedControl 0)"
    ) in refusal()


def test_a_dataset_that_is_not_trained_is_told_how_to_begin(results):
    text = refusal()
    assert text.startswith("No model of Dataset500_Phantom is trained: ")
    assert "nnUNetv2_spmc_train 500 2d_small 0 -tr nnUNetTrainerSPMC" in text


def test_a_dataset_that_does_not_exist_is_named(results):
    with pytest.raises(DataError, match="There is no dataset 77 in "):
        choose(Question("77", "2d"))


def test_a_configuration_plans_or_trainer_without_a_model_names_those_there_are(both):
    assert "has no model for 2d_small with other; it has nnUNetTrainerSPMC__" in refusal(
        plans="other"
    )
    assert (
        "has no model of nnUNetTrainerCPS for 2d_small; those there are nnUNetTrainerSPMC, "
        "nnUNetTrainerSupervisedControl."
    ) in refusal(trainers=("nnUNetTrainerCPS", SPMC))
