"""Text that people and other programs wrote: names of files, lists, tables."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

from nnunetv2_spmc.common.errors import DataError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def is_utf8(name: str | Path) -> bool:
    """Say whether a name is text; Python keeps bytes of others, which many a library dies of."""
    try:
        os.fspath(name).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_name(path: Path, error: type[DataError] = DataError) -> None:
    """Raise an error if a path is not text: SimpleITK would end the process."""
    if not is_utf8(path):
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise error(f"The name {shown} is not UTF-8; rename the file or the folder")


def read_text(file: Path) -> str:
    """Return what is in a file of text: UTF-8, or whatever its byte order mark says.

    Raises:
        DataError: it is not text, or is in another encoding.
    """
    content = file.read_bytes()
    encoding = next((e for mark, e in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not UTF-8 ({_place(content, error)}); save it as UTF-8."
        ) from error
    if "\0" in text:
        raise DataError(f"{file} is not text: it has NUL bytes; save it as UTF-8.")
    return text


def _place(content: bytes, error: UnicodeDecodeError) -> str:
    line = content.count(b"\n", 0, error.start) + 1
    return f"byte 0x{content[error.start]:02x} in line {line}"
