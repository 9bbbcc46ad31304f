from __future__ import annotations

import csv
import dataclasses
import json
import shlex

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from scipy.stats import wilcoxon

from nnunetv2_spmc.common.colors import method_color
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.evaluation.box_plot import draw_box_plot
from nnunetv2_spmc.evaluation.case_metrics import ClassMetrics
from nnunetv2_spmc.evaluation.comparison import differences, seed_means
from nnunetv2_spmc.evaluation.comparison_report import compare
from nnunetv2_spmc.evaluation.methods import patients_of_methods, read_methods
from nnunetv2_spmc.evaluation.metrics_csv import write_metrics_csv
from nnunetv2_spmc.evaluation.patients import Patients

CASES = [f"case{i}" for i in range(8)]


def class_metrics(case, label, dice, distance):
    status = "ok" if dice > 0 else "prediction_empty"
    return ClassMetrics(case, label, dice, dice / 2, *[distance] * 4, 10, 10, status)


@pytest.fixture
def write_run(tmp_path):
    """Write a metrics.csv from (cases, classes) of Dice; 0 is a failure."""

    def write(name, dice, labels=("RV", "LV"), cases=CASES, **changes):
        rows = [
            dataclasses.replace(
                class_metrics(case, label, value, 10 * (1 - value) if value else np.nan), **changes
            )
            for case, values in zip(cases, dice, strict=True)
            for label, value in zip(labels, values, strict=True)
        ]
        folder = tmp_path / name
        folder.mkdir(parents=True)
        write_metrics_csv(folder / "metrics.csv", rows)
        return str(folder)

    return write


def random_dice(seed, low=0.5, high=0.9, classes=2):
    return np.random.default_rng(seed).uniform(low, high, (len(CASES), classes))


@pytest.fixture
def two_methods(write_run):
    """Two seeds each, as arguments, and their Dice (seeds, cases, classes)."""
    dice = {
        name: np.array([random_dice(10 * number + seed) for seed in (0, 1)])
        for number, name in enumerate(("control", "spmc"))
    }
    arguments = [
        f"{name}={write_run(f'{name}_seed{seed}', of_seed)}"
        for name, of_method in dice.items()
        for seed, of_seed in enumerate(of_method)
    ]
    return arguments, dice


def found(entries, **wanted):
    (one,) = (e for e in entries if all(getattr(e, k) == v for k, v in wanted.items()))
    return one


def test_means_and_deviations_are_over_seeds(two_methods) -> None:
    arguments, dice = two_methods
    method = read_methods(arguments)[1]
    means = seed_means(method)
    assert [m.label for m in means] == ["RV", "LV", "mean"]
    over_cases = dice["spmc"].mean(axis=1)
    left = found(means, label="LV").metrics["dice"]
    assert left.mean == pytest.approx(over_cases[:, 1].mean())
    assert left.std == pytest.approx(over_cases[:, 1].std(ddof=1))
    both = found(means, label="mean").metrics["dice"]
    assert both.mean == pytest.approx(over_cases.mean())
    assert both.std == pytest.approx(over_cases.mean(axis=1).std(ddof=1))


def test_differences_are_paired_by_case_and_averaged_over_seeds(two_methods) -> None:
    arguments, dice = two_methods
    control, spmc = read_methods(arguments)
    paired = dice["spmc"].mean(axis=0) - dice["control"].mean(axis=0)
    all_found = differences(spmc, control)
    for label, values in (("RV", paired[:, 0]), ("mean", paired.mean(axis=1))):
        one = found(all_found, label=label, metric="dice")
        assert one.mean == pytest.approx(values.mean())
        assert one.p == pytest.approx(wilcoxon(values).pvalue)
        assert one.low < one.mean < one.high
        assert (one.pairs, one.left_out, one.remark) == (8, 0, "")
    assert found(all_found, label="LV", metric="hd95_mm").mean == pytest.approx(
        -10 * paired[:, 1].mean()
    )


def test_the_order_of_cases_and_classes_does_not_matter(write_run) -> None:
    ours, theirs = random_dice(0), random_dice(1)
    straight = read_methods([write_run("a", theirs), write_run("b", ours)])
    turned = write_run("c", ours[::-1, ::-1], labels=("LV", "RV"), cases=CASES[::-1])
    other = read_methods([str(straight[0].seeds[0].folder), f"b={turned}"])
    assert differences(*other[::-1]) == differences(*straight[::-1])


def test_a_failure_in_one_seed_leaves_the_distance_of_the_case_out(write_run) -> None:
    dice = random_dice(0, classes=1)
    failing = dice.copy()
    failing[3] = 0
    runs = [
        write_run("control", dice + 0.01, ["RV"]),
        "spmc=" + write_run("s0", dice, ["RV"]),
        "spmc=" + write_run("s1", failing, ["RV"]),
    ]
    control, spmc = read_methods(runs)
    all_found = differences(spmc, control)
    distance = found(all_found, metric="asd_mm")
    assert (distance.pairs, distance.left_out) == (7, 1)
    assert distance.mean == pytest.approx(0.1)
    overlap = found(all_found, metric="dice")
    assert overlap.pairs == 8
    assert overlap.mean == pytest.approx(-0.01 - dice[3, 0] / 2 / 8)
    assert found(seed_means(spmc), label="RV").failures == 1


