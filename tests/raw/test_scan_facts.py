from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetv2_spmc.raw.scan_facts import facts_of_files


def digest_of(file: Path) -> str:
    (digest,) = facts_of_files([str(file)]).digests
    return digest


def write(file: Path, seed: int = 0) -> Path:
    array = np.random.default_rng(seed).normal(0, 100, (4, 5, 6)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(file))
    return file


def put_a_pipe(file: Path) -> None:
    os.mkfifo(file)


def put_a_folder(file: Path) -> None:
    file.mkdir()


def put_a_link_to_nothing(file: Path) -> None:
    file.symlink_to("gone.nii.gz")


@pytest.mark.parametrize("put", [put_a_pipe, put_a_folder, put_a_link_to_nothing])
def test_what_is_no_file_equals_nothing_else(tmp_path, put) -> None:
    files = [tmp_path / f"{name}_0000.nii.gz" for name in "ab"]
    for file in files:
        put(file)
    assert digest_of(files[0]) != digest_of(files[1])
    assert facts_of_files([str(files[0])]).size == ()


def test_a_header_of_more_voxels_than_the_file_can_hold_takes_no_memory(tmp_path) -> None:
    file = write(tmp_path / "a_0000.nii.gz")
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[42:48] = struct.pack("<3h", 20000, 20000, 20000)
    file.write_bytes(gzip.compress(bytes(content)))
    assert facts_of_files([str(file)]).size == ()
    assert digest_of(file)


@pytest.mark.parametrize("ending", [".MHD", ".NHDR", ".HDR", ".NRRD"])
def test_endings_in_capitals_are_read_with_their_voxels(tmp_path, ending) -> None:
    file = write(tmp_path / f"a_0000{ending.lower()}")
    before = digest_of(file)
    assert facts_of_files([str(file)]).size == (6, 5, 4)
    assert digest_of(file.rename(file.with_name(f"a_0000{ending}"))) == before
