from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import blosc2
import numpy as np
import pytest
import SimpleITK

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.leftovers import temporary_name
from nnunetv2_spmc.unlabeled.case_worker import PreprocessingJob, process_cases
from nnunetv2_spmc.unlabeled.cases import (
    failed_cases,
    finished_cases,
    unlabeled_folder,
)
from nnunetv2_spmc.unlabeled.leak_checks import current_record
from nnunetv2_spmc.unlabeled.preprocessing import PreprocessingOptions, preprocess_unlabeled
from nnunetv2_spmc.unlabeled.raw_images import raw_unlabeled_cases
from nnunetv2_spmc.unlabeled.target import UnlabeledTarget, find_target
from nnunetv2_spmc.unlabeled.training_cases import ensure_unlabeled_preprocessed
from tests.killed_at import of_ended_process

DATASET = "Dataset510_Tiny"
CHANNELS = 2
UNLABELED = ["u0", "u1", "u2"]


def write_image(file, array, spacing=(1.0, 1.0, 1.2)):
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing)
    SimpleITK.WriteImage(image, str(file))


def write_case(folder, identifier, seed, shape=(12, 24, 24)):
    random = np.random.default_rng(seed)
    for channel in range(CHANNELS):
        array = random.normal(100, 20, shape).astype(np.float32)
        array[:2] = 0  # outside of the nonzero mask
        array[5, :4, :4] = 0
        write_image(folder / f"{identifier}_{channel:04d}.nii.gz", array)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A raw dataset of 5 labeled and 3 unlabeled cases, planned by nnU-Net's planner."""
    root = tmp_path_factory.mktemp("planned")
    raw, preprocessed = root / "raw" / DATASET, root / "preprocessed" / DATASET
    for folder in (raw / "imagesTr", raw / "labelsTr", raw / "imagesUn", preprocessed):
        folder.mkdir(parents=True)
    for number in range(5):
        write_case(raw / "imagesTr", f"l{number}", number)
        label = np.zeros((12, 24, 24), np.uint8)
        label[4:8, 8:16, 8:16] = 1
        write_image(raw / "labelsTr" / f"l{number}.nii.gz", label)
    for number, identifier in enumerate(UNLABELED):
        write_case(raw / "imagesUn", identifier, 10 + number)
    dataset = {
        "channel_names": {"0": "T1", "1": "CT"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    statistics = ("max", "mean", "median", "min", "percentile_00_5", "percentile_99_5", "std")
    intensities = dict(zip(statistics, (150, 100, 100, 50, 60, 140, 20), strict=True))
    fingerprint = {
        "spacings": [[1.0, 1.0, 1.0]] * 5,  # other than the files': they are resampled
        "shapes_after_crop": [[10, 24, 24]] * 5,
        "foreground_intensity_properties_per_channel": {
            str(channel): intensities for channel in range(CHANNELS)
        },
        "median_relative_size_after_cropping": 0.7,  # use_mask_for_norm
    }
    (raw / "dataset.json").write_text(json.dumps(dataset))
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_raw", str(raw.parent))
        patch.setenv("nnUNet_preprocessed", str(preprocessed.parent))
        from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
            ExperimentPlanner,
        )

        ExperimentPlanner(DATASET).plan_experiment()
    return root


@pytest.fixture
def dataset(planned, tmp_path, monkeypatch):
    """A copy of the planned dataset that a test may change; returns (raw, preprocessed)."""
    shutil.copytree(planned, tmp_path / "nnunet")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "nnunet" / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "nnunet" / "preprocessed"))
    return tmp_path / "nnunet" / "raw" / DATASET, tmp_path / "nnunet" / "preprocessed" / DATASET


@pytest.fixture
def folder(dataset):
    return dataset[1] / "nnUNetPlans_3d_fullres_unlabeled"


def run(**options):
    options = PreprocessingOptions(**{"num_processes": 0, "show_progress": False, **options})
    return preprocess_unlabeled(510, "3d_fullres", options=options)


def load_plans(preprocessed):
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    return PlansManager(str(preprocessed / "nnUNetPlans.json"))


