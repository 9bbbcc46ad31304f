"""What a training step consists of, as the base hands it to a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nnunetv2_spmc.losses import LabelSpace, is_single_class, share
from nnunetv2_spmc.networks.unwrap import Logits, full_resolution
from nnunetv2_spmc.training.views import View

Target: TypeAlias = Tensor | list[Tensor]
Outputs: TypeAlias = Any  # of a training network: `Logits`, or a tuple of those of its branches
Loss: TypeAlias = tuple[Tensor, dict[str, Tensor]]  # to minimize; scalars to log
Pass: TypeAlias = Callable[[], Loss]  # one forward pass; the base passes its loss backward


class Labeled(NamedTuple):
    """Labeled patches.

    `images` are (B, channels, ...); `target` is nnU-Net's: (B, 1, ...) labels or region channels,
    a list of them under deep supervision; `ignored` is bool, (B, 1, ...): the voxels under the
    ignore label where these count as unlabeled ones, else None.
    """

    images: Tensor
    target: Target
    ignored: Tensor | None = None


class Unlabeled(NamedTuple):
    """Unlabeled patches.

    `images` are (B, channels, ...); `weak` the same without intensity augmentation, for the
    teacher, None where the settings ask for none and once the view has been applied; `valid` is
    bool, (B, 1, ...): the voxels that count, None for all; `pseudo` what `pseudo_labels` returned,
    moved with the view.
    """

    images: Tensor
    weak: Tensor | None = None
    valid: Tensor | None = None
    pseudo: Mapping[str, Tensor] = {}

    @property
    def for_teacher(self) -> Tensor:
        """The images without intensity augmentation, if there are such."""
        return self.images if self.weak is None else self.weak


class Step(NamedTuple):
    """A step: its patches (no unlabeled ones before the ramp-up), lambda(t), and t."""

    labeled: Labeled
    unlabeled: Unlabeled | None
    weight: float
    iteration: int


def on_device(data: Any, device: torch.device) -> Any:
    """Copy the tensors in dicts and lists to a device; everything else stays as it is."""
    if isinstance(data, dict):
        return {key: on_device(value, device) for key, value in data.items()}
    if isinstance(data, list):
        return [on_device(item, device) for item in data]
    return data.to(device, non_blocking=True) if isinstance(data, Tensor) else data


def seen_through(
    view: View,
    unlabeled: Unlabeled,
    labeled: Labeled,
    space: LabelSpace,
    as_pseudo_labels: Callable[[str, Tensor], Tensor],
) -> Unlabeled:
    """Apply a view to unlabeled patches; a pasted box brings its labels and what of it counts.

    Args:
        view: drawn for these patches.
        unlabeled: patches with pseudo-labels.
        labeled: the patches from which boxes are pasted.
        space: what their labels mean.
        as_pseudo_labels: of a name and a target -> what a box brings among the pseudo-labels.

    Raises:
        ValueError: that has another number of channels than the pseudo-labels.
    """
    images = view.apply(unlabeled.images, labeled.images)
    pseudo = {}
    for name, values in unlabeled.pseudo.items():
        of_labels = as_pseudo_labels(name, _of_resolution(labeled.target, values))
        if of_labels.shape[1] != values.shape[1]:
            raise ValueError(
                f"The pseudo-labels {name!r} have {values.shape[1]} channels, those of labels "
                f"{of_labels.shape[1]}: labels_as_pseudo_labels must return as many."
            )
        pseudo[name] = view.apply(values, of_labels)
    valid, ignored = unlabeled.valid, space.ignored(full_resolution(labeled.target))
    if valid is not None or ignored is not None:
        like = unlabeled.images[:, :1]
        valid = torch.ones_like(like, dtype=torch.bool) if valid is None else valid
        of_labeled = torch.ones_like(labeled.images[:, :1], dtype=torch.bool)
        valid = view.apply(valid, of_labeled if ignored is None else ~ignored)
    return Unlabeled(images, None, valid, pseudo)


def labeled_through(view: View, images: Tensor, target: Target) -> tuple[Tensor, Target]:
    """Apply a view to labeled patches and their targets of all resolutions."""
    if isinstance(target, list):
        return view.apply(images), [view.apply(scale) for scale in target]
    return view.apply(images), view.apply(target)


def of_resolutions(target: Target, outputs: Logits) -> Target:
    """Sample a target of full resolution for each output of deep supervision; leave others."""
    if isinstance(outputs, list) and not isinstance(target, list):
        return [sampled_at(target, output) for output in outputs]
    return target


def sampled_at(target: Tensor, output: Tensor) -> Tensor:
    """Sample a target at the resolution of an output as nnU-Net samples its own."""
    if target.shape[2:] == output.shape[2:]:
        return target
    sampled = interpolate(target.float(), output.shape[2:], mode="nearest-exact")
    return sampled.to(target.dtype)


def branch_values(predicted: Mapping[str, Tensor], valid: Tensor | None) -> dict[str, Tensor]:
    """Say how far branches agree, and whether one predicts a single class.

    Args:
        predicted: branch -> what it predicts, from `LabelSpace.predicted`.
        valid: bool, (B, 1, ...): the voxels that count; None takes all.
    """
    first, *others = predicted.values()
    values = {}
    if others:
        agreed = first == others[0]
        for other in others[1:]:
            agreed &= first == other
        values["agreement"] = share(agreed, valid)
    for branch, labels in predicted.items():
        values[f"single_class_{branch}"] = is_single_class(labels, valid)
    return values


def merged(results: Sequence[Loss]) -> dict[str, Tensor]:
    """Return the values of all passes and their "total_loss"; shares of a value are summed."""
    values: dict[str, Tensor] = {}
    for _, own in results:
        for key, value in own.items():
            values[key] = values[key] + value if key in values else value
    return values | {"total_loss": torch.stack([loss for loss, _ in results]).sum()}


def _of_resolution(target: Target, values: Tensor) -> Tensor:
    scales = target if isinstance(target, list) else [target]
    for scale in scales:
        if scale.shape[2:] == values.shape[2:]:
            return scale
    shapes = [tuple(scale.shape[2:]) for scale in scales]
    raise ValueError(f"Pseudo-labels of {tuple(values.shape[2:])} voxels fit no target: {shapes}.")
