import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.inference import case_maps
from nnunetv2_spmc.inference.case_maps import normalized_entropy, predict_case
from nnunetv2_spmc.inference.trained_model import load_model
from nnunetv2_spmc.networks import DualBranchNetwork
from tests.damaged_files import every_damage
from tests.phantom_runs import stock_predictor

TAU = 0.7


@pytest.fixture
def maps(phantom_runs, test_image):
    return predict_case(load_model(phantom_runs.spmc), [test_image])


def with_trainers(monkeypatch):
    from nnunetv2_spmc import discovery

    monkeypatch.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))


def test_segmentation_and_confidence_are_those_of_nnunetv2_predict(
    phantom_runs, test_image, maps, tmp_path, monkeypatch
):
    with_trainers(monkeypatch)
    predictor = stock_predictor(phantom_runs.spmc)
    for options in ({}, {"save_probabilities": True}):
        predictor.predict_from_files_sequential(
            [[str(test_image)]], [str(tmp_path / "case")], **options
        )
        expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "case.nii.gz")))
        assert np.array_equal(maps.segmentation, expected)
    probabilities = np.load(tmp_path / "case.npz")["probabilities"]
    assert maps.confidence.dtype == np.float32
    assert np.array_equal(maps.confidence, probabilities.max(axis=0))


def test_auxiliary_maps_are_those_of_the_second_output_of_the_trained_network(
    phantom_runs, test_image, maps, tmp_path, monkeypatch
):
    """The network as training builds it, run by nnU-Net's own predictor."""
    with_trainers(monkeypatch)
    checkpoint = torch.load(phantom_runs.spmc / "checkpoint_final.pth", weights_only=False)
    predictor = stock_predictor(phantom_runs.spmc)
    both = DualBranchNetwork(predictor.network)
    auxiliary = checkpoint["semi_supervised"]["parts"]
    missing, unexpected = both.load_state_dict(auxiliary, strict=False)
    assert not unexpected
    assert all(key.startswith("main.") for key in missing)

    class SecondOutput(nn.Module):
        def __init__(self):
            super().__init__()
            self.both = both

        def forward(self, images):
            return self.both(images)[1]

    predictor.network = SecondOutput()
    predictor.list_of_parameters = [predictor.network.state_dict()]
    predictor.predict_from_files_sequential(
        [[str(test_image)]], [str(tmp_path / "case")], save_probabilities=True
    )
    probabilities = np.load(tmp_path / "case.npz")["probabilities"]
    assert np.array_equal(maps.second, probabilities.argmax(axis=0))
    unsure_main, unsure_auxiliary = maps.confidence <= TAU, probabilities.max(axis=0) <= TAU
    assert 0 < unsure_main.mean() < 1 or 0 < unsure_auxiliary.mean() < 1
    assert np.array_equal(maps.common_difficulty, unsure_main & unsure_auxiliary)
    assert np.array_equal(maps.suspicious, unsure_main + 2 * unsure_auxiliary)


def test_tau_can_be_given(phantom_runs, test_image):
    model = load_model(phantom_runs.spmc, mirroring=False)
    assert predict_case(model, [test_image], tau=1.0).common_difficulty.all()
    assert not predict_case(model, [test_image], tau=0.0).common_difficulty.any()


def test_a_model_without_auxiliary_branch_gives_what_needs_none(phantom_runs, test_image):
    model = load_model(phantom_runs.control, mirroring=False)
    assert model.second is None
    maps = predict_case(model, [test_image], tau=0.9)
    assert maps.second is None
    assert maps.common_difficulty is None
    assert np.array_equal(maps.suspicious, maps.confidence <= 0.9)


def test_regions_are_decisions_of_their_own(monkeypatch):
    """Two voxels: unsure of region 0 in one branch and of region 1 in the other; of one in both."""
    main = torch.tensor([[0.5, 0.6], [0.9, 0.9]]).view(2, 1, 1, 2)
    auxiliary = torch.tensor([[0.9, 0.4], [0.5, 0.1]]).view(2, 1, 1, 2)
    labels = np.zeros((1, 1, 2), np.uint8)
    branches = {
        name: SimpleNamespace(label_manager=SimpleNamespace(has_regions=True), probabilities=p)
        for name, p in (("main", main), ("second", auxiliary))
    }
    monkeypatch.setattr(case_maps, "_preprocessed", lambda model, images: (None, {}))
    monkeypatch.setattr(case_maps, "_predict", lambda p, *_: (labels, p.probabilities))
    maps = predict_case(
        SimpleNamespace(**branches, second_name="auxiliary", tau=TAU), [Path("case_0000.nii.gz")]
    )
    assert np.allclose(maps.confidence, [0.5, 0.6])
    assert maps.suspicious.tolist() == [[[3, 3]]]
    assert maps.common_difficulty.tolist() == [[[False, True]]]


