import math
import re
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_spmc.training.pseudo_label_dice import pseudo_label_dice
from nnunetv2_spmc.unlabeled.withheld_labels import withheld_patches
from tests.damaged_files import halved, with_bad_checksum, with_nan
from tests.training_logs import log_of


@pytest.fixture
def label_manager(planned_phantom):
    def make(**labels):
        description = {"labels": {"background": 0} | labels, "regions_class_order": [1, 2]}
        return PlansManager(planned_phantom.plans()).get_label_manager(description)

    return make


def logits_of(segmentation, classes):
    one_hot = torch.nn.functional.one_hot(torch.tensor(segmentation), classes)
    return one_hot.movedim(-1, 1).float()


def test_the_dice_of_each_branch_by_hand(label_manager):
    labels = torch.tensor([[1, 1, 2, 0]])
    branches = {"main": logits_of([[1, 0, 2, 2]], 3), "auxiliary": logits_of([[1, 1, 2, 0]], 3)}
    dice = pseudo_label_dice(branches, labels, label_manager(first=1, second=2))
    assert dice["pseudo_label_dice_main"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert dice["pseudo_label_dice_auxiliary"] == 1


def test_classes_that_do_not_occur_and_ignored_voxels_do_not_count(label_manager):
    manager = label_manager(first=1, second=2, ignore=3)
    labels = torch.tensor([[1, 1, 3, 3]])
    dice = pseudo_label_dice({"main": logits_of([[1, 1, 1, 2]], 3)}, labels, manager)
    assert dice["pseudo_label_dice_main"] == 1
    nothing = pseudo_label_dice({"main": logits_of([[1]], 3)}, torch.tensor([[0]]), manager)
    assert math.isnan(nothing["pseudo_label_dice_main"])


def test_regions_are_compared_as_regions(label_manager):
    manager = label_manager(whole=[1, 2], core=2)
    labels = torch.tensor([[1, 2, 0]])
    logits = torch.tensor([[[9.0, 9.0, -9.0], [-9.0, -9.0, -9.0]]])  # all of the whole, no core
    dice = pseudo_label_dice({"main": logits}, labels, manager)
    assert dice["pseudo_label_dice_main"] == pytest.approx((1 + 0) / 2)


@pytest.mark.parametrize("configuration", ["2d_small", "3d_fullres_small"])
def test_patches_lie_around_the_withheld_foreground(planned_phantom, configuration):
    plans = PlansManager(planned_phantom.plans())
    settings = plans.get_configuration(configuration)
    names = [f"unlabeled_{number:03d}" for number in range(4)]
    patches = withheld_patches(
        planned_phantom.raw, names, 2, plans, settings, planned_phantom.dataset_json(), print
    )
    assert patches.identifiers == (names[0], names[3])
    assert patches.images.shape == (2, 1, *settings.patch_size)
    assert patches.labels.shape == (2, *settings.patch_size)
    for name, labels in zip(patches.identifiers, patches.labels, strict=True):
        file = planned_phantom.raw / "labelsUn" / f"{name}.nii.gz"
        whole = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        if configuration.startswith("2d"):
            whole = whole[(whole > 0).sum((1, 2)).argmax()]
        assert set(np.unique(labels)) <= set(np.unique(whole))
        assert (labels > 0).sum() > 0.5 * min((whole > 0).sum(), labels.numel())


@pytest.mark.parametrize("damage", [halved, with_bad_checksum, with_nan])
@pytest.mark.parametrize("folder", ["imagesUn", "labelsUn"])
def test_a_damaged_file_is_not_measured_with(planned_phantom, tmp_path, damage, folder):
    raw = shutil.copytree(planned_phantom.raw, tmp_path / "raw")
    name = "unlabeled_000" if folder == "labelsUn" else "unlabeled_000_0000"
    damage(raw / folder / f"{name}.nii.gz", raw / folder / f"{name}.nii.gz")
    plans = PlansManager(planned_phantom.plans())
    arguments = (plans, plans.get_configuration("2d_small"), planned_phantom.dataset_json())
    logged = []
    names = ["unlabeled_000", "unlabeled_001"]
    patches = withheld_patches(raw, names, 2, *arguments, logged.append)
    assert patches.identifiers == ("unlabeled_001",)
    (line,) = logged
    assert line.startswith("No pseudo-label Dice on unlabeled_000, because of ")
    assert re.search(rf"{name}\.nii\.gz (is truncated|has 576 NaN)", line)


def test_without_withheld_labels_there_are_no_patches(planned_phantom, tmp_path):
    plans = PlansManager(planned_phantom.plans())
    arguments = (plans, plans.get_configuration("2d_small"), planned_phantom.dataset_json())
    assert withheld_patches(tmp_path, ["unlabeled_000"], 2, *arguments, print) is None
    assert withheld_patches(planned_phantom.raw, ["unlabeled_000"], 0, *arguments, print) is None


@pytest.mark.slow
def test_the_curves_are_logged_and_training_goes_on_as_without_them(make_trainer):
    with_curves, without = make_trainer(), make_trainer(pseudo_label_cases=0)
    with_curves.run_training()
    without.run_training()
    ours, theirs = with_curves.logger.get_checkpoint(), without.logger.get_checkpoint()
    for branch in ("main", "auxiliary"):
        curve = ours[f"pseudo_label_dice_{branch}"]
        assert len(curve) == 2
        assert all(0 <= value <= 1 for value in curve)
    assert not any(key.startswith("pseudo_label") for key in theirs)
    assert ours["total_loss"] == theirs["total_loss"]
    assert "Pseudo-label Dice is logged on" in log_of(with_curves)
