import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunetv2_spmc import losses
from nnunetv2_spmc.methods import nnUNetTrainerSPMC

REGIONS = {"background": 0, "whole": [1, 2], "core": 2}
IGNORE = 3


@pytest.fixture
def make_started(make_trainer, planned_phantom):
    """An initialized trainer; other labels than the phantom's stand in for region datasets."""

    def make(labels=None, **settings):
        dataset_json = planned_phantom.dataset_json()
        if labels is not None:
            dataset_json |= {"labels": labels, "regions_class_order": [1, 2]}
        trainer = make_trainer(dataset_json=dataset_json, **settings)
        trainer.initialize()
        trainer.training_network.train()
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


def branch_gradients(trainer, loss):
    """Total gradient magnitude in the main decoder and in the auxiliary decoder."""
    trainer.optimizer.zero_grad()
    loss.backward(retain_graph=True)
    network = trainer.training_network
    return [
        sum(p.grad.abs().sum().item() for p in decoder.parameters() if p.grad is not None)
        for decoder in (network.main.decoder.stages, network.auxiliary_decoder)
    ]


@pytest.mark.parametrize("term", ["cps", "splat"])
def test_no_unsupervised_term_of_a_branch_reaches_the_other_branch(make_started, term):
    trainer = make_started(shared_encoder=False, tau=0.99)
    _, values = trainer.unlabeled_loss(trainer.training_network(patches()))
    main, auxiliary = branch_gradients(trainer, values[f"{term}_main"])
    assert main > 0
    assert auxiliary == 0
    main, auxiliary = branch_gradients(trainer, values[f"{term}_auxiliary"])
    assert main == 0
    assert auxiliary > 0


def test_no_labeled_term_of_a_branch_reaches_the_other_branch(make_started):
    trainer = make_started(shared_encoder=False, tau=1.0)
    _, values = trainer.labeled_loss(trainer.training_network(patches()), targets(trainer))
    for term in ("supervised", "cdps"):
        main, auxiliary = branch_gradients(trainer, values[f"{term}_main"])
        assert (main > 0, auxiliary) == (True, 0)
        main, auxiliary = branch_gradients(trainer, values[f"{term}_auxiliary"])
        assert (main, auxiliary > 0) == (0, True)


def test_the_labeled_loss_is_the_sum_of_equations_3_to_11(make_started):
    trainer = make_started(noise=0.0, tau=0.5)
    images, target = patches(), targets(trainer)
    loss, _ = trainer.labeled_loss(trainer.training_network(images), target)
    main, auxiliary = trainer.training_network(images)
    p_a, p_b = torch.softmax(main[0], 1), torch.softmax(auxiliary[0], 1)
    y = nn.functional.one_hot(target[0][:, 0].long(), 3).movedim(-1, 1).float()
    mask = ((p_a.amax(1, True) <= 0.5) & (p_b.amax(1, True) <= 0.5)).float()
    assert 0 < mask.mean() < 1
    expected = trainer.loss(main, target) + trainer.loss(auxiliary, target)
    for p in (p_a, p_b):
        expected = expected + 0.5 * nn.functional.mse_loss(p * mask, y * mask)
    torch.testing.assert_close(loss, expected)


