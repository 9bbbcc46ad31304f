from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.training.unlabeled_stream import UnlabeledStream


def test_labeled_cases_that_are_not_preprocessed_get_the_command_for_these_plans(tmp_path) -> None:
    plans = SimpleNamespace(dataset_name="Dataset011_Liver", plans_name="movedPlans")
    trainer: Any = SimpleNamespace(
        plans_manager=plans,
        configuration_name="2d",
        preprocessed_dataset_folder=str(tmp_path / "movedPlans_2d"),
    )
    with pytest.raises(DataError, match=r"nnUNetv2_preprocess -d 11 -plans_name movedPlans -c 2d"):
        UnlabeledStream(trainer).check_labeled_cases()
