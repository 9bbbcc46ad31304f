import contextlib
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTansform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunetv2_spmc.loading import paired_loader
from nnunetv2_spmc.loading.paired_loader import (
    PairedDataLoader,
    UnlabeledDataLoader,
    ignored_shares,
    single_process_loading,
)


@pytest.fixture
def loader(make_trainer):
    def make(configuration="2d_small", **settings):
        trainer = make_trainer(configuration=configuration, **settings)
        trainer.on_train_start()
        return trainer.dataloader_train.data_loader

    return make


def unlabeled_dataset(pair):
    (dataset,) = set(pair.unlabeled._data.dataset_of.values())
    return dataset


@pytest.mark.parametrize(
    ("configuration", "patch"), [("2d_small", (16, 16)), ("3d_fullres_small", (8, 16, 16))]
)
def test_an_item_holds_a_labeled_and_an_unlabeled_batch(loader, configuration, patch):
    batch = next(loader(configuration, unlabeled_batch_size=3))
    assert batch["data"].shape == (2, 1, *patch)
    assert batch["target"][0].shape == (2, 1, *patch)
    unlabeled = batch["unlabeled"]
    assert unlabeled.keys() == {"data", "weak", "keys"}
    for view in ("data", "weak"):
        assert unlabeled[view].shape == (3, 1, *patch)
        assert unlabeled[view].dtype == torch.float32
        assert unlabeled[view].is_contiguous()
    assert all(key.startswith("unlabeled_") for key in unlabeled["keys"])
    assert all(key.startswith("train_") for key in batch["keys"])


def test_one_view_is_drawn_where_one_is_used(loader):
    assert next(loader(views="same"))["unlabeled"].keys() == {"data", "keys"}


@pytest.mark.parametrize("configuration", ["2d_small", "3d_fullres_small"])
def test_unlabeled_patches_go_through_the_same_transforms(loader, configuration):
    pair = loader(configuration)
    assert tuple(pair.unlabeled.patch_size) == tuple(pair.labeled.patch_size)
    assert tuple(pair.unlabeled.final_patch_size) == tuple(pair.labeled.final_patch_size)
    first_axis = 1 if pair.labeled.patch_size_was_2d else 0
    dataset = unlabeled_dataset(pair)
    stock = nnUNetDataLoader(
        dataset,
        4,
        pair.labeled.patch_size[first_axis:],
        pair.labeled.final_patch_size[first_axis:],
        pair.unlabeled.label_manager,
        transforms=pair.labeled.transforms,
    )
    ours = UnlabeledDataLoader(dataset, 4, pair.labeled, pair.unlabeled.label_manager)
    for seed in range(5):
        drawn = []
        for each in (stock, ours):
            np.random.seed(seed)
            torch.manual_seed(seed)
            random.seed(seed)
            drawn.append(next(each))
        torch.testing.assert_close(*(batch["data"] for batch in drawn))
        assert list(drawn[0]["keys"]) == list(drawn[1]["keys"])


def test_segmentations_are_used_where_they_mask_the_images(loader):
    pair = loader()
    transforms = [MaskImageTransform([0], set_outside_to=5), RemoveLabelTansform(-1, 0)]
    pair.labeled.transforms = ComposeTransforms(transforms)

    class OutsideEverywhere:
        identifiers = ("case",)

        def load_case(self, _):
            image = np.zeros((1, 16, 24, 24), np.float32)
            return image, np.full(image.shape, -1, np.int16), None, {"class_locations": {}}

    masked = UnlabeledDataLoader(OutsideEverywhere(), 2, pair.labeled, pair.unlabeled.label_manager)
    assert (next(masked)["data"] == 5).all()


def test_unlabeled_patches_are_never_centered_on_foreground(loader, monkeypatch):
    pair = loader()
    forced = []
    original = pair.unlabeled.get_bbox

    def spy(shape, force_foreground, class_locations, *arguments, **options):
        forced.append((force_foreground, class_locations))
        return original(shape, force_foreground, class_locations, *arguments, **options)

    monkeypatch.setattr(pair.unlabeled, "get_bbox", spy)
    for _ in range(10):
        next(pair.unlabeled)
    assert forced == [(False, {})] * 20


def test_unlabeled_patches_are_drawn_without_class_locations_under_an_ignore_label(
    loader, planned_phantom
):
    pair = loader()
    labels = planned_phantom.dataset_json()["labels"] | {"ignore": 3}
    label_manager = PlansManager(planned_phantom.plans()).get_label_manager({"labels": labels})
    assert label_manager.has_ignore_label  # nnU-Net then looks voxels up in class_locations
    unlabeled = UnlabeledDataLoader(unlabeled_dataset(pair), 2, pair.labeled, label_manager)
    assert next(unlabeled)["data"].shape == (2, 1, 16, 16)


def test_patch_positions_of_unlabeled_cases_are_uniform(loader):
    pair = loader()
    np.random.seed(0)
    shape = np.array([16, 40, 40])
    starts = np.array([pair.unlabeled.get_bbox(shape, False, {})[0] for _ in range(2000)])
    for axis in (1, 2):
        counts = np.bincount(starts[:, axis] - starts[:, axis].min())
        assert counts.min() > 0.5 * counts.mean()


def test_the_stream_is_reproducible_with_a_seed(loader):
    def first_batches():
        stream = loader(seed=3)
        return [next(stream) for _ in range(2)]

    for one, other in zip(first_batches(), first_batches(), strict=True):
        assert torch.equal(one["data"], other["data"])
        assert torch.equal(one["unlabeled"]["data"], other["unlabeled"]["data"])
        assert list(one["unlabeled"]["keys"]) == list(other["unlabeled"]["keys"])


