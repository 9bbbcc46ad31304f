"""Semi-supervised segmentation for nnU-Net v2."""

from importlib.metadata import version

__version__ = version("nnunetv2-spmc")
