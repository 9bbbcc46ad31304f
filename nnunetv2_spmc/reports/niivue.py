"""The viewer of the report: NiiVue, bundled with the package, cached, or fetched by npm once.

NiiVue (https://niivue.com, BSD-2-Clause) is one file of JavaScript. It is not part of this
repository: a build puts it into the wheel, below this module.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.whole_file import whole_file

NIIVUE_VERSION = "0.69.0"
NIIVUE_SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
FILE_IN_PACKAGE = "package/dist/niivue.umd.js"
FILE_NAME = f"niivue-{NIIVUE_VERSION}.umd.js"
BUNDLED_FILE = Path(__file__).parent / "assets" / FILE_NAME
NPM_TIMEOUT_S = 120


def find_niivue(*, may_fetch: bool = True) -> Path:
    """Return the file with the viewer: bundled, else cached, else fetched into the cache.

    Args:
        may_fetch: whether npm may be asked for it.

    Raises:
        DataError: it is nowhere; the message says how to get it.
    """
    for file in (BUNDLED_FILE, cached_file()):
        if file.is_file() and _is_expected(file.read_bytes()):
            return file
    if not may_fetch:
        raise DataError(
            f"NiiVue {NIIVUE_VERSION} is neither bundled nor in {cached_file().parent}."
        )
    return fetch_niivue(cached_file())


def cached_file() -> Path:
    """Return where the viewer is kept for this user."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "nnunetv2-spmc" / FILE_NAME


def fetch_niivue(target: Path) -> Path:
    """Fetch the pinned version from the npm registry and check it.

    Raises:
        DataError: npm is missing, fails, or gives another file than the pinned one.
    """
    remedy = (
        f"to get it, install npm and run: npm pack @niivue/niivue@{NIIVUE_VERSION}, "
        f"then copy {FILE_IN_PACKAGE} out of the archive to {target}"
    )
    npm = shutil.which("npm")
    if npm is None:
        raise DataError(f"NiiVue is not there and npm, which would fetch it, neither; {remedy}.")
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", "--silent", f"@niivue/niivue@{NIIVUE_VERSION}"]
        try:
            subprocess.run(
                command, cwd=temporary, check=True, capture_output=True, timeout=NPM_TIMEOUT_S
            )
            archive = next(Path(temporary).glob("*.tgz"))
            with tarfile.open(archive) as files:
                member = files.extractfile(FILE_IN_PACKAGE)
                content = member.read() if member is not None else b""
        except (subprocess.SubprocessError, OSError, StopIteration, tarfile.TarError, KeyError):
            raise DataError(f"npm could not fetch NiiVue {NIIVUE_VERSION}; {remedy}.") from None
    if not _is_expected(content):
        raise DataError(
            f"npm gave a NiiVue {NIIVUE_VERSION} that is not the one this version was tested with "
            f"(SHA-256 {NIIVUE_SHA256[:12]}...); update nnunetv2-spmc."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as file:
        file.write_bytes(content)
    return target


def _is_expected(content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest() == NIIVUE_SHA256
