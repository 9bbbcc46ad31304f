"""The mean of all that is trained over the last epochs (Izmailov et al., UAI 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class WeightAverage:
    """Averages the weights at the end of the last epochs; the mean is what is saved in the end.

    A longer training goes on from the mean, and averages its own last epochs.

    Args:
        share: of the epochs, at the end, and at least one; 0 averages nothing.
        epochs: of the training.
    """

    def __init__(self, share: float, epochs: int) -> None:
        number = max(1, round(share * epochs)) if share else 0
        self.first = epochs - number + 1  # epoch, counted from 1
        self.count = 0
        self.mean: dict[str, Tensor] = {}

    def add(self, network: nn.Module, epoch: int) -> None:
        """Take the weights after an epoch, counted from 1, into the mean if it is one of the last.

        Floating-point values are averaged; others, which count something, are those of the last.
        """
        if epoch < self.first:
            return
        self.count += 1
        for name, value in _weights(network).items():
            if value.is_floating_point() and self.count > 1:
                self.mean[name] += (value.float() - self.mean[name]) / self.count
            else:
                self.mean[name] = value.clone()

    def fill(self, network: nn.Module) -> str:
        """Put the mean into a network; return what was done, in a sentence, empty if nothing."""
        if not self.count:
            return ""
        for name, value in _weights(network).items():
            value.copy_(self.mean[name])
        return f"The weights are the mean of those after the last {self.count} epochs."

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it; empty before the first epoch that counts."""
        if not self.count:
            return {}
        mean = {name: value.cpu() for name, value in self.mean.items()}
        return {"first": self.first, "count": self.count, "mean": mean}

    def load(self, state: Mapping[str, Any], network: nn.Module) -> None:
        """Go on from what a checkpoint holds, if that began with the same epoch."""
        if state.get("first") != self.first:
            return
        self.count = state["count"]
        weights = _weights(network)
        self.mean = {name: v.to(weights[name].device) for name, v in state["mean"].items()}


def _weights(network: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers, each once: nnU-Net's state_dict names them several times."""
    weights = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: value.detach() for name, value in weights.items()}
