import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import run_training
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_spmc import discovery
from nnunetv2_spmc.cli.train import OWN_TRAINERS, main, parse_arguments
from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.methods import TRAINERS, nnUNetTrainerSupervisedControl
from nnunetv2_spmc.training.commands import train_command
from nnunetv2_spmc.training.start import add_trainer_folder, check_trainer
from tests.in_process import leave_out_plots, use_threads_for_pools

NAME = "Dataset500_Phantom"
MODEL = f"{NAME}/nnUNetTrainerSPMC__nnUNetPlans__2d_small/fold_0"
CPU = ("-device", "cpu")
TINY = ("epochs=1", "iterations_per_epoch=1", "validation_iterations=1", "seed=0")


@pytest.fixture
def folder(planned_phantom, monkeypatch, tmp_path):
    """A folder with nnU-Net's three, as a user has them, whose data a test may spoil."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        shutil.copytree(planned_phantom.root / name, tmp_path / name)
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "nnUNet_results").mkdir()
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "nnUNet_results"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setenv("nnUNet_extTrainer", str(Path(discovery.__file__).parent))
    for variable in ("nnUNet_spmc_settings", "LOCAL_RANK"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def put_checkpoint(folder, make_trainer, monkeypatch):
    """Write a checkpoint of a training into its folder, without training."""

    def put(name="checkpoint_latest.pth", trainer=None, **settings):
        made = make_trainer(trainer, **settings)
        monkeypatch.delenv("nnUNet_spmc_settings")
        made.output_folder = str(folder / "nnUNet_results" / MODEL)
        Path(made.output_folder).mkdir(parents=True, exist_ok=True)
        made.initialize()
        file = Path(made.output_folder, name)
        made.save_checkpoint(str(file))
        monkeypatch.setenv("nnUNet_results", str(folder / "nnUNet_results"))
        monkeypatch.setenv("nnUNet_preprocessed", str(folder / "nnUNet_preprocessed"))
        monkeypatch.setenv("nnUNet_raw", str(folder / "nnUNet_raw"))
        return file

    return put


def refused(arguments, capsys):
    """Run the command; return the one sentence that it ends with."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    if ended.value.code == 2:
        *usage, sentence = capsys.readouterr().err.splitlines()
        assert usage[0].startswith("usage: nnUNetv2_spmc_train")
        return sentence.removeprefix("nnUNetv2_spmc_train: ")
    assert isinstance(ended.value.code, str)
    assert "\n" not in ended.value.code
    assert "Traceback" not in capsys.readouterr().err
    return ended.value.code


# ---- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("500 2d_small 0 -tr nnUNetTrainerSMPC", "no trainer nnUNetTrainerSMPC; did you mean nnU"),
        (
            "500 2d_small 0 -tr Liver",
            "no trainer Liver; those of this package are nnUNetTrainerSPM",
        ),
        (
            "500 3d_full 0",
            "have no configuration 3d_full, only 2d, 3d_fullres, 2d_small, 3d_fullre",
        ),
        ("500 2d_small 0 -p nnUNetResEncUNetLPlans", r"its plans: nnUNetPlans; choose with -p"),
        ("501 2d_small 0", rf"There is no dataset 501 in .*; the folder has {NAME}"),
        ("Dataset500_Liver 2d_small 0", rf"no dataset Dataset500_Liver in .* has {NAME}"),
        ("500 2d_small 7", r"There is no fold 7 for the 5 labeled cases: .* train 0 to 4, or all"),
        ("500 2d_small first", 'the fold must be a number or "all", got first'),
        ("500 2d_small", "the following arguments are required: FOLD"),
        ("500 2d_small 0 -device gpu", "invalid choice: 'gpu'"),
        ("500 2d_small 0 -device cuda", "There is no GPU that PyTorch can use.* -device cpu"),
        ("500 2d_small 0 -num_gpus 2 -device cpu", "-num_gpus needs GPUs"),
        ("500 2d_small 0 --set tao=0.7", "Unknown setting 'tao' in --set; known: .*'tau'"),
        ("500 2d_small 0 --set epochs=0", "In --set: The setting epochs must be at least 1, got 0"),
        ("500 2d_small 0 --set epochs=many", "epochs must be of type int, got 'many'"),
        ("500 2d_small 0 --set epochs 200", "--set takes KEY=VALUE, .*; got epochs"),
        ("500 2d_small 0 --set tau=1 tau=2", "--set has tau twice"),
        ("500 2d_small 0 --settings no.json", r"file of settings no\.json cannot be read: No such"),
        (
            "500 2d_small 0 --val",
            r"checkpoint_final\.pth does not exist, and --val validates a tra",
        ),
        ("500 2d_small 0 --c --val", "--c cannot be combined with --val"),
        ("500 2d_small 0 -pretrained_weights w.pth", r"w\.pth does not exist; give -pretrained_we"),
        ("500 2d_small 0 -tr nnUNetTrainer --set epochs=3", "nnU-Net's own and has no settings: l"),
        ("500 2d_small 0 --epochs 3", "unknown option --epochs"),
    ],
)
def test_a_mistake_is_one_sentence(folder, capsys, monkeypatch, arguments, sentence):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    words = arguments.split()
    device = () if "-device" in words else CPU
    said = refused([*device, *words], capsys)
    assert re.search(sentence, said), said
    assert list((folder / "nnUNet_results").rglob("*.pth")) == []


