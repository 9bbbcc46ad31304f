"""Checkpoints: the stock content plus what only training needs, written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from nnunetv2_spmc.common.errors import DataError, SPMCError
from nnunetv2_spmc.common.whole_file import whole_file
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.training.as_data import ForeignCodeError, load, plain, refusal

CHECKPOINT_KEY = "semi_supervised"
FINAL, LATEST, BEST = (f"checkpoint_{name}.pth" for name in ("final", "latest", "best"))
ALLOW_CHANGED_VARIABLE = "nnUNet_spmc_allow_changed"


class CheckpointError(SPMCError, RuntimeError):
    """A checkpoint cannot be used for what was asked."""


def write_whole(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint under a temporary name, then move it into place.

    A process that is killed meanwhile leaves the previous file untouched.

    Raises:
        WriteError: there was no room for it, for example.
    """
    with whole_file(path) as temporary, temporary.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())


def write_with_own_state(nnunets: BytesIO, own: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint of nnU-Net with what this package adds, see `write_whole`.

    It holds plain types and tensors only.
    """
    nnunets.seek(0)
    write_whole(plain(load(nnunets) | {CHECKPOINT_KEY: dict(own)}), path)


def not_finite(weights: Mapping[str, Any]) -> list[str]:
    """Return the names of the weights that have NaN or infinite values."""
    return [name for name, tensor in weights.items() if not _is_finite(tensor)]


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    least, most = tensor.aminmax()  # NaN if one value is; needs no copy, unlike isfinite
    return bool(least.isfinite() & most.isfinite())


def check_finite(weights: Mapping[str, Any], path: Path, remedy: str) -> None:
    """Raise CheckpointError if weights have NaN or infinite values; names the tensors."""
    if bad := not_finite(weights):
        raise CheckpointError(
            f"{path} has NaN or infinite weights ({name_some(bad, limit=3)}); {remedy}."
        )


def all_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights of the main branch, and the tensors that this package added."""
    own = checkpoint.get(CHECKPOINT_KEY)
    return {**checkpoint["network_weights"], **dict(_tensors_in(own, CHECKPOINT_KEY))}


def _tensors_in(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _tensors_in(inner, f"{name}.{key}")


def read_checkpoint(path: Path, *, mmap: bool = True) -> dict[str, Any]:
    """Read a checkpoint of nnU-Net or of this package, as data: nothing in it is executed.

    Args:
        path: the file.
        mmap: leave the tensors on disk until they are used; their check sums are not looked at.

    Raises:
        ForeignCodeError: reading it would call what no checkpoint needs.
        DataError: the file is absent, damaged or no checkpoint.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {what}; finish the training, or name another checkpoint.")
    try:
        content = load(path, mmap=mmap)
        _check_content(content)
    except Exception as error:  # a damaged pickle may raise anything
        if foreign := refusal(path, error):
            raise foreign from None
        raise DataError(
            f"{path} is not a whole checkpoint of nnU-Net ({type(error).__name__}); copy it again, "
            "or name another checkpoint."
        ) from error
    return content


def _check_content(content: Any) -> None:
    """Raise a KeyError or a TypeError if it is not a checkpoint."""
    kinds = {"network_weights": Mapping, "init_args": Mapping, "trainer_name": str}
    for key, kind in kinds.items():
        if not isinstance(content[key], kind):
            raise TypeError(key)
    if not isinstance(content["init_args"]["configuration"], str):
        raise TypeError("configuration")
    weights = content["network_weights"].values()
    if not all(isinstance(tensor, Tensor) and not tensor.is_meta for tensor in weights):
        raise TypeError("network_weights")


def unreadable(path: Path, error: Exception) -> CheckpointError:
    """Return the error for a checkpoint that nnU-Net or PyTorch could not load."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, UnpicklingError):  # PyTorch's text is advice to load it unsafely
        reason = type(error).__name__
    if "state_dict" in reason or "state dict" in reason:
        return CheckpointError(
            f"{path} does not fit the network of this training ({reason}); use the plans, the "
            "configuration and the trainer that it was trained with."
        )
    is_empty = path.is_file() and path.stat().st_size == 0
    is_other = isinstance(error, (KeyError, TypeError))
    what = (
        "not a checkpoint of nnU-Net"
        if is_other
        else "empty"
        if is_empty
        else f"damaged ({reason})"
    )
    return CheckpointError(f"{path} is {what}; {_without(path)}.")


def _without(path: Path) -> str:
    """Say how to do without a checkpoint: what `--c` takes then."""
    order = (FINAL, LATEST, BEST)
    if path.name not in order:
        return "take another one"
    others = order[order.index(path.name) + 1 :]
    found = [name for name in others if (path.parent / name).is_file()]
    then = f"goes on from {found[0]}" if found else "starts the training again"
    return f"move it away, and --c {then}"


def read_resumable(path: Path) -> dict[str, Any]:
    """Read a checkpoint from which a training shall go on.

    Raises:
        CheckpointError: it is damaged; says how to do without it.
        ForeignCodeError: see `read_checkpoint`.
    """
    try:
        checkpoint = read_checkpoint(path)
    except ForeignCodeError:
        raise
    except DataError as error:
        if not path.is_file() or not isinstance(error.__cause__, Exception):
            raise
        raise unreadable(path, error.__cause__) from error
    own_state(checkpoint, path)
    return checkpoint


def check_resumed_weights(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError if a training cannot go on with the weights of `read_resumable`.

    Called after nnU-Net has loaded them, which finds damage by their check sums.
    """
    check_finite(all_weights(checkpoint), path, _without(path))


def read_extra_state(path: Path) -> dict[str, Any]:
    """Read what a trainer of this package added to the stock content.

    Raises:
        CheckpointError: the checkpoint comes from another kind of trainer, or from an
            unreleased version of this package; see also `read_resumable`.
    """
    return extra_state_of(read_resumable(path), path)


def extra_state_of(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return what `read_extra_state` does, of a checkpoint that has been read; raises as that."""
    if CHECKPOINT_KEY not in checkpoint:
        raise CheckpointError(
            f"{path} was written by {checkpoint.get('trainer_name', 'another program')} and has "
            "nothing of what this trainer stores, so it cannot go on from it: start again with "
            f"-pretrained_weights {path}, or move the file away."
        )
    return own_state(checkpoint, path)


def own_state(checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return what this package stored in a checkpoint; nothing if a stock trainer wrote it.

    Raises:
        CheckpointError: it is damaged, or has the form of an unreleased version, which did not name
            the method.
    """
    state: dict[str, Any] = checkpoint.get(CHECKPOINT_KEY, {})
    is_damaged = not isinstance(state, Mapping) or not all(
        isinstance(state.get(key, {}), Mapping) for key in ("parts", "settings")
    )
    if is_damaged:
        raise CheckpointError(f"{path} is damaged ({CHECKPOINT_KEY!r}); copy it again.")
    if state and "method" not in state:
        raise CheckpointError(
            f"{path} was written by an unreleased version of nnunetv2-spmc, whose form this "
            f"version does not read: train again, with -pretrained_weights {path} if you like."
        )
    return state


def check_method(state: Mapping[str, Any], method: str, path: Path) -> None:
    """Raise a CheckpointError if a checkpoint is of another method."""
    if state["method"] != method:
        raise CheckpointError(
            f"{path} was written by a trainer of {state['method']}, and this one is of {method}: "
            f"take that trainer, or start again with -pretrained_weights {path}."
        )


def next_epoch(path: Path) -> int:
    """Read the epoch with which a training goes on from a checkpoint."""
    return int(load(path, mmap=True)["current_epoch"])


def check_length(trained: int, epochs: int, path: Path) -> None:
    """Raise a CheckpointError if a checkpoint has more epochs than a training shall have."""
    if trained > epochs:
        raise CheckpointError(
            f"{path} has {trained} epochs of training, and the setting epochs is {epochs}: give it "
            "the number that the run had, or a larger one to train on."
        )


def reopen_finished(folder: Path, epochs: int) -> str:
    """Let the final checkpoint be the latest, because its training goes on; keep it, too.

    `--c` takes the final one first: a run that is stopped again would start from there again.

    Args:
        folder: of the fold.
        epochs: that are trained; under their number the checkpoint is kept.

    Returns:
        What was done, in a sentence.
    """
    final, kept = folder / FINAL, folder / f"checkpoint_epoch_{epochs}.pth"
    if not kept.exists():
        with whole_file(kept) as temporary:
            try:
                os.link(final, temporary)
            except OSError:  # a file system without links
                shutil.copyfile(final, temporary)
    os.replace(final, folder / LATEST)
    return f"The training of {epochs} epochs is kept as {kept.name}; it goes on as {LATEST}."


def refuse_to_resume(changes: str, log: Callable[[str], None]) -> None:
    """Refuse to continue a run that was started differently, or log that where it is allowed.

    Raises:
        CheckpointError: the environment does not allow it.
    """
    message = f"The run to continue was started differently: {changes}."
    if os.environ.get(ALLOW_CHANGED_VARIABLE, "0") != "1":
        raise CheckpointError(
            f"{message} Restore what it had, or set {ALLOW_CHANGED_VARIABLE}=1 to go on anyway."
        )
    log(f"{message} Going on because {ALLOW_CHANGED_VARIABLE}=1.")
