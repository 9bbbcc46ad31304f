import json
import os
import re
import shutil
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunetv2_spmc import load_run
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.inference.map_files import write_maps
from nnunetv2_spmc.inference.uncertainty import UncertaintySummary
from nnunetv2_spmc.reports import page, page_pictures, predictions
from nnunetv2_spmc.reports.case_views import case_view
from nnunetv2_spmc.reports.content import Options
from nnunetv2_spmc.reports.page import write_page
from nnunetv2_spmc.reports.report import extreme_cases, gather_report
from nnunetv2_spmc.reports.report_tables import (
    case_rows,
    metric_rows,
    metrics_remark,
    record_rows,
    setting_rows,
)
from tests.damaged_files import halved
from tests.reports.oriented_scans import view_of, write_scan


def silent(_message):
    pass


VALIDATION = Options(num_cases=1, test_cases=False, log=silent)


@pytest.fixture(scope="module")
def gathered(phantom_runs):
    with pytest.MonkeyPatch.context() as patch:
        preprocessed = phantom_runs.raw.parents[1] / "nnUNet_preprocessed"
        patch.setenv("nnUNet_raw", str(phantom_runs.raw.parent))
        patch.setenv("nnUNet_preprocessed", str(preprocessed))
        runs = [load_run(phantom_runs.control), load_run(phantom_runs.spmc)]
        return gather_report(runs, VALIDATION)


class Page(HTMLParser):
    """What a page loads, and its tables as lists of rows."""

    def __init__(self, text):
        super().__init__()
        self.loaded, self.tables, self.images = [], {}, []
        self.row = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag in ("img", "script", "link", "iframe", "source"):
            self.loaded += [values[key] for key in ("src", "href") if key in values]
        if tag == "img":
            self.images.append(values)
        if tag == "table":
            self.rows = self.tables.setdefault(values["id"], [])
        if tag == "tr":
            self.row = []
            self.rows.append(self.row)
        if tag in ("td", "th"):
            self.row.append("")

    def handle_data(self, data):
        if self.row:
            self.row[-1] += data

    def handle_endtag(self, tag):
        if tag == "tr":
            self.row = None


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    def write(report, **options):
        path = tmp_path_factory.mktemp("report") / "report.html"
        write_page(report, path, title="Report", **{"with_viewer": False} | options)
        return path.read_text(encoding="utf-8")

    return write


@pytest.fixture(scope="module")
def text(gathered, write):
    """The page of both runs."""
    return write(gathered)


def test_the_page_loads_nothing_from_elsewhere(text):
    loaded = Page(text).loaded
    assert len(loaded) >= 5
    assert all(address.startswith("data:") for address in loaded)


def test_the_page_forbids_the_browser_to_load_anything(text):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_tables_say_what_was_trained_on_what(text):
    rows = {row[0]: row[1:] for row in Page(text).tables["runs-table"]}
    assert rows["trainer"] == ["nnUNetTrainerSupervisedControl", "nnUNetTrainerSPMC"]
    assert rows["labeled training cases"] == ["5", "5"]
    assert rows["unlabeled training cases"] == ["0", "4"]
    assert rows["epochs"] == ["2 of 2", "2 of 2"]
    assert rows["patch size, batch size"] == ["16 x 16, 2"] * 2


def test_every_picture_has_a_text(text):
    images = Page(text).images
    assert len(images) > 20
    assert all(image["alt"] for image in images)


def test_names_cannot_break_the_page(gathered, write):
    evil = "<script>alert(1)</script>"
    runs = {f"{name}{evil}": run for name, run in gathered.runs.items()}
    text = write(replace(gathered, runs=runs, predictions={}, cases={}, notes=[evil]))
    assert evil not in text
    assert "&lt;script&gt;" in text


