"""What to segment in BraTS, and how its label values become nnU-Net's consecutive ones.

Label map, from BraTS' 1 necrotic or non-enhancing core, 2 oedema, 4 enhancing tumour:
    whole-tumor   1, 2, 4 -> 1
    labels        4 -> 3
    regions       2 -> 1, 1 -> 2, 4 -> 3, so that nnU-Net's regions are 1-3, 2-3 and 3
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Target = Literal["whole-tumor", "regions", "labels"]


@dataclass(frozen=True)
class TargetDefinition:
    """Classes, and how BraTS' label values become them."""

    labels: Mapping[str, int | tuple[int, ...]]
    label_map: Mapping[int, int]
    regions_class_order: tuple[int, ...] = ()


TARGETS: dict[Target, TargetDefinition] = {
    "whole-tumor": TargetDefinition({"background": 0, "whole tumor": 1}, {1: 1, 2: 1, 4: 1}),
    "regions": TargetDefinition(
        {
            "background": 0,
            "whole tumor": (1, 2, 3),
            "tumor core": (2, 3),
            "enhancing tumor": (3,),
        },
        {2: 1, 1: 2, 4: 3},
        (1, 2, 3),
    ),
    "labels": TargetDefinition(
        {"background": 0, "non-enhancing core": 1, "edema": 2, "enhancing tumor": 3}, {4: 3}
    ),
}
