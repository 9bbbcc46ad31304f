from __future__ import annotations

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
    DownsampleSegForDSTransform,
)
from benchmark_trainers import view_control

SCALES = ([1, 1], [0.5, 0.5], [0.25, 0.25])


@pytest.fixture
def make_started(make_trainer):
    def make(kind):
        trainer = make_trainer(kind)
        trainer.initialize()
        return trainer

    return make


def labeled_patches(number=3, size=16):
    """Patches whose voxels equal their labels, which say where they come from."""
    full = torch.arange(number * size * size).reshape(number, 1, size, size)
    downsample = DownsampleSegForDSTransform(SCALES)
    scales = zip(*(downsample._apply_to_segmentation(labels) for labels in full), strict=True)
    return full.float(), [torch.stack(scale) for scale in scales]


@pytest.mark.parametrize("turns", [False, True])
def test_labels_of_all_resolutions_follow_the_view_of_the_image(make_started, turns):
    trainer = make_started(view_control.nnUNetTrainerViewControlBoxes)
    downsample, orientations = DownsampleSegForDSTransform(SCALES), []
    for seed in range(8):
        trainer.turns = turns
        torch.manual_seed(seed)
        images, target = labeled_patches()
        seen, labels = trainer.second_view(images, target)
        assert torch.equal(labels[0].float(), seen)
        torch.manual_seed(seed)
        trainer.turns = False
        _, upright = trainer.second_view(images, target)
        for case, full in enumerate(upright[0]):  # nnU-Net's own samples of the mixed labels
            own = downsample._apply_to_segmentation(full)
            assert all(torch.equal(u[case], o) for u, o in zip(upright, own, strict=True))
        for ours, before in zip(labels, upright, strict=True):  # then turned as the image is
            candidates = [
                before.rot90(quarters, (2, 3)).flip(flips)
                for quarters in range(4)
                for flips in ([], [2])  # all eight orientations
            ]
            found = [torch.equal(ours, candidate) for candidate in candidates]
            assert any(found)
            orientations.append((seed, found.index(True)))
    assert len(set(orientations)) == 8  # per view one orientation for all resolutions
    assert ({orientation for _, orientation in orientations} == {0}) == (not turns)


def test_every_patch_gets_a_box_of_another_patch_and_keeps_the_rest(make_started):
    trainer = make_started(view_control.nnUNetTrainerViewControlBoxes)
    for seed in range(8):
        torch.manual_seed(seed)
        images, target = labeled_patches()
        seen, _ = trainer.second_view(images, target)
        for case in range(3):
            from_case = seen[case].long() // 256
            others = set(from_case.unique().tolist()) - {case}
            assert len(others) == 1  # one box, from one other patch
            share = (from_case != case).float().mean().item()
            assert 0.1 < share < 0.55
            # voxels stay where they were in the patch that they come from
            assert torch.equal(seen[case] % 256, images[case] % 256)


def test_patches_turn_by_90_degrees_only_where_size_and_spacing_agree_and_flip_as_allowed():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    seen = {
        tuple(view_control.turned([image], spacing, mirror)[0].flatten().tolist())
        for spacing, mirror in (((1, 2), ()),)
        for _ in range(20)
    }
    assert seen == {tuple(image.rot90(2, (2, 3)).flatten().tolist())}
    torch.manual_seed(0)
    turns = {
        tuple(view_control.turned([image], (1, 1), ())[0].flatten().tolist()) for _ in range(60)
    }
    assert turns == {tuple(image.rot90(k, (2, 3)).flatten().tolist()) for k in (1, 2, 3)}
    flips = {
        tuple(view_control.turned([image], (1, 2), (1,))[0].flatten().tolist()) for _ in range(30)
    }
    upside_down = image.rot90(2, (2, 3))
    assert flips == {tuple(i.flatten().tolist()) for i in (upside_down, upside_down.flip(3))}


def test_a_step_sums_the_gradients_of_both_passes_at_weight_1(make_started):
    trainer = make_started(view_control.nnUNetTrainerViewControlBoxes)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 1, 16, 16, generator=generator)
    sizes = [round(16 * scale[0]) for scale in trainer._get_deep_supervision_scales()]
    target = [torch.randint(0, 3, (2, 1, s, s), generator=generator) for s in sizes]
    first = next(trainer.network.parameters())
    torch.manual_seed(5)
    second = trainer.second_view(images, target)
    expected = sum(
        torch.autograd.grad(trainer.loss(trainer.network(patches), labels), first)[0]
        for patches, labels in ((images, target), second)
    )
    seen = {}
    trainer.optimizer.register_step_pre_hook(lambda *_: seen.update(gradient=first.grad.clone()))
    torch.manual_seed(5)
    loss = trainer.train_step({"data": images, "target": target})["loss"]
    assert np.isfinite(loss)
    clipped = seen["gradient"] / seen["gradient"].norm()
    assert torch.allclose(clipped, expected / expected.norm(), atol=1e-5)
    assert len(trainer.optimizer.state) > 0  # a step was taken


@pytest.mark.slow
def test_it_trains_in_3d_without_any_unlabeled_case(make_trainer, planned_phantom, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("an unlabeled case was asked for")

    monkeypatch.setattr(
        "nnunetv2_spmc.training.unlabeled_stream.ensure_unlabeled_preprocessed", refuse
    )
    kind = view_control.nnUNetTrainerViewControlBoxesTurns
    trainer = make_trainer(kind, "3d_fullres_small")
    trainer.initialize()
    before = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    trainer.run_training()
    checkpoint = torch.load(f"{trainer.output_folder}/checkpoint_final.pth", weights_only=False)
    assert checkpoint["trainer_name"] == kind.__name__
    moved = [
        key for key, value in checkpoint["network_weights"].items() if (value != before[key]).any()
    ]
    assert len(moved) > len(before) / 2
