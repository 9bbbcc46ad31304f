import errno
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.whole_file import WriteError
from nnunetv2_spmc.inference.case_maps import CaseMaps
from nnunetv2_spmc.inference.map_files import read_stored_maps, write_maps
from tests.damaged_files import halved
from tests.full_disk import file_size_limit

OBLIQUE = (0.0, -1.0, 0.0, 0.8, 0.0, -0.6, 0.6, 0.0, 0.8)  # an axis swap and a tilt


def maps_of(array, properties):
    """Maps that hold the image itself, so that a written file must equal the image file."""
    labels = array.astype(np.uint8)
    return CaseMaps(
        segmentation=labels,
        confidence=(array / 300).astype(np.float32),
        entropy=np.zeros_like(array),
        second=labels,
        second_name="auxiliary",
        second_confidence=None,
        suspicious=labels % 4,
        common_difficulty=labels > 100,
        properties=properties,
    )


@pytest.mark.parametrize(
    "reader_class", [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient]
)
def test_maps_lie_where_the_image_lies(reader_class, tmp_path, write_volume):
    image = write_volume(
        tmp_path / "case_0000.nii.gz",
        np.random.default_rng(0).integers(0, 200, (4, 6, 8)).astype(np.uint8),
        spacing=(0.7, 0.8, 2.5),
        origin=(-10, 20, 5),
        direction=OBLIQUE,
    )
    reader = reader_class()
    array, properties = reader.read_images([str(image)])
    files = write_maps(tmp_path / "out", "case", maps_of(array[0], properties), reader, ".nii.gz")
    expected = nibabel.load(image)
    for file in files:
        written = nibabel.load(file)
        assert np.allclose(written.affine, expected.affine, atol=1e-4), file
        assert written.shape == expected.shape
    confidence = nibabel.load(tmp_path / "out/confidence/case.nii.gz")
    assert confidence.get_data_dtype() == np.float32
    assert np.allclose(confidence.get_fdata(), expected.get_fdata() / 300, atol=1e-6)
    segmentation = nibabel.load(tmp_path / "out/case.nii.gz")
    assert np.array_equal(segmentation.get_fdata(), expected.get_fdata())
    difficulty = nibabel.load(tmp_path / "out/common_difficulty/case.nii.gz")
    assert np.array_equal(difficulty.get_fdata(), expected.get_fdata() > 100)


def test_the_segmentation_comes_last(tmp_path, write_volume):
    """A killed process must not leave a case that looks finished."""
    image = write_volume(tmp_path / "case_0000.nii.gz", seed=0)
    array, properties = SimpleITKIO().read_images([str(image)])
    files = write_maps(
        tmp_path / "out", "case", maps_of(array[0], properties), SimpleITKIO(), ".nii.gz"
    )
    names = [str(file.relative_to(tmp_path / "out")) for file in files]
    assert sorted(names[:-1]) == [
        "auxiliary/case.nii.gz",
        "common_difficulty/case.nii.gz",
        "confidence/case.nii.gz",
        "suspicious/case.nii.gz",
    ]
    assert names[-1] == "case.nii.gz"


def test_pictures_get_their_confidence_as_tif(tmp_path):
    from skimage import io

    array = np.arange(48, dtype=np.float32).reshape(1, 6, 8)
    maps = maps_of(array, {"spacing": (999, 1, 1)})
    write_maps(tmp_path, "case", maps, NaturalImage2DIO(), ".png")
    assert np.allclose(io.imread(tmp_path / "confidence/case.tif"), array[0] / 300)
    assert np.array_equal(io.imread(tmp_path / "case.png"), array[0])


def test_2d_images_of_itk_stay_2d(tmp_path):
    image = sitk.GetImageFromArray(np.ones((6, 8), np.float32))
    image.SetSpacing((0.5, 0.25))
    sitk.WriteImage(image, str(tmp_path / "case_0000.mha"))
    array, properties = SimpleITKIO().read_images([str(tmp_path / "case_0000.mha")])
    write_maps(tmp_path / "out", "case", maps_of(array[0], properties), SimpleITKIO(), ".mha")
    confidence = sitk.ReadImage(str(tmp_path / "out/confidence/case.mha"))
    assert confidence.GetSize() == (8, 6)
    assert confidence.GetSpacing() == (0.5, 0.25)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd", ".png", ".bmp", ".tif", ".tiff"])
