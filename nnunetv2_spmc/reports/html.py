"""Self-contained HTML pages: their style, their templates, figures inside of them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from nnunetv2_spmc.common.whole_file import made_folder, whole_file

ASSETS = Path(__file__).parent / "assets"
PANEL_DPI = 130


@dataclass(frozen=True)
class Picture:
    """A figure on the page: data URI, what it shows, and what stands below it."""

    source: str
    text: str
    caption: str = ""


def write_html(template: str, path: Path, **content: Any) -> None:
    """Write a page whole or not at all.

    Args:
        template: the name of a file of the assets.
        path: the HTML file.
        content: what the template shows.
    """
    environment = Environment(
        loader=FileSystemLoader(ASSETS, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template(template).render(css=asset("report.css"), **content)
    with made_folder(path.parent), whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def asset(name: str) -> str:
    """Return a file of the assets."""
    return (ASSETS / name).read_text(encoding="utf-8")


def svg_picture(figure: Figure, text: str, caption: str = "") -> Picture:
    """Return a figure of lines as a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return Picture(_data_uri("image/svg+xml", buffer.getvalue()), text, caption)


def png_picture(figure: Figure, text: str, caption: str = "") -> Picture:
    """Return a figure of images as a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PANEL_DPI)
    return Picture(_data_uri("image/png", buffer.getvalue()), text, caption)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