def test_a_loader_can_be_sent_to_a_spawned_worker(loader):
    copy = pickle.loads(pickle.dumps(loader()))
    assert isinstance(copy, PairedDataLoader)
    copy.set_thread_id(3)
    assert (copy.labeled.thread_id, copy.unlabeled.thread_id) == (3, 3)
    assert next(copy)["unlabeled"]["data"].shape[0] == 2


def test_workers_of_one_pool_serve_both_streams(make_trainer, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    trainer = make_trainer()
    trainer.on_train_start()
    try:
        assert trainer.dataloader_train.num_processes == 2
        assert trainer.dataloader_val.num_processes == 1
        assert "unlabeled" in next(trainer.dataloader_train)
        assert len(set(trainer.dataloader_train.seeds)) == 2
    finally:
        trainer.dataloader_train._finish()
        trainer.dataloader_val._finish()


@pytest.mark.parametrize("before", [None, "4"])
def test_the_worker_count_is_put_back(monkeypatch, before):
    name = paired_loader.WORKERS_VARIABLE
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    with contextlib.suppress(KeyError), single_process_loading():
        inside = os.environ[name]
        raise KeyError
    assert inside == "0"
    assert os.environ.get(name) == before


def test_the_unlabeled_folder_is_not_seen_by_stock_nnunet(planned_phantom, make_trainer):
    trainer = make_trainer(fold="all")
    trainer.initialize()
    train, validation = trainer.do_split()
    assert sorted(train) == sorted(validation) == [f"train_{i:03d}" for i in range(5)]
    folder = Path(trainer.preprocessed_dataset_folder)
    assert (folder.parent / f"{folder.name}_unlabeled").is_dir()


class SparseCases:
    """Labeled cases; in one of them every bright voxel is under the ignore label 3."""

    identifiers = ("dense", "sparse")

    def load_case(self, name):
        data = np.random.default_rng(0).normal(size=(1, 16, 24, 24)).astype(np.float32)
        ignored = (data > 0) & (name == "sparse")
        return data, np.where(ignored, 3, 0).astype(np.int16), None, {"class_locations": {}}


@pytest.mark.parametrize("regions", [False, True])
def test_sparse_cases_are_drawn_like_unlabeled_ones_with_their_ignored_voxels(
    loader, planned_phantom, regions
):
    pair = loader()
    labels = {"background": 0, "first": [1, 2] if regions else 1, "second": 2, "ignore": 3}
    description = {"labels": labels, "regions_class_order": [1, 2]}
    manager = PlansManager(planned_phantom.plans()).get_label_manager(description)
    assert manager.has_regions == regions
    pair.labeled.transforms = None
    if regions:  # nnU-Net's transform appends the ignored voxels to the region channels

        def transforms(image, segmentation):
            channels = torch.cat([segmentation == 1, segmentation == 2, segmentation == 3])
            return {"image": image, "segmentation": [channels, channels]}

        pair.labeled.transforms = transforms
    pair.labeled._data = SparseCases()
    mixed = UnlabeledDataLoader(unlabeled_dataset(pair), 3, pair.labeled, manager, {"sparse": 0.5})
    seen = set()
    for _ in range(20):
        batch = next(mixed)
        voxels = batch["valid"]
        assert voxels.shape == batch["data"].shape
        for image, voxel, key in zip(batch["data"], voxels, batch["keys"], strict=True):
            expected = image > 0 if key == "sparse" else torch.ones_like(voxel)
            assert torch.equal(voxel, expected)
            seen.add(key == "sparse")
    assert seen == {True, False}


def test_sparse_cases_alone_make_unlabeled_patches(loader, planned_phantom):
    pair = loader()
    description = {"labels": {"background": 0, "first": 1, "second": 2, "ignore": 3}}
    manager = PlansManager(planned_phantom.plans()).get_label_manager(description)
    pair.labeled._data = SparseCases()
    alone = UnlabeledDataLoader(None, 2, pair.labeled, manager, {"sparse": 0.5})
    assert list(next(alone)["keys"]) == ["sparse", "sparse"]


def test_cases_are_drawn_in_proportion_to_what_is_unlabeled_in_them(loader, planned_phantom):
    pair = loader()
    description = {"labels": {"background": 0, "first": 1, "second": 2, "ignore": 3}}
    manager = PlansManager(planned_phantom.plans()).get_label_manager(description)
    pair.labeled._data = SparseCases()
    mixed = UnlabeledDataLoader(unlabeled_dataset(pair), 2, pair.labeled, manager, {"sparse": 0.5})
    chances = dict(zip(mixed.indices.tolist(), mixed.sampling_probabilities, strict=True))
    whole = {chance for name, chance in chances.items() if name != "sparse"}
    assert chances["sparse"] == pytest.approx(0.5 * whole.pop())
    assert not whole
    assert "dense" not in chances


def test_the_share_of_ignored_voxels_is_counted():
    assert ignored_shares(SparseCases(), 3).keys() == {"sparse"}
    assert ignored_shares(SparseCases(), 3)["sparse"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("masked", [False, True])
def test_the_weak_view_shows_the_same_voxels(loader, masked):
    pair = loader()
    transforms = [MirrorTransform((0, 1)), *([MaskImageTransform([0])] if masked else [])]
    pair.labeled.transforms = ComposeTransforms(transforms)  # no intensity transform
    manager = pair.unlabeled.label_manager
    views = UnlabeledDataLoader(unlabeled_dataset(pair), 3, pair.labeled, manager, weak_view=True)
    batch = next(views)
    assert batch["weak"].shape == (3, 1, *pair.labeled.patch_size[1:])
    assert torch.equal(batch["data"], batch["weak"])
