"""The matrix of what a user of nnU-Net may combine, as the tests run it and the table shows it.

Only data, so that scripts/supported_table.py can read it without PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Dataset:
    """A tiny dataset: how its cases are labeled, how many channels and which spacing they have."""

    name: str
    shown: str
    labels: dict[str, Any]
    channels: tuple[str, ...] = ("MRI",)
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)  # x, y, z
    regions_class_order: tuple[int, ...] | None = None

    @property
    def ignore_label(self) -> int | None:
        """The label of voxels that nobody annotated."""
        return self.labels.get("ignore")

    @property
    def classes(self) -> set[int]:
        """The labels that a prediction may hold."""
        return {0, 1, 2}

    @property
    def output_channels(self) -> int:
        """How many channels nnU-Net's networks have for it: classes, or regions."""
        return 2 if self.regions_class_order else 3


@dataclass(frozen=True)
class Cell:
    """One training and prediction, as nnUNetv2_train and nnUNetv2_predict take it."""

    configuration: str
    planner: str
    dataset: Dataset
    fold: int | str = 0
    patch_size: tuple[int, ...] | None = None  # None: as planned

    @property
    def identifier(self) -> str:
        """The name of the test's parameter."""
        return f"{self.dataset.name}-{self.configuration}-{self.planner}"


ANISOTROPIC_SPACING = (1.0, 1.0, 2.5)
CLASSES = {"background": 0, "organ": 1, "core": 2}
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}

PLAIN = Dataset("plain", "plain labels, 1 channel, isotropic", CLASSES)
REGION_BASED = Dataset(
    "regions",
    "regions, 2 channels, anisotropic",
    REGIONS,
    channels=("MRI", "CT"),
    spacing=ANISOTROPIC_SPACING,
    regions_class_order=(1, 2),
)
IGNORE = Dataset(
    "ignore",
    "ignore label, 2 channels, anisotropic",
    CLASSES | {"ignore": 3},
    channels=("CT", "MRI"),
    spacing=ANISOTROPIC_SPACING,
)
REGIONS_IGNORE = Dataset(
    "regions_ignore",
    "regions with ignore label, 1 channel, isotropic",
    REGIONS | {"ignore": 3},
    regions_class_order=(1, 2),
)
DATASETS = (PLAIN, REGION_BASED, IGNORE, REGIONS_IGNORE)

PLANNERS = {"ExperimentPlanner": "nnUNetPlans", "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans"}
COLUMNS = tuple(
    (configuration, planner)
    for configuration in ("2d", "3d_fullres", "3d_lowres")
    for planner in PLANNERS
)
GRID = tuple(
    Cell(configuration, planner, dataset, fold=(row + column) % 5)
    for row, dataset in enumerate(DATASETS)
    for column, (configuration, planner) in enumerate(COLUMNS)
)
PSEUDO_2D_PATCH = (4, 16, 16)  # nnU-Net augments in 2D from a ratio of 3 on
