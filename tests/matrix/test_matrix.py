"""Everything that a user of nnU-Net may combine: trained, validated and predicted, or refused."""

import functools
import json
import math
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from dynamic_network_architectures.architectures.primus import Primus
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoMirroring import (
    nnUNetTrainerNoMirroring,
)
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerNoDeepSupervision import (  # noqa: E501
    nnUNetTrainerNoDeepSupervision,
)
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from torch import nn
from torch._dynamo import OptimizedModule

from nnunetv2_spmc.methods import nnUNetTrainerSPMC, nnUNetTrainerSPMC_separateEncoders
from nnunetv2_spmc.networks.unwrap import unwrapped
from tests.matrix.cases import (
    GRID,
    IGNORE,
    PLAIN,
    PLANNERS,
    PSEUDO_2D_PATCH,
    REGION_BASED,
    REGIONS_IGNORE,
    Cell,
)
from tests.methods.contract import METHODS
from tests.training_logs import log_of

pytestmark = pytest.mark.slow
NETWORKS = {"ExperimentPlanner": "PlainConvUNet", "nnUNetPlannerResEncM": "ResidualEncoderUNet"}
CHEAP = Cell("2d", "ExperimentPlanner", PLAIN)
OF_EVERY_METHOD = (
    Cell("2d", "ExperimentPlanner", REGIONS_IGNORE),
    Cell("3d_fullres", "nnUNetPlannerResEncM", IGNORE),
    Cell("3d_fullres", "ExperimentPlanner", REGION_BASED),
)


@pytest.fixture
def train(make_trainer):
    """Train and validate as nnUNetv2_train does."""

    def train(cell, trainer=None, **options):
        trainer = make_trainer(cell, trainer, **options)
        trainer.initialize()
        named = unwrapped(trainer.joint_network).named_parameters()
        trainer.weights_before = {name: weight.detach().clone() for name, weight in named}
        trainer.run_training()
        trainer.perform_actual_validation()
        return trainer

    return train


@pytest.fixture
def check(workspace, tmp_path):
    """Check all that a cell promises: training, validation, checkpoint, stock prediction."""

    def check(trainer, cell, device="cpu"):
        check_training(trainer, cell)
        check_stock_network(trainer)
        predictor = stock_predictor(trainer, cell, device)
        images = sorted((workspace(cell.dataset).raw(cell.dataset) / "imagesTs").iterdir())
        check_prediction(predictor, cell, images, tmp_path / "predicted")

    return check


def check_training(trainer, cell):
    """All losses are finite, every branch has learned, and the validation was evaluated."""
    curves = trainer.logger.get_checkpoint()
    terms = [f"supervised_{branch}" for branch in trainer.branches]
    for key in (
        "train_losses",
        "val_losses",
        "total_loss",
        *terms,
        *chain(*trainer.panels.values()),
    ):
        assert len(curves[key]) == 1, key
        assert math.isfinite(curves[key][0]), key
    check_weights_moved(trainer)
    validation = Path(trainer.output_folder) / "validation"
    summary = json.loads((validation / "summary.json").read_text(encoding="utf-8"))
    assert len(summary["metric_per_case"]) == (5 if cell.fold == "all" else 1)


def check_weights_moved(trainer):
    """Every part of every branch moved by more than weight decay alone moves it.

    Not each tensor of it: two steps hardly reach residual blocks, which start as the identity, nor
    biases before an InstanceNorm; and the lowest output does not count in nnU-Net's loss.
    """
    moved = {}
    for name, weight in unwrapped(trainer.joint_network).named_parameters():
        if ".seg_layers." in name and not trainer.enable_deep_supervision:
            continue  # only the last one has a loss
        before = trainer.weights_before[name].to(weight.device)
        part = ".".join(name.split(".")[:2])  # such as main.encoder
        has_moved = (weight - before).abs().max() > 1e-5 * before.abs().max()
        moved.setdefault(part, []).append(bool(has_moved))
    assert {part for part, tensors in moved.items() if 2 * sum(tensors) < len(tensors)} == set()


