"""The parser of all commands: options count only as they are written, and --version is one."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

from nnunetv2_spmc.common.text import is_utf8

GLUED = re.compile(r"(-[A-Za-z])(\d.*|[^\w=-].*)", re.DOTALL)  # -d500, -o/tmp/out; never -out
NUMBER = re.compile(r"-\d+|-\d*\.\d+")  # what argparse takes for a value
ENDS_PARSING = ("-h", "--help", "--version", "--")  # argparse handles these and what follows


class HelpFormatter(argparse.HelpFormatter):
    """Fills each paragraph of a description; lines that are indented stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled: list[str] = []
        for is_raw, group in groupby(text.splitlines(), lambda line: line[:1] in ("", " ")):
            lines = list(group)
            filled += lines if is_raw else textwrap.wrap(" ".join(lines), width - len(indent))
        return "\n".join(indent + line if line else "" for line in filled)

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Fill the help of an option, and break no path."""
        return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that refuses, by name, what argparse guesses at or leaves to its caller.

    argparse reads -d as -device, --out as --output and -out as `-o ut`; `allow_abbrev` forbids the
    second only. Here a value may follow a one-letter option directly only if it is not a word:
    -d500. The parsers of subcommands are of this class, too.

    Args:
        example: lines to type, which end the help.
        options: of ArgumentParser.
    """

    def __init__(self, *, example: str = "", **options: Any) -> None:
        super().__init__(**{**options, "allow_abbrev": False, "formatter_class": HelpFormatter})
        self.example = example
        self.add_argument("--version", action="version", version=versions())

    def format_help(self) -> str:
        """Return the help, with the example at the end."""
        shown = textwrap.indent(self.example, "  ")
        return f"{super().format_help()}\nexample:\n{shown}\n" if shown else super().format_help()

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Parse arguments; unlike argparse's, a subcommand's too leave none over."""
        words = self._checked(sys.argv[1:] if args is None else args)
        namespace, unused = super().parse_known_args(words, namespace)
        if unused:
            self.error(f"unexpected argument: {unused[0]}")
        return namespace, unused

    def check_page(self, page: Path) -> None:
        """Refuse to write a page into a file that no browser would open as one."""
        if page.suffix.lower() not in (".html", ".htm"):
            named = page.with_name(f"{page.name}.html")
            self.error(f"{page} must end in .html, so that a browser shows it; name {named}")

    def _checked(self, words: Sequence[str]) -> list[str]:
        """Return the words with glued values apart; refuse options that are not ours.

        Before argparse looks at them: it would name missing arguments first.
        """
        checked: list[str] = []
        for number, word in enumerate(words):
            self._check_text(words[number - 1] if number else "", word)
            if word in ENDS_PARSING:
                return [*checked, *words[number:]]
            glued = GLUED.fullmatch(word)
            if not self._is_option(word):
                if self._subparsers is not None:  # the subcommand, whose parser checks the rest
                    return [*checked, *words[number:]]
                checked.append(word)
            elif name := self._declared(word.partition("=")[0]):
                checked.append(name + word[len(name) :])
            elif glued and self._takes_value(glued[1]):
                checked += glued.groups()
            elif " " in word:  # argparse takes it for a value
                checked.append(word)
            else:
                self._refuse(word.partition("=")[0])
        return checked

    def _declared(self, option: str) -> str | None:
        """Return an option as it is declared: hyphens and underscores are the same inside."""
        names = {name.replace("-", "_"): name for name in self._option_string_actions}
        if option in self._option_string_actions:
            return option
        return names.get(option.replace("-", "_"))

    def _check_text(self, before: str, word: str) -> None:
        if not word:
            where = f" after {before}" if before else ""
            self.error(f"there is an empty argument{where}; is a variable of the shell not set?")
        if not is_utf8(word):
            self.error(f"{word!r} is not UTF-8; rename the file or folder")

    @staticmethod
    def _is_option(word: str) -> bool:
        return word.startswith("-") and word != "-" and not NUMBER.fullmatch(word)

    def _takes_value(self, option: str) -> bool:
        action = self._option_string_actions.get(option)
        return action is not None and action.nargs != 0

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        """Let argparse guess at nothing: what it asks about here is no option."""
        return []

    def _refuse(self, option: str) -> NoReturn:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, parser in action.choices.items():
                    if option in parser._option_string_actions:
                        self.error(f"{option} stands after {action.metavar}: {name} {option} ...")
        similar = self._similar_option(option)
        self.error(f"unknown option {option}" + (f"; did you mean {similar}?" if similar else ""))

    def _similar_option(self, option: str) -> str | None:
        """Return the option whose name, or the word for whose value, is like that of another."""
        words = {}
        for action in self._actions:
            names = [action.metavar] if isinstance(action.metavar, str) else []
            for name in [*names, *action.option_strings]:
                if action.option_strings:
                    words[_plain(name)] = action.option_strings[-1]
        return next((words[w] for w in get_close_matches(_plain(option), words, n=1)), None)


@cache
def versions() -> str:
    """Return what --version prints."""
    return ", ".join(map(_with_version, ("nnunetv2-spmc", "nnunetv2")))


def _with_version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:  # so that the doctor can say so
        return f"{name} (not installed)"


def _plain(name: str) -> str:
    return name.strip("-").replace("_", "-").lower()
