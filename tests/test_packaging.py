"""What `pip install .` installs."""

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "nnunetv2_spmc"


def test_every_folder_of_the_package_is_installed():
    """An editable installation works without, and hides it."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    (listed,) = re.findall(r"^packages = \[(.*?)\]", text, re.DOTALL | re.MULTILINE)
    folders = {file.parent for file in PACKAGE.rglob("__init__.py")}
    expected = {".".join(("nnunetv2_spmc", *f.relative_to(PACKAGE).parts)) for f in folders}
    assert set(re.findall(r'"(.*?)"', listed)) == expected | {"nnunetv2_spmc.dataset_conversion"}