def ensure(dataset, allowed_to_run=True, log=None):
    preprocessed = dataset[1]
    target = UnlabeledTarget(
        DATASET,
        load_plans(preprocessed),
        "3d_fullres",
        json.loads((preprocessed / "dataset.json").read_text()),
        preprocessed,
    )
    options = PreprocessingOptions(num_processes=0, log=log or (lambda message: None))
    return ensure_unlabeled_preprocessed(target, options, allowed_to_run=allowed_to_run)


def content(folder):
    return {f.name: (f.stat().st_mtime_ns, f.read_bytes()) for f in sorted(folder.glob("*.*"))}


def test_the_folder_is_a_sibling_of_the_labeled_one():
    assert unlabeled_folder("/p/D/nnUNetPlans_2d") == Path("/p/D/nnUNetPlans_2d_unlabeled")


def test_files_equal_those_of_a_labeled_case_but_for_the_label(dataset, folder, tmp_path):
    raw, preprocessed = dataset
    report = run()
    assert report.done == UNLABELED
    assert report.failed == {}
    plans = load_plans(preprocessed)
    configuration = plans.get_configuration("3d_fullres")
    configuration.preprocessor_class(verbose=False).run_case_save(
        str(tmp_path / "stock"),
        [str(raw / "imagesUn" / f"u1_{channel:04d}.nii.gz") for channel in range(CHANNELS)],
        str(raw / "labelsTr" / "l0.nii.gz"),
        plans,
        configuration,
        json.loads((raw / "dataset.json").read_text()),
    )
    ours, stock = (blosc2.open(str(f)) for f in (folder / "u1.b2nd", tmp_path / "stock.b2nd"))
    assert ours.shape == (CHANNELS, 12, 24, 24)  # 10 slices of 1.2 mm, resampled to 1 mm
    assert (ours.dtype, ours.chunks, ours.blocks) == (stock.dtype, stock.chunks, stock.blocks)
    np.testing.assert_array_equal(ours[:], stock[:])
    ours, stock = (
        blosc2.open(str(f))[:] for f in (folder / "u1_seg.b2nd", tmp_path / "stock_seg.b2nd")
    )
    np.testing.assert_array_equal(ours, np.where(stock == 1, 0, stock))
    assert set(np.unique(ours)) == {-1, 0}
    properties = pickle.loads((folder / "u1.pkl").read_bytes())
    assert properties["class_locations"] == {}
    assert properties["spacing"] == pytest.approx([1.2, 1.0, 1.0])


def test_labels_that_contradict_each_other_are_warned_of_once(dataset):
    file, lines = dataset[1] / "dataset.json", []
    content = json.loads(file.read_text()) | {"labels": {"background": 0, "a": 1, "Ignore": 2}}
    file.write_text(json.dumps(content))
    run(log=lines.append)
    (line,) = (line for line in lines if line.startswith("warning: "))
    assert line.startswith("warning: dataset.json: nnU-Net knows the ignore label by the name")


def test_nnunets_loader_draws_from_the_folder(dataset, folder):
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    write_image(dataset[0] / "imagesUn" / "u2_0000.nii.gz", np.zeros((3, 3, 3), np.float32))
    run()  # the failed case leaves a note, which the loader must not mind
    cases = infer_dataset_class(str(folder))(str(folder))
    assert cases.identifiers == ["u0", "u1"]
    labels = load_plans(dataset[1]).get_label_manager({"labels": {"background": 0, "organ": 1}})
    loader = nnUNetDataLoader(cases, 2, (8, 16, 16), (8, 16, 16), labels, 0.33)
    assert next(loader)["data"].shape == (2, CHANNELS, 8, 16, 16)


def test_finished_cases_are_skipped_and_untouched(folder):
    run()
    before = content(folder)
    assert run().skipped == UNLABELED
    assert content(folder) == before


def damage_truncated(folder):
    file = folder / "u1.b2nd"
    file.write_bytes(file.read_bytes()[:-100])


def damage_missing(folder):
    (folder / "u1_seg.b2nd").unlink()