def test_metrics_are_means_over_cases(gathered):
    table = gathered.metrics["nnUNetTrainerSPMC"]
    row = next(
        r for r in metric_rows(gathered) if (r["label"], r["run"]) == ("organ", "nnUNetTrainerSPMC")
    )
    dice = table.query("label == 'organ'")["dice"]
    mean, std = map(float, row["cells"][0].split(" ± "))
    assert (mean, std) == (
        pytest.approx(dice.mean(), abs=1e-3),
        pytest.approx(dice.std(), abs=1e-3),
    )
    assert len(case_rows(gathered)) == 2 * 5 * 2


def test_surface_distances_are_measured_where_the_run_has_none(gathered):
    assert gathered.metrics["nnUNetTrainerSPMC"]["hd95_mm"].notna().any()


def test_fold_all_is_not_taken_for_validation(gathered):
    assert "the validation cases are the training cases" in metrics_remark(gathered)


def test_settings_that_one_run_lacks_are_dashes(gathered):
    *_, run = gathered.runs.values()
    stock = replace(run, settings={"epochs": 2})
    rows = setting_rows(replace(gathered, runs={"stock": stock, "ours": run}))
    found = {key: (values, differs) for key, values, differs in rows}
    assert found["epochs"] == (["2", "2"], False)
    assert found["tau"] == (["-", "0.7"], False)


def test_a_model_without_auxiliary_branch_is_noted_and_its_confidence_shown(gathered):
    assert any("No common-difficulty voxels are shown for" in note for note in gathered.notes)
    control, spmc = next(iter(gathered.cases.values()))
    assert control.confidence is not None
    assert control.common_difficulty is None
    assert spmc.common_difficulty is not None


def test_an_unfinished_run_is_shown_with_the_command_to_go_on(phantom_runs, tmp_path, write):
    folder = shutil.copytree(phantom_runs.spmc.parent, tmp_path / "model") / "fold_all"
    checkpoint = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    torch.save(checkpoint | {"current_epoch": 1}, folder / "checkpoint_latest.pth")
    for name in ("checkpoint_final.pth", "checkpoint_best.pth"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "validation")
    report = gather_report([load_run(folder)], VALIDATION)
    text = write(report)
    assert "is not finished: 1 of 2 epochs. Go on with nnUNetv2_train 500 2d_small all" in text
    assert "has no metrics" in text
    assert "No run has been validated yet" in text
    assert dict(record_rows(report))["epochs"] == ["1 of 2, not finished"]


def test_without_niivue_the_page_says_so_and_has_the_rest(gathered, write, monkeypatch):
    def nowhere():
        raise DataError("NiiVue is not there; to get it, do this.")

    monkeypatch.setattr(page, "find_niivue", nowhere)
    text = write(replace(gathered, notes=[]), with_viewer=True)
    assert "no interactive viewer: NiiVue is not there; to get it, do this." in text
    assert "viewer-canvas" not in text
    assert "Worst and best cases" in text


