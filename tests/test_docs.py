"""Pages quote what the package says, and commands that it takes."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from scripts.site_links import on_page_markdown

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TROUBLESHOOTING = DOCS / "how-to" / "troubleshooting.md"
SOURCES = [REPOSITORY / "nnunetv2_spmc", REPOSITORY / "dataset_conversion"]
SOURCES.append(REPOSITORY / "scripts" / "build_backend.py")
HOSTS = (
    "nnunetv2.utilities.find_objects",
    "nnunetv2.experiment_planning.verify_dataset_integrity",
    "batchgenerators.dataloading.nondet_multi_threaded_augmenter",
)


def texts_in(source: str) -> Iterator[str]:
    """Find the texts in a source; what an f-string fills in becomes a NUL."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                part.value if isinstance(part, ast.Constant) else "\0" for part in node.values
            )


def all_texts() -> str:
    files = [
        file for place in SOURCES for file in (place.rglob("*.py") if place.is_dir() else [place])
    ]
    files += [Path(importlib.util.find_spec(module).origin) for module in HOSTS]
    return "\n".join(text for file in files for text in texts_in(file.read_text(encoding="utf-8")))


def commands_in(page: Path) -> Iterator[str]:
    """Find the commands of this package in the blocks of a page."""
    for block in re.findall(
        r"^```bash\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
    ):
        for line in block.replace("\\\n", " ").splitlines():
            if line.removeprefix("srun ").startswith("nnUNetv2_spmc_"):
                yield line.removeprefix("srun ")


def navigation(entries: list) -> Iterator[str]:
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from navigation(value) if isinstance(value, list) else [value]


def test_every_message_of_the_troubleshooting_is_one_that_is_said():
    texts = all_texts()
    headings = re.findall(r"^### `(.*)`$", TROUBLESHOOTING.read_text("utf-8"), re.MULTILINE)
    assert len(headings) >= 30
    parts = [part for heading in headings for part in heading.split(" ... ")]
    assert [part for part in parts if part not in texts] == []


def test_troubleshooting_begins_with_the_doctor():
    (first, *_) = commands_in(TROUBLESHOOTING)
    assert first == "nnUNetv2_spmc_doctor"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_are_ones_that_their_parsers_take(page):
    for line in commands_in(page):
        name, *arguments = shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "0"))
        if not arguments:
            continue
        module = importlib.import_module(f"nnunetv2_spmc.cli.{name.removeprefix('nnUNetv2_spmc_')}")
        if hasattr(module, "build_parser"):
            module.build_parser().parse_args(arguments)


def test_every_page_is_in_the_navigation_of_the_site():
    config = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = [*PAGES, *DOCS.rglob("*.ipynb")]
    listed = list(navigation(config["nav"]))
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in pages)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_to_files_of_the_repository(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_links_that_leave_the_pages_become_names_of_files_on_the_site():
    class File:
        abs_src_path = str(DOCS / "how-to" / "page.md")

    class Page:
        file = File()

    text = (
        "[this page](../leaks.md), [CITATION.cff](../../CITATION.cff), [rules](../../LICENSE), "
        "[gone](../../nothing.md), ![picture](../../docs/demo.png)"
    )
    assert on_page_markdown(text, page=Page()) == (
        "[this page](../leaks.md), `CITATION.cff`, rules (`LICENSE` of the repository), "
        "[gone](../../nothing.md), ![picture](../../docs/demo.png)"
    )