def damage_pickle(folder):
    file = folder / "u1.pkl"
    file.write_bytes(file.read_bytes()[:-10])


def damage_inside(folder):
    file = folder / "u1.b2nd"
    middle = file.stat().st_size // 2
    with file.open("r+b") as stream:
        stream.seek(middle)
        stream.write(bytes(2000))


@pytest.mark.parametrize("damage", [damage_truncated, damage_missing, damage_pickle])
def test_broken_cases_are_redone(folder, damage):
    run()
    before = {name: data for name, (_, data) in content(folder).items()}
    damage(folder)
    assert finished_cases(folder) == ["u0", "u2"]
    report = run()
    assert (report.skipped, report.redone) == (["u0", "u2"], ["u1"])
    assert {name: data for name, (_, data) in content(folder).items()} == before


def test_verify_finds_damage_that_headers_do_not_show(folder):
    run()
    damage_inside(folder)
    assert finished_cases(folder) == UNLABELED
    assert finished_cases(folder, verify=True) == ["u0", "u2"]
    assert run(verify=True).redone == ["u1"]
    assert finished_cases(folder, verify=True) == UNLABELED


def spoil_nan(file):
    array = np.ones((12, 24, 24), np.float32)
    array[3, 3, 3] = np.nan
    write_image(file, array)


def spoil_infinite(file):
    array = np.ones((12, 24, 24), np.float32)
    array[3, 3, 3:5] = -np.inf
    write_image(file, array)


def spoil_truncated(file):
    file.write_bytes(file.read_bytes()[:-50])


def spoil_garbage(file):
    file.write_bytes(b"this is no image")


def spoil_shape(file):
    write_image(file, np.random.default_rng(0).normal(size=(12, 24, 23)))


def spoil_spacing(file):
    write_image(file, np.random.default_rng(0).normal(size=(12, 24, 24)), spacing=(1.0, 1.0, 2.0))


def spoil_channels(file):
    SimpleITK.WriteImage(SimpleITK.JoinSeries([SimpleITK.ReadImage(str(file))] * 2), str(file))


def spoil_colors(file):
    gray = SimpleITK.Cast(SimpleITK.ReadImage(str(file)), SimpleITK.sitkUInt8)
    SimpleITK.WriteImage(SimpleITK.Compose(gray, gray, gray), str(file))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_colors, "u1_0001.nii.gz has 3 values per voxel, expected 1; write each channel"),
        (spoil_nan, "u1_0001.nii.gz has 1 NaN or infinite voxels"),
        (spoil_infinite, "u1_0001.nii.gz has 2 NaN or infinite voxels"),
        (spoil_truncated, "u1_0001.nii.gz is truncated"),
        (spoil_garbage, "u1_0001.nii.gz"),
        (spoil_shape, r"u1_0001.nii.gz has shape (12, 24, 23)"),
        (spoil_spacing, "spacing (2.0, 1.0, 1.0)"),
        (spoil_channels, "u1_0001.nii.gz holds 2 images"),
    ],
)
def test_a_bad_case_is_named_and_the_others_are_kept(dataset, folder, spoil, reason):
    spoil(dataset[0] / "imagesUn" / "u1_0001.nii.gz")
    report = run()
    assert report.done == ["u0", "u2"]
    assert list(report.failed) == ["u1"]
    assert reason in report.failed["u1"]
    assert "\n" not in report.failed["u1"]
    assert finished_cases(folder) == ["u0", "u2"]
    assert [f.name for f in folder.glob("u1*")] == []
    assert [f.name for f in folder.iterdir() if f.is_dir()] == ["failed"]


def test_an_image_of_zeros_only_is_refused(dataset):
    for channel in range(CHANNELS):
        file = dataset[0] / "imagesUn" / f"u0_{channel:04d}.nii.gz"
        write_image(file, np.zeros((12, 24, 24), np.float32))
    file = dataset[0] / "imagesUn" / "u0_0000.nii.gz"
    reason = f"{file} is constant, all its voxels are 0; get it again, or remove it"
    assert run().failed == {"u0": reason}


