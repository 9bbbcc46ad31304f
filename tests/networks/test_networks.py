import copy

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunetv2_spmc.common.errors import UnsupportedError
from nnunetv2_spmc.networks import DualBranchNetwork, FeatureNoise, InterpolationUpsampling


def planned_network(architecture=PlainConvUNet, dimension=2, deep_supervision=True):
    conv, norm = {
        2: (nn.Conv2d, nn.InstanceNorm2d),
        3: (nn.Conv3d, nn.InstanceNorm3d),
    }[dimension]
    depth = "n_conv_per_stage" if architecture is PlainConvUNet else "n_blocks_per_stage"
    strides = [[1, 1, 1], [1, 2, 2], [2, 2, 2]] if dimension == 3 else [1, 2, 2]
    torch.manual_seed(0)
    network = architecture(
        input_channels=1,
        n_stages=3,
        features_per_stage=[4, 8, 16],
        conv_op=conv,
        kernel_sizes=3,
        strides=strides,
        num_classes=3,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=norm,
        norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU,
        deep_supervision=deep_supervision,
        **{depth: 1},
    )
    return network.apply(network.initialize)


@pytest.mark.parametrize("architecture", [PlainConvUNet, ResidualEncoderUNet])
@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("shared_encoder", [True, False])
def test_both_branches_give_the_planned_shapes(architecture, dimension, shared_encoder):
    network = DualBranchNetwork(
        planned_network(architecture, dimension), shared_encoder=shared_encoder
    )
    images = torch.randn(2, 1, *[8] * dimension)
    main, auxiliary = network(images)
    assert [output.shape for output in main] == [output.shape for output in auxiliary]
    assert main[0].shape == (2, 3, *[8] * dimension)


def test_the_main_branch_is_the_planned_network_itself():
    planned = planned_network()
    images = torch.randn(1, 1, 8, 8)
    expected = planned(images)
    main, _ = DualBranchNetwork(planned)(images)
    assert all(torch.equal(a, b) for a, b in zip(main, expected, strict=True))


def test_no_transposed_convolution_is_left_in_the_auxiliary_decoder():
    auxiliary = DualBranchNetwork(planned_network()).auxiliary_decoder
    kinds = {type(layer) for layer in auxiliary.modules()}
    assert InterpolationUpsampling in kinds
    assert nn.ConvTranspose2d not in kinds


def test_upsampling_follows_an_anisotropic_stride():
    layer = InterpolationUpsampling(nn.ConvTranspose3d(4, 2, (1, 2, 2), (1, 2, 2), bias=False))
    assert layer(torch.randn(1, 4, 3, 5, 6)).shape == (1, 2, 3, 10, 12)
    assert layer.projection.bias is None


def test_parameters_of_the_branches_do_not_alias():
    network = DualBranchNetwork(planned_network())
    names = [name for name, _ in network.named_parameters()]
    assert all(name.startswith(("main.", "auxiliary_decoder.")) for name in names)
    assert not any("encoder" in name for name in names if name.startswith("auxiliary_decoder."))


def test_the_branches_start_from_different_weights():
    network = DualBranchNetwork(planned_network(), shared_encoder=False)
    main, auxiliary = network.main.state_dict(), network.auxiliary_encoder.state_dict()
    convolutions = [key for key in auxiliary if key.endswith("conv.weight")]
    assert convolutions
    assert not any(torch.equal(main[f"encoder.{key}"], auxiliary[key]) for key in convolutions)
    seg = "seg_layers.0.weight"
    assert not torch.equal(main[f"decoder.{seg}"], network.auxiliary_decoder.state_dict()[seg])


def test_the_planned_network_keeps_its_state_dict():
    planned = planned_network()
    before = copy.deepcopy(planned.state_dict())
    DualBranchNetwork(planned, shared_encoder=False)
    after = planned.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("shared_encoder", [True, False])
def test_the_auxiliary_branch_reaches_the_main_encoder_only_when_it_is_shared(shared_encoder):
    network = DualBranchNetwork(planned_network(), shared_encoder=shared_encoder)
    _, auxiliary = network(torch.randn(1, 1, 8, 8))
    auxiliary[0].sum().backward()
    reached = any(p.grad is not None for p in network.main.encoder.parameters())
    assert reached == shared_encoder
    assert all(p.grad is None for p in network.main.decoder.seg_layers.parameters())


def test_other_networks_are_refused_by_name():
    with pytest.raises(UnsupportedError, match="Linear has no encoder and decoder"):
        DualBranchNetwork(nn.Linear(2, 2))


def test_other_upsampling_is_refused_by_name():
    planned = planned_network()
    planned.decoder.transpconvs[0] = nn.Upsample(scale_factor=2)
    with pytest.raises(UnsupportedError, match="UNetDecoder upsamples by Upsample"):
        DualBranchNetwork(planned)


def test_noise_is_shared_by_the_batch_and_bounded():
    noise = FeatureNoise(0.3)
    feature = torch.ones(4, 2, 5, 5)
    perturbed = noise([feature])[0]
    assert torch.equal(perturbed[0], perturbed[3])
    assert 0.7 <= perturbed.min() < 0.8
    assert 1.2 < perturbed.max() <= 1.3
    assert perturbed[0].unique().numel() == 50  # another value for every channel and position


def test_noise_is_fresh_at_every_call():
    noise, feature = FeatureNoise(0.3), torch.ones(1, 1, 4, 4)
    assert not torch.equal(noise([feature])[0], noise([feature])[0])


def test_noise_is_off_in_evaluation_mode_and_at_amplitude_zero():
    feature = torch.randn(1, 1, 4, 4)
    assert torch.equal(FeatureNoise(0.3).eval()([feature])[0], feature)
    assert torch.equal(FeatureNoise(0.0)([feature])[0], feature)


def test_bottleneck_noise_leaves_the_skips_alone():
    features = [torch.ones(1, 1, 4, 4), torch.ones(1, 2, 2, 2)]
    skip, bottleneck = FeatureNoise(0.3, "bottleneck")(features)
    assert torch.equal(skip, features[0])
    assert not torch.equal(bottleneck, features[1])


def test_noise_perturbs_the_auxiliary_branch_only():
    network = DualBranchNetwork(planned_network())
    images = torch.randn(1, 1, 8, 8)
    (main, auxiliary), (main_again, auxiliary_again) = network(images), network(images)
    assert torch.equal(main[0], main_again[0])
    assert not torch.equal(auxiliary[0], auxiliary_again[0])
