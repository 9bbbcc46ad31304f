import signal
import sys
import threading

import pytest
import torch
from torch import distributed as dist

from nnunetv2_spmc.common.whole_file import WRITING_PREFIX, whole_file
from nnunetv2_spmc.methods import nnUNetTrainerSupervisedControl
from nnunetv2_spmc.training.stopping import how_to_go_on, says_how_to_go_on

COMMAND = "nnUNetv2_train 500 2d_small 0 -tr nnUNetTrainerSPMC"


@pytest.fixture
def trainer(make_trainer, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train"])
    trainer = make_trainer(epochs=9)
    trainer.current_epoch = 5
    return trainer


def put(trainer, **epochs):
    """Put checkpoints into the folder of a trainer: name -> the epoch to go on from."""
    for name, epoch in epochs.items():
        file = f"{trainer.output_folder}/checkpoint_{name}.pth"
        torch.save({"current_epoch": epoch, "network_weights": {}}, file)


# ---- which checkpoint ---------------------------------------------------------------------------


def test_without_a_checkpoint_it_starts_again(trainer):
    assert how_to_go_on(trainer) == (
        f"There is no checkpoint yet, so it starts again with: {COMMAND} -device cpu --c"
    )


def test_without_a_checkpoint_a_warm_start_starts_warm_again(trainer, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", "-pretrained_weights", "a b.pth", "--npz"])
    expected = f"{COMMAND} -device cpu --npz -pretrained_weights 'a b.pth'"
    assert how_to_go_on(trainer).endswith(f"with: {expected}")
    put(trainer, best=2)  # from which it went on already
    assert how_to_go_on(trainer).endswith(f"with: {COMMAND} -device cpu --npz --c")


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        ({"best": 4}, "It goes on from epoch 4 (checkpoint_best.pth)"),
        ({"best": 5, "latest": 3}, "It goes on from epoch 3 (checkpoint_latest.pth)"),
        ({"best": 5, "final": 8}, "It goes on from epoch 8 (checkpoint_final.pth)"),
    ],
)
def test_the_checkpoint_is_the_one_that_nnunet_takes(trainer, epochs, expected):
    put(trainer, **epochs)
    assert how_to_go_on(trainer) == f"{expected} with: {COMMAND} -device cpu --c"


def test_a_final_checkpoint_of_an_earlier_training_is_in_the_way(trainer):
    put(trainer, final=9, latest=3)
    assert how_to_go_on(trainer) == (
        f"Move {trainer.output_folder}/checkpoint_final.pth of an earlier training away; then it "
        f"goes on from epoch 3 (checkpoint_latest.pth) with: {COMMAND} -device cpu --c"
    )


def test_after_the_last_epoch_only_the_validation_is_left(trainer):
    put(trainer, final=9, latest=8)  # the latest is removed next
    trainer.current_epoch = 9
    expected = f"The training is done; validate with: {COMMAND} -device cpu --val"
    assert how_to_go_on(trainer) == expected
    trainer.current_epoch = 5  # nnUNetv2_train --val does not go through the epochs
    assert how_to_go_on(trainer, is_validating=True) == expected


