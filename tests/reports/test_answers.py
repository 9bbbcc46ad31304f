"""The first thing on the page: is a method better, by how much, and how sure is that?"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nnunetv2_spmc.evaluation.case_metrics import ClassMetrics
from nnunetv2_spmc.evaluation.comparison import MEAN, differences
from nnunetv2_spmc.evaluation.methods import read_methods
from nnunetv2_spmc.evaluation.metrics_csv import METRICS_COLUMNS, write_metrics_csv
from nnunetv2_spmc.evaluation.pairs import bootstrap_interval
from nnunetv2_spmc.evaluation.patients import UNKNOWN, Patients
from nnunetv2_spmc.reports.answers import answers, unit_values
from nnunetv2_spmc.reports.methods import MethodRuns


def table(dice, label="organ"):
    """Metrics of cases a, b, ... with these Dice."""
    cases = [chr(ord("a") + number) for number in range(len(dice))]
    return pd.DataFrame({"case": cases, "label": label, "dice": dice})


def training(trainer, fold="0", dataset="Dataset1_A"):
    return SimpleNamespace(trainer=trainer, fold=fold, dataset_name=dataset)


def method(name, *runs, trainer="nnUNetTrainerSPMC"):
    return MethodRuns(name, {run: training(trainer) for run in runs})


CONTROL = method("Control", "c", trainer="nnUNetTrainerSupervisedControl")
SPMC = method("SPMC", "s")
BASE = np.linspace(0.5, 0.7, 24)
NOISE = np.tile([0.01, -0.01], 12)


def answer(ours, theirs=BASE, patients=UNKNOWN, **options):
    tables = {"c": table(theirs), "s": table(ours)}
    found = answers([CONTROL, SPMC], tables, patients, **{"kind": "test"} | options)
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(
    ("shift", "sentence"),
    [
        (0.05, "SPMC is better than Control: +0.0500 Dice (95 % interval +0.0"),
        (-0.05, "SPMC is worse than Control: -0.0500 Dice (95 % interval -0.0"),
        (0.0, "SPMC and Control cannot be told apart: +0.0000 Dice (95 % interval -0.0"),
    ],
)
def test_the_headline_has_verdict_difference_and_interval(shift, sentence):
    found = answer(BASE + shift + NOISE)
    assert found.headline.startswith(sentence)
    low, high = bootstrap_interval(np.round(shift + NOISE, 12))
    assert found.headline.endswith(
        f"interval {low:+.4f} to {high:+.4f}), on 24 test cases, 1 seed each."
    )


def test_the_details_have_means_patients_and_seeds():
    of_case = {case: f"p{number // 2}" for number, case in enumerate(table(BASE)["case"])}
    found = answer(BASE + 0.05 + NOISE, patients=Patients(of_case, are_known=True))
    assert found.headline.endswith("on 12 test patients, 1 seed each.")
    assert "Dice 0.650 against 0.600. Better on 12 of 12." in found.details
    assert "train several seeds" in found.details


def test_few_cases_give_a_difference_and_no_verdict():
    found = answer(BASE[:5] + 0.05, BASE[:5])
    assert found.headline == (
        "SPMC minus Control: +0.0500 Dice, without an interval, on 5 test cases, 1 seed each."
    )
    assert "Fewer than 6 cases are too few for an interval." in found.details


def test_training_cases_are_said_to_be_such():
    assert "Beware: these are the training cases of SPMC." in answer(BASE, seen=["s"]).details
    assert "Beware" not in answer(BASE).details


def test_methods_without_a_common_case_are_not_compared():
    other = table(BASE[:8]).assign(case=list("qrstuvwx"))
    tables = {"c": table(BASE[:8]), "s": other}
    (found,) = answers([CONTROL, SPMC], tables, UNKNOWN, kind="validation")
    assert "have no case in common" in found.headline
    assert found.differences == {}


def test_methods_without_a_common_class_are_not_compared():
    tables = {"c": table(BASE[:8]), "s": table(BASE[:8], "other")}
    (found,) = answers([CONTROL, SPMC], tables, UNKNOWN, kind="validation")
    assert found.differences == {}


def test_a_single_method_is_described():
    tables = {"s": pd.concat([table([0.8, 0.6]), table([0.4, 0.2], "core")])}
    (found,) = answers([SPMC], tables, UNKNOWN, kind="validation")
    assert found.headline == "SPMC: Dice 0.500, on 2 validation cases, 1 seed."
    assert found.details == "Mean over 2 classes. Classes: organ 0.700, core 0.300."


def test_without_metrics_there_is_no_answer():
    assert answers([CONTROL, SPMC], {}, UNKNOWN, kind="test") == []


def test_several_methods_are_each_compared_with_the_first():
    third = method("Other", "o")
    tables = {"c": table(BASE), "s": table(BASE + 0.1), "o": table(BASE - 0.1)}
    better, worse = answers([CONTROL, SPMC, third], tables, UNKNOWN, kind="test")
    assert better.headline.startswith("SPMC is better than Control")
    assert worse.headline.startswith("Other is worse than Control")


def test_what_unlabeled_scans_give_is_the_difference_to_the_view_control():
    views = method("Views", "v", trainer="nnUNetTrainerViewControl")
    tables = {"c": table(BASE), "v": table(BASE + 0.1), "s": table(BASE + 0.15)}
    found = answers([CONTROL, views, SPMC], tables, UNKNOWN, kind="test")
    assert [answer.headline.split(":")[0] for answer in found] == [
        "Views is better than Control",
        "SPMC is better than Control",
        "SPMC is better than Views",
    ]
    assert found[2].differences["organ"].mean == pytest.approx(0.05)
    # without a control, the view control takes its place, and nothing is said twice
    (found,) = answers([views, SPMC], tables, UNKNOWN, kind="test")
    assert found.headline.startswith("SPMC is better than Views")


def test_seeds_are_averaged_and_counted():
    two = method("SPMC", "s0", "s1")
    tables = {"c": table(BASE), "s0": table(BASE), "s1": table(BASE + 0.1)}
    (found,) = answers([CONTROL, two], tables, UNKNOWN, kind="test")
    assert "+0.0500 Dice" in found.headline
    assert "2 seeds against 1 seed" in found.headline


def test_folds_are_pooled_and_called_folds():
    runs = {f"f{fold}": training("nnUNetTrainerSPMC", fold) for fold in "01"}
    tables = {"f0": table([0.2]), "f1": table([0.4]).assign(case="z")}
    (found,) = answers([MethodRuns("SPMC", runs)], tables, UNKNOWN, kind="validation")
    assert found.headline == "SPMC: Dice 0.300, on 2 validation cases, 2 folds."


# ---- values of cases and patients ----------------------------------------------------------------


def test_a_case_that_is_undefined_in_one_seed_is_left_out():
    values = unit_values([table([0.2, 0.4]), table([np.nan, 0.6])], UNKNOWN)
    assert np.isnan(values.loc["a", "organ"])
    assert values.loc["b", "organ"] == pytest.approx(0.5)


def test_a_patient_is_the_mean_of_the_cases_and_classes_have_a_mean():
    rows = pd.concat([table([0.2, 0.4, 0.9]), table([0.6, 0.8, 0.1], "core")])
    values = unit_values([rows], Patients({"a": "first", "b": "first"}, are_known=True))
    assert list(values.columns) == ["organ", "core", MEAN]
    assert values.loc["first"].tolist() == pytest.approx([0.3, 0.7, 0.5])
    assert values.loc["c"].tolist() == pytest.approx([0.9, 0.1, 0.5])


def test_a_class_that_one_method_has_no_dice_of_counts_in_neither_mean():
    """It is in no mask of the reference: only a method that adds it has a Dice, of 0."""
    organ, core = table(BASE), table([0.0] * 24, "core")
    added = {"c": pd.concat([organ, core]), "s": pd.concat([organ, core.assign(dice=np.nan)])}
    (found,) = answers([CONTROL, SPMC], added, UNKNOWN, kind="test")
    assert found.differences[MEAN].mean == 0
    assert "Dice 0.600 against 0.600" in found.details


def test_the_answer_is_that_of_compare(tmp_path):
    generator, tables, folders = np.random.default_rng(0), {}, []
    for run in ("c", "s"):
        rows = [
            ClassMetrics(f"case{i}", label, *generator.uniform(0, 1, 2), 1, 1, 1, 1, 9, 9, "ok")
            for i in range(12)
            for label in ("organ", "core")
        ]
        tables[run] = pd.DataFrame([vars(row) for row in rows], columns=METRICS_COLUMNS)
        (tmp_path / run).mkdir()
        write_metrics_csv(tmp_path / run / "metrics.csv", rows)
        folders.append(f"{run}={tmp_path / run}")
    (found,) = answers([CONTROL, SPMC], tables, UNKNOWN, kind="test")
    control, spmc = read_methods(folders)
    for expected in differences(spmc, control):
        if expected.metric == "dice":
            ours = found.differences[expected.label]
            assert (ours.mean, ours.low, ours.high) == pytest.approx(
                (expected.mean, expected.low, expected.high)
            )


def test_cases_of_another_dataset_with_the_same_names_are_not_paired():
    runs = {"ours": training("nnUNetTrainerSPMC", dataset="Dataset2_B")}
    tables = {"ours": table([0.8] * 8), "theirs": table([0.5] * 8)}
    methods = [method("control", "theirs"), MethodRuns("SPMC", runs)]
    (found,) = answers(methods, tables, UNKNOWN, kind="test")
    assert "have no case in common" in found.headline


def test_a_distance_that_is_undefined_in_one_case_of_a_patient_has_no_mean():
    rows = table([0.0, 0.9]).assign(hd95_mm=[float("nan"), 3.0])
    cases = Patients(dict.fromkeys(rows["case"], "patient"), are_known=True)
    assert unit_values([rows], cases, "hd95_mm").isna().all(axis=None)
    assert unit_values([rows], cases).to_numpy().tolist() == [[0.45]]