def test_a_mended_case_is_done_and_its_note_removed(dataset, folder):
    raw = dataset[0]
    spoil_garbage(raw / "imagesUn" / "u1_0001.nii.gz")
    cases = raw_unlabeled_cases(raw, ".nii.gz", ("T1", "CT")).cases
    run()
    assert list(failed_cases(folder, cases)) == ["u1"]
    write_case(raw / "imagesUn", "u1", 11)
    assert run().done == ["u1"]
    assert failed_cases(folder, cases) == {}


KILLED_WHILE_PUBLISHING = """
import os, signal
from nnunetv2_spmc.unlabeled import case_worker as unlabeled_case_worker
from nnunetv2_spmc.unlabeled.preprocessing import PreprocessingOptions, preprocess_unlabeled

published = []
replace = os.replace
def replace_until_killed(source, target):
    if str(target).endswith("u1.b2nd"):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
unlabeled_case_worker.os.replace = replace_until_killed
options = PreprocessingOptions(num_processes=0, show_progress=False)
preprocess_unlabeled(510, "3d_fullres", options=options)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_run_leaves_nothing_that_counts_and_the_next_one_cleans_up(folder):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    result = subprocess.run([sys.executable, "-c", KILLED_WHILE_PUBLISHING])
    assert result.returncode == -signal.SIGKILL
    assert (folder / "u1.pkl").exists()
    assert len(list(folder.glob(".unfinished-*"))) == 1
    assert finished_cases(folder) == ["u0"]
    assert nnUNetDatasetBlosc2.get_identifiers(str(folder)) == ["u0"]
    report = run()
    assert (report.skipped, report.redone, report.done) == (["u0"], ["u1"], ["u2"])
    assert list(folder.glob(".unfinished-*")) == []


def test_temporary_files_of_other_computers_are_left_alone(folder):
    other = folder / ".unfinished-another-node-17"
    ended = folder / of_ended_process(".unfinished-")
    abandoned = folder / ".unfinished-another-node-18"
    for leftover in (other, ended, abandoned):
        leftover.mkdir(parents=True)
    os.utime(abandoned, (0, 0))
    run()
    assert [f.name for f in folder.glob(".unfinished-*")] == [other.name]


class EndsTheProcess:
    """Ends the process that unpickles it, as the system does when memory runs out."""

    def __reduce__(self):
        return os._exit, (9,)


def test_a_killed_worker_is_reported_with_its_case(dataset, tmp_path):
    plans = load_plans(dataset[1])
    job = PreprocessingJob(
        folder=tmp_path,
        temporary_folder=tmp_path / temporary_name(".unfinished-"),
        plans_manager=plans,
        configuration_manager=plans.get_configuration("3d_fullres"),
        dataset_json={"killer": EndsTheProcess()},
        num_channels=CHANNELS,
        verify=False,
    )
    (job.temporary_folder / "u0").mkdir(parents=True)
    cases = {"u0": ["u0_0000.nii.gz"], "u1": ["u1_0000.nii.gz"]}

    class NoProgress:
        def update(self):
            pass

    with pytest.raises(DataError, match=r"killed while it preprocessed one of u0.*-np"):
        process_cases(job, cases, 1, NoProgress())


def test_parts_share_all_cases_between_them(folder):
    first = run(num_parts=2, part_id=0).done
    second = run(num_parts=2, part_id=1).done
    assert (first, second) == (["u0", "u2"], ["u1"])
    assert finished_cases(folder) == UNLABELED


@pytest.mark.parametrize("options", [{"num_parts": 0}, {"num_parts": 2, "part_id": 2}])
def test_impossible_parts_are_refused(dataset, options):
    with pytest.raises(DataError, match="part_id"):
        run(**options)


def change_plans(preprocessed, **changes):
    file = preprocessed / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["3d_fullres"].update(changes)
    file.write_text(json.dumps(plans))


def test_cases_of_other_plans_are_refused_until_overwritten(dataset, folder):
    run()
    change_plans(dataset[1], spacing=[2.0, 1.0, 1.0])
    with pytest.raises(DataError, match=r"other plans \(spacing changed\).*--overwrite"):
        run()
    with pytest.raises(DataError, match=r"other plans \(spacing changed\).*--overwrite"):
        ensure(dataset)
    assert run(overwrite=True).done == UNLABELED
    assert blosc2.open(str(folder / "u0.b2nd")).shape == (CHANNELS, 6, 24, 24)
    assert ensure(dataset) == UNLABELED


def test_overwriting_deletes_nothing_but_cases(dataset, folder, tmp_path):
    run()
    (folder / "notes.txt").touch()
    with pytest.raises(DataError, match=r"holds notes\.txt, which no preprocessing wrote"):
        run(overwrite=True)
    (folder / "notes.txt").unlink()
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link, which --overwrite does not follow"):
        run(overwrite=True)
    assert len(finished_cases(tmp_path / "elsewhere")) == len(UNLABELED)


def test_another_patch_or_batch_size_keeps_the_cases(dataset):
    run()
    change_plans(dataset[1], patch_size=[8, 16, 16], batch_size=7)
    assert run().skipped == UNLABELED


def test_cases_without_a_record_are_refused(folder):
    run()
    folder.with_name(f"{folder.name}.json").unlink()
    with pytest.raises(DataError, match=r"unlabeled\.json is missing"):
        run()


def test_parts_cannot_overwrite(folder):
    run()
    with pytest.raises(DataError, match="delete"):
        run(overwrite=True, num_parts=2)
    assert finished_cases(folder) == UNLABELED


def test_a_custom_preprocessor_of_the_plans_is_used(folder, monkeypatch):
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

    class Shifted(DefaultPreprocessor):
        def run_case_npy(self, *args, **kwargs):
            data, seg, properties = super().run_case_npy(*args, **kwargs)
            return data + 1000, seg, properties

    monkeypatch.setattr(ConfigurationManager, "preprocessor_class", Shifted)
    assert run().done == UNLABELED
    assert blosc2.open(str(folder / "u0.b2nd"))[:].min() > 900
    assert pickle.loads((folder / "u0.pkl").read_bytes())["class_locations"] == {}


def test_raw_cases_list_their_channels_in_order(dataset):
    raw = dataset[0]
    cases = raw_unlabeled_cases(raw, ".nii.gz", ("T1", "CT")).cases
    assert list(cases) == UNLABELED
    assert cases["u0"] == [str(raw / "imagesUn" / f"u0_000{channel}.nii.gz") for channel in (0, 1)]


def lose_a_channel(images):
    (images / "u1_0000.nii.gz").unlink()


def add_a_channel(images):
    shutil.copy(images / "u1_0000.nii.gz", images / "u1_0002.nii.gz")


def add_a_file_without_channel(images):
    (images / "u1.nii.gz").write_bytes(b"")


def break_a_link(images):
    (images / "u1_0001.nii.gz").unlink()
    (images / "u1_0001.nii.gz").symlink_to("gone.nii.gz")


def put_a_folder(images):
    (images / "u1_0001.nii.gz").unlink()
    (images / "u1_0001.nii.gz").mkdir()


def put_a_pipe(images):
    (images / "u1_0001.nii.gz").unlink()
    os.mkfifo(images / "u1_0001.nii.gz")


@pytest.mark.parametrize(
    ("change", "case", "reason"),
    [
        (lose_a_channel, "u1", "the channels 0001, expected 0000, 0001 (T1, CT); add"),
        (add_a_channel, "u1", "the channels 0000, 0001, 0002, expected 0000, 0001 (T1, CT); add"),
        (add_a_file_without_channel, "u1.nii.gz", "/u1.nii.gz has no channel suffix; rename"),
        (break_a_link, "u1", "/u1_0001.nii.gz is a link to gone.nii.gz, which is not a file; add"),
        (put_a_pipe, "u1", "/u1_0001.nii.gz is a pipe or a device, expected a file; add"),
        (put_a_folder, "u1", "/u1_0001.nii.gz is a folder, expected a file; add"),
    ],
)
def test_a_case_with_a_wrong_file_is_named_and_the_others_go_on(dataset, change, case, reason):
    change(dataset[0] / "imagesUn")
    report = run()
    assert [case for case in report.done if case != "u1"] == ["u0", "u2"]
    assert list(report.failed) == [case]
    assert reason in report.failed[case]
    assert "1 failed" in report.summary()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda i: i.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1)), "direction (-1.0, 0.0, 0.0, "),
        (lambda i: i.SetOrigin((5.0, 0.0, 0.0)), "origin (5.0, 0.0, 0.0) instead of (0.0, 0.0"),
    ],
)
def test_channels_that_lie_elsewhere_are_not_stacked(dataset, change, reason):
    """nnU-Net's reader stacks them: it compares shape and spacing."""
    file = dataset[0] / "imagesUn" / "u1_0001.nii.gz"
    image = SimpleITK.ReadImage(str(file))
    change(image)
    SimpleITK.WriteImage(image, str(file))
    report = run()
    assert report.done == ["u0", "u2"]
    assert reason in report.failed["u1"]
    assert "u1_0001.nii.gz has" in report.failed["u1"]
    assert report.failed["u1"].rstrip(".").endswith("resample the channels onto one grid")


