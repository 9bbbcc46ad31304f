"""Every method keeps the promises of the base: see contract.py, where a method is listed."""

import math
import os
import sys
from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_spmc import methods
from nnunetv2_spmc.training.semi_supervised import nnUNetTrainerSemiSupervised
from nnunetv2_spmc.training.stability import TAKEN
from nnunetv2_spmc.training.views import View, Views
from nnunetv2_spmc.training.weights import part_weights
from tests.in_process import leave_out_plots
from tests.methods.contract import (
    EXAMPLES,
    LABELS,
    METHODS,
    at_full_weight,
    batch_of,
    dataset_json,
    gradients_of_a_step,
    joined,
    ready,
    replayed,
    without_chance,
)
from tests.training.processes import run_in_two_processes
from tests.training_logs import log_of

STEP = Path(__file__).with_name("distributed_contract.py")
CONFIGURATIONS = ("2d_small", "3d_fullres_small")
every_method = pytest.mark.parametrize("method", EXAMPLES, ids=lambda m: m.name)
every_kind = pytest.mark.parametrize("labels", LABELS)
every_dimension = pytest.mark.parametrize("configuration", CONFIGURATIONS)


@pytest.fixture
def make(make_trainer, planned_phantom, monkeypatch):
    """Build a trainer of a listed method."""
    leave_out_plots(monkeypatch)

    def make(method, configuration="2d_small", labels=None, **settings):
        described = planned_phantom.dataset_json()
        if labels is not None:
            described = dataset_json(labels, described)
        return make_trainer(
            method.trainer, configuration, dataset_json=described, **(method.settings | settings)
        )

    return make


@pytest.fixture
def make_started(make):
    """Build one that is ready for a step."""

    def start(*arguments, **options):
        return ready(make(*arguments, **options))

    return start


def test_every_trainer_of_the_package_is_put_to_the_contract():
    listed = {method.trainer for method in METHODS}
    control = methods.nnUNetTrainerSupervisedControl
    variants = {t for t in methods.TRAINERS if any(issubclass(t, known) for known in listed)}
    assert variants == set(methods.TRAINERS) - {control}


@pytest.mark.slow
def test_the_method_of_the_guide_trains(make_trainer, monkeypatch):
    leave_out_plots(monkeypatch)
    page = Path(methods.__file__).parents[2] / "docs" / "how-to" / "add-a-method.md"
    code = page.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    module = {"__name__": "guide"}
    exec(code, module)
    trainer = make_trainer(module["nnUNetTrainerPseudoLabels"], epochs=1)
    trainer.run_training()
    curves = trainer.logger.local_logger.my_fantastic_logging
    assert curves["pseudo_labels"][0] > 0


def test_a_method_is_the_fourth_class_from_that_of_nnunet():
    for method in METHODS:
        ours = method.trainer.__mro__[: method.trainer.__mro__.index(nnUNetTrainer) + 1]
        assert len(ours) == 4 + ("_" in method.trainer.__name__.removeprefix("nnUNetTrainer"))


@every_method
@every_kind
@every_dimension
def test_a_step_reaches_every_parameter_that_learns(make_started, method, configuration, labels):
    trainer = make_started(method, configuration, labels)
    before = {k: v.clone() for k, v in trainer.joint_network.state_dict().items()}
    values = trainer.train_step(batch_of(trainer))
    assert all(torch.as_tensor(value).isfinite().all() for value in values.values())
    learns = {n: p for n, p in trainer.joint_network.named_parameters() if p.requires_grad}
    # InstanceNorm takes out a bias before it; the lowest output has deep supervision weight 0
    exempt = {n for n in learns if n.endswith("conv.bias") or "seg_layers.0" in n}
    without = {n for n, p in learns.items() if p.grad is None or not p.grad.any()}
    assert without <= exempt
    after = trainer.joint_network.state_dict()
    assert all((after[name] != before[name]).any() for name in learns.keys() - exempt)
    for branch in trainer.branches:
        assert values[f"supervised_{branch}"] != 0


@pytest.mark.slow
@every_method
def test_the_loss_falls_on_one_batch(make_started, method):
    """Thirty steps with the same batch, draws and weight of the unsupervised terms."""
    trainer = make_started(method, initial_lr=0.01)
    batch = batch_of(trainer)
    steps = []
    for _ in range(30):
        torch.manual_seed(0)
        at_full_weight(trainer)
        steps.append(trainer.train_step(batch))
    for name in ("total_loss", *(f"supervised_{branch}" for branch in trainer.branches)):
        first, last = (float(step[name]) for step in (steps[0], steps[-1]))
        assert last < first - 0.1 * abs(first), name


