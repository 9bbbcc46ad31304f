"""What a converter is: one module of the folder."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nnunetv2_spmc import dataset_conversion
from nnunetv2_spmc.cli.convert import main

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-converter.md"
THROW_AWAY = """
from nnunetv2_spmc.dataset_conversion import Converter

def add_arguments(parser):
    parser.add_argument("--colour", required=True, help="of the scans")

def convert(arguments, options):
    return f"{arguments.d} {arguments.n} {arguments.colour} {options.processes}"

CONVERTER = Converter("scans thrown away", add_arguments, convert)
"""


@pytest.fixture
def add_module(tmp_path, monkeypatch) -> Iterator[Callable[[str, str], None]]:
    """Add a module to the folder of converters, as if it lay there."""
    folder, added = tmp_path / "converters", []
    folder.mkdir()
    monkeypatch.setattr(dataset_conversion, "__path__", [*dataset_conversion.__path__, str(folder)])

    def add(name: str, source: str) -> None:
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
        importlib.invalidate_caches()
        added.append(name)

    yield add
    for name in added:
        sys.modules.pop(f"{dataset_conversion.__name__}.{name}", None)
        vars(dataset_conversion).pop(name, None)


def shown_help(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_a_module_that_defines_a_converter_is_a_command(add_module, capsys) -> None:
    add_module("throw_away", THROW_AWAY)
    assert re.search(r"phantom .*\n +throw_away\s+scans thrown away", shown_help(capsys))
    text = shown_help(capsys, "throw_away")
    assert "--colour" in text
    assert "--dry_run" in text
    main(["throw_away", "-d", "7", "-n", "Tiny", "-np", "3", "--colour", "red"])
    assert capsys.readouterr().out == "7 Tiny red 3\n"


def test_a_converter_without_a_dataset_requires_its_id_and_name(add_module, capsys) -> None:
    add_module("throw_away", THROW_AWAY)
    with pytest.raises(SystemExit) as ended:
        main(["throw_away", "--colour", "red"])
    assert ended.value.code == 2
    assert "required: -d, -n" in capsys.readouterr().err


def test_modules_that_help_converters_are_no_commands() -> None:
    commands = list(dataset_conversion.find_converters())
    assert commands == ["folder", "la", "acdc", "brats", "phantom"]


def test_the_example_of_the_documentation_converts(
    add_module, nnunet_folders, tmp_path, write_volume, capsys
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", HOW_TO.read_text(encoding="utf-8"), re.DOTALL)
    add_module("kits19", example)
    command = ["kits19", "-i", str(tmp_path / "data"), "--labeled", "2", "-np", "1"]
    with pytest.raises(SystemExit, match="There is no case_XXXXX/imaging"):
        main(command)
    for number in range(4):
        case = tmp_path / "data" / f"case_0000{number}"
        write_volume(case / "imaging.nii.gz", seed=number)
        if number < 3:
            write_volume(case / "segmentation.nii.gz", fill=2)
    assert "kidney tumours in CT" in shown_help(capsys)
    main(command)
    written = nnunet_folders.raw / "Dataset504_KiTS19"
    assert sorted(path.name for path in (written / "imagesTr").iterdir()) == [
        "case_00000_0000.nii.gz",
        "case_00001_0000.nii.gz",
    ]
    assert sorted(path.name for path in (written / "imagesUn").iterdir()) == [
        "case_00002_0000.nii.gz",
        "case_00003_0000.nii.gz",
    ]
    assert [path.name for path in (written / "labelsUn").iterdir()] == ["case_00002.nii.gz"]
