"""What mkdocs does to the links of a page: those that leave docs/ become names of files.

On a page of the repository they lead to the file; the site has no such file. One that is not there
stays a link, and mkdocs warns about it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\./[^)#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Replace the links of a page to files elsewhere in the repository."""
    folder = Path(page.file.abs_src_path).parent

    def replaced(link: re.Match[str]) -> str:
        target = (folder / link[2]).resolve()
        inside = target.is_relative_to(REPOSITORY / "docs")
        if inside or not target.exists() or not target.is_relative_to(REPOSITORY):
            return link[0]
        name = target.relative_to(REPOSITORY).as_posix()
        return f"`{name}`" if link[1] == name else f"{link[1]} (`{name}` of the repository)"

    return LINK.sub(replaced, markdown)