def spoil_nothing_set(folder, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed")


def spoil_results(folder, monkeypatch):
    monkeypatch.delenv("nnUNet_results")


def spoil_plans(folder, monkeypatch):
    (folder / "nnUNet_preprocessed" / NAME / "nnUNetPlans.json").write_text("{")


def spoil_settings_file(folder, monkeypatch):
    Path("bad.json").write_text('{"epochs": 3')


def spoil_planning(folder, monkeypatch):
    shutil.rmtree(folder / "nnUNet_preprocessed" / NAME)


def spoil_labeled(folder, monkeypatch):
    shutil.rmtree(folder / "nnUNet_preprocessed" / NAME / "nnUNetPlans_2d")


def spoil_one_labeled(folder, monkeypatch):
    preprocessed = folder / "nnUNet_preprocessed" / NAME
    cases = sorted(f.stem for f in (preprocessed / "nnUNetPlans_2d").glob("*.pkl"))
    split = [{"train": cases[1:], "val": cases[:1]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(split))
    for file in (preprocessed / "nnUNetPlans_2d").glob(f"{cases[2]}*"):
        file.unlink()


def spoil_stray_file(folder, monkeypatch):
    (folder / "nnUNet_preprocessed" / NAME / "nnUNetPlans_2d" / "Thumbs.db").touch()


def spoil_unlabeled(folder, monkeypatch):
    shutil.rmtree(folder / "nnUNet_preprocessed" / NAME / "nnUNetPlans_2d_unlabeled")
    shutil.rmtree(folder / "nnUNet_raw" / NAME / "imagesUn")


@pytest.mark.parametrize(
    ("spoil", "options", "sentence"),
    [
        (spoil_nothing_set, "", "nnUNet_preprocessed is not set; export nnUNet_preprocessed="),
        (spoil_results, "", "nnUNet_results is not set; export nnUNet_results="),
        (spoil_plans, "", r"nnUNetPlans\.json is not valid JSON .*; plan the dataset again"),
        (spoil_settings_file, "--settings bad.json", r"bad\.json is not valid JSON"),
        (spoil_planning, "", r"It is in .*: plan it first, with nnUNetv2_plan_and_preprocess -d 5"),
        (
            spoil_labeled,
            "",
            r"not preprocessed for 2d_small: .* nnUNetv2_preprocess -d 500 -plans_",
        ),
        (
            spoil_one_labeled,
            "",
            r"1 of the labeled .* \(train_002\), though .* nnUNetv2_preprocess",
        ),
        (
            spoil_stray_file,
            "",
            r"has files that end in \.b2nd and \.db, so .* move away the files that are not cases",
        ),
        (spoil_unlabeled, "", f"no unlabeled case: .* run nnUNetv2_spmc_preprocess -d {NAME} -c 2"),
    ],
)
def test_what_is_missing_is_one_sentence(folder, capsys, monkeypatch, spoil, options, sentence):
    spoil(folder, monkeypatch)
    said = refused(["500", "2d_small", "0", *CPU, *options.split()], capsys)
    assert said.startswith("error: ")
    assert re.search(sentence, said), said


def test_changed_settings_are_one_sentence(put_checkpoint, capsys):
    put_checkpoint(epochs=3, unlabeled_every=2)
    said = refused(["500", "2d_small", "0", "--c", *CPU, "--set", *TINY, "tau=0.6"], capsys)
    assert said.startswith("error: The run to continue was started differently: iterations_per_")
    assert "; tau: 0.7 -> 0.6. Restore what it had" in said


def empty(file):
    file.write_bytes(b"")


def cut(file):
    file.write_bytes(file.read_bytes()[:-3000])


def flip(file):
    """Change some bytes of the weights, which the check sum of their entry finds."""
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    file.write_bytes(content)


def other(file):
    torch.save([1, 2, 3], file)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            empty,
            r"checkpoint_latest\.pth is empty; move it away, and --c goes on from checkpoint_b",
        ),
        (cut, r"checkpoint_latest\.pth is damaged \(.*\); move it away, and --c goes on from"),
        (flip, r"checkpoint_latest\.pth is damaged \(.*\); move it away, and --c goes on from"),
        (other, r"checkpoint_latest\.pth is not a checkpoint of nnU-Net; move it away, and --c"),
    ],
)
def test_a_damaged_checkpoint_is_named(put_checkpoint, capsys, damage, sentence):
    put_checkpoint("checkpoint_best.pth", epochs=3)
    damage(put_checkpoint(epochs=3))
    said = refused(["500", "2d_small", "0", "--c", *CPU, "--set", *TINY], capsys)
    assert re.search(sentence, said), said


