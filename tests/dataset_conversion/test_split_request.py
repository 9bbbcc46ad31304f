"""Lists of cases as they come from the command line, and from files of other programs."""

from __future__ import annotations

import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.dataset_conversion.split_request import parse_selection


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_is_read_as_its_byte_order_mark_says(tmp_path, encoding) -> None:
    (tmp_path / "list.txt").write_text("a\nb\n", encoding=encoding)
    assert parse_selection(str(tmp_path / "list.txt")) == ("a", "b")


@pytest.mark.parametrize("content", ["a\n".encode("utf-16-le"), b"K\xe4se\n", bytes(range(256))])
def test_a_list_that_is_no_text_is_a_sentence(tmp_path, content) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"list\.txt is no.*save it as UTF-8"):
        parse_selection(str(tmp_path / "list.txt"))


def test_more_names_than_a_path_has_letters_are_names() -> None:
    names = tuple(f"case{number:03d}" for number in range(1000))
    assert parse_selection(",".join(names)) == names


def test_a_number_of_thousands_of_digits_is_a_name() -> None:
    assert parse_selection("9" * 5000) == ("9" * 5000,)
