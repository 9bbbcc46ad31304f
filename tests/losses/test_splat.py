import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunetv2_spmc.losses import confidence, probabilities, sharpen, splat, taught

STUDENT = torch.tensor([0.6, 0.7, 0.8, 0.9]).view(1, 1, 4)
TEACHER = torch.tensor([0.9, 0.7, 0.9, 0.5]).view(1, 1, 4)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("high-to-low", [True, False, False, False]),
        ("ordinary-to-low", [True, True, False, False]),
        ("high-to-ordinary", [True, False, True, False]),
    ],
)
def test_teaching_modes_of_table_5(mode, expected):
    assert taught(STUDENT, TEACHER, 0.7, mode=mode).flatten().tolist() == expected


def test_loss_by_hand():
    # 2 classes, 2 voxels; the first is taught: (0.6 - 1)^2 + (0.4 - 0)^2 = 0.32 over 4 entries
    student = torch.tensor([[0.6, 0.9], [0.4, 0.1]])[None]
    pseudo_label = torch.tensor([[1.0, 1.0], [0.0, 0.0]])[None]
    mask = taught(confidence(student), confidence(pseudo_label), 0.7)
    assert mask.flatten().tolist() == [True, False]
    assert splat(student, pseudo_label, mask).item() == pytest.approx(0.08)


def test_the_gradient_reaches_the_student_and_never_the_teacher():
    student_logits = torch.randn(1, 2, 50, requires_grad=True)
    teacher_logits = torch.randn(1, 2, 50, requires_grad=True)
    student, teacher = probabilities(student_logits), probabilities(teacher_logits)
    # the teacher undetached on purpose: the function itself must cut the gradient
    mask = taught(confidence(student), confidence(teacher), 0.7)
    splat(student, teacher, mask).backward()
    assert torch.count_nonzero(student_logits.grad) == 2 * mask.sum() > 0
    assert teacher_logits.grad is None


def test_identical_branches_with_raw_trust_teach_nothing():
    p = confidence(probabilities(torch.randn(2, 3, 100)))
    assert not taught(p, p, 0.7).any()


@given(st.integers(0, 1000))
def test_identical_branches_with_sharpened_trust_teach_a_known_band(seed):
    """With T = 0.1, sharpened > 0.7 means raw > sigmoid(0.1 * logit(0.7)) = 0.52117."""
    p = probabilities(2 * torch.randn(1, 2, 500, generator=torch.Generator().manual_seed(seed)))
    raw = confidence(p)
    mask = taught(raw, confidence(sharpen(p, 0.1)), 0.7)
    lower = torch.sigmoid(0.1 * torch.logit(torch.tensor(0.7)))
    assert lower.item() == pytest.approx(0.52117, abs=1e-5)
    assert torch.equal(mask, (raw > lower) & (raw <= 0.7))
