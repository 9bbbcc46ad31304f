from __future__ import annotations

import csv
import json
import os
from concurrent.futures.process import BrokenProcessPool

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc import __version__
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.evaluation import folder_evaluation
from nnunetv2_spmc.evaluation.case_metrics import METRICS
from nnunetv2_spmc.evaluation.folder_evaluation import evaluate_folder

CASES = ("a", "b", "c")
LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
COLUMNS = (
    "case,label,dice,jaccard,hd95_mm,asd_mm,hd95_voxel,asd_voxel,reference_voxels,"
    "predicted_voxels,status"
)


@pytest.fixture
def folders(tmp_path, write_volume):
    """References, predictions and dataset.json of three cases."""
    generator = np.random.default_rng(0)
    for case in CASES:
        reference = np.repeat(generator.integers(0, 4, (4, 5, 6)), 2, axis=2).astype(np.uint8)
        prediction = np.where(generator.random(reference.shape) < 0.3, 0, reference)
        write_volume(tmp_path / "labels" / f"{case}.nii.gz", reference)
        write_volume(tmp_path / "predictions" / f"{case}.nii.gz", prediction)
    write_dataset_json(tmp_path)
    return tmp_path


def write_dataset_json(folder, **content):
    content = {"labels": LABELS, "file_ending": ".nii.gz", **content}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def evaluate(folder, **options):
    options = {"num_processes": 0, "show_progress": False} | options
    return evaluate_folder(
        folder / "labels", folder / "predictions", folder / "dataset.json", **options
    )


def change(file, function):
    image = sitk.ReadImage(str(file))
    function(image)
    sitk.WriteImage(image, str(file))


def failure_of(evaluation, case):
    """Return why the only failing case could not be measured; the others were."""
    assert {row.case for row in evaluation.rows} == set(CASES) - {case}
    assert list(evaluation.failed) == [case]
    return evaluation.failed[case]


def assert_refused(folder, *words, **options):
    with pytest.raises(DataError) as error:
        evaluate(folder, **options)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "order"),
    [
        (LABELS, None),
        ({"background": 0, "heart": [1, 2, 3], "left": [2, 3], "LV": 3}, [1, 2, 3]),
        ({"background": 0, "RV": 1, "MYO": 2, "ignore": 3}, None),
    ],
)
def test_dice_is_that_of_nnunet(folders, labels, order) -> None:
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    manager = LabelManager(labels, order)
    if manager.has_ignore_label:
        for case in CASES:  # a network does not predict it
            change(folders / "predictions" / f"{case}.nii.gz", lambda image: without(image, 3))
    change(folders / "predictions" / "b.nii.gz", lambda image: without(image, 2))
    write_dataset_json(folders, labels=labels)
    keys = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    paths = [str(folders / name) for name in ("labels", "predictions")]
    theirs = compute_metrics_on_folder(
        *paths, None, SimpleITKIO(), ".nii.gz", keys, manager.ignore_label, num_processes=1
    )
    evaluation = evaluate(folders)
    ours = {(row.case, row.label): row for row in evaluation.rows}
    names = [name for name in labels if name not in ("background", "ignore")]
    for case, of_case in zip(CASES, theirs["metric_per_case"], strict=True):
        for name, key in zip(names, keys, strict=True):
            row, metrics = ours[case, name], of_case["metrics"][key]
            assert row.dice == metrics["Dice"]
            assert row.jaccard == metrics["IoU"]
            assert row.reference_voxels == metrics["n_ref"]
            assert row.predicted_voxels == metrics["n_pred"]
    mean = evaluation.as_json()["mean"]
    assert mean["dice"]["mean"] == pytest.approx(theirs["foreground_mean"]["Dice"], rel=1e-12)


def without(image, label):
    array = sitk.GetArrayFromImage(image)
    for z, y, x in np.argwhere(array == label).tolist():
        image[x, y, z] = 0


def test_worker_processes_find_the_same(folders) -> None:
    assert evaluate(folders, num_processes=2).rows == evaluate(folders).rows