def test_missing_images_are_noted_and_the_metrics_shown(phantom_runs, monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    report = gather_report([load_run(phantom_runs.spmc)], VALIDATION)
    assert not report.cases
    (note,) = report.notes
    assert "is not shown: nnUNet_raw has no image of the case" in note
    assert note.endswith("(nnUNetTrainerSPMC: the same of 1 more)")
    assert report.metrics


@pytest.mark.parametrize("what", ["image", "reference", "prediction"])
def test_half_a_file_is_not_shown(phantom_runs, monkeypatch, tmp_path, what):
    raw = shutil.copytree(phantom_runs.raw, tmp_path / phantom_runs.raw.name)
    fold = shutil.copytree(phantom_runs.spmc.parent, tmp_path / "model") / "fold_all"
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    summary = fold / "validation" / "summary.json"
    summary.write_text(summary.read_text().replace(str(phantom_runs.raw), str(raw)))
    run = load_run(fold)
    case = run.mean_dice().index[0]
    files = {
        "image": raw / "imagesTr" / f"{case}_0000.nii.gz",
        "reference": raw / "labelsTr" / f"{case}.nii.gz",
        "prediction": fold / "validation" / f"{case}.nii.gz",
    }
    case_view(run, case, with_maps=False)
    halved(files[what], files[what])
    with pytest.raises(DataError, match=f"{files[what]} is truncated or damaged"):
        case_view(run, case, with_maps=False)


def table(**dice):
    return pd.DataFrame({"case": list(dice), "label": "organ", "dice": list(dice.values())})


def test_worst_and_best_cases():
    metrics = {"run": table(a=0.9, b=0.1, c=0.5, d=0.7, e=np.nan)}
    assert extreme_cases(metrics, 1) == ["b", "a"]
    assert extreme_cases(metrics, 2) == ["b", "c", "d", "a"]
    assert extreme_cases(metrics, 0) == []


def test_extreme_cases_of_several_runs_are_common_ones():
    metrics = {"first": table(a=0.0, b=0.6, c=0.2), "second": table(b=0.1, c=0.6, d=0.9)}
    assert extreme_cases(metrics, 1) == ["b", "c"]


def test_extreme_cases_of_runs_without_common_ones():
    assert extreme_cases({"first": table(a=0.2), "second": table(d=0.9)}, 1) == ["a", "d"]


def test_runs_on_different_cases_are_remarked(gathered):
    ours = gathered.predictions["nnUNetTrainerSPMC"]
    cut = replace(ours, metrics=ours.metrics.query("case != 'train_000'"))
    predictions = gathered.predictions | {"nnUNetTrainerSPMC": cut}
    remark = metrics_remark(replace(gathered, predictions=predictions))
    assert "measured on different cases" in remark


def test_runs_whose_readers_differ_are_shown_on_the_same_axes(phantom_runs, tmp_path, monkeypatch):
    """Both readers give arrays of one shape here, one of them from the other side."""
    file = write_scan(tmp_path, "LAS")
    readers = iter((SimpleITKIO, NibabelIOWithReorient))
    monkeypatch.setattr(
        "nnunetv2_spmc.reports.report.case_view",
        lambda run, case, **options: view_of(file, next(readers)),
    )
    runs = [load_run(phantom_runs.control), load_run(phantom_runs.spmc)]
    monkeypatch.setattr("nnunetv2_spmc.reports.report.extreme_cases", lambda *_: ["train_000"])
    ((first, second),) = gather_report(runs, VALIDATION).cases.values()
    assert np.array_equal(first.image, view_of(file).image)
    assert np.array_equal(second.image, first.image)
    assert np.array_equal(second.prediction, first.prediction)
    assert second.display == first.display


def test_an_allowed_overlap_is_in_every_table_of_the_run(phantom_runs, tmp_path, write):
    folder = shutil.copytree(phantom_runs.spmc.parent, tmp_path / "model") / "fold_all"
    checkpoint = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    state = checkpoint["semi_supervised"]
    state["settings"]["allow_overlap"] = True
    state["overlap"] = "some cases are unlabeled and at the same time test: x"
    torch.save(checkpoint, folder / "checkpoint_final.pth")
    runs = [load_run(folder), load_run(phantom_runs.control)]
    report = gather_report(runs, replace(VALIDATION, num_cases=0))
    name, control = report.runs
    assert name.endswith(" (overlap allowed)")
    assert "overlap" not in control
    rows = dict(record_rows(report))
    assert rows["overlap of unlabeled and evaluated cases"] == [state["overlap"], "not allowed"]
    assert {row["run"] for row in metric_rows(report) + case_rows(report)} == {name, control}
    assert f"{name} was trained with allow_overlap ({state['overlap']})" in write(report)


# ---- what comes first ----------------------------------------------------------------------------


def ids_of(text):
    return re.findall(r'<(?:h2|h3|section) id="(\w+)"', text)


def test_the_answer_comes_first_then_pictures_metrics_curves_and_settings_last(text):
    order = ["answer", "cases", "metrics", "curves", "runs", "settings"]
    assert ids_of(text) == order
    links = re.findall(r'href="#(\w+)"', text)[1:]  # without that for screen readers
    assert links == order


def test_the_answer_has_a_sentence_a_forest_and_joined_lines(gathered, text):
    answer = text[text.index('id="answer"') : text.index('id="cases"')]
    (found,) = gathered.answers
    assert found.headline in answer
    assert "SPMC minus SupervisedControl" in found.headline  # five cases have no interval
    assert "Beware: these are the training cases of SupervisedControl and SPMC." in answer
    alts = [image["alt"] for image in Page(answer).images]
    assert alts[0].startswith("Differences with their intervals. SPMC minus SupervisedControl")
    assert alts[1:] == [
        f"Dice, {label}: SupervisedControl and SPMC, validation cases"
        for label in ("mean over classes", "organ", "core")
    ]


def test_patients_come_from_the_record_of_scans_where_raw_data_is_absent(
    phantom_runs, tmp_path, monkeypatch
):
    monkeypatch.delenv("nnUNet_raw")
    folder = tmp_path / phantom_runs.raw.name
    folder.mkdir()
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    groups = {f"train_{i:03d}": f"patient{i // 2}" for i in range(5)}
    record = {"date": "", "groups": groups, "folders": {}}
    (folder / "spmc_scans.json").write_text(json.dumps(record))
    runs = [load_run(phantom_runs.control), load_run(phantom_runs.spmc)]
    (found,) = gather_report(runs, replace(VALIDATION, num_cases=0)).answers
    assert found.headline.endswith("on 3 validation patients, 1 seed each.")


def test_only_settings_that_a_run_uses_are_shown_and_marked(gathered, text):
    rows = {row[0]: row[1:] for row in Page(text).tables["settings-table"]}
    assert rows["epochs"] == ["2", "2"]
    assert rows["lambda_max"] == ["-", "1.0"]
    marked = re.findall(r'<tr class="differs"><th scope="row">(\w+)', text)
    assert marked == []  # the control uses none of those in which they differ
    assert not [key for key, _, differs in setting_rows(gathered) if differs]


def test_every_case_has_a_legend_with_the_names_of_the_classes(gathered, text):
    pictures = text[text.index('id="cases"') : text.index('id="metrics"')]
    legends = re.findall(r'<ul class="legend">(.*?)</ul>', pictures, re.DOTALL)
    assert len(legends) == len(gathered.cases) == 2
    names = ("organ", "core", "missed", "added", "wrong class", "common difficulty")
    for legend in legends:
        assert "filled: prediction; outline: reference" in legend
        assert [name for name in names if f"</span>{name}<" in legend] == list(names)


def test_panels_have_captions_and_runs_without_a_map_have_no_panel(gathered, text):
    alts = [image["alt"] for image in Page(text).images]
    first = next(iter(gathered.cases))
    of_case = [alt.removeprefix(f"{first}, ") for alt in alts if alt.startswith(f"{first}, ")]
    panels = ["image", "prediction and reference", "errors", "confidence"]
    assert of_case == [
        *(f"nnUNetTrainerSupervisedControl: {panel}" for panel in panels),
        *(f"nnUNetTrainerSPMC: {panel}" for panel in [*panels, "common-difficulty voxels"]),
    ]


def test_under_each_curve_stands_what_healthy_looks_like(text):
    curves = text[text.index('id="curves"') : text.index('id="runs"')]
    figures = re.findall(r"<figure>.*?</figure>", curves, re.DOTALL)
    assert len(figures) > 12
    for figure in figures:
        assert re.search(r"<figcaption>Healthy: .*\.</figcaption>", figure)


def test_everything_folded_is_printed(text):
    assert "<details><summary>All cases" in text
    assert 'addEventListener("beforeprint"' in text
    assert "::details-content" in text


def test_of_many_classes_the_first_have_figures_and_all_are_in_the_table(
    gathered, write, monkeypatch
):
    monkeypatch.setattr(page_pictures, "MAX_CLASSES", 1)
    text = write(gathered)
    alts = [image["alt"] for image in Page(text).images]
    assert any(alt.startswith("Dice, organ") for alt in alts)
    assert any(alt.startswith("pseudo Dice organ") for alt in alts)
    assert not any(
        alt.startswith(("Dice, core", "HD95 mm, core", "pseudo Dice core")) for alt in alts
    )
    assert "Figures show the first 1 of 2 classes; the tables have all." in text
    assert {row[0] for row in Page(text).tables["metrics-table"]} >= {"organ", "core"}


# ---- test cases ----------------------------------------------------------------------------------


@pytest.fixture
def copied(phantom_runs, tmp_path):
    """Runs into whose folders a report may write: (control, spmc)."""
    models = [phantom_runs.control.parent, phantom_runs.spmc.parent]
    return [shutil.copytree(model, tmp_path / model.name) / "fold_all" for model in models]


def on_test_cases(folders, **options):
    lines = []
    runs = [load_run(folder) for folder in folders]
    return gather_report(runs, Options(num_cases=1, log=lines.append, **options)), lines


def test_test_cases_are_predicted_measured_and_kept(copied, write):
    report, _ = on_test_cases(copied)
    assert report.kind == "test"
    (case,) = report.cases
    assert [table["case"].unique().tolist() for table in report.metrics.values()] == [[case]] * 2
    for folder in copied:
        assert {f"{case}.nii.gz", "metrics.csv", "confidence"} <= {
            file.name for file in (folder / "test").iterdir()
        }
    text = write(report)
    assert "Metrics of the test cases" in text
    assert "1 test case." in text
    assert "training cases" not in text[: text.index('id="curves"')]


def test_a_line_is_written_for_every_step_that_takes_time(copied):
    _, lines = on_test_cases(copied)
    assert [line.partition(":")[0].split(" of nnUNet")[0] for line in lines] == [
        "Predicting 1 test case",
        "[1/1] test_000",
        "Measuring the test cases",
        "Predicting 1 test case",
        "[1/1] test_000",
        "Measuring the test cases",
        "[1/1] test_000",
        "[1/1] test_000",
    ]


def test_stored_predictions_maps_and_metrics_are_used_again(copied, monkeypatch):
    first, _ = on_test_cases(copied)

    def forbidden(*arguments, **options):
        raise AssertionError

    for name in ("predictions.write_uncertainty", "predictions.evaluate_folder"):
        monkeypatch.setattr(f"nnunetv2_spmc.reports.{name}", forbidden)
    monkeypatch.setattr("nnunetv2_spmc.reports.run_record.predict_case", forbidden)
    second, lines = on_test_cases(copied)
    assert [line.partition(":")[0] for line in lines] == ["[1/1] test_000"] * 2
    for name, table in first.metrics.items():
        pd.testing.assert_frame_equal(second.metrics[name], table)
    (ours,), (theirs,) = first.cases.values(), second.cases.values()
    for view, other in zip(ours, theirs, strict=True):
        assert np.array_equal(view.confidence, other.confidence)
    assert np.array_equal(ours[1].common_difficulty, theirs[1].common_difficulty)


def test_predictions_of_an_earlier_checkpoint_are_made_again(copied):
    _, spmc = copied
    on_test_cases([spmc])
    later = time.time() + 10
    os.utime(spmc / "checkpoint_final.pth", (later, later))
    _, lines = on_test_cases([spmc])
    assert lines[0].startswith("Predicting 1 test case of nnUNetTrainerSPMC")


def test_a_prediction_of_an_earlier_checkpoint_is_not_counted_where_the_new_one_fails(
    copied, monkeypatch
):
    _, spmc = copied
    on_test_cases([spmc])
    later = time.time() + 10
    os.utime(spmc / "checkpoint_final.pth", (later, later))
    failed = UncertaintySummary(failed={"test_000": "test_000_0000.nii.gz is truncated."})
    monkeypatch.setattr(predictions, "write_uncertainty", lambda *_, **__: failed)
    report, _ = on_test_cases([spmc])
    assert report.kind == "validation"
    assert not (spmc / "test" / "test_000.nii.gz").exists()


def test_cases_are_measured_again_when_their_labels_are_newer(copied, phantom_runs):
    _, spmc = copied
    on_test_cases([spmc])
    time_of_label = (phantom_runs.raw / "labelsTs" / "test_000.nii.gz").stat().st_mtime
    files = [spmc / "checkpoint_final.pth", *(p for p in (spmc / "test").rglob("*") if p.is_file())]
    for age, file in enumerate(reversed(files), start=10):
        os.utime(file, (time_of_label - age, time_of_label - age))
    _, lines = on_test_cases([spmc])
    assert lines[0] == "Measuring the test cases of nnUNetTrainerSPMC, 2d_small, fold all"


def test_a_case_without_a_prediction_among_those_that_are_named_is_said(phantom_runs, tmp_path):
    run = load_run(phantom_runs.spmc)
    cases = {"test_000": [Path()], "test_001": [Path()]}
    shutil.copytree(phantom_runs.raw / "labelsTs", tmp_path / "given")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions, "labeled_test_cases", lambda _: (cases, {}))
        found = predictions.predicted_test_cases(run, tmp_path / "given")
    assert found.metrics["case"].unique().tolist() == ["test_000"]
    assert found.failed == {"test_001": f"{tmp_path / 'given'} has no prediction of it"}