def test_parts_share_cases_with_a_wrong_file_too(dataset):
    lose_a_channel(dataset[0] / "imagesUn")
    first, second = (run(num_parts=2, part_id=part) for part in (0, 1))
    assert (first.done, list(first.failed)) == (["u0", "u2"], [])
    assert (second.done, list(second.failed)) == ([], ["u1"])


def test_training_goes_on_without_cases_that_lack_a_channel(dataset):
    run()
    lose_a_channel(dataset[0] / "imagesUn")
    logged = []
    assert ensure(dataset, log=logged.append, allowed_to_run=False) == ["u0", "u2"]
    assert "1 unlabeled cases (u1: the case u1 in " in logged[-1]


def test_files_with_another_ending_are_named_and_counted(dataset):
    images = dataset[0] / "imagesUn"
    for name in ("v_0000.NII.GZ", "v_0000.mgz", "v+orig.HEAD", "dataset.json", ".hidden"):
        (images / name).write_bytes(b"")
    (images / "dicom").mkdir()
    logged = []
    assert run(log=logged.append).done == UNLABELED
    assert [line for line in logged if line.startswith("note: ")] == [
        f"note: {images}: 4 files left out, not ending in .nii.gz (dicom/, v+orig.HEAD, "
        "v_0000.NII.GZ, v_0000.mgz); convert or rename what is a scan."
    ]
    logged.clear()
    ensure(dataset, log=logged.append)
    assert "v_0000.NII.GZ" in logged[0]


