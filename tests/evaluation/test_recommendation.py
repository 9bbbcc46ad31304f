from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from nnunetv2_spmc.evaluation.pairs import bootstrap_interval
from nnunetv2_spmc.evaluation.patients import UNKNOWN as ALONE
from nnunetv2_spmc.evaluation.patients import Patients
from nnunetv2_spmc.evaluation.recommendation import Candidate, comparable, gain_of, recommend


def model(name, dice, *, rank=0, fold="0", seconds=math.nan, start=0):
    """One class, one case per value."""
    places = {(fold, f"case{start + i}"): {"organ": value} for i, value in enumerate(dice)}
    return Candidate(name, places, rank, needs_unlabeled=rank == 2, seconds=seconds)


def control(dice=(0.5,) * 6, **options):
    return model("control", dice, **options)


def spmc(dice, **options):
    return model("spmc", dice, rank=2, **options)


def better_by(*gains):
    return [0.5 + gain for gain in gains]


def test_a_model_that_is_surely_better_is_to_be_used() -> None:
    gains = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    low, high = bootstrap_interval(np.array(gains))
    assert recommend([spmc(better_by(*gains)), control()], ALONE).sentence == (
        f"Use spmc: Dice +0.035 over control (95 % interval {low:+.3f} to {high:+.3f}) on 6 cases, "
        "fold 0."
    )


def test_in_doubt_the_control_stays_and_why() -> None:
    unsure = spmc(better_by(0.1, -0.09, 0.08, -0.07, 0.06, 0.0), seconds=90)
    sentence = recommend([unsure, control(seconds=30)], ALONE).sentence
    assert sentence.startswith("No model is surely better: spmc has Dice +0.013 over control (95 ")
    assert sentence.endswith(
        "on 6 cases, fold 0; take control, which needs no unlabeled scans and takes less time to "
        "train."
    )


def test_a_control_that_took_longer_is_not_called_faster() -> None:
    unsure = spmc(better_by(0.1, -0.09, 0.08, -0.07, 0.06, 0.0), seconds=30)
    sentence = recommend([unsure, control(seconds=90)], ALONE).sentence
    assert sentence.endswith("; take control, which needs no unlabeled scans.")


def test_a_control_that_is_surely_better_is_to_be_used() -> None:
    worse = spmc(better_by(-0.01, -0.02, -0.03, -0.04, -0.05, -0.06))
    sentence = recommend([control(), worse], ALONE).sentence
    assert sentence.startswith("Use control: Dice +0.035 over spmc (95 % interval +0.01")


def test_fewer_than_six_patients_decide_nothing() -> None:
    found = recommend([control((0.5,) * 5), spmc(better_by(*[0.1] * 5))], ALONE)
    assert found.sentence == (
        "5 cases decide nothing: spmc has Dice +0.100 over control, fold 0; train more folds of "
        "both, and until then take control, which needs no unlabeled scans."
    )
    assert found.table().splitlines()[-1].endswith("| +0.1000    | -             |")


def test_five_cases_of_three_patients_are_three_patients() -> None:
    patients = Patients({f"case{i}": f"patient{i // 2}" for i in range(5)}, are_known=True)
    found = recommend([control((0.5,) * 5), spmc(better_by(*[0.1] * 5))], patients)
    assert found.sentence.startswith("3 patients decide nothing: ")


def test_a_patient_counts_once_however_many_cases_there_are() -> None:
    patients = Patients({"case0": "p", "case1": "p", "case2": "q"}, are_known=True)
    gain = gain_of(spmc(better_by(0.1, 0.3, 0.0)), control((0.5,) * 3), patients)
    assert len(gain.pairs) == 2
    assert gain.pairs.mean == pytest.approx(0.1)


def test_only_cases_of_the_same_fold_are_paired() -> None:
    both = dict(control(fold="0").dice) | dict(control((0.9,) * 6, fold="1").dice)
    gain = gain_of(Candidate("spmc", both), control(fold="1"), ALONE)
    assert gain.folds == ("1",)
    assert gain.pairs.mean == pytest.approx(0.4)


def test_a_class_that_is_undefined_in_one_model_is_left_out_and_counted() -> None:
    ours = Candidate("a", {("0", "case0"): {"LV": 0.8, "RV": math.nan}})
    theirs = Candidate("b", {("0", "case0"): {"LV": 0.5, "RV": 0.0}})
    gain = gain_of(ours, theirs, ALONE)
    assert gain.pairs.mean == pytest.approx(0.3)
    assert gain.pairs.one_sided == 1