def test_predictions_can_be_named(copied, phantom_runs, tmp_path):
    given = []
    for folder in copied:
        given.append(tmp_path / folder.parent.name / "given")
        shutil.copytree(phantom_runs.raw / "labelsTs", given[-1])
    report, _ = on_test_cases(copied, predictions=given, with_maps=False)
    assert report.kind == "test"
    assert all((table["dice"] == 1).all() for table in report.metrics.values())
    assert not any((folder / "test").exists() for folder in copied)
    assert not (given[0] / "metrics.csv").exists()
    assert all(view.confidence is None for views in report.cases.values() for view in views)


def test_without_predicting_validation_cases_are_shown_and_it_is_said(copied):
    report, _ = on_test_cases(copied, with_maps=False)
    assert report.kind == "validation"
    assert any(
        note == "Validation cases are shown, because of nnUNetTrainerSupervisedControl: "
        "1 of 1 test cases is not predicted."
        for note in report.notes
    )
    assert not (copied[0] / "test").exists()


def test_a_damaged_test_scan_leaves_the_validation_cases_and_is_named(
    copied, phantom_runs, tmp_path, monkeypatch
):
    raw = shutil.copytree(phantom_runs.raw, tmp_path / "raw" / phantom_runs.raw.name)
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    (image,) = (raw / "imagesTs").iterdir()
    halved(image, image)
    report, _ = on_test_cases(copied[1:])
    assert report.kind == "validation"
    assert f"{image} is truncated or damaged" in report.failed["test cases of nnUNetTrainerSPMC"]


