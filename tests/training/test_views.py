import pytest
import torch
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
    DownsampleSegForDSTransform,
)
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_spmc.losses import LabelSpace
from nnunetv2_spmc.training.step import Labeled, Unlabeled, labeled_through, seen_through
from nnunetv2_spmc.training.views import (
    SHARE_OF_PATCH,
    Box,
    Turn,
    View,
    Views,
    draw_boxes,
    draw_source,
    draw_turn,
)

SCALES = ([1, 1], [0.5, 0.5], [0.25, 0.25])


def through(view, unlabeled, labeled, space):
    """See patches through a view, with one-hot labels for pseudo-labels."""
    return seen_through(view, unlabeled, labeled, space, lambda _, target: space.one_hot(target))


def views(paste_from="nothing", turns=False, flip_axes=(), spacing=(1.0, 1.0)):
    return Views(False, paste_from, 1.0, turns, flip_axes, spacing)


def numbered(patches=3, size=16, offset=0):
    """Patches whose voxels say where they come from."""
    return (offset + torch.arange(patches * size * size)).reshape(patches, 1, size, size).float()


def scales_of(target):
    """The targets of all resolutions, as nnU-Net samples them."""
    downsample = DownsampleSegForDSTransform(SCALES)
    by_patch = (downsample._apply_to_segmentation(labels) for labels in target)
    return [torch.stack(scale) for scale in zip(*by_patch, strict=True)]


@given(st.sampled_from([(20, 20), (12, 16, 20)]), st.integers(0, 1000))
def test_every_patch_gets_one_box_of_a_part_of_it(shape, seed):
    torch.manual_seed(seed)
    boxes = draw_boxes(torch.zeros(3, 2, *shape), 1.0)
    assert boxes.shape == (3, 1, *shape)
    for box in boxes[:, 0]:
        sides = [slice(int(i.min()), int(i.max()) + 1) for i in box.nonzero().T]
        assert box[tuple(sides)].all()
        share = box.float().mean().item()
        assert SHARE_OF_PATCH[0] / 1.5 < share < SHARE_OF_PATCH[1] * 1.5  # up to rounding


def test_boxes_lie_anywhere():
    torch.manual_seed(0)
    inside = draw_boxes(torch.zeros(500, 1, 6, 8), 1.0).float().mean(dim=(0, 1))
    assert inside.min() > 0


def test_the_probability_is_that_of_a_patch_to_get_a_box():
    torch.manual_seed(0)
    with_box = draw_boxes(torch.zeros(2000, 1, 4, 4), 0.25).flatten(1).any(1)
    assert with_box.float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert not draw_boxes(torch.zeros(9, 1, 4, 4), 0.0).any()


def test_what_is_inside_comes_from_the_patch_that_was_drawn():
    image, labeled = numbered(2), numbered(3, offset=10_000)
    inside = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    inside[:, :, :4, :4] = True
    view = View((Box(inside, torch.tensor([2, 0]), labeled=True),))
    pasted = view.paste(image, labeled)
    assert torch.equal(pasted[:, :, :4, :4], labeled[[2, 0], :, :4, :4])
    assert torch.equal(pasted[:, :, 4:], image[:, :, 4:])


