"""The auxiliary decoder: the planned one with interpolation for transposed convolution."""

from __future__ import annotations

import copy
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from nnunetv2_spmc.common.errors import UnsupportedError

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
INTERPOLATION_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


class InterpolationUpsampling(nn.Module):
    """Upsample by a 1x1 convolution at low resolution, then (bi-, tri-)linear interpolation.

    Args:
        transposed_convolution: the layer it stands in for; channels, stride, bias and the number of
            spatial axes are taken from it.
    """

    def __init__(self, transposed_convolution: _ConvTransposeNd) -> None:
        super().__init__()
        dimension = len(transposed_convolution.kernel_size)
        self.projection = CONVOLUTIONS[dimension](
            transposed_convolution.in_channels,
            transposed_convolution.out_channels,
            kernel_size=1,
            bias=transposed_convolution.bias is not None,
        )
        self.scale = tuple(float(stride) for stride in transposed_convolution.stride)
        self.mode = INTERPOLATION_MODES[dimension]

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C_in, ...) to (B, C_out, ...), each spatial axis times its stride."""
        projected = self.projection(features)
        upsampled = F.interpolate(projected, scale_factor=self.scale, mode=self.mode)
        return upsampled.to(projected.dtype)  # autocast interpolates in float32


def interpolation_decoder(network: nn.Module) -> nn.Module:
    """Build the auxiliary decoder from the planned network.

    Every transposed convolution becomes an `InterpolationUpsampling`; everything else keeps the
    planned shape and gets fresh weights by nnU-Net's own initialization.

    Args:
        network: a planned nnU-Net whose `decoder` upsamples by the strided transposed convolutions
            in `decoder.transpconvs`, such as PlainConvUNet and ResidualEncoderUNet.

    Returns:
        A decoder that maps the encoder's feature maps to logits, without a reference to an encoder.

    Raises:
        UnsupportedError: the network is built otherwise.
    """
    decoder: Any = getattr(network, "decoder", None)
    upsampling = getattr(decoder, "transpconvs", None)
    if not hasattr(network, "encoder") or upsampling is None:
        raise UnsupportedError(
            f"{type(network).__name__} has no encoder and decoder of nnU-Net's U-Net form, so no "
            "auxiliary branch can be derived from it: use plans with PlainConvUNet or "
            "ResidualEncoderUNet."
        )
    for layer in upsampling:
        if not isinstance(layer, _ConvTransposeNd) or layer.kernel_size != layer.stride:
            raise UnsupportedError(
                f"The decoder {type(decoder).__name__} upsamples by {type(layer).__name__}, not by "
                "transposed convolutions with kernel size = stride, so no auxiliary branch can be "
                "derived from it: use plans with PlainConvUNet or ResidualEncoderUNet."
            )
    # nnU-Net's decoders hold their encoder; the memo keeps it out of the copy and its state dict
    auxiliary = copy.deepcopy(decoder, memo={id(decoder.encoder): None})
    auxiliary.transpconvs = nn.ModuleList(InterpolationUpsampling(layer) for layer in upsampling)
    return reinitialized(auxiliary, network)


def reinitialized(module: nn.Module, network: nn.Module) -> nn.Module:
    """Give a copied part of a planned network fresh weights, as nnU-Net initializes them."""
    layer: Any
    for layer in module.modules():
        if hasattr(layer, "reset_parameters"):
            layer.reset_parameters()
    initialize: Any = getattr(network, "initialize", None)
    return module if initialize is None else module.apply(initialize)
