"""Every test here sees the folders of the phantom's two trainings."""

import pytest

from tests.phantom_runs import box, environment_of_runs, test_image

__all__ = ["box", "environment_of_runs", "test_image"]


@pytest.fixture(autouse=True)
def _environment(environment_of_runs) -> None:
    pass
