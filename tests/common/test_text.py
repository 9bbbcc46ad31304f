from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.text import check_name, is_utf8, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_says_the_encoding(tmp_path, encoding) -> None:
    (tmp_path / "list.txt").write_text("Käse\n", encoding=encoding)
    assert read_text(tmp_path / "list.txt") == "Käse\n"


def test_big_endian_utf16_is_read_as_well(tmp_path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xfe\xff" + "Käse".encode("utf-16-be"))
    assert read_text(tmp_path / "list.txt") == "Käse"


@pytest.mark.parametrize("content", [b"\xff\xfea", b"a\xe4b", b"a\0b", b"\xef\xbb\xbf\xff"])
def test_what_is_no_text_is_a_sentence(tmp_path, content) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"list\.txt is no.* save it as UTF-8\.$"):
        read_text(tmp_path / "list.txt")


def test_a_name_of_other_bytes_is_refused_and_shown() -> None:
    name = Path(os.fsdecode(b"/scans/c\xff.nii.gz"))
    assert not is_utf8(name)
    with pytest.raises(DataError, match=r"The name /scans/c\\xff\.nii\.gz is not UTF-8; rename"):
        check_name(name)
    check_name(Path("/scans/Käse 胝\n.nii.gz"))
