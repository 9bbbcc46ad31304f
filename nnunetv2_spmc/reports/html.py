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
# Okabe and Ito's colours, which most people with colour vision deficiency can tell apart
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")


@dataclass(frozen=True)
class Picture:
    """A figure on the page: data URI and the text that says what it shows."""

    source: str
    text: str


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


def svg_picture(figure: Figure, text: str) -> Picture:
    """Return a figure of lines as a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg")
    return Picture(_data_uri("image/svg+xml", buffer.getvalue()), text)


def png_picture(figure: Figure, text: str) -> Picture:
    """Return a figure of images as a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return Picture(_data_uri("image/png", buffer.getvalue()), text)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def draw_box(axes: Any, position: float, values: Any, width: float, color: str) -> None:
    """Draw a box of values, and each of them as a dot."""
    axes.boxplot(
        values,
        positions=[position],
        widths=width * 0.8,
        showfliers=False,
        patch_artist=True,
        manage_ticks=False,
        boxprops={"facecolor": color, "alpha": 0.35, "edgecolor": color},
        medianprops={"color": "black"},
        whiskerprops={"color": color},
        capprops={"color": color},
    )
    # beside each other where several cases have the same value; not random, so that figures repeat
    offsets = [(number % 5 - 2) / 5 * width * 0.5 for number in range(len(values))]
    axes.plot([position + o for o in offsets], values, ".", color=color, markersize=4)
