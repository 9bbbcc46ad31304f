"""What `pip install .` installs."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "nnunetv2_spmc"
PYPROJECT = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")


def test_every_folder_of_the_package_is_installed():
    """An editable installation works without, and hides it."""
    (listed,) = re.findall(r"^packages = \[(.*?)\]", PYPROJECT, re.DOTALL | re.MULTILINE)
    folders = {file.parent for file in PACKAGE.rglob("__init__.py")}
    expected = {".".join(("nnunetv2_spmc", *f.relative_to(PACKAGE).parts)) for f in folders}
    assert set(re.findall(r'"(.*?)"', listed)) == expected | {"nnunetv2_spmc.dataset_conversion"}


def test_every_command_is_installed_under_the_name_of_its_module():
    modules = (PACKAGE / "cli").glob("*.py")
    commands = {f.stem for f in modules if "\ndef main(" in f.read_text(encoding="utf-8")}
    installed = re.findall(
        r'^nnUNetv2_spmc_(\w+) = "nnunetv2_spmc\.cli\.(\w+):main"$', PYPROJECT, re.MULTILINE
    )
    assert sorted(installed) == sorted((name, name) for name in commands)


def test_the_typed_marker_is_installed():
    """Without it type checkers ignore the hints of an installed package."""
    assert (PACKAGE / "py.typed").is_file()
    assert re.search(r'^"nnunetv2_spmc" = \["py.typed"\]$', PYPROJECT, re.MULTILINE)


def test_the_version_has_one_source_and_the_citation_repeats_it():
    (version,) = re.findall(r'^version = "(.*)"$', PYPROJECT, re.MULTILINE)
    citation = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [version]
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\S+)", changelog, re.MULTILINE)[1] == version
    for folder in (PACKAGE, REPOSITORY / "dataset_conversion"):
        for file in folder.rglob("*.py"):
            assert f'"{version}"' not in file.read_text(encoding="utf-8"), file