def test_the_files_hold_every_case_and_the_summary(folders, tmp_path) -> None:
    evaluation = evaluate(folders)
    csv_file, json_file = evaluation.write(tmp_path / "out" / "new")
    text = csv_file.read_text(encoding="utf-8").splitlines()
    assert text[0] == COLUMNS
    assert [(r["case"], r["label"]) for r in csv.DictReader(text)] == [
        (case, label) for case in CASES for label in ("RV", "MYO", "LV")
    ]
    content = json.loads(json_file.read_text(encoding="utf-8"))
    assert content["version"] == __version__
    assert content["classes"].keys() == {"RV", "MYO", "LV"}
    expected = np.mean([row.hd95_mm for row in evaluation.rows if row.label == "MYO"])
    assert content["classes"]["MYO"]["hd95_mm"]["mean"] == pytest.approx(expected)
    assert content["mean"].keys() == {*METRICS, "both_empty", "failures"}
    assert content["settings"]["reader"] == "SimpleITKIO"
    assert {f.name for f in csv_file.parent.iterdir()} == {"metrics.csv", "metrics.json"}


def test_the_table_has_a_row_per_class_and_failures_are_named(folders) -> None:
    change(folders / "predictions" / "b.nii.gz", lambda image: without(image, 2))
    evaluation = evaluate(folders)
    lines = evaluation.table().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["RV", "MYO", "LV", "mean"]
    assert [line.split("|")[-2].strip() for line in lines[2:]] == ["0", "1", "0", "1"]
    assert "those of the other cases: b (MYO)." in " ".join(evaluation.remarks())


def test_what_else_nnunet_writes_is_no_prediction(folders) -> None:
    expected = evaluate(folders).rows
    for name in ("dataset.json", "plans.json", "summary.json", "a.npz", "a.pkl", "._a.nii.gz"):
        (folders / "predictions" / name).write_text("{}", encoding="utf-8")
    assert evaluate(folders).rows == expected


def test_distances_follow_the_axes_of_the_file(folders, write_volume) -> None:
    for name, x in (("labels", 1), ("predictions", 5)):
        array = np.zeros((4, 6, 8), np.uint8)
        array[2, 3, x] = 1
        for case in CASES:
            write_volume(folders / name / f"{case}.nii.gz", array, spacing=(0.5, 2, 7))
    row = evaluate(folders).rows[0]
    assert (row.hd95_mm, row.asd_voxel) == (2.0, 4.0)


def test_pictures_have_contours_in_their_plane(tmp_path) -> None:
    skimage = pytest.importorskip("skimage.io")
    mask = np.zeros((9, 9), np.uint8)
    mask[1:8, 1:8] = 1
    smaller = np.zeros_like(mask)
    smaller[2:7, 2:7] = 1
    for name, picture in (("labels", mask), ("predictions", smaller)):
        (tmp_path / name).mkdir()
        skimage.imsave(tmp_path / name / "a.png", picture, check_contrast=False)
    write_dataset_json(tmp_path, labels={"background": 0, "cell": 1}, file_ending=".png")
    row = evaluate(tmp_path).rows[0]
    assert (row.asd_voxel, row.asd_mm) == (1.0, 1.0)  # in 3D every pixel would be on the surface


def test_nibabel_s_reader_measures_the_same(folders) -> None:
    expected = evaluate(folders).rows
    write_dataset_json(folders, overwrite_image_reader_writer="NibabelIO")
    evaluation = evaluate(folders)
    assert evaluation.settings["reader"] == "NibabelIO"
    assert evaluation.rows == expected
    change(folders / "predictions" / "a.nii.gz", lambda i: i.SetOrigin((5, 0, 0)))
    assert "origin" in failure_of(evaluate(folders), "a")


def test_missing_and_surplus_predictions_are_named(folders) -> None:
    file = folders / "predictions" / "b.nii.gz"
    file.rename(file.with_name("x.nii.gz"))
    assert_refused(
        folders,
        "no prediction for 1 of 3 cases: b",
        "no reference for 1 of 3 predictions: x",
    )
    assert evaluate(folders, allow_missing=True).settings["missing_predictions"] == ["b"]


def test_predictions_without_a_reference_are_named_and_the_others_measured(
    folders, write_volume
) -> None:
    expected = evaluate(folders).rows
    for case in ("x", "y"):
        write_volume(folders / "predictions" / f"{case}.nii.gz", np.ones((4, 5, 6), np.uint8))
    evaluation = evaluate(folders)
    assert evaluation.rows == expected
    assert evaluation.settings["predictions_without_reference"] == ["x", "y"]
    (note,) = evaluation.notes
    assert note == (
        f"note: left out: {folders / 'labels'} has no reference for 2 of 5 predictions: x, y."
    )


