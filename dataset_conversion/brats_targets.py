"""What to segment in BraTS, and how its label values become nnU-Net's consecutive ones.

Label map, from core, oedema, enhancing tumour and resection cavity (their values in the files:
`brats_releases`):
    whole-tumor   1, 1, 1, background
    labels        1, 2, 3, 4; the resection cavity is a class only where a label holds it
    regions       2, 1, 3, background, so that nnU-Net's regions are 1-3, 2-3 and 3
Other values are errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nnunetv2_spmc.dataset_conversion.brats_releases import Release

Target = Literal["whole-tumor", "regions", "labels"]


@dataclass(frozen=True)
class TargetDefinition:
    """Classes, and what core, oedema, enhancing tumour and resection cavity become."""

    labels: Mapping[str, int | tuple[int, ...]]
    values: tuple[int, int, int, int]
    regions_class_order: tuple[int, ...] = ()
    optional_labels: tuple[str, ...] = ()

    def label_map(self, release: Release) -> dict[int, int]:
        """Return every value that a label of a release may hold, and what it becomes."""
        # shorter where the release has no resection cavity
        return {0: 0, **dict(zip(release.label_values, self.values, strict=False))}


TARGETS: dict[Target, TargetDefinition] = {
    "whole-tumor": TargetDefinition({"background": 0, "whole tumor": 1}, (1, 1, 1, 0)),
    "regions": TargetDefinition(
        {
            "background": 0,
            "whole tumor": (1, 2, 3),
            "tumor core": (2, 3),
            "enhancing tumor": (3,),
        },
        (2, 1, 3, 0),
        regions_class_order=(1, 2, 3),
    ),
    "labels": TargetDefinition(
        {
            "background": 0,
            "non-enhancing core": 1,
            "edema": 2,
            "enhancing tumor": 3,
            "resection cavity": 4,
        },
        (1, 2, 3, 4),
        optional_labels=("resection cavity",),
    ),
}
