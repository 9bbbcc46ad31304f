"""Sparse annotation: voxels under the ignore label of labeled cases are unlabeled voxels."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprint_dataset,
    plan_experiment_dataset,
    preprocess_dataset,
)
from torch.nn import functional as F

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.dataset_conversion.phantom import write_phantom
from nnunetv2_spmc.training.step import Labeled, Unlabeled
from tests.training_logs import log_of

IGNORE = 3
LABELS = {"background": 0, "first": 1, "second": 2, "ignore": IGNORE}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2, "ignore": IGNORE}


@pytest.fixture
def make_started(make_trainer, planned_phantom):
    def make(labels=LABELS, **settings):
        dataset_json = planned_phantom.dataset_json() | {"labels": labels}
        dataset_json["regions_class_order"] = [1, 2]
        trainer = make_trainer(dataset_json=dataset_json, noise=0.0, tau=0.9, **settings)
        trainer.initialize()
        trainer.joint_network.train()
        trainer.iteration = 3
        return trainer

    return make


def sparse_batch(trainer, annotated_rows=4, unlabeled=True):
    """Random patches of 16 x 16, annotated in the first rows."""
    generator = torch.Generator().manual_seed(0)
    regions = trainer.label_manager.has_regions
    target = []
    for scale in [[1, 1], *trainer._get_deep_supervision_scales()[1:]]:
        size, rows = int(16 * scale[0]), int(annotated_rows * scale[0])
        labels = torch.randint(0, 3, (2, 1, size, size), generator=generator)
        labels[:, :, rows:] = IGNORE
        channels = [(labels >= 1) & (labels < 3), labels == 2, labels == IGNORE]
        target.append(torch.cat(channels, 1) if regions else labels.to(torch.int16))
    batch = {"data": torch.randn(2, 1, 16, 16, generator=generator), "target": target}
    if unlabeled:
        batch["unlabeled"] = {"data": torch.randn(3, 1, 16, 16, generator=generator)}
    return batch


def gradients(trainer, batch, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_optimizer_step", lambda: None)
        values = trainer.train_step(batch)
    named = trainer.joint_network.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.grad is not None}, values


def terms(trainer, outputs, where):
    """CPS and SPLAT on the voxels of a mask, by picking them: sums of both branches.

    Where SPLAT is a mean over the voxels it selects, each stands for as many as there are to one.
    """
    regions = trainer.label_manager.has_regions
    chosen = [output[0].movedim(1, -1)[where[:, 0]] for output in outputs]  # (voxels, C)
    main, auxiliary = (torch.sigmoid(c) if regions else torch.softmax(c, 1) for c in chosen)
    cps, splat = 0.0, 0.0
    for logits, p, q in ((chosen[0], main, auxiliary), (chosen[1], auxiliary, main)):
        q = q.detach()
        soft = q**10 / (q**10 + (1 - q) ** 10)
        if regions:
            suspicious, trusted = (
                torch.maximum(p, 1 - p) <= 0.9,
                torch.maximum(soft, 1 - soft) > 0.9,
            )
            cps = cps + F.binary_cross_entropy(p, (q > 0.5).float(), reduction="sum") / p.shape[1]
        else:
            suspicious, trusted = p.amax(1, True) <= 0.9, soft.amax(1, True) > 0.9
            cps = cps + F.cross_entropy(logits, q.argmax(1), reduction="sum")
        mask = suspicious & trusted
        errors = (p - soft).square() * mask
        if trainer.method_settings.reduction == "masked":
            errors = errors / mask.double().mean()
        splat = splat + errors.sum() / p.shape[1]
    return cps, splat


@pytest.mark.supported(
    "sparse annotation", "voxels under the ignore label as unlabeled ones, for labels and regions"
)
@pytest.mark.parametrize("labels", [LABELS, REGIONS], ids=["labels", "regions"])
@pytest.mark.parametrize("unlabeled", [True, False], ids=["with unlabeled cases", "alone"])
@pytest.mark.parametrize("reduction", ["all", "masked"])
def test_all_unlabeled_voxels_of_a_step_count_alike(
    make_started, monkeypatch, labels, unlabeled, reduction
):
    settings = {"views": "same", "paste_from": "nothing", "turns": False, "reduction": reduction}
    trainer = make_started(labels, lambda_max=1.0, pseudo_loss="cross-entropy", **settings)
    batch = sparse_batch(trainer, unlabeled=unlabeled)
    weight = trainer.ramp_up_weight()
    two_passes, values = gradients(trainer, batch, monkeypatch)

    trainer.optimizer.zero_grad()
    outputs = trainer.joint_network(batch["data"])
    loss, _ = trainer.labeled_loss(outputs, Labeled(batch["data"], batch["target"]))
    parts = [(outputs, trainer.label_space.ignored(batch["target"][0]))]
    if unlabeled:
        images = batch["unlabeled"]["data"]
        parts.append((trainer.joint_network(images), torch.ones_like(images, dtype=torch.bool)))
    sums = [terms(trainer, *part) for part in parts]
    voxels = sum(where.sum() for _, where in parts)
    cps, splat = (sum(term) / voxels for term in zip(*sums, strict=True))
    (loss + weight * (cps + trainer.method_settings.beta * splat)).backward()
    expected = {n: p.grad for n, p in trainer.joint_network.named_parameters()}

    torch.testing.assert_close(values["cps_main"] + values["cps_auxiliary"], cps.detach())
    torch.testing.assert_close(values["splat_main"] + values["splat_auxiliary"], splat.detach())
    for name, gradient in two_passes.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6)


def test_annotated_voxels_enter_no_unsupervised_term(make_started):
    trainer = make_started()
    batch = sparse_batch(trainer)
    outputs = trainer.joint_network(batch["data"])
    for output in outputs:
        output[0].retain_grad()
    ignored = trainer.label_space.ignored(batch["target"][0])
    loss, _ = trainer.unlabeled_loss(outputs, Unlabeled(batch["data"], valid=ignored))
    loss.backward()
    for output in outputs:
        assert not output[0].grad[:, :, :4].any()
        assert output[0].grad[:, :, 4:].any()


def test_switched_off_they_are_not_used(make_started, monkeypatch):
    trainer = make_started(learn_from_ignored=False)
    _, values = gradients(trainer, sparse_batch(trainer, unlabeled=False), monkeypatch)
    assert "cps_main" not in values
    assert "cdps_main" in values


def test_a_batch_without_any_ignored_voxel_gives_zero_and_no_nan(make_started, monkeypatch):
    trainer = make_started()
    batch = sparse_batch(trainer, annotated_rows=16, unlabeled=False)
    found, values = gradients(trainer, batch, monkeypatch)
    assert values["cps_main"] == values["splat_main"] == values["agreement"] == 0
    assert all(gradient.isfinite().all() for gradient in found.values())


@pytest.fixture
def sparse_dataset(nnunet_folders, monkeypatch, tmp_path):
    """Five phantoms annotated in three slices each, and no unlabeled case."""
    results = tmp_path / "nnUNet_results"
    results.mkdir()
    monkeypatch.setenv("nnUNet_results", str(results))
    folder = write_phantom(nnunet_folders.raw, labeled=5, unlabeled=1, test=1, size=(24, 24, 16))
    for name in ("imagesUn", "labelsUn"):
        shutil.rmtree(folder / name, ignore_errors=True)
    description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    description["labels"] |= {"ignore": IGNORE}
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    for file in (folder / "labelsTr").iterdir():
        image = sitk.ReadImage(str(file))
        array = sitk.GetArrayFromImage(image)
        annotated = np.zeros(len(array), bool)
        annotated[[4, 8, 12]] = True
        array[~annotated] = IGNORE
        sparse = sitk.GetImageFromArray(array)
        sparse.CopyInformation(image)
        sitk.WriteImage(sparse, str(file))
    extract_fingerprint_dataset(500, num_processes=1, show_progress_bar=False)
    plan_experiment_dataset(500)
    preprocess_dataset(500, configurations=["2d"], num_processes=[1])
    return nnunet_folders.preprocessed / folder.name


@pytest.mark.supported("sparse annotation", "sparsely annotated cases only, without `imagesUn`")
@pytest.mark.slow
def test_a_sparsely_annotated_dataset_trains_without_unlabeled_cases(
    sparse_dataset, make_trainer, monkeypatch, planned_phantom
):
    raw = sparse_dataset.parents[1] / "nnUNet_raw" / sparse_dataset.name
    monkeypatch.setattr(type(planned_phantom), "preprocessed", sparse_dataset)
    monkeypatch.setenv("nnUNet_preprocessed", str(sparse_dataset.parent))
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    trainer = make_trainer(configuration="2d")
    trainer.run_training()
    log = log_of(trainer)
    assert "There is no imagesUn: training without unlabeled cases." in log
    assert "4 of 4 training cases have voxels under the ignore label" in log
    curves = trainer.logger.get_checkpoint()
    assert all(value > 0 for value in curves["cps_main"])
    assert not any(curves["single_class_main"])
    with pytest.raises(DataError, match="There is no unlabeled case"):
        make_trainer(configuration="2d", learn_from_ignored=False).run_training()


@pytest.mark.slow
def test_where_nothing_is_unlabeled_training_is_refused(
    sparse_dataset, make_trainer, monkeypatch, planned_phantom
):
    """An ignore label that no voxel carries, and no unlabeled case."""
    monkeypatch.setattr(type(planned_phantom), "preprocessed", sparse_dataset)
    monkeypatch.setenv("nnUNet_preprocessed", str(sparse_dataset.parent))
    monkeypatch.delenv("nnUNet_raw")
    monkeypatch.setattr(
        "nnunetv2_spmc.training.unlabeled_stream.ignored_shares", lambda dataset, label: {}
    )
    with pytest.raises(DataError, match=r"Nothing is unlabeled in .*put unlabeled scans there"):
        make_trainer(configuration="2d").run_training()
