import importlib
import importlib.metadata
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunetv2_spmc.cli import trainers
from nnunetv2_spmc.methods import TRAINERS

COMMANDS = sorted(
    command.name
    for command in importlib.metadata.distribution("nnunetv2-spmc").entry_points
    if command.group == "console_scripts"
)


@pytest.fixture
def discovery_folder(capsys):
    trainers.main([])
    return capsys.readouterr().out.strip()


@pytest.fixture
def external_trainers(discovery_folder, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", discovery_folder)


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: trainer.__name__)
def test_stock_nnunet_finds_every_trainer(trainer, external_trainers):
    assert recursive_find_trainer_class_by_name(trainer.__name__) is trainer


def test_a_found_trainer_can_be_pickled_for_spawned_workers(external_trainers):
    found = recursive_find_trainer_class_by_name("nnUNetTrainerSPMC")
    assert pickle.loads(pickle.dumps(found)) is found


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: trainer.__name__)
def test_the_constructor_has_exactly_the_parameters_of_the_stock_trainer(trainer):
    # nnUNetTrainer.__init__ looks every parameter of the subclass up in its own locals()
    expected = list(inspect.signature(nnUNetTrainer.__init__).parameters)
    assert list(inspect.signature(trainer.__init__).parameters) == expected


@pytest.mark.parametrize("trainer", TRAINERS, ids=lambda trainer: trainer.__name__)
def test_prediction_builds_the_stock_network(trainer):
    stock = nnUNetTrainer.build_network_architecture
    assert trainer.build_network_architecture is stock


def test_the_discovery_folder_defines_nothing_itself(discovery_folder):
    modules = [path for path in Path(discovery_folder).glob("*.py") if path.stem != "__init__"]
    assert [path.name for path in modules] == ["nnunetv2_spmc_trainers.py"]
    source = modules[0].read_text()
    assert "class " not in source.split('"""')[2]


@pytest.mark.parametrize(
    ("shell", "start"),
    [("bash", "export nnUNet_extTrainer="), ("powershell", "$env:nnUNet_extTrainer = ")],
)
def test_the_line_to_paste_for_a_shell(shell, start, capsys, discovery_folder):
    trainers.main(["--shell", shell])
    line = capsys.readouterr().out.strip()
    assert line.startswith(start)
    assert discovery_folder in line


def test_bash_understands_the_line(capsys):
    trainers.main(["--shell", "bash"])
    line = capsys.readouterr().out.strip()
    shown = subprocess.run(
        ["bash", "-c", f'{line}; ls "$nnUNet_extTrainer"'], capture_output=True, text=True
    )
    assert "nnunetv2_spmc_trainers.py" in shown.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_console_script_starts(command):
    script = Path(sys.executable).parent / command
    shown = subprocess.run([script, "--help"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("usage: nnUNetv2_spmc_")


def test_importing_the_package_prints_nothing():
    modules = ("cli.convert", "cli.preprocess", "raw.writer", "losses", "methods")
    code = "\n".join(f"import nnunetv2_spmc.{module}" for module in modules)
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, "", "")