def test_a_dataset_whose_channels_are_called_modality_is_preprocessed(dataset):
    for folder in dataset:
        file = folder / "dataset.json"
        content = json.loads(file.read_text())
        file.write_text(json.dumps(content | {"modality": content.pop("channel_names")}))
    assert run().done == UNLABELED


def test_a_labeled_case_that_cannot_be_read_is_named_as_not_compared(dataset):
    link = dataset[0] / "imagesTr" / "l0_0001.nii.gz"
    link.unlink()
    link.symlink_to("gone.nii.gz")
    logged = []
    assert run(log=logged.append).done == UNLABELED
    assert logged[0].startswith("note: 1 case of imagesTr cannot be read, so no unlabeled case is")


@pytest.mark.parametrize("absent", [True, False])
def test_no_unlabeled_case_is_an_error(dataset, absent):
    shutil.rmtree(dataset[0] / "imagesUn")
    if not absent:
        (dataset[0] / "imagesUn").mkdir()
    with pytest.raises(DataError, match="There is no unlabeled case"):
        run()
    with pytest.raises(DataError, match="There is no unlabeled case"):
        ensure(dataset)


def test_training_preprocesses_what_is_missing_and_says_so(dataset, folder):
    run(num_parts=3, part_id=0)
    logged = []
    assert ensure(dataset, log=logged.append) == UNLABELED
    assert len(logged) == 1
    assert "2 of 3" in logged[0]
    assert f"nnUNetv2_spmc_preprocess -d {DATASET} -c 3d_fullres -p nnUNetPlans" in logged[0]