def test_a_validation_without_a_final_checkpoint_cannot_be_repeated(trainer, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train", "--disable_checkpointing"])
    expected = f"starts again with: {COMMAND} -device cpu --disable_checkpointing --c"
    assert how_to_go_on(trainer, is_validating=True).endswith(expected)


# ---- the command --------------------------------------------------------------------------------


def test_the_command_names_what_differs_from_the_defaults(make_trainer, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nnUNetv2_train"])
    trainer = make_trainer(nnUNetTrainerSupervisedControl, fold="all")
    trainer.device = torch.device("cuda", 0)
    trainer.plans_manager.plans["plans_name"] = "nnUNetResEncUNetMPlans"
    assert how_to_go_on(trainer).endswith(
        "with: nnUNetv2_train 500 2d_small all -tr nnUNetTrainerSupervisedControl "
        "-p nnUNetResEncUNetMPlans --c"
    )


@pytest.mark.parametrize(
    ("environment", "command", "processes"),
    [
        ({}, "nnUNetv2_train", "-num_gpus 8 "),
        (
            {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "8"},
            "torchrun --nproc-per-node 8 -m nnunetv2_spmc.train",
            "",
        ),
        (
            {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "4"},
            "torchrun --nnodes 2 --nproc-per-node 4 ... -m nnunetv2_spmc.train",
            "",
        ),
    ],
)
def test_several_processes_are_started_as_they_were(
    trainer, monkeypatch, environment, command, processes
):
    for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 8)
    trainer.device = torch.device("cuda", 0)
    expected = f"{command} 500 2d_small 0 -tr nnUNetTrainerSPMC {processes}--c"
    assert how_to_go_on(trainer).endswith(f"with: {expected}")


# ---- the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_exit_status_is_that_of_the_signal(trainer, capsys, number, request):
    previous = signal.signal(number, signal.SIG_DFL)  # under nohup it is ignored
    request.addfinalizer(lambda: signal.signal(number, previous))
    with pytest.raises(SystemExit) as stopped, says_how_to_go_on(trainer):
        signal.raise_signal(number)
    assert stopped.value.code == 128 + number
    assert f"Stopped by {number.name}. There is no checkpoint yet" in capsys.readouterr().out


def test_a_second_signal_does_not_interrupt_the_last_words(trainer, capsys, monkeypatch):
    monkeypatch.setattr(trainer.progress, "end_steps", lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as stopped, says_how_to_go_on(trainer):
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 143
    assert "Stopped by SIGTERM. There is no checkpoint yet" in capsys.readouterr().out


def test_the_last_words_are_seen_where_nnunet_hides_its_output(trainer, capsys, monkeypatch):
    def on_train_end():
        with open("/dev/null", "w") as nowhere:
            sys.stdout = nowhere
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit), says_how_to_go_on(trainer):
        on_train_end()
    assert "Stopped by SIGTERM" in capsys.readouterr().out


def test_a_half_written_checkpoint_is_removed(trainer, tmp_path):
    put(trainer, best=1)
    (kept,) = tmp_path.rglob("checkpoint_best.pth")
    before = kept.read_bytes()

    def stopped_while_writing():
        with whole_file(kept) as temporary:
            temporary.write_bytes(b"half")
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit), says_how_to_go_on(trainer):
        stopped_while_writing()
    assert kept.read_bytes() == before
    assert list(kept.parent.glob(f"{WRITING_PREFIX}*")) == []


def test_other_processes_leave_the_last_words_to_the_first(trainer, capsys):
    capsys.readouterr()
    trainer.local_rank = 1
    with pytest.raises(SystemExit) as stopped, says_how_to_go_on(trainer):
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.code == 143
    assert capsys.readouterr().out == ""


def test_what_a_broken_off_function_held_is_freed_before_the_last_words(trainer, monkeypatch):
    class Loader:
        def __del__(self):
            order.append("freed")

    def load():
        loader = Loader()  # whose workers no one else could end
        signal.raise_signal(signal.SIGTERM)
        return loader

    order = []
    monkeypatch.setattr(trainer, "print_to_log_file", lambda *_: order.append("said"))
    with pytest.raises(SystemExit), says_how_to_go_on(trainer):
        load()
    assert order == ["freed", "said"]


def test_a_thread_that_loses_its_worker_at_the_end_prints_no_traceback(trainer, monkeypatch):
    def end_workers():
        def take_a_batch():
            raise FileNotFoundError("the socket of a worker that has ended")

        thread = threading.Thread(target=take_a_batch)
        thread.start()
        thread.join()

    printed = []
    monkeypatch.setattr(threading, "excepthook", printed.append)
    monkeypatch.setattr(trainer.progress, "end_steps", end_workers)
    with pytest.raises(SystemExit), says_how_to_go_on(trainer):
        signal.raise_signal(signal.SIGTERM)
    assert printed == []
    end_workers()
    assert len(printed) == 1  # afterwards they do again
