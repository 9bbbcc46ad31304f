"""`nnUNetv2_spmc_convert`: bring a dataset into nnU-Net's raw layout with unlabeled cases."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from nnunetv2_spmc.cli.convert_parser import build_parser
from nnunetv2_spmc.cli.runner import command
from nnunetv2_spmc.dataset_conversion import acdc, brats, folder, la, phantom
from nnunetv2_spmc.dataset_conversion.folder_layout import FolderLayout
from nnunetv2_spmc.raw.summary import ConversionSummary
from nnunetv2_spmc.raw.writer import WriteOptions


@command()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the converter that the arguments name."""
    arguments = build_parser().parse_args(argv)
    print(CONVERTERS[arguments.converter](arguments))


def _options(arguments: argparse.Namespace) -> WriteOptions:
    return WriteOptions(
        overwrite=arguments.overwrite,
        processes=arguments.np,
        link=arguments.link,
        dry_run=arguments.dry_run,
    )


def _convert_folder(arguments: argparse.Namespace) -> ConversionSummary:
    channel_files = folder.parse_channel_files(arguments.channel_files)
    return folder.convert_folder(
        FolderLayout(
            images=arguments.i,
            labels=arguments.l,
            channels=tuple(arguments.channels or channel_files),
            channel_files=channel_files,
            label_file=arguments.label_file,
        ),
        folder.LabelDefinition(
            labels=folder.parse_labels(arguments.labels),
            label_map=folder.parse_label_map(arguments.map),
            regions_class_order=tuple(arguments.regions_class_order),
        ),
        folder.SplitRequest(
            test=folder.parse_selection(arguments.test),
            validation=folder.parse_selection(arguments.val),
            labeled=folder.parse_selection(arguments.labeled),
            group_by=arguments.group_by,
            seed=arguments.seed,
        ),
        dataset_id=arguments.d,
        name=arguments.n,
        options=_options(arguments),
    )


def _convert_la(arguments: argparse.Namespace) -> ConversionSummary:
    return la.convert_la(
        arguments.i,
        dataset_id=arguments.d,
        name=arguments.n,
        labeled=arguments.labeled,
        allow_missing=arguments.allow_missing,
        options=_options(arguments),
    )


def _convert_acdc(arguments: argparse.Namespace) -> ConversionSummary:
    return acdc.convert_acdc(
        arguments.i,
        dataset_id=arguments.d,
        name=arguments.n,
        labeled=arguments.labeled,
        use_4d_frames=arguments.use_4d_frames,
        allow_missing=arguments.allow_missing,
        options=_options(arguments),
    )


def _convert_brats(arguments: argparse.Namespace) -> ConversionSummary:
    return brats.convert_brats(
        arguments.i,
        dataset_id=arguments.d,
        name=arguments.n,
        labeled=arguments.labeled,
        modalities=arguments.modalities,
        target=arguments.target,
        allow_missing=arguments.allow_missing,
        seed=arguments.seed,
        options=_options(arguments),
    )


def _convert_phantom(arguments: argparse.Namespace) -> ConversionSummary:
    return phantom.convert_phantom(
        dataset_id=arguments.d,
        name=arguments.n,
        labeled=arguments.labeled,
        unlabeled=arguments.unlabeled,
        test=arguments.test,
        size=arguments.size,
        seed=arguments.seed,
        options=_options(arguments),
    )


CONVERTERS: dict[str, Callable[[argparse.Namespace], ConversionSummary]] = {
    "folder": _convert_folder,
    "la": _convert_la,
    "acdc": _convert_acdc,
    "brats": _convert_brats,
    "phantom": _convert_phantom,
}
