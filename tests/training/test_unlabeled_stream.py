from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.training.unlabeled_stream import UnlabeledStream
from tests.training_logs import log_of


def test_labeled_cases_that_are_not_preprocessed_get_the_command_for_these_plans(tmp_path) -> None:
    plans = SimpleNamespace(dataset_name="Dataset011_Liver", plans_name="movedPlans")
    trainer: Any = SimpleNamespace(
        plans_manager=plans,
        configuration_name="2d",
        preprocessed_dataset_folder=str(tmp_path / "movedPlans_2d"),
        settings=SimpleNamespace(unlabeled_every=1),
    )
    with pytest.raises(DataError, match=r"nnUNetv2_preprocess -d 11 -plans_name movedPlans -c 2d"):
        UnlabeledStream(trainer).check_labeled_cases()


def test_unlabeled_patches_are_loaded_in_the_steps_that_learn_from_them(make_trainer, monkeypatch):
    trainer = make_trainer(unlabeled_every=2, iterations_per_epoch=5, ramp_start=0.0)
    trainer.on_train_start()
    drawn, learned = [], []
    loader, passed = trainer.stream.pairs.unlabeled, trainer.unlabeled_loss
    draw = loader.generate_train_batch
    monkeypatch.setattr(
        loader, "generate_train_batch", lambda: drawn.append(trainer.iteration) or draw()
    )
    monkeypatch.setattr(
        trainer, "unlabeled_loss", lambda *of: learned.append(trainer.iteration) or passed(*of)
    )
    for trainer.current_epoch in range(2):
        trainer.on_train_epoch_start()
        for _ in range(5):
            trainer.train_step(next(trainer.dataloader_train))
    assert drawn == learned == [0, 2, 4, 6, 8]


def test_workers_have_unlabeled_patches_for_each_step_that_learns(make_trainer, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    trainer = make_trainer(unlabeled_every=3, views="same")
    trainer.on_train_start()
    try:
        for trainer.iteration in range(8):
            batch = trainer.stream.hand_out(next(trainer.dataloader_train))
            assert ("unlabeled" in batch) == (trainer.iteration % 3 == 0)
            if "unlabeled" in batch:
                assert batch["unlabeled"]["data"].shape == (2, 1, 16, 16)
    finally:
        trainer.dataloader_train._finish()
        trainer.dataloader_val._finish()


@pytest.mark.parametrize(
    ("every", "said"),
    [
        (1, "Each step: 2 labeled and 2 unlabeled patches; 4 unlabeled cases."),
        (3, "Each step: 2 labeled patches; one step in 3: 2 unlabeled ones; 4 unlabeled cases."),
    ],
)
def test_the_log_says_which_steps_have_unlabeled_patches(make_trainer, every, said):
    trainer = make_trainer(unlabeled_every=every)
    trainer.on_train_start()
    assert said in log_of(trainer)
