"""What only a CUDA device shows: half precision, gradient scaling, torch.compile."""

import math
from pathlib import Path

import pytest
import torch

from nnunetv2_spmc.training.epoch_log import all_panels
from nnunetv2_spmc.training.step import Labeled, Unlabeled, on_device

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture
def trained_on_cuda(make_trainer, monkeypatch):
    def train(compiled, **options):
        monkeypatch.setenv("nnUNet_compile", compiled)
        trainer = make_trainer(epochs=1, iterations_per_epoch=10, device="cuda", **options)
        trainer.run_training()
        return trainer

    return train


@pytest.mark.slow
@pytest.mark.parametrize("compiled", ["false", "true"])
@pytest.mark.parametrize("configuration", ["2d_small", "3d_fullres_small"])
def test_a_training_in_half_precision_stays_finite(trained_on_cuda, compiled, configuration):
    trainer = trained_on_cuda(compiled, configuration=configuration)
    curves = trainer.logger.get_checkpoint()
    shown = [key for keys in all_panels(trainer.panels, trainer.branches).values() for key in keys]
    assert all(math.isfinite(curves[key][0]) for key in shown)
    assert (Path(trainer.output_folder) / "checkpoint_final.pth").is_file()


@pytest.mark.slow
def test_the_loss_terms_are_computed_in_float32(trained_on_cuda):
    trainer = trained_on_cuda("false")
    images = torch.randn(2, 1, 16, 16, device="cuda")
    with trainer.autocast():
        main, auxiliary = outputs = trainer.joint_network(images)
        _, values = trainer.unlabeled_loss(outputs, Unlabeled(images))
    assert main[0].dtype == auxiliary[0].dtype == torch.float16
    assert {value.dtype for value in values.values()} == {torch.float32}


@pytest.mark.slow
def test_a_step_does_not_wait_for_the_device(trained_on_cuda):
    trainer = trained_on_cuda("false")
    batch = next(trainer.dataloader_train)
    trainer.train_step(batch)
    # the gradient scaler and gradient clipping of stock nnU-Net are outside of this
    torch.cuda.set_sync_debug_mode("error")
    try:
        with trainer.autocast():
            images = on_device(batch["data"], trainer.device)
            outputs = trainer.joint_network(images)
            trainer.unlabeled_loss(outputs, Unlabeled(images))
            target = on_device(batch["target"], trainer.device)
            trainer.labeled_loss(outputs, Labeled(images, target))
    finally:
        torch.cuda.set_sync_debug_mode("default")