def test_few_cases_have_no_p_value_and_no_interval(write_run) -> None:
    runs = [write_run(name, random_dice(s)[:5], cases=CASES[:5]) for s, name in enumerate("ab")]
    baseline, method = read_methods(runs)
    for difference in differences(method, baseline):
        assert difference.remark == "fewer than 6 cases"
        assert np.isnan([difference.p, difference.low, difference.high]).all()
        assert np.isfinite(difference.mean)


def test_the_cases_of_a_patient_are_one_pair(two_methods) -> None:
    arguments, dice = two_methods
    control, spmc = read_methods(arguments)
    patients = Patients({case: f"p{i // 2}" for i, case in enumerate(CASES)}, are_known=True)
    one = found(differences(spmc, control, patients), label="RV", metric="dice")
    paired = (dice["spmc"] - dice["control"]).mean(axis=0)[:, 0]
    assert (one.pairs, one.remark) == (4, "fewer than 6 patients")
    assert one.mean == pytest.approx(paired.reshape(4, 2).mean(axis=1).mean())
    assert one.better == (paired.reshape(4, 2).mean(axis=1) > 0).sum()
    text = compare([control, spmc], patients).text()
    assert "patient by patient, each case averaged over seeds" in text
    assert "| patients | left out |" in text


def test_a_lower_distance_is_better(two_methods) -> None:
    arguments, _ = two_methods
    entries = differences(*read_methods(arguments)[::-1])
    dice, distance = (found(entries, label="RV", metric=m) for m in ("dice", "hd95_mm"))
    assert 0 < dice.better == distance.better < 8


def test_patients_are_those_of_the_dataset_of_the_references(two_methods, tmp_path) -> None:
    arguments, _ = two_methods
    dataset = tmp_path / "elsewhere" / "Dataset501_Heart"
    dataset.mkdir(parents=True)
    groups = {case: f"p{i // 2}" for i, case in enumerate(CASES)}
    (dataset / "split.json").write_text(json.dumps({"groups": groups}))
    methods = read_methods(arguments)
    assert not patients_of_methods(methods).are_known
    content = json.dumps({"settings": {"references": str(dataset / "labelsTs")}})
    (tmp_path / "spmc_seed1" / "metrics.json").write_text(content)
    assert patients_of_methods(methods).count(2) == "2 patients"


def test_equal_runs_have_no_p_value(write_run) -> None:
    baseline, method = read_methods([write_run(name, random_dice(0)) for name in "ab"])
    for difference in differences(method, baseline):
        assert difference.remark == "no difference in any case"
        assert np.isnan(difference.p)
        assert difference.mean == 0


def test_rounding_of_means_over_seeds_is_no_difference(write_run) -> None:
    seeds = [random_dice(seed) for seed in range(3)]
    runs = [f"a={write_run(f'a{i}', dice)}" for i, dice in enumerate(seeds)]
    runs += [f"b={write_run(f'b{i}', dice)}" for i, dice in enumerate(seeds[::-1])]
    baseline, method = read_methods(runs)
    remarks = {difference.remark for difference in differences(method, baseline)}
    assert remarks == {"no difference in any case"}


def test_a_test_on_few_differing_cases_is_not_reported(write_run) -> None:
    changed = random_dice(0)
    changed[:3] += 0.05
    baseline, method = read_methods([write_run("a", random_dice(0)), write_run("b", changed)])
    one = found(differences(method, baseline), label="RV", metric="dice")
    assert one.remark == "fewer than 6 cases differ"
    assert np.isnan(one.p)


def test_seeds_may_be_listed_repeated_or_subfolders(write_run, tmp_path) -> None:
    folders = [write_run(f"spmc/seed{seed}", random_dice(seed)) for seed in (0, 1)]
    for arguments in (
        [f"spmc={folders[0]},{folders[1]}"],
        [f"spmc={folder}" for folder in folders],
        [f"spmc={tmp_path / 'spmc'}"],
        [str(tmp_path / "spmc")],
    ):
        (method,) = read_methods(arguments)
        assert method.name == "spmc"
        assert [str(seed.folder) for seed in method.seeds] == folders


def test_a_folder_s_name_may_hold_the_separators(write_run) -> None:
    folder = write_run("lr=0.1,wd=0", random_dice(0))
    assert read_methods([folder])[0].name == "lr=0.1,wd=0"
    assert read_methods([f"low={folder}"])[0].name == "low"


def assert_refused(arguments, *words):
    with pytest.raises(DataError) as error:
        read_methods(arguments)
    for word in words:
        assert word in str(error.value)


