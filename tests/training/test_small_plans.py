"""The small networks of tests, demo and benchmarks: what is left of the planned ones."""

import pytest

from nnunetv2_spmc.training.small_plans import small_configuration

STRIDES = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]


@pytest.fixture
def planned():
    arguments = {
        "n_stages": 4,
        "features_per_stage": [32, 64, 128, 256],
        "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
        "strides": STRIDES,
        "n_conv_per_stage": [2, 2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2, 2],
    }
    architecture = {"network_class_name": "PlainConvUNet", "arch_kwargs": arguments}
    return {"architecture": architecture, "patch_size": [16, 64, 64], "batch_size": 2}


@pytest.mark.parametrize(
    ("patch_size", "stages"),
    [([16, 64, 64], 4), ([8, 16, 16], 3), ([4, 16, 16], 3)],
    ids=["as planned", "too small for the lowest stage", "flat"],
)
def test_at_least_three_stages_are_kept(planned, patch_size, stages):
    """With two, nnU-Net's deep supervision would have no output left: its loss is 0/0."""
    small = small_configuration(
        planned, "3d_fullres", features=(4, 8), patch_size=patch_size, batch_size=None
    )
    arguments = small["architecture"]["arch_kwargs"]
    assert arguments["n_stages"] == stages
    assert arguments["strides"] == STRIDES[:stages]
    assert arguments["features_per_stage"] == [4, 8, 8, 8][:stages]
    assert len(arguments["kernel_sizes"]) == len(arguments["n_conv_per_stage"]) == stages
    assert len(arguments["n_conv_per_stage_decoder"]) == stages - 1


def test_longer_voxels_get_preprocessed_data_of_their_own(planned):
    planned |= {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "spacing": [3.0, 1.0, 1.0],
        "median_image_size_in_voxels": [20.0, 100.0, 100.0],
    }
    options = {"features": (4, 8), "patch_size": None, "batch_size": None}
    same = small_configuration(planned, "3d_fullres", **options)
    assert not same.keys() & {"data_identifier", "spacing", "median_image_size_in_voxels"}
    coarse = small_configuration(planned, "3d_fullres", **options, coarser=2)
    assert coarse["data_identifier"] == "nnUNetPlans_3d_fullres_x2"
    assert coarse["spacing"] == [6.0, 2.0, 2.0]
    assert coarse["median_image_size_in_voxels"] == [10.0, 50.0, 50.0]