def test_the_unlabeled_loss_is_the_sum_of_equations_12_to_19(make_started):
    trainer = make_started(noise=0.0, tau=0.5)
    images = patches()
    loss, values = trainer.unlabeled_loss(trainer.training_network(images))
    main, auxiliary = (output[0].double() for output in trainer.training_network(images))
    p_a, p_b = torch.softmax(main, 1), torch.softmax(auxiliary, 1)

    def sharpened(p):
        return p**10 / (p**10 + (1 - p) ** 10)

    expected, taught = 0, []
    for logits, p, q in ((main, p_a, p_b), (auxiliary, p_b, p_a)):
        mask = (p.amax(1, True) <= 0.5) & (sharpened(q).amax(1, True) > 0.5)
        taught.append(mask.float().mean().item())
        term = nn.functional.mse_loss(p * mask, sharpened(q) * mask)
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
    _, values = trainer.labeled_loss(trainer.training_network(images), ignored)

    main, _ = trainer.training_network(images)
    probabilities = torch.softmax(main[0], 1)[:, :, 8:]
    y = losses.one_hot(target[0], 3)[:, :, 8:]
    torch.testing.assert_close(values["cdps_main"], nn.functional.mse_loss(probabilities, y))
    assert values["common_difficulty_labeled"] == 0.5  # none in the ignored half

    all_ignored = [torch.full_like(t, IGNORE) for t in target]
    loss, values = trainer.labeled_loss(trainer.training_network(images), all_ignored)
    assert values["cdps_main"] == values["cdps_auxiliary"] == 0
    assert branch_gradients(trainer, loss) == [0, 0]


def test_regions_are_treated_per_channel(make_started):
    trainer = make_started(labels=REGIONS, noise=0.0, tau=0.6)
    assert trainer.label_manager.has_regions
    images = patches()
    target = [t.bool() for t in targets(trainer, channels=2, high=2)]
    _, values = trainer.labeled_loss(trainer.training_network(images), target)
    main, auxiliary = (torch.sigmoid(output[0]) for output in trainer.training_network(images))
    mask = (torch.maximum(main, 1 - main) <= 0.6) & (torch.maximum(auxiliary, 1 - auxiliary) <= 0.6)
    expected = nn.functional.mse_loss(main * mask, target[0] * mask)
    torch.testing.assert_close(values["cdps_main"], expected)
    _, values = trainer.unlabeled_loss(trainer.training_network(images))
    expected = nn.functional.binary_cross_entropy(main, (auxiliary > 0.5).float())
    torch.testing.assert_close(values["cps_main"], expected)


def test_ignored_voxels_of_regions_are_left_out(make_started):
    trainer = make_started(labels=REGIONS | {"ignore": IGNORE}, noise=0.0, tau=1.0)
    images = patches()
    target = [t.bool() for t in targets(trainer, channels=3, high=2)]
    _, values = trainer.labeled_loss(trainer.training_network(images), target)
    main, _ = trainer.training_network(images)
    valid = ~target[0][:, 2:].expand(-1, 2, -1, -1)
    errors = (torch.sigmoid(main[0]) - target[0][:, :2].float()).square()[valid]
    torch.testing.assert_close(values["cdps_main"], errors.mean())


def test_an_empty_selection_gives_zero_and_no_nan(make_started):
    trainer = make_started(tau=0.0, reduction="masked")
    loss, values = trainer.unlabeled_loss(trainer.training_network(patches()))
    assert values["splat_main"] == values["splat_auxiliary"] == 0
    loss.backward()
    _, values = trainer.labeled_loss(trainer.training_network(patches()), targets(trainer))
    assert values["cdps_main"] == 0
    gradients = [p.grad for p in trainer.training_network.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(
    ("trust_on", "expected"), [("raw", False), ("sharpened", True)], ids=["raw", "sharpened"]
)
def test_trust_may_ask_for_the_raw_confidence(make_started, trust_on, expected):
    """Two identical branches at confidence 0.6: sharpened they are trusted, raw they are not."""
    trainer = make_started(trust_on=trust_on, tau=0.7)
    p = torch.tensor([0.6, 0.3, 0.1]).view(1, 3, 1, 1)
    _, taught = trainer._splat(p, losses.confidence(p), p, None)
    assert bool(taught) is expected


def test_a_network_without_deep_supervision_is_trained_too(make_trainer):
    class WithoutDeepSupervision(nnUNetTrainerSPMC):
        def initialize(self):
            self.enable_deep_supervision = False
            super().initialize()

    trainer = make_trainer(WithoutDeepSupervision, epochs=1)
    trainer.run_training()
    assert isinstance(trainer.network, PlainConvUNet)
    assert not trainer.network.decoder.deep_supervision
