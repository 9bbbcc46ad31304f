from dataclasses import replace

import pytest
import torch

from nnunetv2_spmc.methods import nnUNetTrainerMeanTeacher
from nnunetv2_spmc.training.memory import (
    DeviceMemoryError,
    StepMemory,
    activation_bytes,
    describe,
    explain_out_of_memory,
    recomputed,
    step_memory,
)


@pytest.mark.parametrize("configuration", ["2d_small", "3d_fullres_small"])
def test_the_estimate_is_what_a_forward_pass_saves(make_trainer, configuration):
    trainer = make_trainer(configuration=configuration)
    trainer.initialize()
    network = trainer.joint_network.train()
    images = torch.randn(2, 1, *trainer.configuration_manager.patch_size)
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    saved = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        network(images)
    expected = sum(storage.nbytes() for storage in saved.values())
    assert activation_bytes(network, tuple(images.shape), torch.float32) == expected
    half = activation_bytes(network, tuple(images.shape), torch.float16)
    assert half == pytest.approx(expected / 2, rel=0.02)


def test_estimating_leaves_the_network_as_it_is(make_trainer):
    trainer = make_trainer()
    trainer.initialize()
    network = trainer.joint_network.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    memory = step_memory(network, (2, 1, 16, 16), (0, 1, 16, 16), torch.float32)
    assert memory.unlabeled == 0
    assert memory.peak == memory.parameters + memory.labeled
    assert memory.parameters == 3 * 4 * sum(p.numel() for p in network.parameters())
    assert not network.training
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def saved_tensors(loss):
    """Return how many tensors a loss keeps for its backward pass."""
    saved = []

    def note(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss()
    return len(saved)


def test_a_recomputed_loss_keeps_nothing_and_has_the_same_value_and_gradient(make_trainer):
    trainer = make_trainer()
    trainer.initialize()
    scales = trainer._get_deep_supervision_scales()
    shapes = [[round(32 * factor) for factor in scale] for scale in scales]
    target = [torch.randint(0, 2, (2, 1, *shape)) for shape in shapes]
    logits = [torch.randn(2, 2, *shape, requires_grad=True) for shape in shapes]
    kept, again = trainer.loss(logits, target), recomputed(trainer.loss, logits, target)
    assert torch.equal(kept, again)
    expected, gradient = (torch.autograd.grad(loss, logits[0])[0] for loss in (kept, again))
    assert torch.equal(expected, gradient)
    assert saved_tensors(lambda: trainer.loss(logits, target)) > 3
    assert saved_tensors(lambda: recomputed(trainer.loss, logits, target)) <= 1  # a mark


def test_the_sentence_names_both_passes_and_the_sum():
    memory = StepMemory(parameters=1 << 30, labeled=2 << 30, unlabeled=3 << 30)
    text = describe(memory, 2, 4, torch.device("cpu"))
    assert "2.00 GiB for 2 labeled and 3.00 GiB for 4 unlabeled patches" in text
    assert "one after the other: 4.00 GiB" in text
    text = describe(replace(memory, together=True), 2, 4, torch.device("cpu"))
    assert "unlabeled patches, together: 6.00 GiB" in text


def test_a_teacher_has_no_gradient_and_no_momentum(make_trainer):
    trainer = make_trainer(nnUNetTrainerMeanTeacher)
    trainer.initialize()
    student = sum(p.numel() for p in trainer.network.parameters())
    memory = step_memory(trainer.joint_network, (1, 1, 16, 16), (0, 1, 16, 16), torch.float32)
    assert memory.parameters == (3 + 1) * 4 * student


@pytest.mark.parametrize(
    ("labeled", "unlabeled", "lower", "remedy"),
    [
        (2, 4, True, "set unlabeled_batch_size to 3 or less, plan smaller .*-gpu_memory_target"),
        (2, 4, False, "plan smaller .*-gpu_memory_target"),
        (2, 1, True, "plan smaller .*-gpu_memory_target"),
        (2, 0, True, "plan smaller .*-gpu_memory_target"),
    ],
)
def test_out_of_memory_says_what_to_lower(labeled, unlabeled, lower, remedy):
    message = f"step of {labeled} labeled and {unlabeled} unlabeled patches: {remedy}"
    with (
        pytest.raises(DeviceMemoryError, match=message),
        explain_out_of_memory(labeled, unlabeled, lower=lower),
    ):
        raise torch.cuda.OutOfMemoryError("tried to allocate 2 GiB")