@every_method
def test_unlabeled_patches_change_the_gradient(make_started, method):
    gradients = []
    for with_unlabeled in (True, False):
        trainer = make_started(method)
        batch = batch_of(trainer)
        if not with_unlabeled:
            del batch["unlabeled"]
        torch.manual_seed(0)
        gradients.append(gradients_of_a_step(trainer, batch))
    changed = {
        name
        for name, alone in gradients[1].items()
        if (gradients[0][name] - alone).abs().max() > 1e-3 * alone.abs().max()
    }
    assert bool(changed) == trainer.uses_unlabeled_data


BASE = nnUNetTrainerSemiSupervised


@pytest.mark.parametrize(
    "method", [m for m in EXAMPLES if m.trainer.passes is BASE.passes], ids=lambda m: m.name
)
def test_the_pass_before_the_labeled_one_learns_alone(make_started, method, monkeypatch):
    """Where a dead unlabeled loss would be hidden by the supervised one."""
    trainer = make_started(method, initial_lr=0.01)
    passes = trainer.passes
    monkeypatch.setattr(trainer, "passes", lambda step: passes(step)[:-1])
    batch = batch_of(trainer)
    losses = []
    for _ in range(30):
        torch.manual_seed(0)
        at_full_weight(trainer)
        losses.append(float(trainer.train_step(batch)["total_loss"]))
    assert losses[0] > 1e-5 or losses[0] < 0  # nnU-Net's Dice loss is negative
    assert losses[-1] < losses[0] - 0.05 * abs(losses[0])


class KilledError(Exception):
    """Ends a training where a signal might."""


@pytest.mark.slow
@every_method
@every_dimension
def test_a_resumed_run_ends_as_the_uninterrupted_one(make, method, configuration):
    def started():
        return make(method, configuration, epochs=3, save_every=1)

    def end_of(trainer):
        trainer.run_training()
        file = Path(trainer.output_folder) / "checkpoint_final.pth"
        content = torch.load(file, weights_only=False)
        file.unlink()
        return content

    def killed_after_an_epoch():
        on_epoch_end()
        raise KilledError

    whole = end_of(started())
    killed = started()
    on_epoch_end, killed.on_epoch_end = killed.on_epoch_end, killed_after_an_epoch
    with pytest.raises(KilledError):
        killed.run_training()
    goes_on = started()
    maybe_load_checkpoint(goes_on, True, False)
    assert goes_on.current_epoch == 1
    resumed = end_of(goes_on)

    own, again = whole["semi_supervised"], resumed["semi_supervised"]
    assert own["steps_taken"] == again["steps_taken"] == 3 * goes_on.num_iterations_per_epoch
    for ours, theirs in (
        (whole["network_weights"], resumed["network_weights"]),
        (own["parts"], again["parts"]),
    ):
        assert ours.keys() == theirs.keys()
        assert {key for key, value in ours.items() if not torch.equal(value, theirs[key])} == set()
    curves = {key for key in whole["logging"] if "timestamps" not in key}
    same = {k for k in curves if str(whole["logging"][k]) == str(resumed["logging"][k])}
    assert same == curves


@every_method
def test_it_starts_from_pretrained_weights(make, make_trainer, method, tmp_path, monkeypatch):
    stock = make_trainer(nnUNetTrainer)
    stock.initialize()
    file = tmp_path / "stock.pth"
    stock.save_checkpoint(str(file))
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", "-pretrained_weights", str(file)])
    trainer = make(method)
    trainer.initialize()
    maybe_load_checkpoint(trainer, False, False, str(file))
    trainer.on_train_start()
    given = {k: v for k, v in stock.network.state_dict().items() if ".seg_layers." not in k}
    weights = trainer.joint_network.state_dict()
    assert all(torch.equal(weights[f"main.{key}"], value) for key, value in given.items())
    for name, part in part_weights(trainer.joint_network).items():
        same = [k for k in given if name.endswith((f".{k}", f"_{k}"))]
        if same and given[max(same, key=len)].shape == part.shape:
            assert torch.equal(part, given[max(same, key=len)]), name
    log = log_of(trainer)
    assert "Warm start: " in log


