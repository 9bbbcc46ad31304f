"""Trainers on fabricated plans, and batches for them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from nnunetv2.experiment_planning.experiment_planners.network_topology import (
    get_pool_and_conv_props,
)

from nnunetv2_spmc.methods import nnUNetTrainerSPMC

PATCHES = {"3d": ([80, 112, 112], 2), "2d": ([256, 256], 8)}  # size, planned batch


def plans(patch: str) -> dict[str, Any]:
    """Return minimal plans with the network that nnU-Net plans for such patches."""
    size, batch = PATCHES[patch]
    dimension = len(size)
    _, strides, kernels, size, _ = get_pool_and_conv_props([1.0] * dimension, size, 4, 999)
    stages = len(strides)
    largest = 320 if dimension == 3 else 512
    arguments = {
        "n_stages": stages,
        "features_per_stage": [min(32 * 2**i, largest) for i in range(stages)],
        "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
        "kernel_sizes": [list(kernel) for kernel in kernels],
        "strides": [list(stride) for stride in strides],
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration = {
        "data_identifier": "benchmark",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": batch,
        "patch_size": [int(n) for n in size],
        "spacing": [1.0] * dimension,
        "batch_dice": False,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3},
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": "Dataset999_Benchmark",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {"0": {}},
        "configurations": {"benchmark": configuration},
        "continue_training": False,
    }


@contextmanager
def empty_dataset() -> Iterator[Path]:
    """Set nnU-Net's folders to temporary ones with as much of a dataset as trainers look at.

    Yields:
        The folder of its preprocessed cases.
    """
    with tempfile.TemporaryDirectory() as folder:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            os.environ[variable] = folder
        data = Path(folder, "Dataset999_Benchmark", "benchmark")
        data.mkdir(parents=True)
        (data / "none.b2nd").touch()  # nnU-Net looks at the file ending only
        os.environ.pop("nnUNet_spmc_settings", None)
        yield data


def trainer(kind: type, patch: str, classes: int, device: torch.device) -> Any:
    """Build a trainer at the end of its ramp-up, where all terms have their full weight."""
    labels = {"background": 0} | {f"class{i}": i for i in range(1, classes)}
    dataset_json = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
    built = kind(plans(patch), "benchmark", 0, dataset_json, device)
    built.initialize()
    built.network.train()
    if issubclass(kind, nnUNetTrainerSPMC):
        built.joint_network.train()
        built.iteration = built.num_epochs * built.num_iterations_per_epoch
    return built


def random_batch(spmc: Any, batch: int, classes: int, device: torch.device) -> dict[str, Any]:
    """Return a labeled and an unlabeled batch without structure."""
    size = spmc.configuration_manager.patch_size
    scales = [[1.0] * len(size), *spmc._get_deep_supervision_scales()[1:]]
    shapes = [[round(n * s) for n, s in zip(size, scale, strict=True)] for scale in scales]
    target = [torch.randint(0, classes, (batch, 1, *s), dtype=torch.int16) for s in shapes]
    images = [torch.randn(batch, 1, *size, device=device) for _ in range(2)]
    return {
        "data": images[0],
        "target": [scale.to(device) for scale in target],
        "unlabeled": {"data": images[1]},
    }