@pytest.fixture
def listed(monkeypatch):
    """The names of the folders that are listed from now on."""
    names = []
    list_folder = os.listdir

    def noting(folder):
        names.append(Path(folder).name)
        return list_folder(folder)

    monkeypatch.setattr(os, "listdir", noting)
    return names


def test_a_run_lists_the_raw_and_the_preprocessed_cases_once(folder, listed):
    folder.mkdir()
    run()
    assert (listed.count("imagesUn"), listed.count(folder.name)) == (1, 1)


def test_training_lists_the_raw_and_the_preprocessed_cases_once(dataset, folder, listed):
    run(num_parts=3, part_id=0)
    listed.clear()
    assert ensure(dataset) == UNLABELED
    assert (listed.count("imagesUn"), listed.count(folder.name)) == (1, 1)


def test_training_that_may_not_preprocess_names_the_command(dataset):
    with pytest.raises(DataError, match=r"run nnUNetv2_spmc_preprocess -d .* first"):
        ensure(dataset, allowed_to_run=False)
    run()
    assert ensure(dataset, allowed_to_run=False) == UNLABELED


def test_training_goes_on_without_cases_that_failed(dataset):
    spoil_nan(dataset[0] / "imagesUn" / "u1_0000.nii.gz")
    logged = []
    assert ensure(dataset, log=logged.append) == ["u0", "u2"]
    assert "u1_0000.nii.gz has 1 NaN" in logged[-1]
    assert ensure(dataset, allowed_to_run=False) == ["u0", "u2"]


def test_training_does_not_use_cases_that_left_images_un(dataset):
    run()
    for file in (dataset[0] / "imagesUn").glob("u2_*"):
        file.unlink()
    logged = []
    assert ensure(dataset, log=logged.append) == ["u0", "u1"]
    assert "u2" in logged[0]


def test_training_without_raw_data_uses_what_is_preprocessed(dataset):
    run()
    shutil.rmtree(dataset[0])
    assert ensure(dataset, allowed_to_run=False) == UNLABELED


def test_training_without_any_usable_case_is_an_error(dataset):
    for file in (dataset[0] / "imagesUn").glob("*_0000.nii.gz"):
        spoil_garbage(file)
    with pytest.raises(DataError, match="None of the 3 unlabeled cases"):
        ensure(dataset)


def annotate(raw, identifier, move):
    for file in (raw / "imagesUn").glob(f"{identifier}_*"):
        (shutil.move if move else shutil.copy)(file, raw / "imagesTr")
    label = np.zeros((12, 24, 24), np.uint8)
    write_image(raw / "labelsTr" / f"{identifier}.nii.gz", label)


@pytest.mark.parametrize("move", [True, False])
@pytest.mark.parametrize("preprocessed_before", [True, False])
def test_a_case_that_was_annotated_since_leaves_the_unlabeled_ones(
    dataset, move, preprocessed_before
):
    if preprocessed_before:
        run()
    annotate(dataset[0], "u1", move)
    logged = []
    run(log=logged.append)
    assert ensure(dataset, log=logged.append) == ["u0", "u2"]
    sentence = "Annotated since, now labeled cases and no longer used as unlabeled ones: u1."
    assert move or logged.count(sentence) == 2


def test_a_training_names_the_cases_that_cannot_be_compared(dataset):
    run()
    (dataset[0] / "imagesTs").mkdir()
    os.mkfifo(dataset[0] / "imagesTs" / "t0_0000.nii.gz")
    logged = []
    target = find_target(DATASET, "3d_fullres", "nnUNetPlans")
    current_record(
        target.dataset_name, target.dataset_json, target.preprocessed_dataset, logged.append
    )
    assert logged[0].startswith("note: 1 case of imagesTs cannot be read, so no unlabeled case is")


