from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from skimage import io

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.pictures import PICTURE_ENDINGS
from nnunetv2_spmc.raw.scan import VOLUME_ENDINGS, check_scan, read_scan

SPACING, ORIGIN, TURN = (0.5, 0.5, 3.0), (4.0, -5.0, 6.0), (0, 1, 0, -1, 0, 0, 0, 0, 1)
WITH_DIRECTION = tuple(e for e in VOLUME_ENDINGS if not e.startswith((".gipl", ".vtk")))
# Which file holds the voxels where it is another one.
VOXELS = {".hdr": "scan.img", ".mhd": "scan.raw", ".nhdr": "scan.raw"}
COMPRESSED_VOXELS = {".mhd": "scan.zraw", ".nhdr": "scan.raw.gz", ".nrrd": "", ".mha": ""}


def voxels(dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).normal(0, 100, (6, 7, 8)).astype(dtype)


def write(path: Path, array: np.ndarray, *, compressed: bool = False) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING)
    image.SetOrigin(ORIGIN)
    if path.name.endswith(WITH_DIRECTION):
        image.SetDirection(TURN)
    sitk.WriteImage(image, str(path), compressed)
    return path


def refusal(file: Path, kind: str = "image") -> str:
    """What both functions say, which has to be the same."""
    said = set()
    for function in (check_scan, read_scan):
        with pytest.raises(DataError) as caught:
            function(file, kind=kind)
        said.add(str(caught.value))
    (sentence,) = said
    assert str(file.with_suffix("")) in sentence  # or the file with its voxels
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
def test_every_format_keeps_voxels_and_geometry(tmp_path, ending, dtype) -> None:
    array = voxels(dtype)
    file = write(tmp_path / f"scan{ending}", array)
    check_scan(file)
    image = read_scan(file)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), array)
    assert image.GetSpacing() == SPACING
    if not ending.startswith(".gipl"):  # its origin is that of voxel 0 without a direction
        np.testing.assert_allclose(image.GetOrigin(), ORIGIN)
    if ending in WITH_DIRECTION:
        np.testing.assert_allclose(image.GetDirection(), TURN, atol=1e-6)


@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
def test_every_format_is_read_with_its_ending_in_capitals(tmp_path, ending) -> None:
    array = voxels("int16")
    file = write(tmp_path / f"scan{ending}", array)
    for spelled in (ending.upper(), ending.title()):
        file = file.rename(tmp_path / f"scan{spelled}")
        check_scan(file)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read_scan(file)), array)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kept", [0.6, -1])
@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
def test_a_truncated_file_of_every_format_is_named(tmp_path, ending, kept, compressed) -> None:
    file = write(tmp_path / f"scan{ending}", voxels(), compressed=compressed)
    names = COMPRESSED_VOXELS if compressed and ending in COMPRESSED_VOXELS else VOXELS
    data = tmp_path / (names.get(ending) or file.name)
    content = data.read_bytes()
    data.write_bytes(content[: int(kept * len(content)) if kept > 0 else kept])
    said = refusal(file)
    assert f"{data} is truncated" in said or f"Cannot read {file}" in said


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
def test_nan_in_a_file_of_every_format_is_counted(tmp_path, ending, value) -> None:
    array = voxels()
    array[2, 3, 4:6] = value
    said = refusal(write(tmp_path / f"scan{ending}", array))
    assert "has 2 NaN or infinite voxels; replace them" in said


@pytest.mark.parametrize("ending", VOLUME_ENDINGS)
def test_a_constant_image_is_refused_and_an_empty_label_is_not(tmp_path, ending) -> None:
    file = write(tmp_path / f"scan{ending}", np.zeros((6, 7, 8), np.uint8))
    assert "is constant, all its voxels are 0" in refusal(file)
    check_scan(file, kind="label")
    assert read_scan(file, kind="label").GetSize() == (8, 7, 6)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".mhd", ".vtk"])
def test_several_values_per_voxel_are_counted(tmp_path, ending) -> None:
    image = sitk.Compose(*[sitk.GetImageFromArray(voxels("uint8"))] * 3)
    sitk.WriteImage(image, str(tmp_path / f"scan{ending}"))
    assert "has 3 values per voxel, expected 1" in refusal(tmp_path / f"scan{ending}")


