"""The training network of methods that train the planned network alone."""

from __future__ import annotations

from torch import Tensor, nn


class MainNetwork(nn.Module):
    """The planned nnU-Net as the submodule `main`, and nothing else.

    Args:
        main: the planned nnU-Net.
    """

    def __init__(self, main: nn.Module) -> None:
        super().__init__()
        self.main = main

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Compute the logits, (B, C, ...), or a list of them under deep supervision."""
        return self.main(images)
