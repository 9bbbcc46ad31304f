"""Warm start: what the auxiliary branch takes from pretrained weights.

nnU-Net fills the main branch from -pretrained_weights, all of it but the segmentation layers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from nnunetv2_spmc.networks.unwrap import unwrapped
from nnunetv2_spmc.training.checkpoint import CHECKPOINT_KEY, CheckpointError

AUXILIARY_PREFIX = "auxiliary_"
SEGMENTATION_LAYERS = ".seg_layers."  # other labels have other ones; nnU-Net does not transfer them


def pretrained_weights_file(arguments: Sequence[str] | None = None) -> Path | None:
    """Return the file behind -pretrained_weights on the command line: nnU-Net tells no trainer."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        name, _, value = argument.partition("=")
        if name == "-pretrained_weights" and (value or following):
            return Path(value or following)
    return None


def auxiliary_source(network: nn.Module, file: Path | None) -> tuple[str, Mapping[str, Tensor]]:
    """Find weights for the auxiliary branch: a trained auxiliary branch, else the main branch.

    Args:
        network: the training network, its submodule `main` filled already.
        file: a checkpoint, or None where it is not known.

    Returns:
        A name for the log, and tensors under the names of the training network.
    """
    if file is not None and file.is_file():
        checkpoint = torch.load(file, map_location="cpu", weights_only=False)
        stored = checkpoint.get(CHECKPOINT_KEY, {}).get("auxiliary_weights")
        if stored:
            return f"the auxiliary branch in {file}", stored
    main = network.get_submodule("main").state_dict()
    return "the main branch", {AUXILIARY_PREFIX + key: value for key, value in main.items()}


def take_what_fits(network: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Copy tensors that exist in the network under the same name and in the same shape.

    Returns:
        The names of what was copied; segmentation layers are left out.
    """
    own = network.state_dict()
    fitting = {
        key: value
        for key, value in weights.items()
        if key in own and own[key].shape == value.shape and SEGMENTATION_LAYERS not in key
    }
    network.load_state_dict(fitting, strict=False)
    return sorted(fitting)


def fill_auxiliary_branch(network: nn.Module) -> str:
    """Fill the auxiliary branch of the training network with what is there; say what it took."""
    source, weights = auxiliary_source(network, pretrained_weights_file())
    taken = take_what_fits(network, weights)
    own = [key for key in network.state_dict() if not key.startswith("main.")]
    return (
        f"Warm start: the auxiliary branch took {len(taken)} of {len(own)} tensors from {source}."
    )


def check_pretrained_weights(main: nn.Module, arguments: Sequence[str] | None = None) -> None:
    """Check the file behind -pretrained_weights before nnU-Net loads it, if there is one.

    Raises:
        CheckpointError: see `read_pretrained_main_branch`.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    file = pretrained_weights_file(arguments)
    if file is not None and not {"--c", "--val"} & set(arguments):
        read_pretrained_main_branch(main, file)


def read_pretrained_main_branch(main: nn.Module, file: Path) -> dict[str, Tensor]:
    """Read what nnU-Net takes from pretrained weights: all but the segmentation layers.

    Raises:
        CheckpointError: there is no such checkpoint, or it is of another architecture; names the
            first tensor that differs.
    """
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; give -pretrained_weights a checkpoint.")
    stored = torch.load(file, map_location="cpu", weights_only=False).get("network_weights", {})
    own = main.state_dict()
    transferred = [key for key in own if SEGMENTATION_LAYERS not in key]
    for key in transferred:
        if key not in stored or stored[key].shape != own[key].shape:
            raise CheckpointError(
                f"The network in {file} does not fit these plans (first difference: {key}); train "
                "with the plans it was trained with (nnUNetv2_move_plans_between_datasets)."
            )
    return {key: stored[key] for key in transferred}


def load_pretrained_main_branch(network: nn.Module, file: Path) -> None:
    """Fill a planned network as nnU-Net's load_pretrained_weights does, on any device.

    That one reads the file onto the GPU with the number of the global rank, which other machines
    than the first do not have.

    Raises:
        CheckpointError: see `read_pretrained_main_branch`.
    """
    main = unwrapped(network)
    main.load_state_dict(main.state_dict() | read_pretrained_main_branch(main, file))
