import math

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunetv2_spmc import losses
from nnunetv2_spmc.losses.spmc import SPMCSettings, unlabeled_terms
from nnunetv2_spmc.methods import nnUNetTrainerSPMC
from nnunetv2_spmc.training import passes
from nnunetv2_spmc.training.step import Labeled, Step, Unlabeled
from nnunetv2_spmc.training.views import draw_boxes

AS_EQUATIONS = {"pseudo_loss": "cross-entropy", "turns": False}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
IGNORE = 3


@pytest.fixture
def make_started(make_trainer, planned_phantom):
    """An initialized trainer whose L_cps is the paper's and which turns no patches.

    Other labels than the phantom's stand in for region datasets.
    """

    def make(labels=None, **settings):
        dataset_json = planned_phantom.dataset_json()
        if labels is not None:
            dataset_json |= {"labels": labels, "regions_class_order": [1, 2]}
        trainer = make_trainer(dataset_json=dataset_json, **(AS_EQUATIONS | settings))
        trainer.initialize()
        trainer.joint_network.train()
        return trainer

    return make


def patches(seed=0):
    return torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def targets(trainer, channels=1, high=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    scales = [[1, 1], *trainer._get_deep_supervision_scales()[1:]]
    return [
        torch.randint(
            0, high, (2, channels, *(int(16 * s) for s in scale)), generator=generator
        ).to(torch.int16)
        for scale in scales
    ]


def labeled_loss(trainer, images, target):
    return trainer.labeled_loss(trainer.joint_network(images), Labeled(images, target))


def unlabeled_loss(trainer, images):
    return trainer.unlabeled_loss(trainer.joint_network(images), Unlabeled(images))


def unlabeled_pass(trainer, images, weak=None, valid=None, labeled=None):
    """The unlabeled pass of a step at weight 1."""
    step = Step(labeled or Labeled(images, None), Unlabeled(images, weak, valid), 1.0, 0)
    return passes.unlabeled_pass(trainer, step)


def branch_gradients(trainer, loss):
    """Total gradient magnitude in the main decoder and in the auxiliary decoder."""
    trainer.optimizer.zero_grad()
    loss.backward(retain_graph=True)
    network = trainer.joint_network
    return [
        sum(p.grad.abs().sum().item() for p in decoder.parameters() if p.grad is not None)
        for decoder in (network.main.decoder.stages, network.auxiliary_decoder)
    ]


@pytest.mark.parametrize("term", ["cps", "splat"])
def test_no_unsupervised_term_of_a_branch_reaches_the_other_branch(make_started, term):
    trainer = make_started(shared_encoder=False, tau=0.99)
    _, values = unlabeled_loss(trainer, patches())
    main, auxiliary = branch_gradients(trainer, values[f"{term}_main"])
    assert main > 0
    assert auxiliary == 0
    main, auxiliary = branch_gradients(trainer, values[f"{term}_auxiliary"])
    assert main == 0
    assert auxiliary > 0


def test_no_labeled_term_of_a_branch_reaches_the_other_branch(make_started):
    trainer = make_started(shared_encoder=False, tau=1.0)
    _, values = labeled_loss(trainer, patches(), targets(trainer))
    for term in ("supervised", "cdps"):
        main, auxiliary = branch_gradients(trainer, values[f"{term}_main"])
        assert (main > 0, auxiliary) == (True, 0)
        main, auxiliary = branch_gradients(trainer, values[f"{term}_auxiliary"])
        assert (main, auxiliary > 0) == (0, True)


@pytest.mark.parametrize("reduction", ["all", "masked"])
def test_the_labeled_loss_is_the_sum_of_equations_3_to_11(make_started, reduction):
    trainer = make_started(noise=0.0, tau=0.5, reduction=reduction)
    images, target = patches(), targets(trainer)
    loss, _ = labeled_loss(trainer, images, target)
    main, auxiliary = trainer.joint_network(images)
    p_a, p_b = torch.softmax(main[0], 1), torch.softmax(auxiliary[0], 1)
    y = nn.functional.one_hot(target[0][:, 0].long(), 3).movedim(-1, 1).float()
    mask = ((p_a.amax(1, True) <= 0.5) & (p_b.amax(1, True) <= 0.5)).float()
    assert 0 < mask.mean() < 1
    divisor = mask.mean() if reduction == "masked" else 1
    expected = trainer.loss(main, target) + trainer.loss(auxiliary, target)
    for p in (p_a, p_b):
        expected = expected + 0.5 * nn.functional.mse_loss(p * mask, y * mask) / divisor
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("reduction", ["all", "masked"])
def test_the_unlabeled_loss_is_the_sum_of_equations_12_to_19(make_started, reduction):
    trainer = make_started(noise=0.0, tau=0.5, reduction=reduction)
    images = patches()
    loss, values = unlabeled_loss(trainer, images)
    main, auxiliary = (output[0].double() for output in trainer.joint_network(images))
    p_a, p_b = torch.softmax(main, 1), torch.softmax(auxiliary, 1)

    def sharpened(p):
        return p**10 / (p**10 + (1 - p) ** 10)

    expected, taught = 0, []
    for logits, p, q in ((main, p_a, p_b), (auxiliary, p_b, p_a)):
        mask = (p.amax(1, True) <= 0.5) & (sharpened(q).amax(1, True) > 0.5)
        taught.append(mask.float().mean().item())
        term = nn.functional.mse_loss(p * mask, sharpened(q) * mask)
        term = term / mask.double().mean() if reduction == "masked" else term
        expected = expected + nn.functional.cross_entropy(logits, q.argmax(1)) + 0.5 * term
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    assert [values["taught_main"], values["taught_auxiliary"]] == pytest.approx(taught)


def test_ignored_voxels_enter_no_labeled_term(make_started, planned_phantom):
    labels = planned_phantom.dataset_json()["labels"] | {"ignore": IGNORE}
    trainer = make_started(noise=0.0, tau=1.0)
    trainer.label_manager = trainer.plans_manager.get_label_manager({"labels": labels})
    trainer.loss = nnUNetTrainer._build_loss(trainer)
    images, target = patches(), targets(trainer)
    ignored = [t.clone() for t in target]
    for t in ignored:
        t[:, :, : t.shape[2] // 2] = IGNORE
    _, values = labeled_loss(trainer, images, ignored)

    main, _ = trainer.joint_network(images)
    probabilities = torch.softmax(main[0], 1)[:, :, 8:]
    y = losses.one_hot(target[0], 3)[:, :, 8:]
    torch.testing.assert_close(values["cdps_main"], nn.functional.mse_loss(probabilities, y))
    assert values["common_difficulty_labeled"] == 1  # of the voxels that count

    all_ignored = [torch.full_like(t, IGNORE) for t in target]
    loss, values = labeled_loss(trainer, images, all_ignored)
    assert values["cdps_main"] == values["cdps_auxiliary"] == 0
    assert branch_gradients(trainer, loss) == [0, 0]


@pytest.mark.parametrize("reduction", ["all", "masked"])
def test_regions_are_treated_per_channel(make_started, reduction):
    trainer = make_started(labels=REGIONS, noise=0.0, tau=0.6, reduction=reduction)
    assert trainer.label_manager.has_regions
    images = patches()
    target = [t.bool() for t in targets(trainer, channels=2, high=2)]
    _, values = labeled_loss(trainer, images, target)
    main, auxiliary = (torch.sigmoid(output[0]) for output in trainer.joint_network(images))
    mask = (torch.maximum(main, 1 - main) <= 0.6) & (torch.maximum(auxiliary, 1 - auxiliary) <= 0.6)
    expected = nn.functional.mse_loss(main * mask, target[0] * mask)
    if reduction == "masked":
        expected = expected / mask.float().mean()
    torch.testing.assert_close(values["cdps_main"], expected)
    _, values = unlabeled_loss(trainer, images)
    expected = nn.functional.binary_cross_entropy(main, (auxiliary > 0.5).float())
    torch.testing.assert_close(values["cps_main"], expected)


def test_ignored_voxels_of_regions_are_left_out(make_started):
    trainer = make_started(labels=REGIONS | {"ignore": IGNORE}, noise=0.0, tau=1.0)
    images = patches()
    target = [t.bool() for t in targets(trainer, channels=3, high=2)]
    _, values = labeled_loss(trainer, images, target)
    main, _ = trainer.joint_network(images)
    valid = ~target[0][:, 2:].expand(-1, 2, -1, -1)
    errors = (torch.sigmoid(main[0]) - target[0][:, :2].float()).square()[valid]
    torch.testing.assert_close(values["cdps_main"], errors.mean())


def test_an_empty_selection_gives_zero_and_no_nan(make_started):
    trainer = make_started(tau=0.0, reduction="masked")
    loss, values = unlabeled_loss(trainer, patches())
    assert values["splat_main"] == values["splat_auxiliary"] == 0
    loss.backward()
    _, values = labeled_loss(trainer, patches(), targets(trainer))
    assert values["cdps_main"] == 0
    gradients = [p.grad for p in trainer.joint_network.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(
    ("trust_on", "expected"), [("raw", False), ("sharpened", True)], ids=["raw", "sharpened"]
)
def test_trust_may_ask_for_the_raw_confidence(trust_on, expected):
    """Two identical branches at confidence 0.6: sharpened they are trusted, raw they are not."""
    logits = torch.tensor([0.6, 0.3, 0.1]).log().view(1, 3, 1, 1)
    settings = SPMCSettings(trust_on=trust_on, tau=0.7)
    space = losses.LabelSpace(3)
    _, values = unlabeled_terms((logits, logits), None, None, space, settings)
    assert bool(values["taught_main"]) is expected


@pytest.mark.slow
def test_a_network_without_deep_supervision_is_trained_too(make_trainer):
    class WithoutDeepSupervision(nnUNetTrainerSPMC):
        def initialize(self):
            self.enable_deep_supervision = False
            super().initialize()

    trainer = make_trainer(WithoutDeepSupervision, epochs=1)
    trainer.run_training()
    assert isinstance(trainer.network, PlainConvUNet)
    assert not trainer.network.decoder.deep_supervision


@pytest.mark.parametrize("paste_from", ["nothing", "labeled"])
def test_the_weak_view_and_pasted_labels_teach_the_strong_view(make_started, paste_from):
    trainer = make_started(noise=0.0, views="weak-to-strong", paste_from=paste_from)
    strong, weak, target = patches(0), patches(1), targets(trainer)[0]
    labeled = (patches(2), target)
    torch.manual_seed(5)
    _, values = unlabeled_pass(trainer, strong, weak, labeled=Labeled(*labeled))

    main_label, auxiliary_label = (output[0].argmax(1) for output in trainer.joint_network(weak))
    torch.manual_seed(5)
    boxes = draw_boxes(strong, 1.0)
    if paste_from == "labeled":
        source = torch.randint(2, (2,))
        strong = torch.where(boxes, labeled[0][source], strong)
        main_label, auxiliary_label = (
            torch.where(boxes[:, 0], target[source][:, 0].long(), label)
            for label in (main_label, auxiliary_label)
        )
    main, auxiliary = (output[0] for output in trainer.joint_network(strong))
    for term, student, label in (
        ("cps_main", main, auxiliary_label),
        ("cps_auxiliary", auxiliary, main_label),
    ):
        expected = nn.functional.cross_entropy(student, label)
        torch.testing.assert_close(values[term], expected, rtol=1e-4, atol=1e-5)


def test_agreement_is_that_on_unlabeled_patches_before_boxes_are_pasted(make_started):
    trainer = make_started(noise=0.0, views="same", paste_from="labeled")
    images, labeled = patches(0), (patches(2), targets(trainer)[0])
    _, pasted = unlabeled_pass(trainer, images, labeled=Labeled(*labeled))
    main, auxiliary = (output[0].argmax(1) for output in trainer.joint_network(images))
    agreement = (main == auxiliary).float().mean()
    assert 0 < agreement < 1
    assert pasted["agreement"] == agreement


def test_the_pass_for_pseudo_labels_leaves_the_gradient_of_the_next_one_whole(make_started):
    """Weights that autocast casts without gradient must not be used again."""
    trainer = make_started(noise=0.0, views="weak-to-strong", paste_from="nothing")
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = unlabeled_pass(trainer, patches(0), patches(1))
    loss.backward()
    assert all(
        p.grad is not None and p.grad.any()
        for p in trainer.joint_network.main.encoder.parameters()
        if p.dim() > 1
    )


def test_pseudo_labels_are_made_without_noise_and_gradient(make_started):
    trainer = make_started(noise=0.3, views="weak-to-strong", paste_from="nothing")
    step = Step(Labeled(patches(), None), Unlabeled(patches(), patches()), 1.0, 0)
    one, other = (passes.student_view(trainer, step)[0].pseudo for _ in range(2))
    assert one.keys() == {"main", "auxiliary"}
    for branch in one:
        assert torch.equal(one[branch], other[branch])
        assert not one[branch].requires_grad
    assert trainer.joint_network.feature_noise.training
    noisy = [trainer.joint_network(patches())[1][0] for _ in range(2)]
    assert not torch.equal(*noisy)


@pytest.mark.parametrize("regions", [False, True])
def test_pasted_voxels_count_unless_they_are_under_the_ignore_label(make_started, regions):
    labels = REGIONS if regions else {"background": 0, "one": 1, "two": 2}
    trainer = make_started(labels=labels | {"ignore": IGNORE}, paste_from="labeled")
    target = targets(trainer, channels=3 if regions else 1, high=2)[0]
    ignored = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.5
    if regions:
        target[:, -1:] = ignored
    else:
        target[ignored] = IGNORE
    seen = []
    nowhere = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    for valid in (nowhere, None):
        torch.manual_seed(5)
        unlabeled = Unlabeled(patches(), valid=valid)
        step = Step(Labeled(patches(2), target), unlabeled, 1.0, 0)
        seen.append(passes.student_view(trainer, step)[0].valid)
    torch.manual_seed(5)
    boxes = draw_boxes(patches(), 1.0)
    valid = ~ignored[torch.randint(2, (2,))]
    assert torch.equal(seen[0], boxes & valid)
    assert torch.equal(seen[1], ~boxes | valid)


@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["2d_small", "3d_fullres_small"])
def test_a_training_with_supervised_epochs_weak_views_and_pasted_labels(
    make_trainer, configuration
):
    trainer = make_trainer(
        configuration=configuration,
        ramp_start=0.5,
        ramp_end=1.0,
        views="weak-to-strong",
        paste_from="labeled",
        unlabeled_batch_size=3,
    )
    trainer.run_training()
    curves = trainer.logger.local_logger.my_fantastic_logging
    assert [math.isnan(value) for value in curves["cps_main"]] == [True, False]
    assert curves["lambda"][0] == 0
    assert curves["lambda"][1] > 0


@pytest.mark.parametrize("labels", [None, REGIONS | {"ignore": IGNORE}])
def test_nnunets_own_loss_compares_each_branch_with_what_the_other_predicts(make_started, labels):
    trainer = make_started(labels, pseudo_loss="nnunet", splat=False)
    main, auxiliary = outputs = trainer.joint_network(patches())
    loss, values = trainer.unlabeled_loss(outputs, Unlabeled(patches()))
    space = trainer.label_space
    for branch, student, teacher in (("main", main, auxiliary), ("auxiliary", auxiliary, main)):
        label = space.target(space.predicted(space.probabilities(teacher[0])))
        assert values[f"cps_{branch}"].item() == trainer.nnunet_loss(student, label).item()
    assert loss.item() == pytest.approx(sum(v.item() for k, v in values.items() if "cps" in k))


def test_nnunets_own_loss_learns_nothing_from_voxels_that_do_not_count(make_started):
    trainer = make_started(
        {"background": 0, "organ": 1, "core": 2, "ignore": IGNORE}, pseudo_loss="nnunet"
    )
    nowhere = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    outputs = trainer.joint_network(patches())
    loss, _ = trainer.unlabeled_loss(outputs, Unlabeled(patches(), valid=nowhere))
    assert branch_gradients(trainer, loss) == [0, 0]


def test_the_mean_of_both_branches_teaches_both(make_started):
    space = make_started().label_space
    logits = [torch.randn(2, 3, 8, 8, requires_grad=True) for _ in range(2)]
    teachers = [torch.randn(2, 3, 8, 8).softmax(dim=1) for _ in range(2)]
    mean = (teachers[0] + teachers[1]) / 2
    by_mean = unlabeled_terms(logits, teachers, None, space, SPMCSettings(teacher="mean"))[1]
    given = unlabeled_terms(logits, (mean, mean), None, space, SPMCSettings())[1]
    assert by_mean.keys() == given.keys()
    for key, value in given.items():
        assert torch.equal(by_mean[key], value), key


@pytest.mark.slow
def test_unlabeled_patches_in_every_other_step(make_trainer, monkeypatch):
    trainer = make_trainer(unlabeled_every=2, iterations_per_epoch=4, epochs=1, ramp_start=0.0)
    seen = []
    passed = trainer.unlabeled_loss

    def unlabeled_loss(outputs, unlabeled):
        if not unlabeled.images.is_meta:  # as in the estimate of the memory
            seen.append(trainer.iteration)
        return passed(outputs, unlabeled)

    monkeypatch.setattr(trainer, "unlabeled_loss", unlabeled_loss)
    trainer.run_training()
    assert seen == [0, 2]
    curves = trainer.logger.local_logger.my_fantastic_logging
    assert 0 < curves["cps_main"][0] < 5