def test_a_map_cut_at_any_byte_is_not_published(ending, tmp_path):
    """The writers of NIfTI and BMP are silent anywhere, that of NRRD about its last bytes."""
    shape = (1, 60, 80) if ending in (".png", ".bmp", ".tif") else (8, 30, 20)
    array = np.random.default_rng(0).integers(0, 250, shape).astype(np.float32)
    properties = {"spacing": (1, 1, 1)}
    reader: BaseReaderWriter = NaturalImage2DIO() if shape[0] == 1 else Tiff3DIO()
    if ending in (".nii.gz", ".mha", ".nrrd"):
        image = sitk.GetImageFromArray(array)
        geometry = {"direction": image.GetDirection()}
        geometry |= {"spacing": image.GetSpacing(), "origin": image.GetOrigin()}
        properties["sitk_stuff"], reader = geometry, SimpleITKIO()
    write = partial(write_maps, tmp_path, "case", maps_of(array, properties), reader, ending)
    sizes = [file.stat().st_size for file in write()]
    shutil.rmtree(tmp_path)
    for size in (100, min(sizes), max(sizes) // 2, max(sizes) - 100, max(sizes) - 10):
        with file_size_limit(size), pytest.raises(WriteError, match="file too large") as raised:
            write()
        assert f"{tmp_path}/" in str(raised.value)
        assert "writing-" not in str(raised.value)
        assert list(tmp_path.iterdir()) == []
    with file_size_limit(max(sizes)):
        write()


def test_nothing_half_written_stays(tmp_path, write_volume):
    image = write_volume(tmp_path / "case_0000.nii.gz", seed=0)
    array, properties = SimpleITKIO().read_images([str(image)])

    class OtherVoxels(SimpleITKIO):
        def write_seg(self, seg, output_fname, properties):
            super().write_seg(seg * 0, output_fname, properties)

    class Unmounted(SimpleITKIO):
        def write_seg(self, seg, output_fname, properties):
            raise OSError(errno.ENODEV, "No such device")

    for writer, reason in ((OtherVoxels(), "in part only"), (Unmounted(), "No such device")):
        with pytest.raises(WriteError, match=reason):
            write_maps(tmp_path / "out", "case", maps_of(array[0], properties), writer, ".nii.gz")
        assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    "reader_class", [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient]
)
def test_stored_maps_are_read_as_they_were(reader_class, write_volume, tmp_path):
    reader = reader_class()
    file = write_volume(tmp_path / "scan_0000.nii.gz", seed=1, direction=OBLIQUE)
    array, properties = reader.read_images([str(file)])
    maps = maps_of(array[0], properties)
    write_maps(tmp_path / "out", "scan", maps, reader, ".nii.gz")
    stored = read_stored_maps(tmp_path / "out", "scan", reader, ".nii.gz")
    assert np.allclose(stored.confidence, maps.confidence)
    assert np.array_equal(stored.common_difficulty, maps.common_difficulty)


def test_stored_maps_of_a_tiff_are_read(tmp_path):
    array = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    maps = replace(maps_of(array, {"spacing": (1, 1, 1)}), common_difficulty=None)
    write_maps(tmp_path, "scan", maps, Tiff3DIO(), ".tif")
    stored = read_stored_maps(tmp_path, "scan", Tiff3DIO(), ".tif")
    assert np.allclose(stored.confidence, maps.confidence)
    assert stored.common_difficulty is None


def test_maps_that_are_absent_or_too_old_are_not_read(write_volume, tmp_path):
    reader = SimpleITKIO()
    array, properties = reader.read_images([str(write_volume(tmp_path / "a_0000.nii.gz", seed=1))])
    write_maps(tmp_path / "out", "a", maps_of(array[0], properties), reader, ".nii.gz")
    written = (tmp_path / "out" / "confidence" / "a.nii.gz").stat().st_mtime
    assert read_stored_maps(tmp_path / "out", "a", reader, ".nii.gz", written) is not None
    assert read_stored_maps(tmp_path / "out", "a", reader, ".nii.gz", written + 1) is None
    assert read_stored_maps(tmp_path / "out", "b", reader, ".nii.gz") is None