@pytest.mark.parametrize("allow_missing", [False, True])
def test_predictions_of_which_none_has_a_reference_are_refused(folders, allow_missing) -> None:
    for case in CASES:
        file = folders / "predictions" / f"{case}.nii.gz"
        file.rename(file.with_name(f"x{case}.nii.gz"))
    words = ("no prediction for 3 of 3 cases: a, b, c", "for 3 of 3 predictions: xa, xb, xc")
    assert_refused(folders, *words, allow_missing=allow_missing)


def test_missing_predictions_can_be_allowed_and_are_recorded(folders) -> None:
    (folders / "predictions" / "b.nii.gz").unlink()
    evaluation = evaluate(folders, allow_missing=True)
    assert {row.case for row in evaluation.rows} == {"a", "c"}
    assert evaluation.settings["missing_predictions"] == ["b"]
    assert "no prediction: 1 of 3 cases (b)." in evaluation.remarks()[-1]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda i: i.SetSpacing((1, 1, 3)), "spacing (3.0, 1.0, 1.0) instead of (2.0, 1.0, 1.0)"),
        (lambda i: i.SetOrigin((0, 0, 9)), "origin (0.0, 0.0, 9.0) instead of (0.0, 0.0, 0.0)"),
        (lambda i: i.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1)), "direction (-1.0"),
        (lambda i: i.SetPixel(0, 0, 0, 7), "label values 7, allowed are [0, 1, 2, 3]"),
    ],
)
def test_a_prediction_that_does_not_fit_is_named_and_the_others_measured(
    folders, function, message
) -> None:
    change(folders / "predictions" / "b.nii.gz", function)
    assert message in failure_of(evaluate(folders), "b")


def test_another_shape_is_named_and_so_are_all_such_cases(folders, write_volume) -> None:
    for case in ("b", "c"):
        write_volume(folders / "predictions" / f"{case}.nii.gz", np.zeros((4, 5, 6), np.uint8))
    message = "shape (4, 5, 6) instead of (4, 5, 12)"
    for evaluation in (evaluate(folders), evaluate(folders, num_processes=2)):
        assert {row.case for row in evaluation.rows} == {"a"}
        assert list(evaluation.failed) == ["b", "c"]
        assert all(message in reason for reason in evaluation.failed.values())


def test_an_evaluation_without_a_case_that_fits_is_refused(folders, write_volume) -> None:
    for case in CASES:
        write_volume(folders / "predictions" / f"{case}.nii.gz", np.zeros((4, 5, 6), np.uint8))
    assert_refused(folders, "Case a: ", "shape (4, 5, 6)", "Problems with 2 more cases: b, c.")


def test_fractions_are_no_labels(folders) -> None:
    file = folders / "labels" / "b.nii.gz"
    image = nibabel.load(file)
    halves = nibabel.Nifti1Image(image.get_fdata() / 2, image.affine)
    nibabel.save(halves, file)
    message = "labels/b.nii.gz has label values that are not whole"
    assert message in failure_of(evaluate(folders), "b")


@pytest.mark.parametrize("case", ["a", "b"])  # the reader is chosen by reading the first
@pytest.mark.parametrize("name", ["labels", "predictions"])
def test_a_file_that_cannot_be_read_is_named(folders, name, case) -> None:
    (folders / name / f"{case}.nii.gz").write_bytes(b"no image")
    assert f"{name}/{case}.nii.gz" in failure_of(evaluate(folders), case)


def test_files_that_cannot_be_read_at_all_are_named(folders) -> None:
    for case in CASES:
        (folders / "labels" / f"{case}.nii.gz").write_bytes(b"no image")
    assert_refused(folders, "labels/a.nii.gz", "labels/c.nii.gz: get them again")


def test_a_truncated_file_is_named(folders) -> None:
    file = folders / "predictions" / "c.nii.gz"
    file.write_bytes(file.read_bytes()[:-40])
    assert "predictions/c.nii.gz is truncated" in failure_of(evaluate(folders), "c")


