"""The losses of the compared methods against their definitions, computed independently."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from nnunetv2_spmc.common.setting_checks import SettingsError
from nnunetv2_spmc.methods import mean_teacher, nnUNetTrainerViewControl
from nnunetv2_spmc.training.views import Turn, View
from tests.methods.contract import (
    METHODS,
    batch_of,
    dataset_json,
    gradients_of_a_step,
    ready,
    replayed,
    without_chance,
)


@pytest.fixture
def start(make_trainer, planned_phantom, monkeypatch):
    """Prepare the trainer of a method for a step at full weight of the unsupervised terms."""
    without_chance(monkeypatch)

    def start(name, labels="labels", **settings):
        method = next(method for method in METHODS if method.name == name)
        described = dataset_json(labels, planned_phantom.dataset_json())
        return ready(make_trainer(method.trainer, dataset_json=described, **settings))

    return start


def full(outputs):
    return outputs[0]


def values_of(trainer, batch):
    return {key: float(value) for key, value in trainer.train_step(batch).items()}


@pytest.mark.parametrize("views", ["same", "weak-to-strong"])
def test_cps_is_cross_entropy_against_the_hard_labels_of_the_other_network(start, views):
    trainer = start("CPS", views=views)
    batch = batch_of(trainer)
    network, unlabeled = trainer.joint_network, batch["unlabeled"]
    teacher = unlabeled["weak"] if views == "weak-to-strong" else unlabeled["data"]
    with torch.no_grad():
        a, b = map(full, network(unlabeled["data"]))
        of_a, of_b = (full(output).argmax(1) for output in network(teacher))
        supervised = [trainer.loss(outputs, batch["target"]) for outputs in network(batch["data"])]
    assert (of_a != of_b).any()
    expected = cross_entropy(a, of_b) + cross_entropy(b, of_a)
    values = values_of(trainer, batch)
    assert values["cps_main"] == pytest.approx(cross_entropy(a, of_b).item(), rel=1e-5)
    assert values["cps_second"] == pytest.approx(cross_entropy(b, of_a).item(), rel=1e-5)
    total = sum(supervised) + trainer.settings.lambda_max * expected
    assert values["total_loss"] == pytest.approx(total.item(), rel=1e-5)


def test_spmc_refuses_to_sharpen_over_regions_which_overlap(start):
    start("SPMC", "labels", sharpening="softmax")
    with pytest.raises(SettingsError, match=r"sharpening is 'softmax', but .* has regions, which"):
        start("SPMC", "regions_ignore", sharpening="softmax")


def test_cps_of_regions_decides_on_each_of_them(start):
    trainer = start("CPS", "regions")
    batch = batch_of(trainer)
    with torch.no_grad():
        a, b = map(full, trainer.joint_network(batch["unlabeled"]["data"]))
    values = values_of(trainer, batch)
    expected = binary_cross_entropy_with_logits(a, (b > 0).float())
    assert values["cps_main"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("labels", ["labels", "regions"])
def test_mean_teacher_is_the_mean_squared_difference_of_probabilities(start, labels):
    trainer = start("MeanTeacher", labels)
    batch = batch_of(trainer)
    trainer.train_step(batch)
    trainer.train_step(batch)  # now the teacher is not the student
    images = batch["unlabeled"]["data"]
    noise = mean_teacher.image_noise(images, trainer.method_settings.input_noise)
    probabilities = (lambda x: x.softmax(1)) if labels == "labels" else torch.sigmoid
    with torch.no_grad():
        student = probabilities(full(trainer.network(images)).double())
        teacher = probabilities(full(trainer.joint_network.teacher(images + noise)).double())
        supervised = trainer.loss(trainer.network(batch["data"]), batch["target"])
    expected = (student - teacher).square().mean().item()
    trainer.iteration -= 2
    values = values_of(trainer, batch)
    assert expected > 0
    assert values["consistency"] == pytest.approx(expected, rel=1e-4)
    total = supervised.item() + trainer.ramp_up_weight(trainer.iteration - 1) * expected
    assert values["total_loss"] == pytest.approx(total, rel=1e-5)


def test_the_noise_of_mean_teacher_is_cut_off_at_twice_its_scale():
    torch.manual_seed(0)
    noise = mean_teacher.image_noise(torch.zeros(100_000), 0.1)
    assert noise.abs().max() == pytest.approx(0.2)
    assert noise.std().item() == pytest.approx(0.0959, abs=0.002)  # 0.1 without the tails


def test_filter_match_is_one_batch_of_labels_and_of_its_own_turned_ones(start, monkeypatch):
    trainer = start("FilterMatch")
    batch = batch_of(trainer)
    turn = Turn((0, 1), 1, (0,))
    replayed(monkeypatch, View(turn=turn))
    with torch.no_grad():
        outputs = trainer.network(batch["unlabeled"]["data"])
        images = torch.cat([batch["data"], turn(batch["unlabeled"]["data"])])
        target = [
            torch.cat([scale, turn(output.argmax(1, keepdim=True)).to(scale.dtype)])
            for scale, output in zip(batch["target"], outputs, strict=True)
        ]
        expected = trainer.loss(trainer.network(images), target).item()
    values = values_of(trainer, batch)
    assert values["total_loss"] == pytest.approx(expected, rel=1e-5)
    assert "single_class_main" in values


def test_filter_match_turns_from_the_start_and_flips_later(start):
    trainer = start("FilterMatch", epochs=9)
    assert trainer.views.turns
    axes = []
    for epoch in range(9):
        trainer.current_epoch = epoch
        axes.append(trainer.views.flip_axes)
    assert axes == [()] * 3 + [(0, 1)] * 6


@pytest.mark.parametrize("labels", ["labels", "regions_ignore"])
def test_the_view_control_adds_a_labeled_pass_through_the_views(start, monkeypatch, labels):
    trainer = start("ViewControl", labels)
    batch = batch_of(trainer)
    torch.manual_seed(3)
    view = trainer.views.draw_labeled(batch["data"])
    assert view.boxes
    replayed(monkeypatch, view)
    with torch.no_grad():
        plain = trainer.loss(trainer.network(batch["data"]), batch["target"]).item()
        seen = trainer.network(view.apply(batch["data"]))
        viewed = trainer.loss(seen, [view.apply(scale) for scale in batch["target"]]).item()
    values = values_of(trainer, batch)
    assert values["supervised_main"] == pytest.approx(plain, rel=1e-5)
    assert values["viewed_main"] == pytest.approx(viewed, rel=1e-5)
    assert values["total_loss"] == pytest.approx(plain + viewed, rel=1e-5)


@pytest.mark.slow
def test_the_view_control_trains_on_a_dataset_without_unlabeled_scans(make_trainer, monkeypatch):
    trainer = make_trainer(nnUNetTrainerViewControl, epochs=1)
    monkeypatch.setattr(trainer.stream, "find_cases", lambda: pytest.fail("looked for them"))
    trainer.run_training()
    assert trainer.stream.cases == []
    curves = trainer.logger.get_checkpoint()
    assert len(curves["viewed_main"]) == 1
    assert "lambda" not in curves


@pytest.mark.parametrize("name", ["SPMC", "WeakToStrong"])
def test_a_method_may_see_labeled_patches_once_more_through_the_views(start, name):
    """Always, or in the steps that have no unlabeled patches; it does not replace a pass."""
    expected = {"never": (False, False), "between": (True, False), "always": (True, True)}
    values = {}
    for when, has_viewed in expected.items():
        trainer = start(name, viewed_pass=when)
        batch = batch_of(trainer)
        labeled = {key: value for key, value in batch.items() if key != "unlabeled"}
        for kind, patches, viewed in zip(
            ("without", "with"), (labeled, batch), has_viewed, strict=True
        ):
            values[when, kind] = found = values_of(trainer, patches)
            assert ("viewed_main" in found) == viewed, (when, kind)
            assert found["supervised_main"] > 0
    assert values["always", "without"]["total_loss"] > values["never", "without"]["total_loss"]
    assert values["between", "with"].keys() == values["never", "with"].keys()


def test_without_unlabeled_scans_spmc_may_do_the_two_passes_of_the_view_control(start):
    """The gradient of its main branch is the view control's, without CDPS and noise."""
    control = start("ViewControl")
    batch = batch_of(control)
    del batch["unlabeled"]
    settings = {"viewed_pass": "between", "cdps": False, "noise": 0.0}
    method = start("SPMC", **settings)
    method.network.load_state_dict(control.network.state_dict())
    found = []
    for trainer in (control, method):
        torch.manual_seed(0)
        gradients = gradients_of_a_step(trainer, batch)
        found.append({n: g for n, g in gradients.items() if n.startswith("main.decoder.")})
    ours, theirs = found
    assert ours.keys() == theirs.keys() != set()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-6)


def test_unlabeled_patches_change_nothing_in_the_view_control(start):
    trainer = start("ViewControl")
    batch = batch_of(trainer)
    torch.manual_seed(0)
    with_unlabeled = gradients_of_a_step(trainer, batch)
    again = start("ViewControl")
    del batch["unlabeled"]
    torch.manual_seed(0)
    without = gradients_of_a_step(again, batch)
    assert all(torch.equal(with_unlabeled[name], without[name]) for name in without)
    assert not trainer.uses_unlabeled_data
