"""The mean of the planned network's weights over the last epochs (Izmailov et al., UAI 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages the weights at the end of the last epochs; the mean is what is saved in the end.

    Args:
        share: of the epochs, at the end; 0 averages nothing.
    """

    def __init__(self, share: float) -> None:
        self.share = share
        self.count = 0
        self.mean: dict[str, Tensor] = {}

    def add(self, network: nn.Module, epoch: int, epochs: int) -> None:
        """Take the weights after an epoch, counted from 1, into the mean if it is one of the last.

        Floating-point values are averaged; others, which count something, are those of the last.
        """
        first = epochs - round(self.share * epochs) + 1
        if epoch < first:
            return
        self.count = 1 if epoch == first else self.count + 1  # a longer run starts again
        for key, value in network.state_dict().items():
            if value.is_floating_point() and self.count > 1:
                self.mean[key] += (value.float() - self.mean[key]) / self.count
            else:
                self.mean[key] = value.detach().clone()

    @torch.no_grad()
    def fill(self, network: nn.Module) -> str:
        """Put the mean into a network; return what was done, in a sentence, empty if nothing."""
        if not self.count:
            return ""
        network.load_state_dict(self.mean)
        return f"The weights are the mean of those after the last {self.count} epochs."

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it; empty before the first epoch that counts."""
        if not self.count:
            return {}
        return {"count": self.count, "mean": {key: v.cpu() for key, v in self.mean.items()}}

    def load(self, state: Mapping[str, Any], network: nn.Module) -> None:
        """Go on from what a checkpoint holds, on the device of a network."""
        devices = {key: value.device for key, value in network.state_dict().items()}
        self.count = state.get("count", 0)
        self.mean = {key: v.to(devices[key]) for key, v in state.get("mean", {}).items()}
