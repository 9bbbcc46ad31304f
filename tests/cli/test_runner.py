"""How all commands end, and that each of them ends so."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from nnunetv2_spmc import train
from nnunetv2_spmc.cli.runner import CLOSED_PIPE, INTERRUPTED, command
from nnunetv2_spmc.common.errors import DataError, UnsupportedError
from tests.in_process import closed_pipe

REPOSITORY = Path(__file__).parents[2]
SOURCES = sorted((REPOSITORY / "nnunetv2_spmc" / "cli").glob("*.py"))
NAMES = [file.stem for file in SOURCES if "\ndef main(" in file.read_text(encoding="utf-8")]
SCRIPTS = [import_module(f"nnunetv2_spmc.cli.{name}").main for name in NAMES]
every_command = pytest.mark.parametrize(
    "main", [*SCRIPTS, train.main], ids=lambda main: main.__module__.rpartition(".")[2]
)


def ends(main: Callable[..., Any], *arguments: str) -> tuple[int, str]:
    """Run a command; return its status and the sentence that Python prints with it."""
    try:
        main(list(arguments))
    except SystemExit as ended:
        return (1, ended.code) if isinstance(ended.code, str) else (int(ended.code or 0), "")
    return 0, ""


@pytest.fixture
def does(monkeypatch) -> Callable[[Callable[[], object]], None]:
    """Let any command do what a test says, where it would parse its arguments."""

    def do(work: Callable[[], object]) -> None:
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda *_: work())

    return do


def raises(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def test_every_command_is_installed() -> None:
    scripts = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    for name in NAMES:
        assert f'nnUNetv2_spmc_{name} = "nnunetv2_spmc.cli.{name}:main"' in scripts


# torch's, of a stdout that pytest has replaced
pytestmark = pytest.mark.filterwarnings("ignore:Unable to enable fault handler")


@every_command
def test_an_unknown_option_is_a_mistake_in_usage(main, capsys) -> None:
    assert ends(main, "--no-such-option") == (2, "")
    assert capsys.readouterr().err.startswith("usage: ")


@every_command
def test_help_is_no_failure(main, capsys) -> None:
    assert ends(main, "--help") == (0, "")
    assert capsys.readouterr().out.startswith("usage: ")


@every_command
@pytest.mark.parametrize("error", [DataError, UnsupportedError])
def test_what_a_user_can_mend_is_a_sentence(main, does, error) -> None:
    does(raises(error("scan.nii.gz is truncated; copy it again.")))
    assert ends(main) == (1, "error: scan.nii.gz is truncated; copy it again.")


@every_command
def test_a_file_that_the_system_refuses_is_named(main, does, tmp_path) -> None:
    does(lambda: (tmp_path / "absent").read_text())
    assert ends(main) == (1, f"error: {tmp_path / 'absent'}: No such file or directory")


def test_a_name_with_a_line_break_leaves_the_sentence_one_line() -> None:
    broken = raises(DataError("scan\n1.nii.gz is truncated"))
    assert ends(command()(lambda _: broken())) == (1, r"error: scan\n1.nii.gz is truncated")
    refused = raises(FileNotFoundError(2, "No such file or directory", "scan\n1.nii.gz"))
    status = ends(command()(lambda _: refused()))
    assert status == (1, r"error: scan\n1.nii.gz: No such file or directory")


@every_command
def test_ctrl_c_ends_with_a_line(main, does, capsys) -> None:
    does(raises(KeyboardInterrupt()))
    assert ends(main) == (INTERRUPTED, "")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("interrupted: ")


@every_command
def test_a_closed_pipe_ends_quietly(main, does, capfd) -> None:
    does(lambda: print("x" * 20_000))
    with closed_pipe():
        assert ends(main) == (CLOSED_PIPE, "")
    assert capfd.readouterr().err == ""


@every_command
@pytest.mark.parametrize("error", [KeyError, BrokenPipeError])  # of a worker: somebody reads stdout
def test_a_mistake_in_the_program_keeps_its_traceback(main, does, error) -> None:
    does(raises(error("a mistake")))
    with pytest.raises(error):
        main([])


@pytest.mark.parametrize("main", SCRIPTS, ids=lambda main: main.__module__.rpartition(".")[2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_unwinds_the_stack(main, does, number, request) -> None:
    previous = signal.signal(number, signal.SIG_DFL)  # under nohup it is ignored
    request.addfinalizer(lambda: signal.signal(number, previous))
    does(lambda: signal.raise_signal(number))
    assert ends(main) == (128 + number, "")


def test_a_signal_that_a_library_takes_for_an_error_ends_the_command_all_the_same() -> None:
    def work(argv: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit:
            raise ValueError("invalid bounding box") from None

    assert ends(command()(work)) == (128 + signal.SIGTERM, "")


def test_failed_cases_and_success_have_their_status() -> None:
    assert ends(command()(lambda argv: 1)) == (1, "")
    assert ends(command()(lambda argv: None)) == (0, "")


def test_torchrun_reads_why_a_process_failed(does, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    does(raises(DataError("there is no fold 7")))
    assert ends(train.main) == (1, "error: there is no fold 7")
    assert "there is no fold 7" in (tmp_path / "error.json").read_text()


def test_an_error_is_said_although_nobody_reads_the_output() -> None:
    def work(argv: object) -> None:
        print("half a table")
        raise DataError("b.nii.gz is truncated")

    with closed_pipe():
        assert ends(command()(work)) == (1, "error: b.nii.gz is truncated")


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], text=True, stderr=-1, **options)


def test_the_shell_gets_the_status_and_one_line(tmp_path) -> None:
    done = run("-m", "nnunetv2_spmc.cli.compare", str(tmp_path / "absent"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert str(tmp_path / "absent") in line


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_python_says_nothing_about_a_closed_pipe_either(monkeypatch, unbuffered) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reader, writer = os.pipe()
    os.close(reader)
    code = "from nnunetv2_spmc.cli.trainers import main; main()"
    done = run("-c", code, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (CLOSED_PIPE, "")


TRAINERS = "from nnunetv2_spmc.cli.trainers import main; main()"


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a line of a shell in which $PYTHON CODE is Python."""
    variables = {**os.environ, "PYTHON": sys.executable, **environment}
    return subprocess.run(["sh", "-c", command], capture_output=True, env=variables, timeout=60)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_the_output_is_a_sentence(unbuffered) -> None:
    done = shell(f'"$PYTHON" -c "{TRAINERS}" > /dev/full', PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "error: the output could not be written: No space left on device"
    ]


NEXT_FILE = """
import os, sys
from nnunetv2_spmc.cli.runner import command
@command()
def main(argv=None):
    with open(sys.argv[1], 'w'):
        print('a table')
        sys.stderr.write('a progress bar')
        for output in 1, 2:
            os.write(output, b'of a library in C')
main()
"""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_with_a_closed_output_no_file_gets_what_was_meant_for_it(closed, tmp_path) -> None:
    (tmp_path / "code.py").write_text(NEXT_FILE)
    file = tmp_path / "file"
    assert shell(f'"$PYTHON" {tmp_path}/code.py {file} {closed}').returncode == 0
    assert file.read_text() == ""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_name_that_the_output_has_no_letters_for_is_escaped(encoding) -> None:
    code = (
        "from nnunetv2_spmc.cli.runner import command; "
        r"command()(lambda _: print('K\xe4se \u80dd \udcff'))()"
    )
    done = shell(f'"$PYTHON" -c "{code}"', PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding).startswith("K")
    assert r"\udcff" in done.stdout.decode(encoding)