def test_maps_of_validation_cases_are_kept_for_the_next_report(copied, monkeypatch):
    _, spmc = copied
    run = load_run(spmc)
    first = case_view(run, "train_000")
    assert (spmc / "validation_maps" / "confidence" / "train_000.nii.gz").is_file()
    monkeypatch.setattr(type(run), "predict", None)
    again = case_view(load_run(spmc), "train_000")
    assert np.array_equal(again.confidence, first.confidence)
    assert np.array_equal(again.common_difficulty, first.common_difficulty)
    os.utime(spmc / run.checkpoint_name)  # of another model: its own maps
    with pytest.raises(TypeError):
        case_view(load_run(spmc), "train_000")


def test_stored_maps_of_validation_cases_are_used(copied, monkeypatch):
    _, spmc = copied
    run = load_run(spmc)
    maps = run.predict(run.validation_images("train_000"))
    half = replace(maps, confidence=np.full_like(maps.confidence, 0.5))
    write_maps(spmc / "maps", "train_000", half, run.reader_writer, ".nii.gz")
    (spmc / "maps" / "confidence").rename(spmc / "validation" / "confidence")
    assert (case_view(run, "train_000", with_maps=False).confidence == 0.5).all()
    old = (spmc / "checkpoint_final.pth").stat().st_mtime - 10
    os.utime(spmc / "validation" / "confidence" / "train_000.nii.gz", (old, old))
    assert case_view(run, "train_000", with_maps=False).confidence is None