def test_without_another_checkpoint_it_starts_again(put_checkpoint, capsys):
    empty(put_checkpoint(trainer=nnUNetTrainerSupervisedControl))
    trainer = Path(MODEL).parts[1].replace("SPMC", "SupervisedControl")
    here = Path(os.environ["nnUNet_results"], NAME)
    (here / Path(MODEL).parts[1]).rename(here / trainer)
    arguments = ["500", "2d_small", "0", "--c", *CPU, "-tr", "nnUNetTrainerSupervisedControl"]
    assert refused(arguments, capsys).endswith(
        "checkpoint_latest.pth is empty; move it away, and --c starts the training again."
    )


def test_pretrained_weights_that_are_none_are_named(folder, capsys):
    torch.save([1, 2, 3], "w.pth")
    arguments = ["500", "2d_small", "0", *CPU, "-pretrained_weights", "w.pth"]
    said = refused(arguments, capsys)
    assert said.startswith("error: w.pth is not a whole checkpoint of nnU-Net (")


def test_a_mistake_of_the_program_keeps_its_traceback(folder, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(TRAINERS[0], "initialize", fail)
    with pytest.raises(ZeroDivisionError):
        main(["500", "2d_small", "0", *CPU])


def test_a_torchvision_that_does_not_fit_is_named(folder, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("nnunetv2_spmc.training.start.get_trainer_from_args", fail)
    said = refused(["500", "2d_small", "0", *CPU], capsys)
    assert "(operator torchvision::nms does not exist): torchvision is not there or does" in said


# ---- what works ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.supported(
    "trainers", "`nnUNetv2_spmc_train`: the same result as `nnUNetv2_train`, bit by bit"
)
def test_it_trains_as_the_stock_command_does(folder, monkeypatch, capsys):
    use_threads_for_pools(monkeypatch)
    leave_out_plots(monkeypatch)
    file = folder / "nnUNet_results" / MODEL / "checkpoint_final.pth"
    settings = {"epochs": 2, "iterations_per_epoch": 1, "validation_iterations": 1, "seed": 3}
    monkeypatch.setenv("nnUNet_spmc_settings", json.dumps(settings))
    arguments = ("500", "2d_small", "0", "nnUNetTrainerSPMC")
    run_training(*arguments, device=torch.device("cpu"))
    stock = torch.load(file, weights_only=False)
    shutil.rmtree(folder / "nnUNet_results")
    monkeypatch.setenv("nnUNet_spmc_settings", json.dumps(settings | {"epochs": 9, "seed": 9}))
    Path("mine.json").write_text('{"epochs": 2, "seed": 4, "SPMC": {"tau": 0.7}}')
    monkeypatch.delenv("nnUNet_extTrainer")
    capsys.readouterr()
    options = ("--settings", "mine.json", "--set", "seed=3")
    main(["500", "2d_small", "0", *CPU, *options])
    ours = torch.load(file, weights_only=False)

    for key, weights in stock["network_weights"].items():
        assert torch.equal(ours["network_weights"][key], weights), key
    assert ours["semi_supervised"]["settings"] == stock["semi_supervised"]["settings"]
    assert (file.parent / "validation" / "summary.json").is_file()
    printed = capsys.readouterr().out
    assert "  epochs = 2  (from --settings mine.json)" in printed
    assert "  seed = 3  (from --set)" in printed
    assert "  iterations_per_epoch = 1  (from $nnUNet_spmc_settings)" in printed
    assert "nnUNet_spmc_options" not in os.environ


@pytest.mark.slow
def test_a_longer_training_is_a_matter_of_two_options(folder, monkeypatch, capsys):
    use_threads_for_pools(monkeypatch)
    leave_out_plots(monkeypatch)
    arguments = ["500", "2d_small", "0", *CPU, "--set", *TINY[1:]]
    main([*arguments, "epochs=1"])
    main(["--c", *arguments, "epochs=3"])
    fold = folder / "nnUNet_results" / MODEL
    epochs = {file.name: torch.load(file, weights_only=False) for file in fold.glob("*.pth")}
    assert epochs["checkpoint_final.pth"]["current_epoch"] == 3
    assert epochs["checkpoint_epoch_1.pth"]["current_epoch"] == 1
    assert "epochs 1 -> 3: learning rate and ramp follow the new" in capsys.readouterr().out
    said = refused(["--c", *arguments, "epochs=2"], capsys)
    assert "checkpoint_final.pth has 3 epochs of training, and the setting epochs is 2: giv" in said


@pytest.mark.slow
def test_a_stock_trainer_can_be_trained_too(folder, monkeypatch):
    trained = []
    monkeypatch.setattr(nnUNetTrainer, "run_training", lambda self: trained.append(type(self)))
    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda *_: None)
    main(["500", "2d_small", "7", *CPU, "-tr", "nnUNetTrainer_1epoch"])  # a random split
    assert [kind.__name__ for kind in trained] == ["nnUNetTrainer_1epoch"]