@pytest.fixture
def stored(write_volume, tmp_path):
    """A folder with the maps of case a, and what reads them."""
    reader = SimpleITKIO()
    array, properties = reader.read_images([str(write_volume(tmp_path / "a_0000.nii.gz", seed=1))])
    write_maps(tmp_path / "out", "a", maps_of(array[0], properties), reader, ".nii.gz")
    return tmp_path / "out", lambda **k: read_stored_maps(
        tmp_path / "out", "a", reader, ".nii.gz", **k
    )


def test_all_maps_of_a_case_have_one_time(stored):
    folder, _ = stored
    assert len({file.stat().st_mtime_ns for file in folder.rglob("a.nii.gz")}) == 1


def test_a_difficulty_map_of_an_earlier_model_is_not_read(stored):
    folder, read = stored
    written = (folder / "a.nii.gz").stat().st_mtime
    os.utime(folder / "common_difficulty" / "a.nii.gz", (written - 5, written - 5))
    maps = read(newer_than=written)
    assert maps.confidence is not None
    assert maps.common_difficulty is None


def test_maps_of_an_earlier_prediction_are_not_read(stored):
    folder, read = stored
    assert read().common_difficulty is not None
    later = (folder / "a.nii.gz").stat().st_mtime + 5
    os.utime(folder / "a.nii.gz", (later, later))  # nnUNetv2_predict wrote it again, for example
    assert read() is None


@pytest.fixture
def write_again(stored, tmp_path):
    """Write maps of case a again, by a model that gives fewer of them."""
    reader = SimpleITKIO()
    array, properties = reader.read_images([str(tmp_path / "a_0000.nii.gz")])

    def write(**changed):
        maps = replace(maps_of(array[0], properties), **changed)
        return write_maps(tmp_path / "out", "a", maps, reader, ".nii.gz")

    return write


def test_maps_of_an_earlier_model_do_not_stay_next_to_new_ones(stored, write_again):
    folder, _ = stored
    other = shutil.copy(folder / "suspicious" / "a.nii.gz", folder / "suspicious" / "b.nii.gz")
    own = folder / "mine" / "a.nii.gz"
    own.parent.mkdir()
    shutil.copy(other, own)
    one = {"second": None, "second_name": "", "suspicious": None, "common_difficulty": None}
    written = write_again(**one)
    assert {f for f in folder.rglob("*") if f.is_file()} == {*written, Path(other), own}
    assert not (folder / "auxiliary").exists()


def test_the_map_of_a_branch_of_another_method_does_not_stay(stored, write_again):
    folder, _ = stored
    files = write_again(second_name="second")
    assert folder / "second" / "a.nii.gz" in files
    assert not (folder / "auxiliary").exists()


def test_an_earlier_map_that_cannot_be_removed_is_named(stored, write_again, monkeypatch):
    folder, _ = stored
    stays = folder / "suspicious" / "a.nii.gz"
    unlink = Path.unlink

    def refuse(path, *options, **keywords):
        if path == stays:
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(path, *options, **keywords)

    monkeypatch.setattr(Path, "unlink", refuse)
    before = (folder / "a.nii.gz").stat().st_mtime_ns
    with pytest.raises(WriteError, match=rf"{stays} is of an earlier model and cannot be removed"):
        write_again(suspicious=None)
    assert (folder / "a.nii.gz").stat().st_mtime_ns == before


def test_a_damaged_stored_map_is_named(write_volume, tmp_path):
    reader = SimpleITKIO()
    array, properties = reader.read_images([str(write_volume(tmp_path / "a_0000.nii.gz", seed=1))])
    write_maps(tmp_path / "out", "a", maps_of(array[0], properties), reader, ".nii.gz")
    file = tmp_path / "out" / "confidence" / "a.nii.gz"
    halved(file, file)
    with pytest.raises(DataError, match=f"{file} is truncated or damaged"):
        read_stored_maps(tmp_path / "out", "a", reader, ".nii.gz")
