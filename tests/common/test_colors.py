"""One module of colours: every picture takes them from there."""

import re
from pathlib import Path

from nnunetv2_spmc.common.colors import (
    CLASS_COLORS,
    DIFFICULTY_COLOR,
    ERROR_COLORS,
    METHOD_COLORS,
    class_color,
    method_color,
)

REPOSITORY = Path(__file__).parents[2]
COLOR = re.compile(r'"(#[0-9a-fA-F]{6}|C\d|tab:\w+)"|f"C\{|tab10|tab20')


def test_no_other_module_has_colours_of_its_own():
    sources = [
        file
        for folder in ("nnunetv2_spmc", "benchmarks", "scripts")
        for file in (REPOSITORY / folder).rglob("*.py")
        if file.name != "colors.py"
    ]
    assert len(sources) > 100
    assert [str(file) for file in sources if COLOR.search(file.read_text(encoding="utf-8"))] == []


def test_colours_repeat_after_the_last_one():
    assert class_color(1) == CLASS_COLORS[0] == class_color(len(CLASS_COLORS) + 1)
    assert method_color(0) == METHOD_COLORS[0] == method_color(len(METHOD_COLORS))


def test_errors_are_not_in_the_colours_of_classes():
    others = {*ERROR_COLORS.values(), DIFFICULTY_COLOR}
    assert len(others) == 4
    assert not others & set(CLASS_COLORS)
