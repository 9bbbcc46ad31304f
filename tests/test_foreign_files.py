"""Models and cases from elsewhere are data: no command runs what they hold, stock nnU-Net does."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import run_training
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_spmc import discovery, load_run
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.methods import nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl
from nnunetv2_spmc.training.as_data import ForeignCodeError, plain
from nnunetv2_spmc.training.checkpoint import CheckpointError, read_checkpoint
from nnunetv2_spmc.unlabeled.cases import finished_cases
from tests.in_process import leave_out_plots, use_threads_for_pools
from tests.phantom_runs import stock_predictor

DATASET = "Dataset500_Phantom"
TINY = ["--set", "epochs=1", "iterations_per_epoch=1", "validation_iterations=1", "seed=0"]
TRAIN = ["500", "2d_small", "0", "-device", "cpu"]
CONTROL = ["-tr", "nnUNetTrainerSupervisedControl"]
STOCK = ["-tr", "nnUNetTrainer"]


class Program:
    """What makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


class Place(NamedTuple):
    """nnU-Net's folders with an untrained model of each trainer, all of which a test may spoil."""

    root: Path
    marker: Path

    def model(self, trainer: type) -> Path:
        name = f"{trainer.__name__}__nnUNetPlans__2d_small"
        return self.root / "nnUNet_results" / DATASET / name

    def checkpoint(self, trainer: type, name: str = "checkpoint_final.pth") -> Path:
        return self.model(trainer) / "fold_0" / name

    def cases(self, suffix: str = "") -> Path:
        return self.root / "nnUNet_preprocessed" / DATASET / f"nnUNetPlans_2d{suffix}"


@pytest.fixture
def place(planned_phantom, make_trainer, monkeypatch, tmp_path) -> Place:
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(planned_phantom.root / name, tmp_path / name)
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "nnUNet_results"))
    monkeypatch.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    leave_out_plots(monkeypatch)
    return Place(tmp_path, tmp_path / "marker")