def check_stock_network(trainer):
    """The checkpoint is one of the network that stock nnU-Net builds from the plans."""
    checkpoint = torch.load(
        Path(trainer.output_folder) / "checkpoint_final.pth", weights_only=False, map_location="cpu"
    )
    stock = nnUNetTrainer.build_network_architecture(
        trainer.plans_manager,
        trainer.configuration_manager,
        trainer.num_input_channels,
        trainer.label_manager.num_segmentation_heads,
        enable_deep_supervision=False,
    )
    stock.load_state_dict(checkpoint["network_weights"])
    patch = torch.randn(1, trainer.num_input_channels, *trainer.configuration_manager.patch_size)
    trainer.set_deep_supervision_enabled(False)
    with torch.inference_mode():
        expected = trainer.network.eval()(patch.to(trainer.device)).cpu()
        # other devices compute in other orders and, on CUDA, in TF32
        tolerance = 1e-5 if trainer.device.type == "cpu" else 1e-2
        torch.testing.assert_close(stock.eval()(patch), expected, rtol=tolerance, atol=tolerance)
        assert expected.isfinite().all()


def stock_predictor(trainer, cell, device="cpu"):
    predictor = nnUNetPredictor(tile_step_size=1, device=torch.device(device), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (cell.fold,))
    return predictor


def check_prediction(predictor, cell, images, output):
    """Stock nnU-Net segments a scan: geometry, labels and probabilities are what they should be."""
    output.mkdir()
    predictor.predict_from_files_sequential(
        [[str(image) for image in images]], [str(output / "case")], save_probabilities=True
    )
    image, prediction = (sitk.ReadImage(str(file)) for file in (images[0], output / "case.nii.gz"))
    assert prediction.GetSize() == image.GetSize()
    assert prediction.GetSpacing() == image.GetSpacing()
    assert set(np.unique(sitk.GetArrayViewFromImage(prediction))) <= cell.dataset.classes
    probabilities = np.load(output / "case.npz")["probabilities"]
    assert probabilities.shape == (cell.dataset.output_channels, *image.GetSize()[::-1])
    assert np.isfinite(probabilities).all()
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1


# ---- configurations, plans, labels, channels, folds ----------------------------------------------


@pytest.mark.parametrize("cell", GRID, ids=lambda cell: cell.identifier)
def test_trains_and_predicts(cell, train, check):
    trainer = train(cell)
    assert type(trainer.network).__name__ == NETWORKS[cell.planner]
    check(trainer, cell)


@pytest.mark.supported(
    "trainers", "every other method, in 2D and 3D, with regions and ignore label"
)
@pytest.mark.parametrize("cell", OF_EVERY_METHOD, ids=lambda cell: cell.identifier)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_trains_and_predicts(method, cell, train, check):
    check(train(cell, method.trainer, **method.settings), cell)


def test_the_grid_has_what_it_is_said_to_have(workspace):
    """Anisotropic datasets are planned with flat kernels and strides, the others are not."""
    for dataset, is_flat in ((PLAIN, False), (REGION_BASED, True), (IGNORE, True)):
        for planner in PLANNERS:
            plans = workspace(dataset).plans(Cell("3d_fullres", planner, dataset))
            arguments = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
            assert ([1, 3, 3] in arguments["kernel_sizes"]) == is_flat
            assert (arguments["strides"][1] == [1, 2, 2]) == is_flat
            assert {"2d", "3d_lowres"} < plans["configurations"].keys()
    folds = {cell.fold for cell in GRID}
    assert folds == {0, 1, 2, 3, 4}


@pytest.mark.supported("patches", "pseudo-2D patches (nnU-Net augments slice by slice)")
@pytest.mark.parametrize("planner", PLANNERS)
def test_pseudo_2d_patches(planner, train, check):
    cell = Cell("3d_fullres", planner, REGION_BASED, patch_size=PSEUDO_2D_PATCH)
    trainer = train(cell)
    assert "do_dummy_2d_data_aug: True" in log_of(trainer)
    check(trainer, cell)


@pytest.mark.supported("folds", "`all`")
def test_fold_all(train, check):
    cell = Cell("2d", "ExperimentPlanner", PLAIN, fold="all")
    check(train(cell), cell)


# ---- networks --------------------------------------------------------------------------------


@pytest.mark.supported("networks", "residual decoder (`ResidualUNet` in the plans)")
def test_a_residual_decoder(train, workspace, check):
    cell = Cell("3d_fullres", "nnUNetPlannerResEncM", PLAIN)
    plans = workspace(PLAIN).plans(cell)
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = (
        "dynamic_network_architectures.architectures.unet.ResidualUNet"
    )
    trainer = train(cell, plans=plans)
    assert type(trainer.network.decoder).__name__ == "UNetResDecoder"
    check(trainer, cell)


