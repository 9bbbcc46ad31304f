"""Imports point only down, and never in a circle: a layer imports those below it, and its own.

Read from the sources, without importing anything.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "nnunetv2_spmc"
LAYERS = (  # from top to bottom
    "cli",
    "discovery",
    "doctor",
    "reports",
    "inference",
    "evaluation",
    "methods",
    "training",
    "networks",
    "losses",
    "loading",
    "unlabeled",
    "dataset_conversion",
    "raw",
    "common",
)
ABOVE_ALL = ("__init__", "train")  # modules next to the folders: load_run, the name of a command
STRANGERS = {("networks", "losses")}  # below, and yet they know nothing of each other

PARTS = {  # of a trainer: they name it in their type hints, and import nothing of it
    ("stopping", "configured"),
    ("resuming", "configured"),
    ("unlabeled_stream", "semi_supervised"),
    ("pseudo_label_dice", "semi_supervised"),
    ("passes", "semi_supervised"),
    ("memory", "semi_supervised"),
    ("dry_run", "semi_supervised"),
    ("epoch_log", "semi_supervised"),
}


def layer_of(module: str) -> str:
    """Return the layer of `nnunetv2_spmc.LAYER.MODULE`, "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def imports_of(source: str) -> Iterator[str]:
    """Find what a source imports of this package anywhere, in functions and for type hints too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the layer"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == "nnunetv2_spmc")


def violations(module: str, source: str) -> list[str]:
    """Describe the imports of a module that point up."""
    layer = layer_of(module)
    found = []
    for imported in imports_of(source):
        other = layer_of(imported)
        if other.startswith("__") or layer in ABOVE_ALL:  # such as __version__
            continue
        is_up = other not in LAYERS or LAYERS.index(other) < LAYERS.index(layer)
        if is_up or (layer, other) in STRANGERS:
            found.append(f"{module} imports {imported}")
    return found


def modules() -> Iterator[tuple[str, str]]:
    """Return the dotted name and the source of every module."""
    for folder, prefix in (
        (PACKAGE, "nnunetv2_spmc"),
        (REPOSITORY / "dataset_conversion", "nnunetv2_spmc.dataset_conversion"),
    ):
        for file in sorted(folder.rglob("*.py")):
            inner = file.relative_to(folder).with_suffix("").parts
            yield ".".join((prefix, *inner)), file.read_text(encoding="utf-8")


def module_of(name: str, known: Mapping[str, str]) -> str | None:
    """Return the module that is, or holds, what is imported; None for the package's own names."""
    while "." in name:
        for module in (name, f"{name}.__init__"):
            if module in known:
                return module
        name = name.rpartition(".")[0]
    return None  # such as nnunetv2_spmc.__version__, from the module that is always imported


def circle(sources: Mapping[str, str]) -> list[str]:
    """Return the modules of a circle of imports, the first one at the end again; [] without one."""
    graph = {
        module: {module_of(name, sources) for name in imports_of(source)} - {None}
        for module, source in sources.items()
    }
    for part, trainer in PARTS:
        graph.get(f"nnunetv2_spmc.training.{part}", set()).discard(
            f"nnunetv2_spmc.training.{trainer}"
        )
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_imports_point_only_down():
    assert [v for module, source in modules() for v in violations(module, source)] == []


def test_every_folder_is_a_layer():
    folders = {layer_of(module) for module, _ in modules()} - set(ABOVE_ALL)
    assert folders == set(LAYERS)


def test_an_import_that_points_up_is_found():
    for line in (
        "from nnunetv2_spmc.training.settings import TrainingSettings",
        "def f():\n    import nnunetv2_spmc.training.settings",
        "from nnunetv2_spmc import training",
    ):
        (found,) = violations("nnunetv2_spmc.losses.cps", line)
        assert found.startswith("nnunetv2_spmc.losses.cps imports nnunetv2_spmc.training")
    assert violations("nnunetv2_spmc.training.step", "from nnunetv2_spmc.losses import cps") == []
    assert violations("nnunetv2_spmc.networks.x", "from nnunetv2_spmc.losses import cps") != []


def test_no_imports_run_in_a_circle():
    assert circle(dict(modules())) == []


def test_a_circle_is_found_in_functions_and_in_type_hints():
    sources = {
        "nnunetv2_spmc.reports.run": "def f():\n    from nnunetv2_spmc.reports.plots import draw",
        "nnunetv2_spmc.reports.plots": "from nnunetv2_spmc.reports import case",
        "nnunetv2_spmc.reports.case": (
            "if TYPE_CHECKING:\n    from nnunetv2_spmc.reports.run import Run"
        ),
    }
    assert set(circle(sources)) == set(sources)
    del sources["nnunetv2_spmc.reports.case"]
    assert circle(sources) == []


def test_records_of_runs_know_no_figures():
    sources = dict(modules())
    for record in ("run_files", "run_record", "case_views"):
        source = sources[f"nnunetv2_spmc.reports.{record}"]
        assert not {"plots", "case_figure"} & {name.split(".")[2] for name in imports_of(source)}
        assert "matplotlib" not in source