@pytest.fixture
def put_model(place, make_trainer, monkeypatch) -> Callable[..., Path]:
    """Write the folder of a model without training it; return its checkpoint."""

    def put(trainer: type = nnUNetTrainerSPMC, name: str = "checkpoint_final.pth") -> Path:
        made = make_trainer(trainer, epochs=1, iterations_per_epoch=1)
        monkeypatch.delenv("nnUNet_spmc_settings")
        for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            monkeypatch.setenv(folder, str(place.root / folder))
        file = place.checkpoint(trainer, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        made.output_folder = str(file.parent)
        made.initialize()
        made.save_checkpoint(str(file))
        for content in ("plans.json", "dataset.json"):
            source = "nnUNetPlans.json" if content == "plans.json" else content
            shutil.copy(place.cases().parent / source, file.parents[1] / content)
        return file

    return put


def inject(file: Path, marker: Path) -> None:
    """Let a checkpoint run a program when it is unpickled."""
    torch.save(torch.load(file, weights_only=False) | {"note": Program(marker)}, file)


def spoil_weights(file: Path, value: float = np.nan) -> str:
    """Put a NaN into a checkpoint; return the name of the tensor."""
    content = torch.load(file, weights_only=False)
    name = next(iter(content["network_weights"]))
    content["network_weights"][name].view(-1)[0] = value
    torch.save(content, file)
    return name


def said_by(command: str, arguments: list[str], capsys) -> str:
    """Run a command that fails; return all that it says."""
    main = import_module(f"nnunetv2_spmc.cli.{command}").main
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code not in (None, 0)
    said = f"{ended.value.code}\n{capsys.readouterr().err}"
    assert "Traceback" not in said
    return said


def arguments_of(command: str, place: Place) -> list[str]:
    """What a command that reads a model is given."""
    model, images = place.model(nnUNetTrainerSPMC), place.root / "nnUNet_raw" / DATASET
    return [
        text.format(model=model, out=place.root / "out", images=images / "imagesTs")
        for text in {
            "uncertainty": ["-i", "{images}", "-o", "{out}", "-m", "{model}", "-device", "cpu"],
            "rank": ["-d", "500", "-m", "{model}", "-device", "cpu"],
            "report": ["{model}/fold_0", "-o", "{out}.html"],
            "export": ["-i", "{model}", "-o", "{out}"],
        }[command]
    ]


# ---- the sources --------------------------------------------------------------------------------

DATA_ONLY = ("training/as_data.py", "unlabeled/case_properties.py")  # the two that may read pickles
UNSAFE = re.compile(
    r"torch\.load\(|pickle\.loads?\(|Unpickler|load_pickle|weights_only=False|yaml\.load"
    r"|np\.load\((?!.*allow_pickle=False)|joblib|marshal|shelve|(?<![.\w])(eval|exec)\("
)


def test_no_other_module_reads_pickles():
    repository = Path(__file__).parents[1]
    found = [
        f"{file.relative_to(repository)}: {line.strip()}"
        for folder in ("nnunetv2_spmc", "dataset_conversion")
        for file in (repository / folder).rglob("*.py")
        if not file.as_posix().endswith(DATA_ONLY)
        for line in file.read_text(encoding="utf-8").splitlines()
        if UNSAFE.search(line)
    ]
    assert [line for line in found if "UnpicklingError" not in line] == []


# ---- checkpoints --------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["uncertainty", "rank", "report", "export"])
def test_a_command_names_what_a_model_would_run_and_does_not_run_it(
    place, put_model, capsys, command
):
    file = put_model()
    inject(file, place.marker)
    said = said_by(command, arguments_of(command, place), capsys)
    assert f"{file} names {os.mkdir.__module__}.mkdir, which is not part of a checkpoint" in said
    assert not place.marker.exists()
    assert not (place.root / "out").exists()


def test_load_run_does_not_run_what_a_model_holds(place, put_model):
    file = put_model()
    inject(file, place.marker)
    with pytest.raises(ForeignCodeError, match=r"checkpoint_final\.pth names .*\.mkdir, which is"):
        load_run(file.parent)
    assert not place.marker.exists()


@pytest.mark.parametrize(
    ("trainer", "options"),
    [
        (nnUNetTrainerSPMC, []),
        (nnUNetTrainerSupervisedControl, CONTROL),
        (nnUNetTrainer, STOCK),
    ],
)
@pytest.mark.parametrize("option", ["--c", "--val"])
def test_a_training_does_not_go_on_from_a_program(
    place, put_model, capsys, trainer, options, option
):
    file = put_model(trainer)
    inject(file, place.marker)
    settings = TINY if trainer is not nnUNetTrainer else []
    said = said_by("train", [*TRAIN, *options, option, *settings], capsys)
    assert f"{file} names " in said
    assert not place.marker.exists()


@pytest.mark.parametrize("options", [[], CONTROL, STOCK])
def test_pretrained_weights_are_not_executed(place, put_model, capsys, monkeypatch, options):
    file = put_model(nnUNetTrainer)
    inject(file, place.marker)
    arguments = [*TRAIN, *options, "-pretrained_weights", str(file)]
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_spmc_train", *arguments])
    said = said_by("train", arguments, capsys)
    assert f"{file} names " in said
    assert not place.marker.exists()


@pytest.mark.parametrize("trainer", [nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl])
@pytest.mark.parametrize("option", ["--c", "-pretrained_weights"])
def test_nnunets_own_command_runs_nothing_with_a_trainer_of_this_package(
    place, put_model, monkeypatch, trainer, option
):
    file = put_model(trainer)
    inject(file, place.marker)
    is_warm = option == "-pretrained_weights"
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", option, *([str(file)] * is_warm)])
    with pytest.raises(ForeignCodeError, match="names "):
        run_training(
            "500",
            "2d_small",
            0,
            trainer.__name__,
            pretrained_weights=str(file) if is_warm else None,
            continue_training=not is_warm,
            device=torch.device("cpu"),
        )
    assert not place.marker.exists()


def test_stock_nnunet_runs_it_so_its_commands_need_a_model_that_one_trusts(place, put_model):
    file = put_model(nnUNetTrainer)
    inject(file, place.marker)
    stock_predictor(file.parent)
    assert place.marker.exists()


def test_our_checkpoints_hold_plain_types_and_tensors_only(place, put_model):
    for trainer in (nnUNetTrainerSPMC, nnUNetTrainerSupervisedControl):
        content = torch.load(put_model(trainer), weights_only=True)  # without any allow-list
        assert content["trainer_name"] == trainer.__name__


def test_numbers_of_numpy_become_plain_ones_of_the_same_value():
    given = {"a": [np.float32(0.1), (np.float64(0.2), None)], "b": np.arange(2), "c": {"d": 1}}
    found = plain(given)
    assert found == {"a": [float(np.float32(0.1)), (0.2, None)], "b": [0, 1], "c": {"d": 1}}
    assert type(found["a"][0]) is type(found["a"][1][0]) is float
    assert found["c"] is given["c"]  # what is plain stays the same object, with all it has


@pytest.mark.parametrize("core", ["numpy._core", "numpy.core"])
def test_a_checkpoint_of_stock_nnunet_is_read_of_either_numpy(place, put_model, core):
    file = put_model(nnUNetTrainer)
    content = torch.load(file, weights_only=False)
    dice = np.float32(0.25)
    content["logging"] |= {"mean_fg_dice": [dice], "dice_per_class_or_region": [[dice, dice]]}
    content |= {"_best_ema": np.float64(0.5)}

    class Pickler(pickle._Pickler):
        def save_global(self, obj, name=None):
            if getattr(obj, "__name__", "") == "scalar":
                self.write(pickle.GLOBAL + f"{core}.multiarray\nscalar\n".encode())
                self.memoize(obj)
            else:
                super().save_global(obj, name)

        dispatch = pickle._Pickler.dispatch.copy()
        dispatch[type(os.mkdir)] = save_global
        dispatch[type(lambda: 0)] = save_global

    module = type(sys)("pickling")
    module.__dict__.update(vars(pickle), Pickler=Pickler)
    torch.save(content, file, pickle_module=module)
    found = read_checkpoint(file)
    assert found["logging"]["mean_fg_dice"] == [dice]
    assert found["_best_ema"] == 0.5


def test_reading_as_data_leaves_the_environment_as_it_was(place, put_model, monkeypatch):
    file = put_model()
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    read_checkpoint(file)
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


# ---- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["uncertainty", "rank", "export"])
def test_a_model_with_nan_is_refused_by_name(place, put_model, capsys, command):
    file = put_model()
    name = spoil_weights(file)
    said = said_by(command, arguments_of(command, place), capsys)
    assert f"{file} has NaN or infinite weights ({name}, " in said


@pytest.mark.parametrize(
    ("trainer", "options"), [(nnUNetTrainerSPMC, TINY), (nnUNetTrainer, STOCK)]
)
def test_a_training_does_not_go_on_from_nan(place, put_model, capsys, trainer, options):
    put_model(trainer, "checkpoint_best.pth")
    file = put_model(trainer)
    name = spoil_weights(file, np.inf)
    said = said_by("train", [*TRAIN, *options, "--c"], capsys)
    assert f"{file} has NaN or infinite weights ({name}, " in said
    assert said.endswith("; move it away, and --c goes on from checkpoint_best.pth.\n")


def test_pretrained_weights_with_nan_are_refused(place, put_model, capsys):
    file = put_model(nnUNetTrainer)
    name = spoil_weights(file)
    said = said_by("train", [*TRAIN, "-pretrained_weights", str(file)], capsys)
    assert f"{file} has NaN or infinite weights ({name}, " in said
    assert said.endswith("; give -pretrained_weights another checkpoint.\n")


def test_counters_and_empty_tensors_are_no_bad_weights(place, put_model):
    from nnunetv2_spmc.training.checkpoint import check_finite, not_finite

    fine = {"counter": torch.tensor(3), "empty": torch.empty(0), "half": torch.ones(2).half()}
    assert not_finite(fine) == []
    with pytest.raises(CheckpointError, match=r"file has NaN or infinite weights \(a\); do it"):
        check_finite(fine | {"a": torch.tensor([1, -np.inf])}, Path("file"), "do it")


# ---- plans --------------------------------------------------------------------------------------


def let_plans_run_a_program(file: Path, marker: Path) -> None:
    plans = json.loads(file.read_text())
    arguments = plans["configurations"]["2d_small"]["architecture"]["arch_kwargs"]
    arguments["nonlin"] = "subprocess.Popen"
    arguments["nonlin_kwargs"] = {"args": ["mkdir", str(marker)]}
    file.write_text(json.dumps(plans))


@pytest.mark.parametrize("command", ["uncertainty", "rank", "export"])
def test_plans_of_a_model_run_no_program(place, put_model, capsys, command):
    file = put_model().parents[1] / "plans.json"
    let_plans_run_a_program(file, place.marker)
    said = said_by(command, arguments_of(command, place), capsys)
    assert f"{file}: 'nonlin' is 'subprocess.Popen', which is not a module of a network" in said
    assert not place.marker.exists()


def test_plans_of_a_training_run_no_program(place, capsys):
    let_plans_run_a_program(place.cases().parent / "nnUNetPlans.json", place.marker)
    said = said_by("train", [*TRAIN, *TINY], capsys)
    assert "nnUNetPlans.json: 'nonlin' is 'subprocess.Popen', which is not a module of a n" in said
    assert not place.marker.exists()


# ---- preprocessed cases -------------------------------------------------------------------------


def inject_properties(folder: Path, case: str, marker: Path) -> None:
    file = folder / f"{case}.pkl"
    properties = pickle.loads(file.read_bytes())
    file.write_bytes(pickle.dumps(properties | {"note": Program(marker)}))


@pytest.mark.parametrize("options", [[], CONTROL, STOCK])
def test_a_training_does_not_run_what_a_labeled_case_holds(place, capsys, monkeypatch, options):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    for file in place.cases().glob("*.pkl"):
        inject_properties(place.cases(), file.stem, place.marker)
    settings = TINY if options != STOCK else []
    main = import_module("nnunetv2_spmc.cli.train").main
    with pytest.raises((SystemExit, DataError)) as ended:
        main([*TRAIN, *options, *settings])
    said = str(ended.value)
    assert ".pkl names " in said
    assert "mkdir, which is not part of a preprocessed case" in said
    assert not place.marker.exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_training_does_not_run_what_an_unlabeled_case_holds(place, capsys, monkeypatch, workers):
    monkeypatch.setenv("nnUNet_n_proc_DA", str(workers))
    folder = place.cases("_unlabeled")
    for case in finished_cases(folder):
        inject_properties(folder, case, place.marker)
    said = said_by("train", [*TRAIN, *TINY], capsys)
    assert ".pkl names " in said
    assert "mkdir, which is not part of a preprocessed case" in said
    assert not place.marker.exists()


def test_a_validation_does_not_run_what_a_case_holds(place, put_model, capsys, monkeypatch):
    use_threads_for_pools(monkeypatch)
    put_model()
    for file in place.cases().glob("*.pkl"):
        inject_properties(place.cases(), file.stem, place.marker)
    said = said_by("train", [*TRAIN, *TINY, "--val"], capsys)
    assert ".pkl names " in said
    assert not place.marker.exists()


def test_preprocess_verify_makes_a_case_with_a_program_again(place, capsys, monkeypatch):
    from nnunetv2_spmc.cli.preprocess import main

    monkeypatch.setattr("nnunetv2_spmc.cli.preprocess.DEFAULT_PROCESSES", {"2d": 0})
    folder = place.cases("_unlabeled")
    inject_properties(folder, "unlabeled_001", place.marker)
    main(["-d", "500", "-c", "2d", "--verify", "--no_pbar"])
    assert not place.marker.exists()
    assert pickle.loads((folder / "unlabeled_001.pkl").read_bytes())["class_locations"] == {}