@pytest.mark.parametrize("paste_from", ["labeled", "unlabeled", "both"])
def test_boxes_come_from_where_the_setting_says_and_never_from_the_patch_itself(paste_from):
    image, labeled = numbered(3), numbered(2, offset=10_000)
    for seed in range(10):
        torch.manual_seed(seed)
        seen = views(paste_from).draw(image, 2).paste(image, labeled)
        assert (seen >= 10_000).any() == (paste_from != "unlabeled")
        for case, patch in enumerate(seen):
            sources = set((patch[patch < 10_000] // 256).unique().tolist()) - {case}
            assert len(sources) <= 1
            if paste_from == "unlabeled":
                assert len(sources) == 1
        assert torch.equal(seen % 256 % 16, (image % 256 % 16).expand_as(seen)) or (
            paste_from != "unlabeled"
        )


def test_a_single_patch_can_only_fill_its_own_box():
    assert draw_source(1, 1, torch.device("cpu"), same=True).tolist() == [0]


def test_patches_turn_by_90_degrees_only_where_size_and_spacing_agree():
    torch.manual_seed(0)
    square = {draw_turn((4, 4), (1.0, 1.0), (), turns=True).quarters for _ in range(60)}
    assert square == {1, 2, 3}
    for size, spacing in (((4, 4), (1.0, 2.0)), ((4, 8), (1.0, 1.0))):
        assert {draw_turn(size, spacing, (), turns=True).quarters for _ in range(20)} == {2}
    turns = [draw_turn((4, 8, 8), (3.0, 1.0, 1.0), (), turns=True) for _ in range(200)]
    assert {t.plane for t in turns} == {(0, 1), (0, 2), (1, 2)}
    assert {t.quarters for t in turns if t.plane == (1, 2)} == {1, 2, 3}
    assert {t.quarters for t in turns if t.plane != (1, 2)} == {2}


def test_flips_are_drawn_along_the_given_axes_alone():
    torch.manual_seed(0)
    turns = [draw_turn((4, 4, 4), (1.0, 1.0, 1.0), (0, 2), turns=False) for _ in range(60)]
    assert {t.flipped for t in turns} == {(), (0,), (2,), (0, 2)}
    assert {t.quarters for t in turns} == {0}


def test_a_turn_keeps_left_and_right_apart_and_a_flip_exchanges_them():
    """An organ whose front is marked: left of the front stays left of it however it is turned."""
    left, right, front = 1, 2, 3
    body = torch.zeros(1, 1, 5, 5)
    body[0, 0, 2, 0], body[0, 0, 2, 4], body[0, 0, 0, 2] = left, right, front

    def left_of_front(image):
        position = {v: (image[0, 0] == v).nonzero()[0] - 2 for v in (left, front)}
        (y, x), (fy, fx) = position[left], position[front]
        return bool(fy * x - fx * y > 0)  # the cross product: on which side of the front

    assert left_of_front(body)
    assert all(left_of_front(Turn((0, 1), quarters, ())(body)) for quarters in (1, 2, 3))
    assert not any(left_of_front(Turn((0, 1), 0, (axis,))(body)) for axis in (0, 1))


@pytest.mark.parametrize("shape", [(6, 6), (4, 6, 6)])
def test_what_is_drawn_never_exchanges_sides_where_mirroring_does_not_allow_it(shape):
    """Of a body without front and back, which no turn shows: whatever looks upright is upright."""
    axes = tuple(range(len(shape)))
    body = torch.rand(1, 1, *shape)
    exchanged = body.flip(-1)  # left and right lie along the last axis
    upright = dict.fromkeys((axes, axes[:-1]), 0)
    for allowed in upright:
        for seed in range(300):
            torch.manual_seed(seed)
            view = views(turns=True, flip_axes=allowed, spacing=(1.0,) * len(shape)).draw(body, 1)
            upright[allowed] += torch.equal(view.apply(body), exchanged)
    assert upright[axes] > 0
    assert upright[axes[:-1]] == 0


def test_flips_without_turns_keep_to_the_axes_that_mirroring_allows():
    torch.manual_seed(0)
    image = torch.zeros(1, 1, 4, 4)
    assert {views(flip_axes=(1,)).draw(image, 1).turn.flipped for _ in range(20)} == {(), (1,)}
    assert {views(turns=True, flip_axes=(1,)).draw(image, 1).turn.flipped for _ in range(20)} == {
        ()
    }


@given(st.integers(0, 500), st.sampled_from(["nothing", "labeled", "unlabeled", "both"]))
def test_everything_that_belongs_to_a_patch_moves_alike(seed, paste_from):
    """Images, pseudo-labels and what counts say the same of every voxel after the view."""
    torch.manual_seed(seed)
    classes = torch.randint(0, 3, (3, 1, 16, 16))
    of_labeled = torch.randint(0, 4, (2, 1, 16, 16))  # 3 is the ignore label
    space = LabelSpace(3, ignore_label=3)
    valid = classes != 2
    unlabeled = Unlabeled(
        classes.float(), classes.float(), valid, {"teacher": space.one_hot(classes)}
    )
    labeled = Labeled(of_labeled.float(), of_labeled)
    view = views(paste_from, turns=True, flip_axes=(0, 1)).draw(classes, 2)
    seen = through(view, unlabeled, labeled, space)
    assert torch.equal(seen.pseudo["teacher"], space.one_hot(seen.images.long()))
    mixed = view.apply(torch.zeros(3, 1, 16, 16), torch.ones(2, 1, 16, 16)).bool()
    expected = torch.where(mixed, seen.images != 3, seen.images != 2)
    assert torch.equal(seen.valid, expected)
    assert seen.weak is None


def test_a_method_says_what_labels_are_among_pseudo_labels_of_its_own():
    torch.manual_seed(0)
    space = LabelSpace(3)
    target = torch.randint(0, 3, (2, 1, 16, 16))
    unlabeled = Unlabeled(numbered(2), pseudo={"uncertainty": torch.ones(2, 1, 16, 16)})
    view = views("labeled").draw(target, 2)
    with pytest.raises(ValueError, match=r"'uncertainty' have 1 channels, those of labels 3"):
        through(view, unlabeled, Labeled(numbered(2), target), space)
    seen = seen_through(
        view, unlabeled, Labeled(numbered(2), target), space, lambda _, of: torch.zeros_like(of)
    )
    inside = view.paste(torch.zeros(2, 1, 16, 16), torch.ones(2, 1, 16, 16)).bool()
    assert torch.equal(seen.pseudo["uncertainty"] == 0, inside)


def test_without_an_ignore_label_everything_counts():
    space = LabelSpace(3)
    target = torch.randint(0, 3, (2, 1, 16, 16))
    view = views("labeled").draw(target, 2)
    seen = through(view, Unlabeled(numbered(2)), Labeled(numbered(2), target), space)
    assert seen.valid is None


def test_pseudo_labels_of_lower_resolutions_get_the_targets_of_these():
    torch.manual_seed(1)
    space = LabelSpace(3)
    target = scales_of(torch.randint(0, 3, (3, 1, 16, 16)))
    pseudo = {str(i): torch.zeros(3, 3, *scale.shape[2:]) for i, scale in enumerate(target)}
    view = views("labeled").draw(numbered(3), 3)
    seen = through(view, Unlabeled(numbered(3), pseudo=pseudo), Labeled(numbered(3), target), space)
    full = view.paste(torch.full((3, 1, 16, 16), -1.0), target[0].float())
    for i, scale in enumerate(scales_of(full)):
        assert torch.equal(seen.pseudo[str(i)], space.one_hot(scale)), i


def test_labeled_patches_and_their_targets_of_all_resolutions_move_alike():
    for seed in range(10):
        torch.manual_seed(seed)
        images = numbered(3)
        target = scales_of(images)
        view = views("labeled").draw_labeled(images)
        seen, labels = labeled_through(view, images, target)
        assert not torch.equal(seen, images)
        for ours, nnunets in zip(labels, scales_of(seen), strict=True):
            assert torch.equal(ours, nnunets)
        turned, labels = labeled_through(View(turn=Turn((0, 1), 1, (0,))), images, target)
        assert torch.equal(labels[0], turned)
        for before, after in zip(target, labels, strict=True):
            assert torch.equal(torch.rot90(before, 1, (2, 3)).flip(2), after)


def test_a_share_of_labeled_patches_is_seen_through_the_views():
    torch.manual_seed(0)
    images = numbered(400, size=4)
    seen = views("labeled", turns=True).draw_labeled(images, 0.25).apply(images)
    changed = (seen != images).flatten(1).any(1).float().mean().item()
    assert changed == pytest.approx(0.25, abs=0.06)
