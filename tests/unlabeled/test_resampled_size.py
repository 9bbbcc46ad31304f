from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.unlabeled import resampled_size
from nnunetv2_spmc.unlabeled.resampled_size import check_resampled_size, memory_bytes


def check(data: np.ndarray, spacing: list[float], target: list[float]) -> str:
    plans: Any = SimpleNamespace(transpose_forward=[0, 2, 1])
    configuration: Any = SimpleNamespace(spacing=target)
    return check_resampled_size(data, {"spacing": spacing}, plans, configuration)


def test_a_spacing_that_asks_for_terabytes_is_the_cause_that_is_named() -> None:
    data = np.ones((1, 12, 20, 24), np.float32)
    expected = (
        r"^its spacing of 900 x 700 x 800 mm makes 10800 x 16800 x 16000 voxels of it at the plans'"
        r" 1 x 1 x 1 mm, which need \d+ GB of memory where there are \d+ GB; correct the spacing"
    )
    with pytest.raises(DataError, match=expected):
        check(data, [900, 800, 700], [1, 1, 1])


def test_in_2d_the_slices_stay_as_they_are() -> None:
    words = check(np.ones((1, 1, 20, 24), np.float32), [999, 2, 2], [1, 1])
    assert words == (
        "its spacing of 999 x 2 x 2 mm makes 1 x 48 x 40 voxels of it at the plans' 999 x 1 x 1 mm"
    )


def test_what_is_cropped_away_needs_no_memory(monkeypatch) -> None:
    monkeypatch.setattr(resampled_size, "memory_bytes", lambda: 30_000)
    data = np.zeros((1, 10, 20, 20), np.float32)
    data[0, 2:7, 5:10, 5:15] = 1  # 250 of 4000 voxels, of 20 bytes
    assert " 10 x 10 x 5 voxels" in check(data, [2, 1, 1], [1, 1, 1])
    data[:] = 1
    with pytest.raises(DataError, match="20 x 20 x 20 voxels"):
        check(data, [2, 1, 1], [1, 1, 1])


def test_where_nothing_tells_the_memory_nothing_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(resampled_size, "memory_bytes", lambda: None)
    assert check(np.ones((1, 2, 2, 2), np.float32), [900, 900, 900], [1, 1, 1])


def test_a_container_has_less_memory_than_its_machine(monkeypatch, tmp_path) -> None:
    (tmp_path / "memory.max").write_text("123456789\n")
    monkeypatch.setattr(resampled_size, "LIMITS_OF_CONTAINERS", (tmp_path / "memory.max",))
    assert memory_bytes() == 123456789
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_bytes() != 123456789
