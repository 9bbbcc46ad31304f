"""The arguments of `nnUNetv2_spmc_convert folder`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from nnunetv2_spmc.dataset_conversion.arguments import absolute_path, add_input, add_link
from nnunetv2_spmc.dataset_conversion.split_request import add_split
from nnunetv2_spmc.raw.cases import ConversionError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what this converter has and others do not."""
    add_input(parser, "folder of images: files, DICOM folders, or a folder for each case")
    _add_channels(parser)
    _add_classes(parser)
    _add_labels(parser)
    add_split(parser)
    add_link(parser)


def _add_channels(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    channels = add(
        "--channels",
        nargs="+",
        required=True,
        metavar="NAME",
        help="channel names; nnU-Net normalizes CT by intensity statistics and other channels by "
        "z-score. Leave this out if --channel_files names the channels",
    )
    add(
        "--channel_files",
        nargs="+",
        action=NamesChannels,
        channels=channels,
        default=(),
        metavar="NAME=PATTERN",
        help="for one folder per case: the file of each channel, such as t1='*_t1.nii.gz'",
    )


def _add_labels(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "folder of label files, named like the cases (default: the folder of images)"
    add("-l", type=absolute_path, metavar="LABELS", help=text)
    add(
        "--label_suffix",
        metavar="SUFFIX",
        help="what follows the case's name in the name of its label, such as _seg; with a hyphen, "
        "write --label_suffix=-seg (default: common ones such as _seg, _label, _mask, _gt)",
    )
    add(
        "--label_file",
        metavar="PATTERN",
        help="the label of a case: a file in the case's folder in -l or, without -l, next to its "
        "images; or a file in -l itself, such as '*_seg.nii.gz', where the case's name replaces "
        "the first *",
    )
    add(
        "--label_files",
        nargs="+",
        default=(),
        metavar="NAME=PATTERN",
        help="one mask for each class, 0 outside and 1 or 255 inside, found as with --label_file, "
        "such as liver='segmentations/liver.nii.gz'",
    )
    text = "if masks of --label_files overlap, let the later one count (default: refuse them)"
    add("--later_mask_counts", action="store_true", help=text)
    text = "change label values, for example 255=1"
    add("--map", nargs="+", default=(), metavar="OLD=NEW", help=text)
    text = "give a label its image's header if the shapes agree, whatever its own header says"
    add("--trust_label_grid", action="store_true", help=text)


def _add_classes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--labels",
        nargs="+",
        required=True,
        metavar="NAME=VALUE",
        help="classes, for example background=0 liver=1; a region has several values: whole=1,2,3",
    )
    parser.add_argument(
        "--regions_class_order",
        nargs="+",
        type=int,
        default=(),
        metavar="VALUE",
        help="the label value that each region is written as, in order (only with regions)",
    )


class NamesChannels(argparse.Action):
    """An option that names the channels too: --channels may be left out then."""

    def __init__(self, *args: Any, channels: argparse.Action, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.channels = channels

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Keep the values."""
        setattr(namespace, self.dest, values)
        self.channels.required = False


def parse_labels(items: Iterable[str]) -> dict[str, int | tuple[int, ...]]:
    """Read ['background=0', 'liver=1', 'whole=1,2'] as label definition."""
    labels: dict[str, int | tuple[int, ...]] = {}
    for name, value in _pairs(items, "--labels").items():
        try:
            numbers = tuple(int(number) for number in value.split(","))
        except ValueError as error:
            raise ConversionError(
                f"--labels {name}={value}: {value!r} is not an integer."
            ) from error
        labels[name] = numbers[0] if len(numbers) == 1 else numbers
    return labels


def parse_label_map(items: Iterable[str]) -> dict[int, int]:
    """Read ['255=1'] as {255: 1}."""
    try:
        return {int(old): int(new) for old, new in _pairs(items, "--map").items()}
    except ValueError as error:
        raise ConversionError(f"--map takes integers, OLD=NEW, got {list(items)}.") from error


def parse_channel_files(items: Iterable[str]) -> dict[str, str]:
    """Read ['flair=*_flair.nii.gz'] as {'flair': '*_flair.nii.gz'}."""
    return _pairs(items, "--channel_files")


def parse_label_files(items: Iterable[str]) -> dict[str, str]:
    """Read ['liver=segmentations/liver.nii.gz'] as a pattern by class."""
    return _pairs(items, "--label_files")


def _pairs(items: Iterable[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not (name and separator and value):
            raise ConversionError(f"{option} takes NAME=VALUE, got {item!r}.")
        if name in pairs:
            raise ConversionError(f"{option} names {name} twice.")
        pairs[name] = value
    return pairs
