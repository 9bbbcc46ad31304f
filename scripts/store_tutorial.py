"""Run docs/tutorial.ipynb and store it with its outputs: python scripts/store_tutorial.py.

Some minutes on two cores. Figures are stored with 256 colours, which makes them small; times and
the version of Python are left out, so that a second run changes nothing but what is shown.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"
COLOURS = 256
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def smaller_png(png: str) -> str:
    """Return a PNG in base64 with 256 colours."""
    from PIL import Image

    small = io.BytesIO()
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return base64.b64encode(small.getvalue()).decode("ascii")


def tidy(notebook: Any) -> None:
    """Make an executed notebook small, and the same after every run."""
    notebook.metadata.clear()
    notebook.metadata.update(METADATA)
    for cell in notebook.cells:
        cell.metadata.clear()
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", ()):
                output.data["image/png"] = smaller_png(output.data["image/png"])


def main() -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=1200, resources=place).execute()
    tidy(notebook)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
