"""Two networks of the same plans that start from different weights."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from nnunetv2_spmc.networks.interpolation_decoder import reinitialized
from nnunetv2_spmc.networks.unwrap import Logits


class TwinNetwork(nn.Module):
    """The planned nnU-Net, `main`, and a `second` one with weights of its own.

    Args:
        main: the planned nnU-Net.
    """

    def __init__(self, main: nn.Module) -> None:
        super().__init__()
        self.main = main
        self.second = reinitialized(copy.deepcopy(main), main)

    def forward(self, images: Tensor) -> tuple[Logits, Logits]:
        """Compute the logits of both, as `DualBranchNetwork` returns them."""
        return self.main(images), self.second(images)

    def branch(self, name: str) -> nn.Module:
        """Return "main" or "second" alone."""
        return self.get_submodule(name)