def test_a_case_that_was_annotated_since_is_no_failed_one_though_it_lacks_a_channel(dataset):
    annotate(dataset[0], "u1", move=False)
    (dataset[0] / "imagesUn" / "u1_0001.nii.gz").unlink()
    logged = []
    report = run(log=logged.append)
    assert (report.done, report.failed) == (["u0", "u2"], {})
    assert ensure(dataset, log=logged.append) == ["u0", "u2"]
    assert "failed" not in "\n".join(logged)


def test_cases_with_wrong_files_are_compared_with_no_other(dataset):
    lose_a_channel(dataset[0] / "imagesUn")
    (dataset[0] / "imagesUn" / "odd.nii.gz").write_bytes(b"")
    run()
    target = find_target(DATASET, "3d_fullres", "nnUNetPlans")
    record = current_record(
        target.dataset_name, target.dataset_json, target.preprocessed_dataset, print
    )
    assert sorted(record.folders["imagesUn"]) == ["u0", "u2"]


def test_a_case_in_images_tr_without_a_label_is_still_refused(dataset):
    annotate(dataset[0], "u1", move=False)
    (dataset[0] / "labelsTr" / "u1.nii.gz").unlink()
    with pytest.raises(DataError, match="unlabeled and at the same time labeled: u1"):
        run()


def test_an_annotated_case_under_another_name_is_refused(dataset):
    annotate(dataset[0], "u1", move=False)
    for file in (dataset[0] / "imagesUn").glob("u1_*"):
        file.rename(file.with_name(file.name.replace("u1", "copy")))
    with pytest.raises(DataError, match=r"case in imagesTr: copy \(= u1\)"):
        run()


def test_without_raw_data_a_case_that_is_preprocessed_with_a_label_is_left_out(dataset, folder):
    run()
    shutil.rmtree(dataset[0])
    labeled = folder.with_name("nnUNetPlans_3d_fullres")
    labeled.mkdir()
    shutil.copy(folder / "u1.b2nd", labeled)
    logged = []
    assert ensure(dataset, log=logged.append) == ["u0", "u2"]
    assert "Annotated since" in logged[0]


def test_when_all_cases_were_annotated_there_is_no_unlabeled_case_any_more(dataset):
    for identifier in UNLABELED:
        annotate(dataset[0], identifier, move=False)
    with pytest.raises(DataError, match=r"no unlabeled case any more: all in imagesUn .* label"):
        ensure(dataset)


def test_a_scan_that_was_replaced_by_a_test_scan_is_found(dataset):
    run()
    (dataset[0] / "imagesTs").mkdir()
    for file in (dataset[0] / "imagesUn").glob("u1_*"):
        shutil.copy(file, dataset[0] / "imagesTs" / file.name.replace("u1", "late"))
    with pytest.raises(DataError, match=r"case in imagesTs: u1 \(= late\)"):
        run()


def test_preprocessing_says_how_unlabeled_scans_differ(dataset):
    for file in (dataset[0] / "imagesUn").iterdir():
        image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(file)), "RPS")
        SimpleITK.WriteImage(image + 1024, str(file))
    logged = []
    run(log=logged.append)
    text = "\n".join(logged)
    assert "orientation" in logged[1]
    assert "warning: unlabeled scans are oriented RPS, labeled ones LPS" in text
    assert "warning: the median intensity of unlabeled scans, 11" in text
    assert "T1, normalized" in text


def test_moved_plans_without_a_dataset_json_get_it_copied_not_planned_over(dataset) -> None:
    raw, preprocessed = dataset
    (preprocessed / "dataset.json").unlink()
    with pytest.raises(DataError, match=rf"copy {raw / 'dataset.json'} there") as refused:
        run()
    assert "plan_and_preprocess" not in str(refused.value)


def test_a_spacing_that_no_memory_holds_fails_its_case_before_memory_is_asked_for(
    dataset, write_volume
) -> None:
    for channel in range(CHANNELS):
        file = dataset[0] / "imagesUn" / f"huge_{channel:04d}.nii.gz"
        write_volume(file, seed=channel, spacing=(900, 900, 900))
    reason = run().failed["huge"]
    assert "its spacing of 900 x 900 x 900 mm makes " in reason
    assert "processes" not in reason
