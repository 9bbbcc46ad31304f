"""Bad dataset.json, plans, splits, checkpoints and tables of metrics."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.reliability.sandbox import CONFIGURATION, BadInput, Here
from benchmarks.reliability.scans import ON_CPU, PREPROCESS

Arguments = Sequence[str | Path]

# ---- JSON files ---------------------------------------------------------------------------------

BROKEN_JSON: dict[str, bytes] = {
    "empty": b"",
    "cut short": b'{"labels": {"backgr',
    "a list": b"[1, 2]",
    "a number": b"7",
    "an empty object": b"{}",
    "not UTF-8": b'{"labels": "\xff\xfe"}',
    "random bytes": bytes(range(128, 256)) * 4,
}


def _preprocess(here: Here) -> Arguments:
    for made in here.preprocessed.glob("*_unlabeled*"):
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    return PREPROCESS


def _plan(here: Here) -> Arguments:
    return ("small", "-d", "500", "-c", "2d", "--name", "mine")


def _uncertainty(here: Here) -> Arguments:
    return ("-i", here.raw / "imagesTs", "-o", here.out / "maps", "-m", here.model, *ON_CPU)


def _rank(here: Here) -> Arguments:
    return ("-d", "500", "-m", here.model, "-o", here.out / "ranking.csv", *ON_CPU)


def _export(here: Here) -> Arguments:
    return ("-i", here.model, "-o", here.out / "exported")


def _report(here: Here) -> Arguments:
    return ("-o", here.out / "report.html", here.fold, "--no_viewer", "--no_maps")


def _evaluate(here: Here) -> Arguments:
    labels = here.raw / "labelsTr"
    shutil.copytree(labels, here.root / "prediction")
    options = ("-ref", labels, "-pred", here.root / "prediction", "-o", here.out / "metrics")
    return (*options, "-djfile", here.raw / "dataset.json", "-np", "0", "--no_pbar")


READERS: tuple[tuple[str, Callable[[Here], Arguments], str], ...] = (
    ("preprocess", _preprocess, "nnUNet_preprocessed/*/dataset.json"),
    ("preprocess", _preprocess, "nnUNet_preprocessed/*/nnUNetPlans.json"),
    ("plan", _plan, "nnUNet_preprocessed/*/nnUNetPlans.json"),
    ("uncertainty", _uncertainty, "nnUNet_results/*/*/dataset.json"),
    ("uncertainty", _uncertainty, "nnUNet_results/*/*/plans.json"),
    ("rank", _rank, "nnUNet_results/*/*/plans.json"),
    ("export", _export, "nnUNet_results/*/*/plans.json"),
    ("export", _export, "nnUNet_results/*/*/dataset.json"),
    ("report", _report, "nnUNet_results/*/*/dataset.json"),
    ("report", _report, "nnUNet_results/*/*/plans.json"),
    ("evaluate", _evaluate, "nnUNet_raw/*/dataset.json"),
)


def json_files() -> Iterator[BadInput]:
    """Every way to break a JSON file, in every command that reads it."""
    for command, arguments, pattern in READERS:
        name = pattern.rpartition("/")[2]
        for fault, content in BROKEN_JSON.items():
            make = _with_content(arguments, pattern, content)
            yield BadInput(f"{name}: {fault}", command, make, (name,))
        make = _removed(arguments, pattern)
        yield BadInput(f"{name}: not there", command, make, (name,))


def _with_content(
    arguments: Callable[[Here], Arguments], pattern: str, content: bytes
) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        result = arguments(here)
        (file,) = here.root.glob(pattern)
        file.write_bytes(content)
        return result

    return make


def _removed(arguments: Callable[[Here], Arguments], pattern: str) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        result = arguments(here)
        (file,) = here.root.glob(pattern)
        file.unlink()
        return result

    return make


# ---- plans that contradict themselves -----------------------------------------------------------


def plans() -> Iterator[BadInput]:
    """Plans that are JSON, and yet cannot be followed."""
    config = f"configurations/{CONFIGURATION}"
    parent = "configurations/2d"
    for name, key, value, names in (
        ("plans of another dataset", "dataset_name", "Dataset007_Other", ("Dataset007_Other",)),
        (
            "a data_identifier that leaves its folder",
            f"{parent}/data_identifier",
            "../x",
            ("../x",),
        ),
        ("an absolute data_identifier", f"{parent}/data_identifier", "/tmp/x", ("/tmp/x",)),
        ("a spacing below zero", f"{parent}/spacing", [-1, 1], ("spacing",)),
        ("a spacing of text", f"{parent}/spacing", "big", ("spacing",)),
        ("a configuration that inherits from none", f"{config}/inherits_from", "gone", ("gone",)),
        ("a configuration that is a list", config, [1], (CONFIGURATION,)),
        ("no configurations", "configurations", {}, (CONFIGURATION,)),
        ("an unknown reader", "image_reader_writer", "NoSuchIO", ("NoSuchIO",)),
        ("an unknown normalization", f"{parent}/normalization_schemes", ["Nope"], ("Nope",)),
    ):
        yield BadInput(name, "preprocess", _edited(key, value), names)
    yield BadInput("plans copied and edited", "preprocess", _copied_plans, ("myplans",))
    yield BadInput("two configurations in one folder", "preprocess", _two_in_one, ("spacing",))
    yield BadInput("an unknown configuration", "preprocess", _unknown, ("3d_nothing",))


def _edited(key: str, value: Any) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        result = _preprocess(here)
        _edit(here.preprocessed / "nnUNetPlans.json", key, value)
        return result

    return make


def _edit(file: Path, key: str, value: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    *path, last = key.split("/")
    inner = content
    for step in path:
        inner = inner[step]
    inner[last] = value
    file.write_text(json.dumps(content), encoding="utf-8")


def _copied_plans(here: Here) -> Arguments:
    file = here.preprocessed / "nnUNetPlans.json"
    copy = Path(shutil.copy(file, file.with_name("myplans.json")))
    _edit(copy, "configurations/2d/spacing", [3.5, 3.5])
    return (*PREPROCESS, "-p", "myplans")


def _two_in_one(here: Here) -> Arguments:
    file = here.preprocessed / "nnUNetPlans.json"
    spacing = {"inherits_from": "2d", "spacing": [3.5, 3.5]}
    _edit(file, "configurations/2d_iso", spacing)
    return ("-d", "500", "-c", "2d_iso", "-np", "0", "--no_pbar")


def _unknown(here: Here) -> Arguments:
    return ("-d", "500", "-c", "3d_nothing", "-np", "0", "--no_pbar")


# ---- checkpoints --------------------------------------------------------------------------------


def checkpoints() -> Iterator[BadInput]:
    """Checkpoints that are damaged, or none."""
    for command, arguments in (("export", _export), ("uncertainty", _uncertainty), ("rank", _rank)):
        for fault, content in (
            ("empty", b""),
            ("a text", b"not yet\n"),
            ("a JSON file", b'{"a": 1}'),
        ):
            make = _with_content(arguments, "**/checkpoint_final.pth", content)
            yield BadInput(f"checkpoint: {fault}", command, make, ("checkpoint_final.pth",))
        for fault, change in (("cut short", _half), ("of something else", _something_else)):
            make = _with_checkpoint(arguments, change)
            yield BadInput(f"checkpoint: {fault}", command, make, ("checkpoint_final.pth",))
        make = _removed(arguments, "**/checkpoint_final.pth")
        yield BadInput("checkpoint: not there", command, make, ("checkpoint_final.pth",))


def _with_checkpoint(
    arguments: Callable[[Here], Arguments], change: Callable[[Path], None]
) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        change(here.fold / "checkpoint_final.pth")
        return arguments(here)

    return make


def _half(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def _something_else(file: Path) -> None:
    import torch

    torch.save({"model": {}}, file)


# ---- tables of metrics --------------------------------------------------------------------------

HEADER = "case,label,dice,jaccard,hd95_mm,asd_mm,hd95_voxel,asd_voxel,reference_voxels,"
HEADER += "predicted_voxels,status\n"


def metrics() -> Iterator[BadInput]:
    """metrics.csv files that compare must not take."""
    good = (HEADER + "".join(_row(f"c{n}", "0.5") for n in range(3))).encode()
    for name, content, names in (
        ("empty", b"", ("metrics.csv",)),
        ("a header alone", HEADER.encode(), ("metrics.csv",)),
        ("a Dice of 2", good + _row("c9", "2").encode(), ("c9", "2")),
        ("a Dice of -1", good + _row("c9", "-1").encode(), ("c9", "-1")),
        ("a Dice of inf", good + _row("c9", "inf").encode(), ("c9", "inf")),
        ("a Dice of text", good + _row("c9", "good").encode(), ("line 5",)),
        ("a case twice", good + _row("c1", "0.5").encode(), ("c1",)),
        ("no column dice", good.replace(b"dice", b"dyce", 1), ("dice",)),
        ("UTF-16 that does not say so", good.decode().encode("utf-16-le"), ("metrics.csv",)),
        ("not UTF-8", good + b"\xff\xfe,1", ("metrics.csv",)),
        ("a field of a megabyte", good + b"x" * 1_000_000, ("metrics.csv",)),
        ("a NUL byte", good.replace(b"c1", b"c\0"), ("metrics.csv",)),
        ("semicolons", good.replace(b",", b";"), ("metrics.csv",)),
        ("a row cut short", good + b"c9,1,0.", ("metrics.csv",)),
        ("a picture", bytes(range(256)) * 20, ("metrics.csv",)),
    ):
        yield BadInput(f"metrics.csv: {name}", "compare", _compared(good, content), names)
    other = good.replace(b"c1", b"d1")
    yield BadInput("other cases in the second run", "compare", _compared(good, other), ("d1",))


def _row(case: str, dice: str) -> str:
    return f"{case},large,{dice},0.4,1,1,1,1,10,10,ok\n"


def _compared(first: bytes, second: bytes) -> Callable[[Here], Arguments]:
    def make(here: Here) -> Arguments:
        for name, content in (("a", first), ("b", second)):
            (here.root / name).mkdir()
            (here.root / name / "metrics.csv").write_bytes(content)
        return (f"a={here.root / 'a'}", f"b={here.root / 'b'}", "-o", here.out / "compared")

    return make