@pytest.mark.supported("networks", "an encoder of its own for the auxiliary branch")
def test_separate_encoders(train, check):
    cell = Cell("2d", "nnUNetPlannerResEncM", IGNORE)
    check(train(cell, nnUNetTrainerSPMC_separateEncoders), cell)


def transformer(plans_manager, configuration_manager, inputs, outputs, deep_supervision=True):
    return Primus(
        inputs, 12, (4, 4, 4), outputs, eva_depth=1, eva_numheads=1, input_shape=(8, 8, 8)
    )


def upsampling_by_interpolation(
    plans_manager, configuration_manager, inputs, outputs, deep_supervision=True
):
    network = nnUNetTrainer.build_network_architecture(
        plans_manager, configuration_manager, inputs, outputs, deep_supervision
    )
    network.decoder.transpconvs = nn.ModuleList([nn.Upsample(scale_factor=2)])
    return network


@pytest.mark.supported("networks", "other networks, such as `Primus`", refused=True)
@pytest.mark.parametrize(
    ("network", "message"),
    [
        (transformer, "Primus has no encoder and decoder of nnU-Net's U-Net form"),
        (upsampling_by_interpolation, "The decoder UNetDecoder upsamples by Upsample"),
    ],
)
def test_other_networks_are_refused_by_name(network, message, make_trainer):
    class OtherNetwork(nnUNetTrainerSPMC):
        build_network_architecture = staticmethod(network)

    trainer = make_trainer(Cell("3d_fullres", "ExperimentPlanner", PLAIN), OtherNetwork)
    with pytest.raises(NotImplementedError, match=message):
        trainer.run_training()
    assert trainer.dataloader_train is None


@pytest.mark.supported("configurations", "the cascade, `3d_cascade_fullres`", refused=True)
@pytest.mark.parametrize("planner", PLANNERS)
def test_the_cascade_is_refused(planner, make_trainer, tmp_path):
    with pytest.raises(NotImplementedError, match="cannot train the configuration 3d_cascade"):
        make_trainer(Cell("3d_cascade_fullres", planner, PLAIN))
    assert list(tmp_path.iterdir()) == []


# ---- augmentation ------------------------------------------------------------------------------


def mirrors(trainer):
    transforms = trainer.dataloader_train.data_loader.labeled.transforms.transforms
    return "MirrorTransform" in {type(transform).__name__ for transform in transforms}


@pytest.mark.supported("augmentation", "mirroring, in training and prediction (nnU-Net's default)")
def test_mirroring(train):
    trainer = train(CHEAP)
    assert mirrors(trainer)
    assert stock_predictor(trainer, CHEAP).allowed_mirroring_axes == (0, 1)


@pytest.mark.supported("augmentation", "no mirroring: the setting `mirroring`")
def test_no_mirroring_by_a_setting(train, check):
    trainer = train(CHEAP, mirroring=False)
    assert not mirrors(trainer)
    assert stock_predictor(trainer, CHEAP).allowed_mirroring_axes is None
    check(trainer, CHEAP)


@pytest.mark.supported(
    "trainers", "variants of nnU-Net (no mirroring, no deep supervision), by inheritance from both"
)
@pytest.mark.parametrize("variant", [nnUNetTrainerNoMirroring, nnUNetTrainerNoDeepSupervision])
def test_a_trainer_variant_of_nnunet_by_inheritance(variant, train, check, tmp_path, monkeypatch):
    """A user's own module next to ours: nnUNet_extTrainer takes several folders."""
    folder = tmp_path / "my_trainers"
    folder.mkdir()
    (folder / "mine.py").write_text(
        f"from {variant.__module__} import {variant.__name__}\n"
        "from nnunetv2_spmc.methods import nnUNetTrainerSPMC\n\n\n"
        f"class nnUNetTrainerMine({variant.__name__}, nnUNetTrainerSPMC):\n"
        "    pass\n",
        encoding="utf-8",
    )
    paths = [os.environ["nnUNet_extTrainer"], str(folder)]
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join(paths))
    trainer = train(CHEAP, recursive_find_trainer_class_by_name("nnUNetTrainerMine"))
    with_mirroring = variant is nnUNetTrainerNoDeepSupervision
    assert mirrors(trainer) == with_mirroring
    assert trainer.enable_deep_supervision == (not with_mirroring)
    axes = stock_predictor(trainer, CHEAP).allowed_mirroring_axes
    assert axes == ((0, 1) if with_mirroring else None)
    check(trainer, CHEAP)