def test_runs_with_different_cases_are_refused_by_name(write_run) -> None:
    first = write_run("a", random_dice(0))
    other = write_run("b", random_dice(1)[:7], cases=["other", *CASES[:6]])
    assert_refused([first, other], "different cases", "no case6, case7 and has other in addition")


def test_runs_with_different_classes_are_refused_by_name(write_run) -> None:
    runs = [write_run("a", random_dice(0)), write_run("b", random_dice(1), labels=("RV", "MYO"))]
    assert_refused(runs, "different classes", "no LV and has MYO in addition")


def test_runs_with_different_references_are_refused(write_run) -> None:
    other = write_run("b", random_dice(1), reference_voxels=11)
    assert_refused([write_run("a", random_dice(0)), other], "different references: case0 (RV)")


def test_two_runs_of_one_name_or_one_folder_are_refused(write_run) -> None:
    runs = [write_run("x/run", random_dice(0)), write_run("y/run", random_dice(1))]
    assert_refused(runs, "Two runs are called 'run'", f"NAME={runs[1]}")
    assert_refused([f"a={runs[0]}", f"b={runs[0]}"], "given twice")


@pytest.mark.parametrize("argument", ["={}", "run=", "run={},,{}", "run={},"])
def test_a_run_without_a_name_or_a_folder_is_refused(write_run, argument) -> None:
    argument = argument.replace("{}", write_run("a", random_dice(0)))
    assert_refused([argument], argument, "lacks a name or a folder")


def test_a_file_in_place_of_its_folder_is_named(write_run) -> None:
    file = f"{write_run('a', random_dice(0))}/metrics.csv"
    assert_refused([file], file, "is a file; give the folder")


def test_a_folder_without_metrics_is_named(tmp_path) -> None:
    assert_refused([str(tmp_path / "gone")], "gone has no metrics.csv", "nnUNetv2_spmc_evaluate")
    spaced = str(tmp_path / "my data")
    assert_refused([spaced], f"PREDICTIONS -o {shlex.quote(spaced)}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("asd_mm", "other"), "no column asd_mm"),
        (lambda text: text.splitlines()[0], "no rows"),
        (lambda text: text + text.splitlines()[1] + "\n", "same case and class twice"),
        (lambda text: text.replace("case1,RV,0", "case1,RV,x"), "line 4"),
        (lambda text: text.replace(",ok", ",fine"), "line 2"),
    ],
)
def test_a_damaged_metrics_csv_is_named(write_run, tmp_path, change, message) -> None:
    folder = write_run("a", random_dice(0))
    file = tmp_path / "a" / "metrics.csv"
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
    assert_refused([folder], "metrics.csv", message)


def test_the_csv_holds_every_method_class_and_metric(two_methods, tmp_path) -> None:
    methods = read_methods(two_methods[0])
    path = compare(methods).write_csv(tmp_path / "out")
    rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 2 * 3 * 6
    expected = found(differences(methods[1], methods[0]), label="RV", metric="asd_voxel")
    (row,) = (
        r for r in rows if (r["method"], r["label"], r["metric"]) == ("spmc", "RV", "asd_voxel")
    )
    assert float(row["difference"]) == expected.mean
    assert float(row["p"]) == expected.p
    assert row["baseline"] == "control"
    assert {r["baseline"] for r in rows if r["method"] == "control"} == {""}


def test_one_method_has_means_and_no_differences(write_run) -> None:
    text = compare(read_methods([write_run("a", random_dice(0))])).text()
    assert "| RV    | a      | 1     |" in text
    assert "Wilcoxon" not in text


def test_the_plot_shows_a_box_per_method_and_class(two_methods, tmp_path) -> None:
    path = draw_box_plot(read_methods(two_methods[0]), tmp_path)
    picture = matplotlib.image.imread(path)[..., :3]
    colors = {tuple(color) for color in (picture.reshape(-1, 3) * 255).astype(int).tolist()}
    dots = {tuple(round(255 * part) for part in to_rgb(method_color(n))) for n in range(2)}
    assert dots <= colors
    assert {file.name for file in tmp_path.iterdir() if file.is_file()} == {"comparison.png"}


def test_a_class_without_any_distance_can_be_plotted(write_run, tmp_path) -> None:
    dice = random_dice(0)
    dice[:, 1] = 0
    runs = [write_run("a", dice), write_run("b", random_dice(1))]
    assert draw_box_plot(read_methods(runs), tmp_path).is_file()


def test_every_table_names_the_methods_with_an_allowed_overlap(two_methods, tmp_path):
    arguments, _ = two_methods
    content = json.dumps({"settings": {"spmc_overlap": "none found"}})
    (tmp_path / "spmc_seed1" / "metrics.json").write_text(content)
    (tmp_path / "control_seed1" / "metrics.json").write_text(json.dumps({"settings": {}}))
    methods = read_methods(arguments)
    assert [method.name for method in methods] == ["control", "spmc (overlap allowed)"]
    comparison = compare(methods)
    assert "spmc (overlap allowed)" in comparison.means_table()
    assert "spmc (overlap allowed)" in comparison.differences_table()