def changed_header(tmp_path: Path, ending: str, old: str, new: str) -> Path:
    file = write(tmp_path / f"scan{ending}", voxels("int16"))
    text, number = re.subn(old.encode(), new.encode(), file.read_bytes(), count=1, flags=re.M)
    assert number == 1
    file.write_bytes(text)
    return file


@pytest.mark.parametrize("spacing", ["0 1 1", "-1 1 1", "nan 1 1", "1e-7 1 1", "1 1000 1"])
@pytest.mark.parametrize(
    ("ending", "key"),
    [(".mha", "ElementSpacing = "), (".mhd", "ElementSpacing = "), (".vtk", "SPACING ")],
)
def test_a_spacing_that_cannot_be_is_refused(tmp_path, ending, key, spacing) -> None:
    file = changed_header(tmp_path, ending, f"^{key}.*$", f"{key}{spacing}")
    assert "mm, expected 1e-06 to 1000 mm" in refusal(file)


@pytest.mark.parametrize("spacing", [(4e-6, 4e-6, 4e-5), (999, 1, 1), (0.1, 0.1, 70)])
def test_the_spacing_of_a_microscope_and_of_a_localizer_are_believed(tmp_path, spacing) -> None:
    image = sitk.GetImageFromArray(voxels())
    image.SetSpacing(spacing)
    for ending in (".nii.gz", ".nrrd"):
        sitk.WriteImage(image, str(tmp_path / f"scan{ending}"))
        check_scan(tmp_path / f"scan{ending}")


def test_axes_that_are_not_at_right_angles_are_refused(tmp_path) -> None:
    matrix = "TransformMatrix = "
    for cosines in ("1 0.2 0 0 1 0 0 0 1", "2 0 0 0 1 0 0 0 1", "0 0 0 0 1 0 0 0 1"):
        file = changed_header(tmp_path, ".mha", f"^{matrix}.*$", f"{matrix}{cosines}")
        assert "has axes that are not at right angles" in refusal(file)
    noise = changed_header(tmp_path, ".mha", f"^{matrix}.*$", f"{matrix}1 1e-4 0 0 1 0 0 0 1")
    check_scan(noise)


@pytest.mark.parametrize("key", ["Offset", "TransformMatrix"])
def test_nan_in_the_geometry_of_a_metaimage_is_named(tmp_path, key) -> None:
    file = changed_header(tmp_path, ".mha", f"^{key} = \\S+", f"{key} = nan")
    assert f"{key} = nan" in refusal(file)


@pytest.mark.parametrize(
    ("ending", "key", "size"),
    [
        (".mha", "DimSize = ", "30000 30000 30000"),
        (".mha", "DimSize = ", "2000000000 2000000000 2000000000"),
        (".mha", "DimSize = ", "8 7 -6"),
        (".mha", "DimSize = ", "8 7 0"),
        (".nrrd", "sizes: ", "30000 30000 30000"),
        (".vtk", "DIMENSIONS ", "30000 30000 30000"),
    ],
)
def test_a_size_that_the_file_cannot_hold_takes_no_memory(tmp_path, ending, key, size) -> None:
    file = changed_header(tmp_path, ending, f"^{key}.*$", f"{key}{size}")
    assert re.search("is truncated|damaged header", refusal(file))


@pytest.mark.parametrize(
    ("ending", "key"), [(".mha", "DimSize = "), (".nrrd", "sizes: "), (".vtk", "DIMENSIONS ")]
)
@pytest.mark.parametrize("size", ["8 7 5", "8 6 6", "7 7 6"])
def test_a_header_of_less_than_lies_there_is_refused(tmp_path, ending, key, size) -> None:
    file = changed_header(tmp_path, ending, f"^{key}.*$", f"{key}{size}")
    assert "more than the header speaks of" in refusal(file)


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha", ".gipl"])
def test_zeros_that_fill_a_block_are_no_mistake(tmp_path, ending) -> None:
    file = write(tmp_path / f"scan{ending}", voxels())
    file.write_bytes(file.read_bytes().ljust(4096, b"\0"))
    check_scan(file)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_scan(file)), voxels())


