import hashlib
import subprocess
import tarfile

import pytest

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.reports import niivue

CONTENT = b"// a viewer"


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Neither bundled nor cached; CONTENT is the pinned version."""
    monkeypatch.setattr(niivue, "BUNDLED_FILE", tmp_path / "bundled.js")
    monkeypatch.setattr(niivue, "NIIVUE_SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def npm_that_packs(content):
    def run(command, cwd, **options):
        assert command[1:] == ["pack", "--silent", f"@niivue/niivue@{niivue.NIIVUE_VERSION}"]
        from pathlib import Path

        source = Path(cwd) / niivue.FILE_IN_PACKAGE
        source.parent.mkdir(parents=True)
        source.write_bytes(content)
        with tarfile.open(Path(cwd) / "niivue.tgz", "w:gz") as archive:
            archive.add(source, niivue.FILE_IN_PACKAGE)

    return run


def test_the_bundled_file_comes_first(places):
    (places / "bundled.js").write_bytes(CONTENT)
    assert niivue.find_niivue() == places / "bundled.js"


def test_it_is_fetched_once_into_the_cache(places, monkeypatch):
    monkeypatch.setattr(niivue.shutil, "which", lambda name: "npm")
    monkeypatch.setattr(niivue.subprocess, "run", npm_that_packs(CONTENT))
    file = niivue.find_niivue()
    assert file.read_bytes() == CONTENT
    assert file.is_relative_to(places / "cache")
    monkeypatch.setattr(niivue.subprocess, "run", None)
    assert niivue.find_niivue() == file


def test_another_file_than_the_pinned_one_is_never_used(places, monkeypatch):
    (places / "bundled.js").write_bytes(b"// something else")
    monkeypatch.setattr(niivue.shutil, "which", lambda name: "npm")
    monkeypatch.setattr(niivue.subprocess, "run", npm_that_packs(b"// something else"))
    with pytest.raises(DataError, match="is not the one this version was tested with"):
        niivue.find_niivue()
    assert not (places / "cache").exists()


def test_without_npm_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(niivue.shutil, "which", lambda name: None)
    with pytest.raises(DataError, match=r"npm, which would fetch it.* npm pack @niivue/niivue@"):
        niivue.find_niivue()


def test_an_npm_that_fails_is_a_sentence(monkeypatch):
    def fail(*arguments, **options):
        raise subprocess.CalledProcessError(1, "npm")

    monkeypatch.setattr(niivue.shutil, "which", lambda name: "npm")
    monkeypatch.setattr(niivue.subprocess, "run", fail)
    with pytest.raises(DataError, match=r"npm could not fetch NiiVue .*; to get it"):
        niivue.find_niivue()


def test_nothing_is_fetched_unless_allowed():
    with pytest.raises(DataError, match="neither bundled nor in"):
        niivue.find_niivue(may_fetch=False)
