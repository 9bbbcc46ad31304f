"""Check pictures and tif volumes with the libraries by which nnU-Net reads them."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.raw.voxel_values import Kind, check_values

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
TIF_ENDINGS = (".tif", ".tiff")
# what tifffile says of a file from which it then reads fewer pages than there were
DAMAGE = re.compile(r"invalid page offset|corrupted|failed to reshape|invalid offset")
PNG_END = b"IEND\xaeB`\x82"


def check_picture(file: Path, *, kind: Kind) -> None:
    """Read a picture; it may have colors, and a tif may be a volume.

    Raises:
        DataError: If it is truncated or damaged, has NaN voxels, or as an image only one value.
    """
    is_tif = file.suffix.lower() in TIF_ENDINGS
    try:
        array = _read_tif(file) if is_tif else _read_picture(file)
    except Exception as error:  # these libraries raise all kinds
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{file} is truncated or damaged ({lines[-1]}); get it again") from error
    if array.dtype.kind not in "bui" and array.dtype not in (np.float16, np.float32, np.float64):
        raise DataError(
            f"{file} has voxels of type {array.dtype}, from which nnU-Net makes no image; convert "
            "them to float32"
        )
    has_colors = array.ndim == 3 and array.shape[-1] in (3, 4)
    if not (array.ndim == 2 or has_colors or (is_tif and array.ndim == 3)):
        raise DataError(
            f"{file} has the shape {array.shape}; nnU-Net reads gray pictures, pictures with three "
            "or four colors, and volumes in tif files"
        )
    check_values(array, str(file), kind)


def _read_picture(file: Path) -> np.ndarray:
    from skimage import io

    content = file.read_bytes()
    ending = file.suffix.lower()
    # the last bytes, for which the library does not look
    is_cut = (ending == ".png" and PNG_END not in content) or (
        ending == ".bmp" and int.from_bytes(content[2:6], "little") > len(content)
    )
    if is_cut:
        raise ValueError("its end is missing")
    return np.asarray(io.imread(file))


def _read_tif(file: Path) -> np.ndarray:
    import tifffile

    said: list[str] = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tifffile")
    logger.addHandler(listener)
    propagate, logger.propagate = logger.propagate, False
    try:
        array = np.asarray(tifffile.imread(file))
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagate
    for message in said:
        if DAMAGE.search(message):
            raise ValueError(message)
    return array