@pytest.mark.parametrize(
    ("ending", "key"), [(".mhd", "ElementDataFile = "), (".nhdr", "data file: ")]
)
@pytest.mark.parametrize("place", ["{folder}/scan.raw", "../inner/scan.raw", "sub/scan.raw", ".."])
def test_a_header_may_name_only_a_file_in_its_own_folder(tmp_path, ending, key, place) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    file = changed_header(inner, ending, f"^{key}.*$", key + place.format(folder=inner))
    assert "may name only a file in its own folder" in refusal(file)


@pytest.mark.parametrize("ending", [".mhd", ".nhdr", ".hdr"])
def test_a_header_without_its_voxels_is_named(tmp_path, ending) -> None:
    file = write(tmp_path / f"scan{ending}", voxels())
    (tmp_path / VOXELS[ending]).unlink()
    assert re.search("which is not there|and there is none", refusal(file))


def test_slices_that_a_header_lists_are_read(tmp_path) -> None:
    array = voxels("int16")
    file = write(tmp_path / "scan.mhd", array)
    names = [f"slice{k}.raw" for k in range(len(array))]
    for name, plane in zip(names, array, strict=True):
        (tmp_path / name).write_bytes(plane.tobytes())
    header = file.read_text().replace("scan.raw", "\n".join(["LIST 2", *names]))
    file.write_text(header)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_scan(file)), array)
    (tmp_path / names[-1]).write_bytes(b"12")
    assert "is truncated, 110 bytes are missing" in refusal(file)


def test_voxels_as_text_are_counted(tmp_path) -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    lines = ["# vtk DataFile Version 3.0", "scan", "ASCII", "DATASET STRUCTURED_POINTS"]
    lines += ["DIMENSIONS 4 3 2", "SPACING 1 1 1", "ORIGIN 0 0 0", "POINT_DATA 24"]
    lines += ["SCALARS scalars short 1", "LOOKUP_TABLE default", " ".join(map(str, range(24)))]
    vtk, nrrd = tmp_path / "scan.vtk", tmp_path / "scan.nrrd"
    vtk.write_text("\n".join(lines) + "\n")
    nrrd.write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 3 2\nencoding: ascii\n\n" + lines[-1]
    )
    for file in (vtk, nrrd):
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read_scan(file)), array)
        file.write_text(file.read_text().replace(" 22 23", ""))
        assert "is truncated, 2 numbers are missing" in refusal(file)


@pytest.mark.parametrize("ending", [".nii.gz", ".gipl.gz", ".nrrd", ".nhdr", ".mha", ".mhd"])
@pytest.mark.parametrize("place", [0.5, -2])
def test_a_changed_byte_of_compressed_voxels_is_found(tmp_path, ending, place) -> None:
    file = write(tmp_path / f"scan{ending}", voxels(), compressed=True)
    data = tmp_path / (COMPRESSED_VOXELS.get(ending) or file.name)
    content = bytearray(data.read_bytes())
    content[int(place * len(content)) if place > 0 else place] ^= 1
    data.write_bytes(content)
    assert re.search("is truncated or damaged|Cannot read", refusal(file))


def test_values_beyond_single_precision_are_infinite_to_nnunet(tmp_path) -> None:
    array = voxels("float64")
    array[0, 0, 0] = 1e300
    for ending in (".nrrd", ".nii.gz"):
        said = refusal(write(tmp_path / f"scan{ending}", array))
        assert "has 1 NaN or infinite voxels" in said


def test_values_that_single_precision_cannot_tell_apart_are_refused(tmp_path) -> None:
    array = 2**40 + np.arange(6 * 7 * 8, dtype=np.int64).reshape(6, 7, 8)
    for ending in (".nrrd", ".nii.gz"):
        assert "cannot tell apart" in refusal(write(tmp_path / f"scan{ending}", array))


@pytest.mark.parametrize("make", [Path.mkdir, lambda f: f.symlink_to("gone"), Path.touch, None])
def test_what_is_no_file_is_named(tmp_path, make: Callable[[Path], None] | None) -> None:
    file = tmp_path / "scan.nrrd"
    if make is not None:
        make(file)
    assert re.search("is a folder|is a link to gone|is empty|does not exist", refusal(file))