def test_of_two_better_models_the_cheaper_one_is_taken_unless_the_other_is_surely_better() -> None:
    views = model("views", better_by(*[0.1] * 6), rank=1)
    no_better = spmc(better_by(0.2, 0.05, 0.2, 0.05, 0.2, 0.05))
    low, high = bootstrap_interval(np.array([0.1, -0.05] * 3))
    assert low < 0
    assert recommend([no_better, control(), views], ALONE).sentence == (
        "Use views: Dice +0.100 over control (95 % interval +0.100 to +0.100) on 6 cases, fold 0; "
        f"spmc is not surely better still (+0.025, {low:+.3f} to {high:+.3f})."
    )
    better = spmc(better_by(*[0.2] * 6))
    assert recommend([better, control(), views], ALONE).sentence.startswith(
        "Use spmc: Dice +0.100 over views (95 % "
    )


def test_a_model_that_is_surely_worse_than_a_cheaper_one_is_not_recommended() -> None:
    """It shares the folds on which it loses with the control only, others with the second model."""
    first = control(dice=[0.9] * 6 + [0.5] * 6)
    second = model("second", [0.6] * 12, rank=1, start=6)
    third = {**model("", [0.3] * 6, rank=2).dice, **model("", [0.7] * 6, start=12).dice}
    found = recommend([first, second, Candidate("third", third, 2)], ALONE)
    assert found.sentence.startswith("Use second: ")


def test_a_model_with_few_patients_keeps_the_control_from_being_surely_better() -> None:
    worse = spmc(better_by(*[-0.1] * 6))
    few = model("few", better_by(0.1, 0.1), rank=2)
    sentence = recommend([control(), worse, few], ALONE).sentence
    assert sentence.startswith("2 cases decide nothing: few has Dice +0.100 over control, fold 0")


def test_models_without_a_common_patient_are_not_comparable() -> None:
    models = [control(), spmc([0.5] * 6), model("elsewhere", [0.5], fold="1")]
    assert [m.name for m in comparable(models, ALONE)] == ["control", "spmc"]


def test_the_table_shows_both_models_on_the_shared_patients() -> None:
    found = recommend([control((0.4, 0.6, 0.5, 0.5, 0.5, 0.5, 0.9)), spmc([0.6] * 6)], ALONE)
    last = [cell.strip() for cell in found.table().splitlines()[-1].strip("|").split("|")]
    assert last[:7] == ["spmc", "-", "0", "6", "0.600", "0.500", "+0.1000"]


# ---- models that have seen validation cases ------------------------------------------------------

SEEN = "as unlabeled ones"


def seen(dice, **options):
    return dataclasses.replace(spmc(dice, **options), seen=SEEN)


def test_a_model_that_has_seen_validation_cases_is_not_recommended_and_why() -> None:
    assert recommend([control(), seen(better_by(*[0.1] * 6))], ALONE).sentence == (
        "No model can be recommended: spmc has seen validation cases in training, as unlabeled "
        "ones, so its Dice is too good; train it again without these cases, and until then take "
        "control."
    )


def test_the_others_are_compared_without_it() -> None:
    views = model("views", better_by(*[0.05] * 6), rank=1)
    assert recommend([seen(better_by(*[0.1] * 6)), control(), views], ALONE).sentence == (
        "Use views: Dice +0.050 over control (95 % interval +0.050 to +0.050) on 6 cases, fold 0; "
        "spmc has seen validation cases in training, as unlabeled ones, so its Dice is too good "
        "and does not count."
    )


def test_a_cheap_model_that_has_seen_validation_cases_is_not_kept_in_doubt() -> None:
    cheat = dataclasses.replace(control(better_by(*[0.1] * 6)), seen=SEEN)
    found = recommend([cheat, spmc([0.5] * 6)], ALONE)
    assert found.baseline.name == "spmc"
    assert found.sentence.endswith("and until then take spmc.")


def test_a_model_that_is_better_than_one_that_has_seen_validation_cases_is_to_be_used() -> None:
    assert recommend([control(), seen(better_by(*[-0.1] * 6))], ALONE).sentence == (
        "Use control: Dice +0.100 over spmc (95 % interval +0.100 to +0.100) on 6 cases, fold 0; "
        "spmc has seen validation cases in training, as unlabeled ones, so its Dice is too good, "
        "and yet it is worse."
    )


def test_where_all_have_seen_validation_cases_none_is_taken() -> None:
    both = [dataclasses.replace(m, seen=SEEN) for m in (control(), spmc([0.6] * 6))]
    sentence = recommend(both, ALONE).sentence
    assert sentence.startswith("No model can be recommended: control has seen validation cases ")
    assert sentence.endswith("; train them again without these cases.")


def test_models_that_share_cases_only_with_one_that_has_seen_them_are_not_ranked() -> None:
    here, there = control(), model("views", [0.5] * 6, rank=1, fold="1")
    cheat = Candidate("spmc", dict(here.dice) | dict(there.dice), 2, seen=SEEN)
    assert recommend([here, there, cheat], ALONE).sentence.startswith("No model can be recommended")