def test_regions_with_an_encoder_of_its_own_in_3d(make_trainer, phantom_runs, test_image, tmp_path):
    """An untrained model on disk; its segmentation must be nnU-Net's, its maps those of regions."""
    labels = {"background": 0, "whole": [1, 2], "core": 2}
    dataset = json.loads((phantom_runs.spmc.parent / "dataset.json").read_text(encoding="utf-8"))
    dataset |= {"labels": labels, "regions_class_order": [1, 2]}
    trainer = make_trainer(
        configuration="3d_fullres_small", fold="all", dataset_json=dataset, shared_encoder=False
    )
    trainer.initialize()
    fold = Path(trainer.output_folder)
    trainer.save_checkpoint(str(fold / "checkpoint_final.pth"))
    for name, content in (("plans", trainer.plans_manager.plans), ("dataset", dataset)):
        (fold.parent / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")

    model = load_model(fold)
    assert model.second.network.encoder is not model.main.network.encoder
    maps = predict_case(model, [test_image])
    model.main.predict_from_files_sequential([[str(test_image)]], [str(tmp_path / "case")])
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "case.nii.gz")))
    assert np.array_equal(maps.segmentation, expected)
    for confidence in (maps.confidence, maps.second_confidence):
        assert 0.5 <= confidence.min() <= confidence.max() <= 1
    assert np.array_equal(maps.suspicious & 1 > 0, maps.confidence <= TAU)
    assert np.array_equal(maps.suspicious & 2 > 0, maps.second_confidence <= TAU)
    assert not (maps.common_difficulty & (maps.suspicious < 3)).any()


@pytest.mark.parametrize("regions", [False, True])
def test_entropy_is_zero_for_certainty_and_one_for_a_blind_guess(regions):
    certain = torch.tensor([1.0, 0.0, 0.0]).view(3, 1)
    guess = torch.full((3, 1), 0.5 if regions else 1 / 3)
    entropy = normalized_entropy(torch.cat([certain, guess], dim=1), regions=regions)
    assert np.allclose(entropy, [0, 1], atol=1e-6)


def test_surplus_channels_are_refused(phantom_runs, test_image, tmp_path):
    second = shutil.copy(test_image, tmp_path / "case_0001.nii.gz")
    model = load_model(phantom_runs.spmc)
    with pytest.raises(
        DataError, match=r"comes with 2 channels, but the model was trained with 1 \(MRI\)"
    ):
        predict_case(model, [test_image, second])


@every_damage
def test_a_damaged_image_is_refused_by_name(phantom_runs, test_image, tmp_path, damage, message):
    damage(test_image, tmp_path / "case_0000.nii.gz")
    (damaged,) = tmp_path.iterdir()
    with pytest.raises(DataError, match=rf"case_0000\.nii(\.gz)? .*{message}"):
        predict_case(load_model(phantom_runs.spmc), [damaged])


def test_nan_in_a_format_that_itk_reads_it_from_is_refused(phantom_runs, test_image, tmp_path):
    image = sitk.Cast(sitk.ReadImage(str(test_image)), sitk.sitkFloat32)
    image[1, 2, 3] = float("nan")
    sitk.WriteImage(image, str(tmp_path / "case_0000.mha"))
    with pytest.raises(DataError, match=r"case_0000\.mha has 1 NaN"):
        predict_case(load_model(phantom_runs.spmc), [tmp_path / "case_0000.mha"])


@pytest.mark.parametrize("branch", ["main", "second"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_prediction_that_is_not_finite_is_refused(phantom_runs, test_image, branch, value):
    model = load_model(phantom_runs.spmc, mirroring=False)

    class Diverged(nn.Module):
        def forward(self, images):
            return torch.full((len(images), 3, *images.shape[2:]), float(value))

    getattr(model, branch).network = Diverged()
    getattr(model, branch).list_of_parameters = [{}]
    with pytest.raises(DataError, match=rf"{test_image.name} cannot be predicted: .*(NaN|inf)"):
        predict_case(model, [test_image])
