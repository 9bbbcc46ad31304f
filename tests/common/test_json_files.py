from __future__ import annotations

import pytest

from nnunetv2_spmc.common.errors import DataError, reason_of
from nnunetv2_spmc.common.json_files import read_json


def problem(file, keys=None):
    with pytest.raises(DataError) as error:
        read_json(file, "plan again", keys)
    text = str(error.value)
    assert text.startswith(str(file))
    assert text.endswith("; plan again.")
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"{", "is not valid JSON (Expecting"),
        (b"\xff\xfe{}", "not UTF-8 text"),
        (bytes(range(256)), "not UTF-8 text"),
        (b"[" * 100_000, "is not valid JSON (nested too deeply)"),
        (b"[1]", "holds a list instead of an object"),
        (b"null", "holds null instead of an object"),
        (b"{}", "has no 'name'"),
        (b'{"name": 1}', "'name' must be a string, got a number"),
        (b'{"name": "a", "size": true}', "'size' must be a number, got true or false"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_a_sentence(tmp_path, content, message) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    assert message in problem(file, {"name": str, "size": int})


def test_a_folder_and_a_dangling_link_are_no_json(tmp_path) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to("nowhere")
    assert "is a folder instead of a file" in problem(tmp_path / "folder.json")
    assert "cannot be read (No such file or directory)" in problem(tmp_path / "link.json")


def test_a_whole_file_is_returned(tmp_path) -> None:
    file = tmp_path / "a.json"
    file.write_text('{"name": "ä", "size": 1, "more": []}', encoding="utf-8")
    content = read_json(file, "plan again", {"name": str, "size": float})
    assert content == {"name": "ä", "size": 1, "more": []}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("\nfirst line.\nsecond line"), "first line"),
        (RuntimeError(), "RuntimeError"),
        (KeyError("spacing"), "KeyError 'spacing'"),
        (
            RuntimeError(
                "Exception thrown in SimpleITK ImageFileReader_Execute: sitkReader.cxx:99:\n"
                "sitk::ERROR: Unable to determine ImageIO reader for a.nii.gz"
            ),
            "Unable to determine ImageIO reader for a.nii.gz",
        ),
        (
            RuntimeError(
                "sitk::ERROR: The file is bad\nITK ERROR: NrrdImageIO(0x55ab): no line 2!\n"
                "Reason: No such file"
            ),
            "NrrdImageIO: no line 2",
        ),
    ],
)
def test_the_telling_line_of_an_error_is_its_reason(error, reason) -> None:
    assert reason_of(error) == reason