PICTURES = {
    "gray.png": (9, 11),
    "color.png": (9, 11, 3),
    "alpha.png": (9, 11, 4),
    "gray.bmp": (9, 11),
    "color.bmp": (9, 11, 3),
    "gray.tif": (9, 11),
    "color.tif": (9, 11, 3),
    "volume.tif": (6, 9, 11),
    "volume.tiff": (6, 9, 11),
    "zipped.tif": (6, 9, 11),
}


def write_picture(path: Path, dtype: str = "uint8") -> np.ndarray:
    array = np.random.default_rng(0).integers(1, 255, PICTURES[path.name.lower()]).astype(dtype)
    if path.name.startswith(("volume", "zipped")):
        zipped = "zlib" if path.name.startswith("zipped") else None
        tifffile.imwrite(path, array, compression=zipped, photometric="minisblack")
    else:
        io.imsave(path, array, check_contrast=False)
    return array


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_may_have_colors_and_tifs_may_be_volumes(tmp_path, name) -> None:
    write_picture(tmp_path / name)
    check_scan(tmp_path / name)
    capitals = (tmp_path / name).rename(tmp_path / name.upper())
    check_scan(capitals)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", PICTURES)
def test_a_truncated_picture_is_named(tmp_path, name, share) -> None:
    file = tmp_path / name
    write_picture(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=f"{name} is truncated or damaged") as caught:
        check_scan(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", [".png", ".bmp"])
def test_the_last_byte_of_a_picture_is_missed(tmp_path, ending) -> None:
    file = tmp_path / f"gray{ending}"
    write_picture(file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match="is truncated or damaged"):
        check_scan(file)


def test_nan_in_a_tif_and_a_constant_picture_are_found(tmp_path) -> None:
    volume, flat = tmp_path / "volume.tif", tmp_path / "flat.png"
    array = voxels()
    array[1, 2, 3] = np.nan
    tifffile.imwrite(volume, array)
    with pytest.raises(DataError, match=r"volume\.tif has 1 NaN or infinite voxels"):
        check_scan(volume)
    io.imsave(flat, np.full((9, 11), 7, np.uint8), check_contrast=False)
    with pytest.raises(DataError, match=r"flat\.png is constant"):
        check_scan(flat)
    check_scan(flat, kind="label")


def test_every_ending_of_pictures_is_known() -> None:
    assert {Path(name).suffix for name in PICTURES} <= set(PICTURE_ENDINGS)


def test_other_formats_are_left_to_their_readers(tmp_path) -> None:
    file = tmp_path / "scan.npy"
    file.write_bytes(b"whatever")
    check_scan(file)
    with pytest.raises(DataError, match="does not exist"):
        check_scan(tmp_path / "gone.npy")


def test_real_nrrd_files_are_read(shared_data) -> None:
    folder = shared_data / "odd"
    label = sitk.GetArrayFromImage(read_scan(folder / "breast1_label.nrrd", kind="label"))
    image = read_scan(folder / "breast1_image.nrrd")
    assert image.GetSize() == label.shape[::-1] == (45, 120, 21)
    assert np.unique(label).tolist() == [0, 1]


def test_a_nifti_2_is_left_to_nibabel(tmp_path, shared_data) -> None:
    check_scan(shared_data / "odd" / "example_nifti2.nii.gz")
    file = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti2Image(voxels(), np.eye(4)), file)
    check_scan(file)
    with pytest.raises(DataError, match=r"scan\.nii\.gz is a NIfTI-2 file, .* as NIfTI-1"):
        read_scan(file)
    file.write_bytes(file.read_bytes()[:-30])
    assert "is truncated or damaged" in refusal(file)


def test_a_pair_with_compressed_voxels_is_read(tmp_path) -> None:
    file = write(tmp_path / "scan.hdr", voxels())
    (tmp_path / "scan.img.gz").write_bytes(gzip.compress((tmp_path / "scan.img").read_bytes()))
    (tmp_path / "scan.img").unlink()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_scan(file)), voxels())
    content = (tmp_path / "scan.img.gz").read_bytes()
    (tmp_path / "scan.img.gz").write_bytes(content[:-9])
    assert "is truncated or damaged" in refusal(file)
