import pytest

from scripts.supported_table import TABLE, marked_rows, merged, supported_table

TEST = "@pytest.mark.supported({})\n@pytest.mark.slow\ndef {}():\n    pass\n"


@pytest.fixture
def write_test(tmp_path):
    def write(*arguments):
        folder = tmp_path / "tests"
        folder.mkdir(exist_ok=True)
        source = "\n".join(TEST.format(a, f"test_{n}") for n, a in enumerate(arguments))
        (folder / "test_some.py").write_text(source, encoding="utf-8")
        return merged(marked_rows(tmp_path))

    return write


def test_the_documentation_shows_what_the_tests_say():
    assert TABLE.read_text(encoding="utf-8") == supported_table(), (
        "docs/supported.md differs from the tests: run python scripts/supported_table.py"
    )


def test_a_marker_becomes_a_row_with_its_status_and_test(write_test):
    rows = write_test(
        '"resume", "after a clean stop"',
        '"folds", "fold 7", refused=True',
        '"devices", "MPS", needs="MPS"',
        '"resume", "after a clean stop"',
    )
    assert [tuple(row) for row in rows] == [
        (
            *("resume", "after a clean stop", "works"),
            ("tests/test_some.py::test_0", "tests/test_some.py::test_3"),
        ),
        ("folds", "fold 7", "refused", ("tests/test_some.py::test_1",)),
        ("devices", "MPS", "tested only where there is MPS", ("tests/test_some.py::test_2",)),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ('"reusme", "--c"', r"tests/test_some\.py::test_0: the section 'reusme' is none of"),
        ('"resume", "--c", refuse=True', "the marker knows refused and needs, not refuse"),
    ],
)
def test_a_marker_with_a_slip_is_an_error(write_test, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_test(arguments)
