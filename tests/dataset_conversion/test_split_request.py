"""Lists of cases as they come from the command line, and from files of other programs."""

from __future__ import annotations

import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.dataset_conversion.split_request import parse_selection
from nnunetv2_spmc.raw.splits import assign_roles


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


def test_names_of_a_list_that_no_image_has_are_given_by_their_lines(tmp_path) -> None:
    list_file = tmp_path / "passwd"
    list_file.write_text("# users\nroot:x:0\na\n\nbin:x:1\n")
    listed = parse_selection(str(list_file))
    assert listed == ("root_x_0", "a", "bin_x_1")
    with pytest.raises(DataError) as refused:
        assign_roles({"a": "a"}, {"a"}, test=listed)
    assert str(refused.value) == (
        f"--test names 2 cases not among the images: lines 2, 5 of {list_file}; correct the list."
    )
