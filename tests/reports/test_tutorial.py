import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"
SETTINGS = {"epochs": 3, "iterations_per_epoch": 3, "validation_iterations": 1, "seed": 1}


def test_the_tutorial_is_stored_with_its_outputs_and_without_a_trace_of_the_machine():
    text = NOTEBOOK.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    shown = [output for cell in cells for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/png" in output.get("data", ()) for output in shown) == 2
    assert {output["output_type"] for output in shown} == {"execute_result", "stream"}
    assert {output["name"] for output in shown if "name" in output} == {"stdout"}
    assert not [place for place in ("/tmp", "/home", "/root", "/Users") if place in text]
    assert len(text) < 300_000


@pytest.mark.slow
def test_the_tutorial_runs(monkeypatch, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("nnUNet_spmc_settings", json.dumps(SETTINGS))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=1200, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    ).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", ()) for output in shown) == 2
    text = "".join(output.get("text", "") for output in shown)
    assert "nnUNetTrainerSPMC, 3d_fullres_small, fold 0 finished" in text
    assert "report.html" in text
