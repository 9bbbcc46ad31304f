"""SPMC's sum of its terms against the equations in float64, without a trainer or a network."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy, cross_entropy, mse_loss

from nnunetv2_spmc.losses import LabelSpace
from nnunetv2_spmc.losses.spmc import SPMCSettings, labeled_terms, unlabeled_terms

IGNORE = 3
SPACES = {
    "labels": LabelSpace(3),
    "regions": LabelSpace(2, regions=True),
    "ignore": LabelSpace(3, ignore_label=IGNORE),
    "regions_ignore": LabelSpace(2, regions=True, ignore_label=IGNORE),
}
every_space = pytest.mark.parametrize("kind", SPACES)
every_reduction = pytest.mark.parametrize("reduction", ["all", "masked"])
every_dimension = pytest.mark.parametrize("size", [(7, 9), (3, 4, 5)])


def logits_of(space, size, seed):
    """Of both branches, and of two teachers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 2, space.channels, *size, generator=generator)


def target_of(space, size):
    """Labels as nnU-Net hands them over, their one-hot encoding, and where they count."""
    generator = torch.Generator().manual_seed(9)
    classes = torch.randint(0, 3, (2, 1, *size), generator=generator)
    ignored = torch.rand(classes.shape, generator=generator) < 0.3
    ignored &= space.ignore_label is not None
    if space.regions:
        one_hot = torch.cat([classes >= 1, classes == 2], dim=1).double()
        target = torch.cat([one_hot, ignored], dim=1) if space.ignore_label else one_hot
        return target, one_hot, ~ignored
    one_hot = torch.cat([classes == c for c in range(3)], dim=1).double()
    return classes.masked_fill(ignored, IGNORE), one_hot, ~ignored


def probabilities(space, logits):
    return torch.sigmoid(logits.double()) if space.regions else logits.double().softmax(dim=1)


def sureness(space, p):
    return torch.maximum(p, 1 - p) if space.regions else p.amax(dim=1, keepdim=True)


def mean_squared_error(p, y, mask, valid, reduction):
    """MSE(P * M, Y * M) over the voxels that count, or over the selected entries of these."""
    mask = (mask & valid).expand_as(p)
    entries = mask if reduction == "masked" else valid.expand_as(p)
    return mse_loss(p * mask, y * mask, reduction="sum") / entries.sum()


@every_space
@every_reduction
@every_dimension
def test_the_labeled_terms_are_equations_6_to_11(kind, reduction, size):
    space = SPACES[kind]
    settings = SPMCSettings(tau=0.6, beta=0.4, reduction=reduction)
    a, b, *_ = logits_of(space, size, 0)
    target, one_hot, valid = target_of(space, size)
    loss, values = labeled_terms((a, b), target, space, settings)
    p_a, p_b = (probabilities(space, logits) for logits in (a, b))
    mask = (sureness(space, p_a) <= 0.6) & (sureness(space, p_b) <= 0.6)
    l_a, l_b = (mean_squared_error(p, one_hot, mask, valid, reduction) for p in (p_a, p_b))
    assert values["cdps_main"].item() == pytest.approx(l_a.item(), rel=1e-5)
    assert values["cdps_auxiliary"].item() == pytest.approx(l_b.item(), rel=1e-5)
    assert loss.item() == pytest.approx(0.4 * (l_a + l_b).item(), rel=1e-5)
    share = mask[valid.expand_as(mask)].double().mean()
    assert values["common_difficulty_labeled"].item() == pytest.approx(share.item(), rel=1e-5)


@every_space
@every_reduction
@pytest.mark.parametrize("trust_on", ["sharpened", "raw"])
@pytest.mark.parametrize("with_teachers", [False, True])
def test_the_unlabeled_terms_are_equations_12_to_19(kind, reduction, trust_on, with_teachers):
    space, size = SPACES[kind], (7, 9)
    settings = SPMCSettings(tau=0.6, beta=0.4, reduction=reduction, trust_on=trust_on)
    a, b, teacher_a, teacher_b = logits_of(space, size, 1)
    _, _, valid = target_of(space, size)
    p_a, p_b = (probabilities(space, logits) for logits in (a, b))
    q_a, q_b = p_a, p_b
    if with_teachers:
        q_a, q_b = (probabilities(space, logits) for logits in (teacher_a, teacher_b))
    given = (q_a.float(), q_b.float()) if with_teachers else None
    loss, values = unlabeled_terms((a, b), given, valid, space, settings)

    def cross_entropy_against(p, logits, q):
        if space.regions:
            errors = binary_cross_entropy(p, (q > 0.5).double(), reduction="none")
        else:
            errors = cross_entropy(logits.double(), q.argmax(1), reduction="none")[:, None]
        return errors[valid.expand_as(errors)].mean()

    expected = 0.0
    for branch, logits, p, q in (("main", a, p_a, q_b), ("auxiliary", b, p_b, q_a)):
        soft = q**10 / (q**10 + (1 - q) ** 10)
        trust = sureness(space, soft if trust_on == "sharpened" else q)
        mask = (sureness(space, p) <= 0.6) & (trust > 0.6)
        splat = mean_squared_error(p, soft, mask, valid, reduction)
        cps = cross_entropy_against(p, logits, q)
        assert values[f"splat_{branch}"].item() == pytest.approx(splat.item(), rel=1e-5)
        assert values[f"cps_{branch}"].item() == pytest.approx(cps.item(), rel=1e-5)
        taught = mask[valid.expand_as(mask)].double().mean()
        assert values[f"taught_{branch}"].item() == pytest.approx(taught.item(), rel=1e-5)
        expected += (cps + 0.4 * splat).item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_without_cdps_and_splat_cross_pseudo_supervision_is_left():
    space = SPACES["labels"]
    settings = SPMCSettings(cdps=False, splat=False)
    a, b, *_ = logits_of(space, (7, 9), 2)
    target, *_ = target_of(space, (7, 9))
    assert labeled_terms((a, b), target, space, settings)[0] == 0
    loss, values = unlabeled_terms((a, b), None, None, space, settings)
    assert loss == values["cps_main"] + values["cps_auxiliary"]


@every_space
def test_where_no_voxel_counts_the_loss_is_zero_with_a_valid_gradient(kind):
    space = SPACES[kind]
    a, b = (logits.requires_grad_() for logits in logits_of(space, (7, 9), 3)[:2])
    nowhere = torch.zeros(2, 1, 7, 9, dtype=torch.bool)
    loss, _ = unlabeled_terms((a, b), None, nowhere, space, SPMCSettings())
    loss.backward()
    assert loss == 0
    assert not a.grad.any()
    assert not b.grad.any()


def test_no_term_of_a_branch_reaches_the_other_branch():
    space = SPACES["labels"]
    settings = SPMCSettings(tau=0.9)
    a, b = (logits.requires_grad_() for logits in logits_of(space, (7, 9), 4)[:2])
    target, *_ = target_of(space, (7, 9))
    terms = labeled_terms((a, b), target, space, settings)[1]
    terms |= unlabeled_terms((a, b), None, None, space, settings)[1]
    for name in ("cdps", "cps", "splat"):
        for branch, own, other in (("main", a, b), ("auxiliary", b, a)):
            term = terms[f"{name}_{branch}"]
            gradient, none = torch.autograd.grad(
                term, (own, other), retain_graph=True, allow_unused=True
            )
            assert gradient.any()
            assert none is None or not none.any()
