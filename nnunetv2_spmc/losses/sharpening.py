"""Temperature sharpening of probabilities into soft pseudo-labels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

SharpeningForm = Literal["binary", "softmax"]


def sharpen(
    probabilities: Tensor, temperature: float, *, form: SharpeningForm = "binary"
) -> Tensor:
    """Push probabilities toward 0 and 1, Eq. (12); the result carries no gradient.

    The paper's P^(1/T) / (P^(1/T) + (1 - P)^(1/T)) equals sigmoid(logit(P) / T), which neither
    underflows nor divides 0 by 0 where the powers would.

    Args:
        probabilities: (B, C, ...) float32 in [0, 1].
        temperature: T in (0, 1]; 1 leaves the binary form unchanged.
        form: "binary" is Eq. (12) for every channel on its own (for more than two classes the
            channels need not sum to 1); "softmax" is P^(1/T) / sum over classes of P^(1/T).

    Returns:
        (B, C, ...) soft pseudo-labels in [0, 1], detached.
    """
    # pasted labels are exact zeros: their logarithm is slow on a CPU, and in all channels, as under
    # the ignore label, it is no distribution
    probabilities = probabilities.detach().clamp(min=torch.finfo(probabilities.dtype).tiny)
    if form == "binary":
        return torch.logit(probabilities).div_(temperature).sigmoid_()
    return torch.softmax(probabilities.log_().div_(temperature), dim=1)
