"""Only .ci/run installs a browser and the viewer; scripts/test.sh alone sets up Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
TOOLS = ("bash", "cat", "cksum", "cp", "dirname", "env", "mktemp", "rm")
RECORDED = ("python", "ruff", "mypy", "mkdocs", "npm", "apt-get", "id")
RECORDER = """#!/usr/bin/env bash
echo "{name} $*" >> "$CALLS"
case "{name} $*" in
    "id -u") echo "${{USER_ID:-0}}" ;;
    *fetch_niivue.py)
        [ -z "${{NO_NIIVUE:-}}" ] || {{ echo "error: npm could not fetch NiiVue" >&2; exit 1; }} ;;
    "apt-get install "*) [ -z "${{APT_BROWSER:-}}" ] || cp "$0" "${{0%/*}}/chromium" ;;
esac
"""


class Machine:
    """A PATH with next to nothing on it; what would install or test something is recorded."""

    def __init__(self, folder):
        self.calls = folder / "calls"
        programs = folder / "venv" / "bin"
        programs.mkdir(parents=True)
        for name in TOOLS:
            (programs / name).symlink_to(shutil.which(name))
        for name in RECORDED:
            self.add(programs / name)
        checksum = subprocess.run(
            ["cksum"],
            stdin=(REPOSITORY / "pyproject.toml").open("rb"),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        (folder / "venv" / ".spmc-setup").write_text(f"{REPOSITORY} {checksum}")
        self.programs = programs
        self.environment = {
            "PATH": str(programs),
            "SPMC_VENV": str(folder / "venv"),
            "CALLS": str(self.calls),
        }

    def add(self, program):
        program.write_text(RECORDER.format(name=program.name))
        program.chmod(0o755)

    def run(self, script, *arguments, **environment):
        """Run a script of the repository; return the end of it and what it called."""
        done = subprocess.run(
            [shutil.which("bash"), str(REPOSITORY / script), *arguments],
            env=self.environment | environment,
            capture_output=True,
            text=True,
        )
        return done, self.calls.read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def installations(calls):
    return [call for call in calls if call.startswith(("apt-get", "npm")) or "niivue" in call]


def test_the_tests_alone_install_nothing(machine):
    done, calls = machine.run("scripts/test.sh", "tests/losses")
    assert done.returncode == 0, done.stderr
    assert installations(calls) == []
    assert calls[-1] == "python -m pytest tests/losses"


def test_the_site_is_built_before_the_tests_and_its_warnings_are_errors(machine):
    done, calls = machine.run("scripts/test.sh")
    assert done.returncode == 0, done.stderr
    (build,) = (call for call in calls if call.startswith("mkdocs"))
    assert build.startswith("mkdocs build --strict --site-dir ")
    assert "--quiet" not in build  # would count no warnings
    assert not Path(build.split()[-1]).exists()


def test_continuous_integration_installs_viewer_and_browser_and_then_tests(machine):
    done, calls = machine.run(".ci/run", APT_BROWSER="1")
    assert done.returncode == 0, done.stderr
    assert [call.split("/")[-1] for call in installations(calls)] == [
        "fetch_niivue.py",
        "apt-get update -qq",
        "apt-get install -y -qq chromium",
    ]
    assert calls[-1].startswith("python -m pytest -q")


def test_a_browser_that_is_there_is_not_installed_again(machine):
    machine.add(machine.programs / "google-chrome")
    done, calls = machine.run(".ci/run")
    assert done.returncode == 0, done.stderr
    assert not [call for call in calls if call.startswith("apt-get")]


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "apt-get gave no chromium"),
        ({"USER_ID": "1000"}, "there is no browser, and only root can install one by apt-get"),
        ({"NO_NIIVUE": "1"}, "error: npm could not fetch NiiVue"),
    ],
)
def test_continuous_integration_fails_without_a_browser_or_a_viewer(machine, environment, sentence):
    done, calls = machine.run(".ci/run", **environment)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert not [call for call in calls if "pytest" in call]


def test_the_tests_themselves_fetch_no_viewer():
    assert os.environ["npm_config_offline"] == "true"
