"""What the doctor's command writes: a table, JSON, a page; and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import torch

from nnunetv2_spmc import __version__
from nnunetv2_spmc.cli.doctor import main
from nnunetv2_spmc.doctor import cost, examination, measure
from nnunetv2_spmc.doctor.examination import Examination
from nnunetv2_spmc.doctor.finding import SEVERITIES, Finding
from nnunetv2_spmc.doctor.text import as_json, as_text
from nnunetv2_spmc.unlabeled.target import find_training_target
from tests.doctor.conftest import COST

LONG = "nnUNetv2_spmc_preprocess -d Dataset500_Phantom -c 3d_fullres -p nnUNetResEncUNetLPlans"
FINDINGS = [
    Finding("torch", "ok", "torch 2.9."),
    Finding("dynamic-network-architectures", "ok", "It has a long name, and a long sentence, too."),
    Finding("leaks", "error", "Some cases are " + "test cases " * 12, ("a", "b", "c", "d")),
    Finding("3d_fullres", "warning", "Not preprocessed.", ("one",), "Then:", LONG),
]


def status(*arguments):
    try:
        main(list(arguments))
    except SystemExit as ended:
        return ended.code
    return 0


def test_the_table_is_sorted_and_fits_a_terminal():
    text = as_text(Examination("Dataset500_Phantom", FINDINGS), 80)
    lines = text.splitlines()
    assert [line.split()[0] for line in lines if re.match("error|warn|ok", line)] == [
        "error",
        "warning",
        "ok",
        "ok",
    ]
    assert all(len(line) <= 80 for line in lines if LONG not in line)
    assert f"         > {LONG}" in lines
    assert "4 cases: a, b, c, ..." in text
    assert "1 case: one" in text
    assert lines[-1] == "Dataset500_Phantom: 1 error, 1 warning, 2 ok."


def test_sites_are_a_table_below():
    rows = (("spacing", "1 x 1 mm", "2 x 2 mm"),)
    text = as_text(Examination("D", FINDINGS, rows))
    assert "medians of scans  labeled   unlabeled\nspacing           1 x 1 mm  2 x 2 mm" in text


def test_json_has_every_finding_with_all_cases():
    content = json.loads(as_json(Examination("", FINDINGS, (("a", "b", "c"),))))
    assert content.keys() == {"version", "dataset", "worst", "findings", "sites"}
    assert (content["version"], content["dataset"], content["worst"]) == (
        __version__,
        None,
        "error",
    )
    assert content["sites"] == [{"property": "a", "labeled": "b", "unlabeled": "c"}]
    first = content["findings"][0]
    assert first.keys() == {"check", "severity", "what", "cases", "advice", "command"}
    assert first["cases"] == ["a", "b", "c", "d"]
    assert all(f["severity"] in SEVERITIES for f in content["findings"])


@pytest.mark.usefixtures("no_machine")
def test_the_page_has_pictures_of_the_distributions(phantom, tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    assert status("-d", "500", "-c", "2d", "--no_pbar", "-np", "0", "--html", str(page)) == 0
    html = page.read_text()
    pictures = re.findall(r'<img src="data:image/svg\+xml;base64,[^"]+" alt="([^"]+)"', html)
    assert len(pictures) == 3
    for text, part in zip(
        pictures, ("Spacing of 5 labeled and 4", "Size of 5", "Inte"), strict=True
    ):
        assert text.startswith(part)
    assert not re.findall(r'(?:src|href)="(?!data:)', html)  # it needs no network
    for finding in ("No unlabeled case is a labeled or test case", "Medians of scans"):
        assert finding in html
    assert "Dataset500_Phantom" in capsys.readouterr().out


@pytest.mark.usefixtures("no_machine")
def test_json_goes_to_stdout_instead_of_the_table_or_into_a_file(phantom, tmp_path, capsys):
    question = ("-d", "500", "-c", "2d", "--no_pbar", "-np", "0", "--json")
    assert status(*question) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["dataset"] == "Dataset500_Phantom"
    assert status(*question, str(tmp_path / "found.json")) == 0
    assert json.loads((tmp_path / "found.json").read_text()) == content
    assert "medians of scans" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("severity", "expected"), [("ok", 0), ("note", 0), ("warning", 0), ("error", 1)]
)
def test_the_status_is_1_if_there_is_an_error(monkeypatch, capsys, severity, expected):
    found = [("some", lambda: [Finding("some", severity, "What.")])]
    monkeypatch.setattr(examination, "machine_checks", lambda: found)
    assert status() == expected
    assert "some" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["-c", "2d"], "-c needs a dataset: -d ID"),
        (["-np", "-1"], "-np must be at least 0"),
        (["--html", "."], ". is a folder; name a file in it"),
        (["--html", "of/page"], "of/page must end in .html, so that a browser shows it; name of/p"),
        (["-dataset", "500"], "unknown option -dataset"),
    ],
)
def test_wrong_arguments_end_with_2(capsys, arguments, part):
    assert status(*arguments) == 2
    assert part in capsys.readouterr().err


def test_a_file_that_is_no_page_is_not_replaced(tmp_path):
    notes = tmp_path / "notes.html"
    notes.write_text("my notes")
    assert str(status("--html", str(notes))).startswith("error: ")
    assert notes.read_text() == "my notes"


@pytest.mark.usefixtures("no_machine")
def test_worker_processes_open_files(phantom, monkeypatch, capsys):
    monkeypatch.setattr("nnunetv2_spmc.doctor.dataset.FEW_SCANS", 0)
    assert status("-d", "500", "-c", "2d", "-np", "2") == 0
    shown = capsys.readouterr()
    assert "All 4 scans of imagesUn were read whole." in " ".join(shown.out.split())
    assert "Unlabeled cases, 2d: 100%" in shown.err


# ---- broken installations ----------------------------------------------------------------------


@pytest.mark.parametrize("package", ["torch", "torchvision", "nnunetv2", "blosc2"])
def test_a_broken_package_is_named_without_a_traceback(tmp_path, package):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("raise ImportError('it is broken')\n")
    ended = subprocess.run(
        [sys.executable, "-m", "nnunetv2_spmc.cli.doctor", "-d", "999", "--json"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "nnUNet_raw": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    findings = json.loads(ended.stdout)["findings"]
    found = {finding["check"]: finding for finding in findings}
    assert "it is broken" in found[package]["what"]
    assert found[package]["severity"] == "error"
    assert "There is no dataset 999" in found["dataset"]["what"]


# ---- memory and time ---------------------------------------------------------------------------


@pytest.fixture
def target(phantom):
    return find_training_target("500", "2d_small", "nnUNetPlans")


def test_a_real_step_is_counted_and_timed_and_leaves_nothing(phantom, target, monkeypatch):
    monkeypatch.undo()  # the real `measured`
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(phantom.root / name))
    found = cost.measured(target, "cpu")
    assert found.keys() == COST.keys()
    assert (found["labeled"], found["unlabeled"], found["patch"]) == (2, 2, [16, 16])
    assert found["is_measured"]
    assert found["seconds"] > 0
    assert 10**5 < found["peak_bytes"] < 10**8
    assert list((phantom.root / "nnUNet_results").iterdir()) == []


def test_the_time_is_that_of_steps_with_and_without_unlabeled_patches(monkeypatch):
    class Trainer:
        iteration, device = 7, torch.device("cpu")

        def train_step(self, batch):
            times.append(4.0 if self.iteration % 3 == 0 else 1.0)

    def last(step, device):
        step()
        return times[-1]

    times = []
    monkeypatch.setattr(measure, "seconds_of", last)
    assert measure._seconds_of_training(Trainer(), 3, {}) == 2.0  # of 4, 1 and 1
    assert measure._seconds_of_training(Trainer(), 1, {}) == 1.0


def test_a_step_that_fails_is_a_sentence(phantom, target, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("nnUNet_preprocessed", str(phantom.root))
    with pytest.raises(Exception, match=r"^A first step failed: There is no dataset"):
        cost.measured(target, "cpu")


@pytest.mark.parametrize(
    ("gib", "severity"), [(4, "ok"), (7.6, "warning"), (9, "error")], ids=["fits", "tight", "too"]
)
def test_memory_is_compared_with_the_device(target, gib, severity):
    needed = {**COST, "peak_bytes": int(gib * (1 << 30))}
    memory, _ = cost.cost_findings(target, needed, "cuda")
    assert memory.severity == severity
    assert f"needs {gib:.2g} GiB, losses counted; the GPU has 8 GiB" in memory.what
    if severity != "ok":
        assert memory.command.startswith("nnUNetv2_plan_experiment -d 500 -gpu_memory_target")


@pytest.mark.parametrize(
    ("seconds", "is_measured", "parts", "severity"),
    [
        (0.1, True, ("6.9 hours", "measured without loading"), "ok"),
        (1, True, ("2.9 days",), "ok"),
        (30, False, ("86.8 days", "1 TFLOP", "100 GFLOP/s"), "note"),
    ],
)
def test_the_time_says_how_it_is_known(target, seconds, is_measured, parts, severity):
    given = {**COST, "seconds": seconds, "is_measured": is_measured}
    _, time = cost.cost_findings(target, given, "cpu")
    for part in parts:
        assert part in time.what
    assert time.severity == ("ok" if target.configuration_name.endswith("_small") else severity)
