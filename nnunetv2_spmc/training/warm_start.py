"""Warm start: what the parts of a training network take from pretrained weights.

nnU-Net fills the main branch from -pretrained_weights, all of it but the segmentation layers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nnunetv2_spmc.common.errors import SPMCError
from nnunetv2_spmc.networks.unwrap import unwrapped
from nnunetv2_spmc.training.checkpoint import (
    CHECKPOINT_KEY,
    CheckpointError,
    all_weights,
    check_finite,
    own_state,
    read_checkpoint,
)
from nnunetv2_spmc.training.weights import MAIN_PREFIX, part_weights

SEGMENTATION_LAYERS = ".seg_layers."  # other labels have other ones; nnU-Net does not transfer them


def pretrained_weights_file(arguments: Sequence[str] | None = None) -> Path | None:
    """Return the file behind -pretrained_weights on the command line: nnU-Net tells no trainer."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        name, _, value = argument.partition("=")
        if name == "-pretrained_weights" and (value or following):
            return Path(value or following)
    return None


def source_of_weights(arguments: Sequence[str] | None = None) -> str:
    """Return the file that a new training starts from; '' where it starts from none.

    With --c and --val the checkpoint knows it.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    file = pretrained_weights_file(arguments)
    return "" if file is None or {"--c", "--val"} & set(arguments) else str(file.absolute())


def has_seen_validation_cases(source: str, dataset_name: str, fold: int | str) -> str:
    """Say that weights come from another fold of the dataset, with other validation cases.

    Args:
        source: a checkpoint, which nnU-Net keeps as DATASET/MODEL/fold_K/FILE; or ''.
        dataset_name: that is trained on now.
        fold: that is trained now.
    """
    folder = Path(source).parent
    is_of_dataset = folder.parent.parent.name == dataset_name and folder.name.startswith("fold_")
    if fold == "all" or not is_of_dataset or folder.name == f"fold_{fold}":
        return ""
    return (
        f"the pretrained weights come from {folder.name}, which was trained on validation cases of "
        f"fold_{fold} with their labels, so the validation Dice is too good; start from fold_{fold}"
    )


def weights_have_seen(
    source: str, dataset_name: str, fold: int | str, cases: Collection[str]
) -> bool:
    """Tell whether weights, or those that they came from in turn, have seen validation cases.

    Args:
        source: a checkpoint, or ''.
        dataset_name: whose cases they are.
        fold: that they are validation cases of.
        cases: the validation cases; they may have been unlabeled cases of the same fold.
    """
    followed: set[str] = set()
    while source and source not in followed:
        followed.add(source)
        if has_seen_validation_cases(source, dataset_name, fold):
            return True
        file = Path(source)
        try:
            state = own_state(read_checkpoint(file), file)
        except SPMCError:  # it is gone, or stands elsewhere now
            return False
        is_of_dataset = file.parent.parent.parent.name == dataset_name
        if is_of_dataset and not set(cases).isdisjoint(state.get("unlabeled_cases", ())):
            return True
        source = str(state.get("pretrained_weights", ""))
    return False


def watch_loading(main: nn.Module) -> Callable[[], bool]:
    """Return whether the main branch was loaded since, from pretrained weights or a checkpoint."""
    loaded = []

    def note(*_: Any) -> None:  # a function, because copies of the network copy bound methods
        loaded.append(True)

    main.register_load_state_dict_post_hook(note)
    return lambda: bool(loaded)


def fill_parts(network: nn.Module, file: Path | None = None) -> str:
    """Fill what a training network has besides `main`, which is filled already; say from what.

    Parts are taken from the checkpoint if it has the same ones. Else a tensor PART.NAME or
    PART_NAME is taken from NAME of the main branch, the longest there is. Segmentation layers are
    left out. What gets no gradient is taken from the main branch first: a teacher is its student.

    Args:
        network: the training network.
        file: a checkpoint; None takes that of the command line.
    """
    own = part_weights(network)
    if not own:
        return "Warm start: nothing outside the main branch to fill."
    file = pretrained_weights_file() if file is None else file
    stored: Mapping[str, Any] = {}
    if file is not None and file.is_file():
        checkpoint = read_checkpoint(file)
        stored = checkpoint.get(CHECKPOINT_KEY, {}).get("parts", {})
    main = network.get_submodule(MAIN_PREFIX[:-1]).state_dict()
    named = network.named_parameters(remove_duplicate=False)
    learned = {name for name, parameter in named if parameter.requires_grad}
    the_same, the_main = f"the same parts in {file}", "the main branch"
    taken: dict[str, Tensor] = {}
    counts = {the_same: 0, the_main: 0}
    for key, tensor in own.items():
        if key in learned and SEGMENTATION_LAYERS in key:
            continue
        candidates = {the_same: stored.get(key), the_main: _counterpart(key, main)}
        order = (the_same, the_main) if key in learned else (the_main, the_same)
        for source in order:
            weights = candidates[source]
            if weights is not None and weights.shape == tensor.shape:
                taken[key] = weights
                counts[source] += 1
                break
    filled = [f"{number} from {source}" for source, number in counts.items() if number]
    network.load_state_dict(taken, strict=False)
    return (
        f"Warm start: {len(taken)} of {len(own)} tensors outside the main branch were filled"
        f"{': ' if filled else ''}{', '.join(filled)}."
    )


def _counterpart(key: str, main: Mapping[str, Tensor]) -> Tensor | None:
    """Return the tensor of the main branch with whose name a key ends."""
    starts = [match.end() for match in re.finditer(r"[._]", key)]
    return next((main[key[start:]] for start in starts if key[start:] in main), None)


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
        CheckpointError: there is no such checkpoint, its weights are not finite, or it is of
            another architecture; names the first tensor that differs.
        DataError: it is damaged, or more than data.
    """
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; give -pretrained_weights a checkpoint.")
    checkpoint = read_checkpoint(file, mmap=False)
    check_finite(all_weights(checkpoint), file, "give -pretrained_weights another checkpoint")
    stored = checkpoint["network_weights"]
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
