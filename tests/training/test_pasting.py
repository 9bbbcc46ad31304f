import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_spmc.training.pasting import SHARE_OF_PATCH, draw_boxes, paste


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


def test_what_is_inside_comes_from_the_others():
    boxes = torch.tensor([[[True, False]]])
    image, labels = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 4.0], [5.0, 6.0]]])
    mixed = paste(boxes, [image, labels], [-image, -labels])
    assert mixed[0].tolist() == [[[-1.0, 2.0]]]
    assert mixed[1].tolist() == [[[-3.0, 4.0], [-5.0, 6.0]]]