def halves(data, rank):
    if isinstance(data, dict):
        return {key: halves(value, rank) for key, value in data.items()}
    if isinstance(data, list):
        return [halves(item, rank) for item in data]
    return data[rank * len(data) // 2 : (rank + 1) * len(data) // 2]


@pytest.mark.supported(
    "several processes",
    "two processes give the gradient of one with the whole batch (gloo, on a CPU)",
)
@pytest.mark.slow
@every_dimension
@pytest.mark.parametrize("labels", LABELS)
def test_two_processes_step_as_one_with_the_whole_batch(
    make_started, planned_phantom, tmp_path, monkeypatch, configuration, labels
):
    """All methods, their default views replayed; nnU-Net's Dice in 2D is of the whole batch."""
    without_chance(monkeypatch)
    cases = []
    for method in EXAMPLES:
        if "ignore" in labels and method.pseudo_by_nnunets_loss:
            continue
        trainer = make_started(method, configuration, labels, unlabeled_batch_size=4)
        batch = batch_of(trainer, labeled=4, unlabeled=4)
        torch.manual_seed(7)
        draws = [drawn_view(trainer, halves(batch, rank)) for rank in range(2)]
        turn = draws[0].turn
        draws = [View(draw.boxes, turn) for draw in draws]
        with monkeypatch.context() as patch:
            replayed(patch, joined(draws, 2))
            gradients = gradients_of_a_step(trainer, batch)
            trainer.train_step(batch)
        expected = gradients, trainer.joint_network.state_dict()
        parts = [halves(batch, rank) for rank in range(2)]
        settings = os.environ["nnUNet_spmc_settings"]
        cases.append((method.trainer.__name__, settings, parts, draws, expected))
    inputs = {
        "plans": planned_phantom.plans(),
        "dataset_json": dataset_json(labels, planned_phantom.dataset_json()),
        "configuration": configuration,
        "cases": [case[:4] for case in cases],
    }
    torch.save(inputs, tmp_path / "inputs.pt")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    run_in_two_processes([sys.executable, str(STEP), str(tmp_path)])
    found = [torch.load(tmp_path / f"rank_{rank}.pt", weights_only=False) for rank in range(2)]
    for (name, *_, expected), *processes in zip(cases, *found, strict=True):
        for what, wanted, ours, theirs in zip(
            ("gradient", "weights after two steps"), expected, *processes, strict=True
        ):
            # distributed nnU-Net weighs the lowest output with 1e-6, where it is 0 otherwise
            surplus = {key for key in ours if ".seg_layers.0." in key} - wanted.keys()
            assert ours.keys() == theirs.keys() == wanted.keys() | surplus, (name, what)
            for key, tensor in wanted.items():
                where = f"{name}, {what}, {key}"
                assert torch.equal(ours[key], theirs[key]), where
                torch.testing.assert_close(
                    ours[key], tensor, rtol=1e-3, atol=2e-5, msg=lambda m, w=where: f"{w}: {m}"
                )


def drawn_view(trainer, batch):
    if not trainer.views.change_patches:
        return View()
    if isinstance(trainer, methods.nnUNetTrainerViewControl):
        return trainer.views.draw_labeled(batch["data"])
    return Views.draw(trainer.views, batch["unlabeled"]["data"], len(batch["data"]))


@pytest.mark.parametrize(
    "method",
    [method for method in METHODS if method.teacher],
    ids=lambda method: method.name,
)
def test_a_teacher_is_the_moving_average_of_its_student(make_started, method):
    """Mean Teacher: t_n = a t_(n-1) + (1 - a) s_n with a = min(1 - 1 / n, decay), in float64."""
    trainer = make_started(method, ema_decay=0.7)
    batch, network = batch_of(trainer), trainer.joint_network
    expected = {}
    for number in range(1, 8):
        trainer.train_step(batch)
        kept = min(1 - 1 / number, 0.7)
        for name, student in network.main.named_parameters():
            before = expected.get(name, 0.0)
            expected[name] = kept * before + (1 - kept) * student.detach().double()
    for name, teacher in network.get_submodule(method.teacher).named_parameters():
        torch.testing.assert_close(teacher.double(), expected[name], rtol=0, atol=1e-6)
        assert not teacher.requires_grad


@every_method
def test_a_skipped_step_moves_nothing(make_started, method):
    trainer = make_started(method)
    batch = batch_of(trainer)
    trainer.train_step(batch)
    trainer.grad_scaler = torch.amp.GradScaler("cpu", init_scale=math.inf)
    before = {k: v.clone() for k, v in trainer.joint_network.state_dict().items()}
    assert not trainer.train_step(batch)[TAKEN]  # gradients overflow
    assert trainer.steps_taken == 1
    after = trainer.joint_network.state_dict()
    assert all(torch.equal(before[key], value) for key, value in after.items())
