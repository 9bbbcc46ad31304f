"""How all commands read their arguments: as they are written, and no option by a part of it."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from nnunetv2_spmc.cli.parser import Parser

CLI = Path(__file__).parents[2] / "nnunetv2_spmc" / "cli"
COMMANDS = [
    file.stem for file in sorted(CLI.glob("*.py")) if "\ndef main(" in file.read_text("utf-8")
]
SUBCOMMANDS = [
    *(f"convert {name}" for name in ("folder", "la", "acdc", "brats", "phantom")),
    "plan small",
]


def ends(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Run a command; return its status and the last line that it printed."""
    main: Callable[[list[str]], Any] = import_module(f"nnunetv2_spmc.cli.{arguments[0]}").main
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments[1:]))
    said = capsys.readouterr()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, (said.out + said.err).splitlines()[-1]


@pytest.mark.parametrize("name", [*COMMANDS, *SUBCOMMANDS])
def test_every_help_ends_in_an_example_that_can_be_parsed(name, capsys, monkeypatch) -> None:
    command, *sub = name.split()
    main = import_module(f"nnunetv2_spmc.cli.{command}").main
    with pytest.raises(SystemExit):
        main([*sub, "--help"])
    shown = capsys.readouterr().out
    line = shown.rstrip().splitlines()[-1].strip()
    assert "\nexample:\n" in shown
    assert f"nnUNetv2_spmc_{command}" in line

    class ParsedError(Exception):
        pass

    parse = Parser.parse_args

    def parsed(self, arguments):
        parse(self, arguments)
        raise ParsedError

    if "$(" in line:  # a shell's
        return
    monkeypatch.setattr(Parser, "parse_args", parsed)
    with pytest.raises(ParsedError):
        main(shlex.split(line, comments=True)[1:])