@pytest.mark.parametrize("name", ["labels", "predictions"])
def test_what_is_no_file_is_named(folders, name) -> None:
    for case, make in (("a", lambda file: file.symlink_to("gone")), ("b", os.mkfifo)):
        file = folders / name / f"{case}.nii.gz"
        file.unlink()
        make(file)
    evaluation = evaluate(folders)
    assert list(evaluation.failed) == ["a", "b"]
    assert f"{name}/a.nii.gz is a link to gone, which does not exist" in evaluation.failed["a"]
    assert f"{name}/b.nii.gz does not exist" in evaluation.failed["b"]


def test_an_unknown_reader_is_an_error(folders) -> None:
    write_dataset_json(folders, overwrite_image_reader_writer=5)
    assert_refused(folders, "No reader of nnU-Net can read")


def test_failed_cases_are_recorded_and_enter_no_mean(folders) -> None:
    expected = [row for row in evaluate(folders).rows if row.case != "b"]
    (folders / "predictions" / "b.nii.gz").write_bytes(b"no image")
    evaluation = evaluate(folders)
    assert evaluation.rows == expected
    settings = evaluation.as_json()["settings"]
    assert settings["cases"] == 2
    assert settings["failed_cases"] == evaluation.failed
    assert "cannot be measured: 1 of 3 cases (b)." in evaluation.remarks()[-1]


def test_files_of_other_formats_are_named_and_counted(folders) -> None:
    for name in ("a.mgz", "a.NII.GZ", "plans.json", "a.npz", "metrics.csv", ".hidden"):
        (folders / "predictions" / name).write_bytes(b"")
    (note,) = evaluate(folders).notes
    assert f"{folders / 'predictions'}: 2 files left out" in note
    assert "(a.NII.GZ, a.mgz)" in note


def test_folders_without_segmentations_are_named(folders) -> None:
    write_dataset_json(folders, file_ending=".nrrd")
    assert_refused(folders, "labels has no .nrrd file")
    (folders / "labels").rename(folders / "gone")
    assert_refused(folders, "labels is not a folder")


def test_references_are_not_measured_against_themselves(folders) -> None:
    with pytest.raises(DataError, match="as references and as predictions"):
        evaluate_folder(folders / "labels", folders / "labels", folders / "dataset.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("{", "not valid JSON"),
        ("{}", "no 'file_ending'"),
        ("[]", "holds a list"),
        ('{"file_ending": 1}', "'file_ending' must be a string, got a number"),
        ('{"file_ending": ".nii.gz", "labels": []}', "'labels' must be an object, got a list"),
    ],
)
def test_a_bad_dataset_json_is_named(folders, text, message) -> None:
    file = folders / "dataset.json"
    file.unlink() if text is None else file.write_text(text, encoding="utf-8")
    assert_refused(folders, "dataset.json", message)


def test_a_killed_worker_is_one_sentence(folders, monkeypatch) -> None:
    def killed(*_):
        raise BrokenProcessPool

    monkeypatch.setattr(folder_evaluation, "run_cases", killed)
    assert_refused(folders, "A worker process was killed", "-np")


@pytest.mark.parametrize("where", [".", "predictions", "model/dataset.json of a validation"])
def test_the_table_says_that_an_overlap_was_allowed(folders, where):
    overlap = {"spmc_overlap": "some cases are shared"}
    if where == ".":
        write_dataset_json(folders, **overlap)
        evaluation = evaluate(folders)
    elif where == "predictions":
        write_dataset_json(folders / where, **overlap)
        evaluation = evaluate(folders)
    else:
        (folders / "model" / "fold_0").mkdir(parents=True)
        write_dataset_json(folders / "model", **overlap)
        predictions = (folders / "predictions").rename(folders / "model" / "fold_0" / "validation")
        evaluation = evaluate_folder(
            folders / "labels", predictions, folders / "dataset.json", num_processes=0
        )
    (remark,) = (r for r in evaluation.remarks() if "allow_overlap" in r)
    assert "(some cases are shared)" in remark
    assert evaluation.as_json()["settings"]["spmc_overlap"] == "some cases are shared"


def test_without_an_allowed_overlap_nothing_is_said_of_it(folders):
    evaluation = evaluate(folders)
    assert "overlap" not in json.dumps(evaluation.as_json()) + "".join(evaluation.remarks())
