"""Multiplicative uniform noise on feature maps, Eq. (1)-(2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

NoiseLevels = Literal["all", "bottleneck"]


class FeatureNoise(nn.Module):
    """Perturb feature maps as F * (1 + N), N ~ U(-amplitude, amplitude), in training mode only.

    One N per channel and position, drawn at every call and shared by the batch, as in
    cross-consistency training (Ouali et al., CVPR 2020).

    Args:
        amplitude: r in [0, 1); 0 switches the noise off.
        levels: perturb every skip connection and the bottleneck, or the bottleneck alone.
    """

    def __init__(self, amplitude: float = 0.3, levels: NoiseLevels = "all") -> None:
        super().__init__()
        self.amplitude = amplitude
        self.levels = levels

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Perturb the feature maps of an encoder.

        Args:
            features: (B, C_i, ...) per stage, bottleneck last.

        Returns:
            Feature maps of the same shapes; the very same tensors where no noise is added.
        """
        if not self.training or self.amplitude == 0:
            return list(features)
        if self.levels == "bottleneck":
            return [*features[:-1], self._perturb(features[-1])]
        return [self._perturb(feature) for feature in features]

    def _perturb(self, feature: Tensor) -> Tensor:
        noise = torch.empty_like(feature[0]).uniform_(-self.amplitude, self.amplitude)
        return feature * (1 + noise)

    def extra_repr(self) -> str:
        """Show the noise in the printed network."""
        return f"amplitude={self.amplitude}, levels={self.levels!r}"