def parsers(made: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its subcommands."""
    yield made
    for action in made._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from parsers(inner)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_says_the_defaults(name, monkeypatch) -> None:
    made: list[argparse.ArgumentParser] = []

    class SeenError(Exception):
        pass

    def seen(self, arguments=None):
        made.append(self)
        raise SeenError

    monkeypatch.setattr(Parser, "parse_args", seen)
    with pytest.raises(SeenError):
        import_module(f"nnunetv2_spmc.cli.{name}").main([])
    for each in parsers(made[0]):
        for action in each._actions:
            has_default = action.default not in (None, False, argparse.SUPPRESS)
            has_default = has_default and action.default not in ((), [])
            assert not has_default or "default" in (action.help or ""), action.option_strings


@pytest.mark.parametrize("written", ["--no_pbar", "--no-pbar"])
def test_hyphens_and_underscores_are_the_same_in_long_options(written) -> None:
    assert parser().parse_args([written]).no_pbar


def parser() -> Parser:
    """A parser as the commands have them."""
    made = Parser(prog="program")
    made.add_argument("-o", metavar="OUT")
    made.add_argument("-device")
    made.add_argument("-f", nargs="+", metavar="FOLD")
    made.add_argument("-k", type=int)
    made.add_argument("--tau", type=float)
    made.add_argument("--no_pbar", action="store_true")
    made.add_argument("runs", nargs="*")
    return made


@pytest.mark.parametrize("name", [*COMMANDS, *SUBCOMMANDS])
@pytest.mark.parametrize("option", ["--no-such-option", "-x", "-xyz", "-q5", "-z=3", "--q=3"])
def test_every_command_names_an_unknown_option(name, option, capsys) -> None:
    status, line = ends(capsys, *name.split(), option)
    assert status == 2
    assert f"unknown option {option.partition('=')[0]}" in line


@pytest.mark.parametrize("name", [*COMMANDS, *SUBCOMMANDS])
def test_every_command_says_its_version(name, capsys) -> None:
    status, line = ends(capsys, *name.split(), "--version")
    assert status == 0
    assert line == f"nnunetv2-spmc {version('nnunetv2-spmc')}, nnunetv2 {version('nnunetv2')}"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("uncertainty -i a -o b -m c --d 500", "--d"),
        ("rank -d 5 -m c -dev cpu", "-dev"),
        ("compare a b --out c", "--out"),
        ("compare a b -out c", "-out"),
        ("compare a b -output", "-output"),
        ("evaluate -r a -p b", "-r"),
        ("preprocess -d 1 -c 2d -num 2", "-num"),
        ("preprocess -d 1 -c 2d --over", "--over"),
        ("convert la -i a --labels background=0", "--labels"),
        ("convert acdc -i a --label 7", "--label"),
        ("plan small -d 1 -c 2d --feat 8 64", "--feat"),
        ("export -i a -o b -checkpoint c", "-checkpoint"),
        ("report -o a.html b --no_map", "--no_map"),
    ],
)
def test_a_part_of_an_option_or_another_commands_is_refused_by_name(
    command, option, capsys
) -> None:
    status, line = ends(capsys, *command.split())
    assert status == 2
    assert f"unknown option {option}" in line


@pytest.mark.parametrize(
    ("written", "meant"),
    [("--nopbar", "--no_pbar"), ("--device", "-device"), ("--out", "-o"), ("-tau", "--tau")],
)
def test_an_option_that_is_like_one_is_suggested(written, meant, capsys) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args([written])
    assert f"unknown option {written}; did you mean {meant}?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("uncertainty -i a -o b -m c -d 500 -tr T", "leave -d -tr out"),
        ("rank -d 5 -m c -c 2d", "leave -c out"),
        ("rank", "-m MODEL_FOLDER, or -d ID -c CONFIG -tr TRAINER"),
        ("compare -m a b -d 5", "leave -d out"),
        ("compare a b -f 0", "-f compares trained models"),
        ("export -o b", "-m MODEL_FOLDER, or -d ID -c CONFIG -tr TRAINER"),
        ("export -o b -d 5", "-m MODEL_FOLDER, or -d ID -c CONFIG -tr TRAINER"),
        ("report -o b.html", "RUN, or -m MODEL_FOLDER, or -d ID -c CONFIG -tr TRAINER"),
        ("report -o b.html -m a b -tr T", "leave -tr out"),
        ("report -o b.html a -f 0", "name these with -m, or -d -c -tr"),
    ],
)
def test_a_model_is_named_once(given, sentence, capsys) -> None:
    status, line = ends(capsys, *given.split())
    assert status == 2
    assert sentence in line


def test_an_option_before_its_converter_is_told_its_place(capsys) -> None:
    status, line = ends(capsys, "convert", "--overwrite", "folder")
    assert status == 2
    assert "--overwrite stands after CONVERTER" in line


def test_an_unknown_option_is_named_before_what_is_missing(capsys) -> None:
    assert "unknown option --input" in ends(capsys, "export", "--input", "a")[1]


def test_an_argument_too_many_is_named(capsys) -> None:
    assert ends(capsys, "evaluate", "-ref", "a", "-pred", "b", "c")[1].endswith(": c")
    assert ends(capsys, "convert", "la", "-i", "a", "c")[1].endswith(": c")


@pytest.mark.parametrize("arguments", [["-o", ""], ["", "a"]])
def test_an_empty_argument_is_refused(arguments, capsys) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(arguments)
    assert "empty argument" in capsys.readouterr().err


def test_a_name_that_is_not_utf8_is_refused_and_shown(capsys) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["-o", "a\udcff"])
    assert r"a\udcff' is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["-o=out"], "o", "out"),
        (["--tau=0.5"], "tau", 0.5),
        (["--tau", "-0.5"], "tau", -0.5),
        (["-k", "-3"], "k", -3),
        (["-k5"], "k", 5),
        (["-o/tmp/out"], "o", "/tmp/out"),
        (["-o", "-"], "o", "-"),
        (["-o", "-my folder"], "o", "-my folder"),
        (["-f0", "1"], "f", ["0", "1"]),
        (["a", "-o", "b"], "runs", ["a"]),
        (["--", "-a"], "runs", ["-a"]),
        (["-5", "a"], "runs", ["-5", "a"]),
    ],
)
def test_values_are_read_as_argparse_reads_them(arguments, name, value) -> None:
    assert getattr(parser().parse_args(arguments), name) == value


def test_hyphens_and_underscores_are_the_same_after_one_hyphen_too() -> None:
    known = Parser(prog="p")
    known.add_argument("-part_id", type=int)
    known.add_argument("--use-frames", action="store_true")
    assert known.parse_args(["-part-id", "3"]).part_id == 3
    assert known.parse_args(["-part-id=3", "--use_frames"]).use_frames


def test_a_help_fills_paragraphs_keeps_tables_and_breaks_no_path(monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    path = "nnUNet_results/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION/fold_0"
    known = Parser(prog="p", epilog="word " * 30 + "\n  a table\n  of two lines\n" + "end " * 20)
    known.add_argument("-m", help=f"model: {path}")
    text = known.format_help()
    assert path in text
    assert "\n  a table\n  of two lines\nend end" in text
    assert all(len(line) <= 60 or path in line for line in text.splitlines())