# ---- devices -----------------------------------------------------------------------------------

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
on_mps = pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs an MPS device")
DEVICE_CELLS = [
    Cell("2d", "ExperimentPlanner", REGIONS_IGNORE),
    Cell("3d_fullres", "nnUNetPlannerResEncM", REGION_BASED),
]


@pytest.mark.gpu
@on_cuda
@pytest.mark.supported("devices", "CUDA, fp16 autocast, `torch.compile` on and off", needs="CUDA")
@pytest.mark.parametrize("compiled", ["false", "true"])
@pytest.mark.parametrize("cell", DEVICE_CELLS, ids=lambda cell: cell.identifier)
def test_on_cuda(cell, compiled, train, check, monkeypatch):
    monkeypatch.setenv("nnUNet_compile", compiled)
    trainer = train(cell, device="cuda")
    assert isinstance(trainer.network, OptimizedModule) == (compiled == "true")
    check(trainer, cell, device="cuda")


@on_mps
@pytest.mark.supported("devices", "MPS (Apple), fp32", needs="MPS")
@pytest.mark.parametrize("cell", DEVICE_CELLS, ids=lambda cell: cell.identifier)
def test_on_mps(cell, train, check):
    check(train(cell, device="mps"), cell, device="mps")


@pytest.mark.supported("devices", "CPU, `torch.compile` asked for: left out, as stock nnU-Net does")
def test_compilation_is_left_out_on_a_cpu(make_trainer, monkeypatch):
    monkeypatch.setenv("nnUNet_compile", "true")
    trainer = make_trainer(CHEAP)
    trainer.run_training()
    assert "torch.compile disabled because device is CPU" in log_of(trainer)
    assert not isinstance(trainer.joint_network, OptimizedModule)


@pytest.mark.supported("devices", "a compiled network (traced on a CPU)")
def test_a_compiled_network(train, check, monkeypatch):
    """nnU-Net compiles on CUDA only; traced here, without code generation, which takes minutes."""
    cell = Cell("3d_fullres", "nnUNetPlannerResEncM", REGION_BASED)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(nnUNetTrainerSPMC, "_do_i_compile", lambda self: True)
    trainer = train(cell)
    assert isinstance(trainer.joint_network, OptimizedModule)
    check(trainer, cell)


# ---- the real commands -------------------------------------------------------------------------


@pytest.mark.supported("commands", "`nnUNetv2_train` and `nnUNetv2_predict` with worker processes")
def test_the_real_commands_with_workers(workspace, tmp_path, monkeypatch):
    cell = Cell("3d_lowres", "nnUNetPlannerResEncM", IGNORE, fold="all")
    prepared = workspace(cell.dataset)
    settings = {"epochs": 1, "iterations_per_epoch": 2, "validation_iterations": 1}
    monkeypatch.setenv("nnUNet_spmc_settings", json.dumps(settings))
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    number, plans = str(prepared.number(cell.dataset)), PLANNERS[cell.planner]
    trainer = ["-tr", "nnUNetTrainerSPMC", "-p", plans, "-device", "cpu"]
    images, output = prepared.raw(cell.dataset) / "imagesTs", tmp_path / "predicted"
    run("nnUNetv2_train", number, cell.configuration, str(cell.fold), *trainer)
    run(
        "nnUNetv2_predict",
        *("-d", number, "-c", cell.configuration, "-f", str(cell.fold), *trainer),
        *("-i", str(images), "-o", str(output), "-npp", "1", "-nps", "1"),
    )
    (prediction,) = output.glob("*.nii.gz")
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(prediction)))
    assert labels.shape == (16, 20, 24)
    assert set(np.unique(labels)) <= cell.dataset.classes


def run(command, *arguments):
    program = [str(Path(sys.executable).parent / command), *arguments]
    done = subprocess.run(program, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, f"{program}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
