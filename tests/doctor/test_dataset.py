"""Each kind of fault of a dataset is found, with its cases and what to do."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.doctor import dataset, examination
from nnunetv2_spmc.doctor.examination import Question, examine

pytestmark = pytest.mark.usefixtures("no_machine")
PLANS = "nnUNetPlans"


def examined(*configurations, dataset="500"):
    return examine(Question(dataset, configurations or ["2d"])).findings


def unlabeled_scan(phantom, number=0):
    return sorted((phantom.raw / "imagesUn").iterdir())[number]


def preprocessed(phantom, kind="_unlabeled", number=0):
    files = (phantom.preprocessed / f"{PLANS}_2d{kind}").glob("*.b2nd")
    return sorted(file for file in files if not file.name.endswith("_seg.b2nd"))[number]


def save_again(source, target):
    """Save a scan with another data type and header."""
    image = sitk.Cast(sitk.ReadImage(str(source)), sitk.sitkFloat64)
    image.SetOrigin((7, 7, 7))
    sitk.WriteImage(image, str(target), useCompression=False)


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


# ---- faults: each returns the cases to be named ------------------------------------------------


def resaved_test_scan(phantom):
    (test,) = (phantom.raw / "imagesTs").iterdir()
    save_again(test, phantom.raw / "imagesUn" / "hospital_0000.nii.gz")
    return [f"hospital (= {test.name.removesuffix('_0000.nii.gz')})"]


def name_of_a_test_case(phantom):
    (test,) = (phantom.raw / "imagesTs").iterdir()
    shutil.move(unlabeled_scan(phantom), phantom.raw / "imagesUn" / test.name)
    return [test.name.removesuffix("_0000.nii.gz")]


def cut_unlabeled_scan(phantom):
    file = unlabeled_scan(phantom)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return [file.name.removesuffix("_0000.nii.gz")]


def scan_without_a_channel(phantom):
    file = unlabeled_scan(phantom)
    file.rename(file.with_name("scan.nii.gz"))
    return ["scan.nii.gz"]


def scan_of_another_ending(phantom):
    (phantom.raw / "imagesUn" / "other.nrrd").write_bytes(b"")
    return []


def no_unlabeled_scans(phantom):
    shutil.rmtree(phantom.raw / "imagesUn")
    shutil.rmtree(phantom.preprocessed / f"{PLANS}_2d_unlabeled")
    (phantom.preprocessed / "spmc_scans.json").unlink()
    return []


def annotated_scan(phantom):
    file = unlabeled_scan(phantom)
    label = next((phantom.raw / "labelsTr").iterdir())
    shutil.copy(file, phantom.raw / "imagesTr" / file.name)
    shutil.copy(label, phantom.raw / "labelsTr" / file.name.replace("_0000", ""))
    return [file.name.removesuffix("_0000.nii.gz")]


def other_spacing(phantom):
    for file in (phantom.raw / "imagesUn").iterdir():
        image = sitk.ReadImage(str(file))
        image.SetSpacing([3 * mm for mm in image.GetSpacing()])
        sitk.WriteImage(image, str(file))
    return []


def cut_labeled_case(phantom):
    file = preprocessed(phantom, "")
    file.write_bytes(file.read_bytes()[:-100])
    return [file.stem]


def labeled_case_without_properties(phantom):
    file = preprocessed(phantom, "").with_suffix(".pkl")
    file.write_bytes(b"\x80\x04N.")
    return [file.stem]


def scrambled_unlabeled_case(phantom):
    file = preprocessed(phantom)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = np.random.default_rng(0).bytes(400)
    file.write_bytes(content)
    return [file.stem]


def exchanged_unlabeled_cases(phantom):
    one, other = preprocessed(phantom), preprocessed(phantom, number=1)
    shutil.copy(other, one)
    return [one.stem]


def unlabeled_case_not_preprocessed(phantom):
    file = preprocessed(phantom)
    file.unlink()
    return [file.stem]


def labeled_case_not_preprocessed(phantom):
    file = preprocessed(phantom, "")
    for each in file.parent.glob(f"{file.stem}*"):
        each.unlink()
    return [file.stem]


def other_plans(phantom):
    def change(plans):
        plans["configurations"]["2d"]["spacing"] = [3.0, 3.0]

    edit(phantom.preprocessed / f"{PLANS}.json", change)
    return []


def damaged_plans(phantom):
    (phantom.preprocessed / f"{PLANS}.json").write_text("{")
    return []


def not_planned(phantom):
    shutil.rmtree(phantom.preprocessed)
    return []


def not_preprocessed(phantom):
    shutil.rmtree(phantom.preprocessed / f"{PLANS}_2d")
    return []


def write_folds(phantom, folds):
    (phantom.preprocessed / "splits_final.json").write_text(json.dumps(folds))


def labeled_names(phantom):
    return sorted(f.name.removesuffix(".nii.gz") for f in (phantom.raw / "labelsTr").iterdir())


def fold_with_an_unknown_case(phantom):
    write_folds(phantom, [{"train": labeled_names(phantom), "val": ["nobody"]}])
    return ["nobody"]


def fold_without_a_case(phantom):
    first, *others = labeled_names(phantom)
    write_folds(phantom, [{"train": others[:-1], "val": others[-1:]}])
    return [first]


def fold_that_validates_on_its_training(phantom):
    names = labeled_names(phantom)
    write_folds(phantom, [{"train": names, "val": names}])
    return []


def damaged_folds(phantom):
    (phantom.preprocessed / "splits_final.json").write_text("[")
    return []


def unknown_setting(phantom):
    def change(content):
        content["spmc"] = {"taau": 0.5}

    edit(phantom.preprocessed / "dataset.json", change)
    return []


def contradicting_regions(phantom):
    def change(content):
        content["labels"] = {"background": 0, "Ignore": 1}

    edit(phantom.preprocessed / "dataset.json", change)
    return []


def nothing(phantom):
    return []


FAULTS = [  # fault, what was looked at, how bad, part of the sentence, of the command
    (resaved_test_scan, "leaks", "error", "same images as a case in imagesTs", ""),
    (name_of_a_test_case, "leaks", "error", "unlabeled and at the same time test", ""),
    (cut_unlabeled_scan, "scans", "error", "1 scan of imagesUn cannot be read: ", ""),
    (scan_without_a_channel, "scans", "error", "has no channel suffix; rename it", ""),
    (scan_of_another_ending, "scans", "warning", "1 file left out, not ending in .nii.gz", ""),
    (no_unlabeled_scans, "cases", "warning", "5 labeled, 0 unlabeled and 1 test case.", ""),
    (
        nothing,
        "cases",
        "note",
        "There are more labeled cases (5) than",
        "nnUNetv2_spmc_compare -d 500",
    ),
    (annotated_scan, "annotated since", "note", "have a label by now", ""),
    (annotated_scan, "2d", "warning", "Labeled cases are not prep", "nnUNetv2_preprocess -d 500"),
    (other_spacing, "sites", "warning", "median spacing of unlabeled scans", ""),
    (cut_labeled_case, "2d", "error", "labeled cases in", "nnUNetv2_preprocess -d 500"),
    (labeled_case_without_properties, "2d", "error", ".pkl is damaged", "nnUNetv2_preprocess"),
    (scrambled_unlabeled_case, "2d", "error", "unlabeled cases in", "-p nnUNetPlans --verify"),
    (exchanged_unlabeled_cases, "2d", "error", "not their own scans", "nnUNetv2_spmc_preprocess"),
    (unlabeled_case_not_preprocessed, "2d", "warning", "not preprocessed yet", "nnUNetv2_spmc_pre"),
    (labeled_case_not_preprocessed, "2d", "warning", "so they are not trained on", "_preprocess"),
    (other_plans, "2d", "error", "made with other plans (spacing changed)", ""),
    (damaged_plans, "plans", "error", "nnUNetPlans.json is not valid JSON", ""),
    (not_planned, "plans", "error", "not planned yet", "nnUNetv2_plan_and_preprocess -d 500"),
    (not_preprocessed, "2d", "error", "not preprocessed for 2d", "nnUNetv2_preprocess -d 500"),
    (fold_with_an_unknown_case, "folds", "error", "names cases that are not preprocessed", ""),
    (fold_without_a_case, "folds", "warning", "leaves labeled cases out", "rm "),
    (fold_that_validates_on_its_training, "folds", "warning", "on the same cases", ""),
    (damaged_folds, "folds", "error", "splits_final.json is not valid JSON", ""),
    (unknown_setting, "settings", "error", "Unknown setting 'taau'", ""),
    (contradicting_regions, "dataset.json", "warning", "Ignore", ""),
]


@pytest.mark.parametrize(
    ("fault", "check", "severity", "part", "command"),
    FAULTS,
    ids=[f"{fault.__name__}-{check}" for fault, check, *_ in FAULTS],
)
def test_a_fault_is_found_with_its_cases_and_a_command(
    phantom, fault, check, severity, part, command
):
    cases = fault(phantom)
    findings = [f for f in examined() if f.check == check and part in f.what]
    assert len(findings) == 1, examined()
    (finding,) = findings
    assert finding.severity == severity
    assert list(finding.cases) == cases
    assert command in finding.command


def test_a_healthy_dataset_gives_no_error_and_no_warning(phantom):
    findings = examined("2d", "3d_fullres")
    assert [f for f in findings if f.severity in ("error", "warning")] == []
    checks = {"scans", "cases", "leaks", "sites", "settings", "folds", "2d", "3d_fullres"}
    assert {f.check for f in findings} == checks


def test_sparse_labels_need_no_unlabeled_scans(phantom):
    for scan in (phantom.raw / "imagesUn").iterdir():
        scan.unlink()
    for folder in (phantom.raw, phantom.preprocessed):
        content = json.loads((folder / "dataset.json").read_text())
        content["labels"]["ignore"] = 3
        (folder / "dataset.json").write_text(json.dumps(content))
    (finding,) = [f for f in examined() if f.check == "cases"]
    assert finding.severity == "ok"
    assert "Voxels under the ignore label are unlabeled ones" in finding.what


def test_one_fault_does_not_hide_another(phantom):
    damaged_plans(phantom)
    cut = cut_unlabeled_scan(phantom)
    resaved_test_scan(phantom)
    findings = {f.check: f for f in reversed(examined()) if f.severity == "error"}
    assert findings.keys() == {"plans", "scans", "leaks"}
    assert list(findings["scans"].cases) == cut


def test_the_folder_of_unlabeled_scans_is_listed_once(phantom, monkeypatch):
    listed = []
    original = dataset.find_images
    monkeypatch.setattr(
        dataset, "find_images", lambda folder, *of: listed.append(folder) or original(folder, *of)
    )
    examined()
    assert listed == [phantom.raw / "imagesUn"]


def test_settings_that_cannot_be_read_are_named_and_other_checks_go_on(phantom, monkeypatch):
    def fail(_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(examination, "_settings", fail)
    findings = examined()
    failed = [f.check for f in findings if "torchvision::nms" in f.what]
    assert failed == ["leaks", "settings"]
    assert {"cases", "sites", "2d"} <= {f.check for f in findings}


def test_a_command_quotes_a_folder_with_spaces(phantom, monkeypatch):
    moved = replace(phantom, root=phantom.root.rename(phantom.root.with_name("it's my data")))
    for kept, name in ((moved.raw, "nnUNet_raw"), (moved.preprocessed, "nnUNet_preprocessed")):
        monkeypatch.setenv(name, str(kept.parent))
    fold_without_a_case(moved)
    (finding,) = [f for f in examined() if "leaves labeled cases out" in f.what]
    assert shlex.split(finding.command) == ["rm", str(moved.preprocessed / "splits_final.json")]


def test_without_raw_data_the_last_record_is_compared(phantom, monkeypatch):
    resaved_test_scan(phantom)
    assert [f.severity for f in examined() if f.check == "leaks"] == ["error"]
    monkeypatch.delenv("nnUNet_raw")
    findings = examined()
    (leak,) = [f for f in findings if f.check == "leaks"]
    assert (leak.severity, len(leak.cases)) == ("error", 1)
    assert any("all scans as they were on" in f.what for f in findings)


def test_preprocessed_data_alone_is_no_error(phantom, monkeypatch):
    monkeypatch.delenv("nnUNet_raw")
    (phantom.preprocessed / "spmc_scans.json").unlink()
    findings = examined()
    assert [f for f in findings if f.severity in ("error", "warning")] == []
    assert any("unlabeled cases are not compared with test cases" in f.what for f in findings)


def test_a_leak_that_is_allowed_is_a_note(phantom):
    resaved_test_scan(phantom)

    def change(content):
        content["spmc"] = {"allow_overlap": True}

    edit(phantom.preprocessed / "dataset.json", change)
    (leak,) = [f for f in examined() if f.check == "leaks"]
    assert leak.severity == "note"
    assert "allow_overlap accepts that" in leak.what


def test_a_copy_is_reported_once_and_not_as_a_look_alike_too(phantom):
    resaved_test_scan(phantom)
    assert [f.severity for f in examined() if f.check in ("leaks", "look-alikes")] == ["error"]


def test_a_patient_on_two_sides_is_found(phantom):
    unlabeled = unlabeled_scan(phantom).name.removesuffix("_0000.nii.gz")
    labeled = labeled_names(phantom)[0]

    def change(content):
        content["groups"] = {unlabeled: "one", labeled: "one"}

    edit(phantom.raw / "split.json", change)
    (leak,) = [f for f in examined() if f.check == "leaks"]
    assert "of a patient of a validation case" in leak.what
    assert leak.cases == (unlabeled,)


def test_configurations_that_are_planned_only_are_one_note(phantom):
    not_preprocessed(phantom)
    findings = examine(Question("500")).findings
    (note,) = [f for f in findings if f.check == "plans"]
    assert note.severity == "note"
    assert note.command == "nnUNetv2_preprocess -d 500 -plans_name nnUNetPlans -c 2d"
    assert {f.check for f in findings} >= {"3d_fullres", "3d_fullres_small"}


@pytest.mark.parametrize(
    ("dataset", "configuration", "check", "part"),
    [
        ("999", "2d", "dataset", "There is no dataset 999"),
        ("500", "4d", "4d", "have no configuration 4d"),
    ],
)
def test_what_is_not_there_is_named(phantom, dataset, configuration, check, part):
    (finding,) = [f for f in examined(configuration, dataset=dataset) if f.severity == "error"]
    assert finding.check == check
    assert part in finding.what


def test_looking_twice_changes_nothing(phantom):
    examined()
    before = {f: f.read_bytes() for f in phantom.root.rglob("*") if f.is_file()}
    examined()
    after = {f: f.read_bytes() for f in phantom.root.rglob("*") if f.is_file()}
    assert before == after
