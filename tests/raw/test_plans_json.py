from __future__ import annotations

import copy
import json

import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.dataset_json import channel_names, read_dataset_json
from nnunetv2_spmc.raw.plans_json import read_plans

CONFIGURATION = {
    "data_identifier": "nnUNetPlans_2d",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 2,
    "patch_size": [16, 16],
    "spacing": [1.0, 1.0],
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [False],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {},
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_seg_kwargs": {},
    "architecture": {"network_class_name": "a.B", "arch_kwargs": {}, "_kw_requires_import": []},
}
PLANS = {
    "dataset_name": "Dataset500_Small",
    "plans_name": "nnUNetPlans",
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "foreground_intensity_properties_per_channel": {"0": {}},
    "configurations": {"2d": CONFIGURATION, "2d_small": {"inherits_from": "2d", "batch_size": 1}},
}
INSIDE = ("configurations", "2d")


def write(file, content, path=(), value=None):
    """Write JSON with one value changed, or taken out."""
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if path and value is None:
        del inner[path[-1]]
    elif path:
        inner[path[-1]] = value
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def test_whole_plans_are_returned(tmp_path) -> None:
    file = write(tmp_path / "plans.json", PLANS)
    for configuration in (None, "2d", "2d_small", "unknown"):
        assert read_plans(file, "plan again", configuration) == PLANS


def test_plans_in_the_form_of_an_older_nnunet_are_accepted(tmp_path) -> None:
    old = copy.deepcopy(PLANS)
    configuration = old["configurations"]["2d"]
    del configuration["architecture"]
    configuration["UNet_class_name"] = "PlainConvUNet"
    properties = old.pop("foreground_intensity_properties_per_channel")
    old["foreground_intensity_properties_by_modality"] = properties
    assert read_plans(write(tmp_path / "plans.json", old), "plan again", "2d") == old


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("dataset_name",), None, "has no 'dataset_name'"),
        (("configurations",), [], "'configurations' must be an object, got a list"),
        (INSIDE, 5, "'configurations.2d' must be an object, got a number"),
        ((*INSIDE, "spacing"), None, "has no 'configurations.2d.spacing'"),
        ((*INSIDE, "spacing"), [0, 1], "'configurations.2d.spacing' must be a list of positive"),
        ((*INSIDE, "use_mask_for_norm"), [], "2d.use_mask_for_norm' must be of one length"),
        ((*INSIDE, "architecture"), None, "has no 'configurations.2d.architecture'"),
        ((*INSIDE, "architecture", "arch_kwargs"), [], "'configurations.2d.architecture.arch_"),
        ((*INSIDE, "inherits_from"), "2d", "'configurations.2d' inherits from itself"),
        ((*INSIDE, "inherits_from"), ["x"], "inherits from ['x'], which is not there"),
        (("transpose_forward",), [0, 1, 1], "'transpose_forward' must be an order of the axes"),
        (("label_manager",), 5, "'label_manager' must be a string, got a number"),
        (
            ("foreground_intensity_properties_per_channel",),
            None,
            "has no 'foreground_intensity_properties_per_channel'",
        ),
    ],
)
def test_what_plans_lack_is_named_with_file_and_key(tmp_path, path, value, message) -> None:
    file = write(tmp_path / "plans.json", PLANS, path, value)
    with pytest.raises(DataError) as error:
        read_plans(file, "plan again", "2d")
    assert str(error.value).startswith(str(file))
    assert message in str(error.value)
    assert str(error.value).endswith("; plan again.")


DATASET = {
    "channel_names": {"0": "T1", "1": "CT"},
    "labels": {"background": 0, "organ": 1},
    "file_ending": ".nii.gz",
}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("file_ending",), None, "has no 'file_ending'"),
        (("file_ending",), "nii.gz", "'file_ending' must begin with a dot, got 'nii.gz'"),
        (("labels",), None, "has no 'labels'"),
        (("labels",), [0, 1], "'labels' must be an object, got a list"),
        (("channel_names",), None, "has no 'channel_names'"),
        (("channel_names",), ["T1"], "'channel_names' must be an object, got a list"),
        (("channel_names",), {}, "'channel_names' has no channel"),
    ],
)
def test_what_a_dataset_json_lacks_is_named_with_the_key(tmp_path, path, value, message) -> None:
    file = write(tmp_path / "dataset.json", DATASET, path, value)
    with pytest.raises(DataError) as error:
        read_dataset_json(file, "plan again")
    assert str(error.value).startswith(str(file))
    assert message in str(error.value)


def test_channels_may_be_called_modality_which_counts_first_as_in_nnunet(tmp_path) -> None:
    old = {**DATASET, "modality": {"0": "MRI"}}
    for content in (old, {key: old[key] for key in old.keys() - {"channel_names"}}):
        file = write(tmp_path / "dataset.json", content)
        assert channel_names(read_dataset_json(file, "plan again")) == ["MRI"]
    assert channel_names(DATASET) == ["T1", "CT"]
