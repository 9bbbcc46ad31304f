import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "small_plans.py"


def small_plans(preprocessed, *arguments):
    environment = os.environ | {"nnUNet_preprocessed": str(preprocessed)}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")


def test_a_small_configuration_shares_the_preprocessed_data(planned_phantom):
    folder = planned_phantom.preprocessed.parent
    done = small_plans(
        folder, "-d", "500", "-c", "2d", "--patch-size", "16", "16", "--name", "mini"
    )
    assert done.returncode == 0, done.stderr
    mini = planned_phantom.plans()["configurations"]["mini"]
    assert mini["inherits_from"] == "2d"
    assert "data_identifier" not in mini
    assert max(mini["architecture"]["arch_kwargs"]["features_per_stage"]) <= 128


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-d", "499", "-c", "2d"), "has no nnUNetPlans.json of dataset 499; plan first."),
        (("-d", "500", "-c", "3d"), "no configuration 3d with an architecture of its own; take"),
        (("-d", "500", "-c", "2d", "--patch-size", "15", "16"), "must be a multiple of"),
        (("-d", "500", "-c", "2d", "--patch-size", "16"), "--patch-size needs 2 numbers, got 1."),
    ],
)
def test_bad_input_gets_one_sentence_and_leaves_the_plans(planned_phantom, arguments, message):
    before = planned_phantom.plans()
    done = small_plans(planned_phantom.preprocessed.parent, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert json.dumps(planned_phantom.plans()) == json.dumps(before)


def test_an_unset_folder_is_named():
    done = small_plans("", "-d", "500", "-c", "2d")
    assert "nnUNet_preprocessed is not set" in done.stderr
