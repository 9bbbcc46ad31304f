import sys
from pathlib import Path

import pytest

from nnunetv2_spmc.methods import nnUNetTrainerSupervisedControl
from nnunetv2_spmc.training.tensorboard_logger import MissingPackageError


def test_without_tensorboard_the_extra_is_named(make_trainer, monkeypatch):
    monkeypatch.setenv("nnUNet_tensorboard_enabled", "1")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingPackageError, match=r"pip install tensorboard"):
        make_trainer()


@pytest.mark.slow
@pytest.mark.parametrize("trainer", [None, nnUNetTrainerSupervisedControl])
def test_all_curves_are_in_tensorboard(make_trainer, monkeypatch, trainer):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    monkeypatch.setenv("nnUNet_tensorboard_enabled", "1")
    trained = make_trainer(trainer)
    trained.run_training()
    events = event_accumulator.EventAccumulator(str(Path(trained.output_folder) / "tensorboard"))
    events.Reload()
    curves = trained.logger.get_checkpoint()
    for key in [key for key, curve in curves.items() if "timestamps" not in key]:
        if key == "dice_per_class_or_region":
            continue  # a curve per class
        points = events.Scalars(key)
        assert [point.step for point in points] == [0, 1]
        assert [point.value for point in points] == pytest.approx(curves[key], nan_ok=True)
    assert "spmc/text_summary" in events.Tags()["tensors"]


def test_it_is_off_by_default(make_trainer):
    trainer = make_trainer()
    assert trainer.logger.loggers == []
