"""SPMC's training network: the planned nnU-Net and an auxiliary branch."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from nnunetv2_spmc.networks.feature_noise import FeatureNoise, NoiseLevels
from nnunetv2_spmc.networks.interpolation_decoder import interpolation_decoder, reinitialized
from nnunetv2_spmc.networks.unwrap import Logits


class DualBranchNetwork(nn.Module):
    """Main branch (network A of the paper) and auxiliary branch (network B), Eq. (1)-(2).

    The main branch is the planned network itself, not a copy. The auxiliary branch decodes
    noise-perturbed features by interpolation upsampling and is used in training only.

    Args:
        main: the planned nnU-Net.
        shared_encoder: both branches decode the features of the main encoder; otherwise the
            auxiliary branch has an encoder of its own.
        noise: amplitude of the feature noise of the auxiliary branch.
        noise_levels: where the noise is added, see `FeatureNoise`.

    Raises:
        UnsupportedError: no auxiliary branch can be derived from `main`.
    """

    main: Any
    auxiliary_encoder: Any

    def __init__(
        self,
        main: nn.Module,
        *,
        shared_encoder: bool = True,
        noise: float = 0.3,
        noise_levels: NoiseLevels = "all",
    ) -> None:
        super().__init__()
        self.main = main
        self.auxiliary_decoder = interpolation_decoder(main)
        self.auxiliary_encoder = (
            None if shared_encoder else reinitialized(copy.deepcopy(self.main.encoder), main)
        )
        self.feature_noise = FeatureNoise(noise, noise_levels)

    def forward(self, images: Tensor) -> tuple[Logits, Logits]:
        """Compute the logits of both branches.

        Args:
            images: (B, channels, ...).

        Returns:
            Logits of the main and of the auxiliary branch, each (B, C, ...) or, with deep
            supervision, a list of them from full to lowest resolution.
        """
        features = self.main.encoder(images)
        perturbed = features if self.auxiliary_encoder is None else self.auxiliary_encoder(images)
        return self.main.decoder(features), self.auxiliary_decoder(self.feature_noise(perturbed))

    def branch(self, name: str) -> nn.Module:
        """Return "main" or "auxiliary" alone, as a network that nnU-Net's predictor can run.

        Its modules are shared, not copied; feature noise is left out.
        """
        if name == "main":
            return self.main
        encoder = self.main.encoder if self.auxiliary_encoder is None else self.auxiliary_encoder
        return EncoderDecoder(encoder, self.auxiliary_decoder)


class EncoderDecoder(nn.Module):
    """An encoder and a decoder of its feature maps, in the form of nnU-Net's networks."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, images: Tensor) -> Logits:
        """Map (B, channels, ...) images to (B, C, ...) logits."""
        logits: Logits = self.decoder(self.encoder(images))
        return logits