def test_it_is_a_module_too(folder):
    command = [sys.executable, "-m", "nnunetv2_spmc.train", "500", "2d_small", "9", *CPU]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: There is no fold 9 for the 5 labeled cases")


def test_values_are_json_or_text():
    words = ["epochs=200", "tau=0.65", "views=weak-to-strong", "turns=true", "seed=null"]
    assert parse_arguments(["500", "2d", "0", "--set", *words]).set == {
        "epochs": 200,
        "tau": 0.65,
        "views": "weak-to-strong",
        "turns": True,
        "seed": None,
    }


def test_the_command_that_goes_on_is_this_one_with_its_settings(make_trainer, monkeypatch):
    trainer = make_trainer(nnUNetTrainerSupervisedControl)
    options = {"--settings a b.json": {"seed": 1}, "--set": {"epochs": 3, "views": "same"}}
    monkeypatch.setenv("nnUNet_spmc_options", json.dumps(options))
    assert train_command(trainer, "--c") == (
        "nnUNetv2_spmc_train 500 2d_small 0 -tr nnUNetTrainerSupervisedControl -device cpu --c "
        "--settings 'a b.json' --set epochs=3 views=same"
    )


def test_the_trainers_are_found_beside_those_of_others(monkeypatch, tmp_path):
    ours = Path(discovery.__file__).parent
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    add_trainer_folder(ours)
    add_trainer_folder(ours)
    assert os.environ["nnUNet_extTrainer"] == f"{tmp_path}{os.pathsep}{ours}"
    (tmp_path / "mine.py").write_text("class MyTrainer: pass\nfrom other import Imported\n")
    for name in ("MyTrainer", "Imported", "nnUNetTrainer_5epochs", "nnUNetTrainerSPMC"):
        check_trainer(name, OWN_TRAINERS)
    with pytest.raises(DataError, match=r"did you mean MyTrainer\?"):
        check_trainer("MyTraine", OWN_TRAINERS)


# ---- several processes --------------------------------------------------------------------------


def test_more_gpus_than_there_are_is_one_sentence(folder, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    said = refused(["500", "2d_small", "0", "-num_gpus", "8"], capsys)
    assert said == "error: -num_gpus 8 is more than the 2 that this machine has."
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    said = refused(["500", "2d_small", "0", "-num_gpus", "8"], capsys)
    assert said.startswith("error: 8 processes cannot share the 2 patches of a step of 2d_small")
