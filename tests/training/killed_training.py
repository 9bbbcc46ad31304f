"""Train in children that are killed and resumed: python killed_training.py CONFIGURATION SEED.

Prints one JSON object per child: how it ended, and which checkpoints it left. The children do what
nnUNetv2_train --c does; they are forked, so that importing nnU-Net takes its time only once.
"""

import json
import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

from nnunetv2_spmc.common.whole_file import WRITING_PREFIX

PATIENCE = 120  # seconds


def train(configuration):
    torch.set_num_threads(1)
    arguments = ("500", configuration, 0, "nnUNetTrainerSPMC", "nnUNetPlans", True)
    trainer = get_trainer_from_args(*arguments, device=torch.device("cpu"))
    maybe_load_checkpoint(trainer, True, False)
    trainer.run_training()


def started(configuration):
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            train(configuration)
        status = 0
    except SystemExit as error:
        status = error.code
    finally:
        os._exit(status)


def checkpoints():
    """Read all checkpoints there are: any of them that is not whole ends this program."""
    found = {}
    for file in Path(os.environ["nnUNet_results"]).rglob("fold_0/*.pth"):
        found[file.name] = torch.load(file, weights_only=False)["current_epoch"]
    return found


def wait(child, until):
    """Return the exit status of the child, or None if `until` comes true first."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            return os.waitstatus_to_exitcode(status)
        if until():
            return None
    raise TimeoutError(f"the training did nothing for {PATIENCE} s")


def writes_a_checkpoint():
    folders = os.walk(os.environ["nnUNet_results"])  # unlike pathlib it bears that some disappear
    return any(
        files and Path(folder).name.startswith(WRITING_PREFIX) for folder, _, files in folders
    )


def is_past(moment):
    return time.monotonic() > moment


def main(configuration, seed):
    rng = random.Random(seed)
    for attempt in range(100):
        child = started(configuration)
        # every third one dies while it writes; longer lives by and by, so that there is an end
        moment = time.monotonic() + rng.uniform(0.3, 1.5 + 0.5 * attempt)
        when = "writing" if attempt % 3 == 2 else "random"
        until = writes_a_checkpoint if when == "writing" else partial(is_past, moment)
        number = signal.SIGTERM if attempt % 4 == 1 else signal.SIGKILL
        status = wait(child, until)
        if status is None:
            os.kill(child, number)
            status = wait(child, lambda: False)
        record = {"when": when, "status": status, "unfinished": writes_a_checkpoint()}
        print(json.dumps(record | {"checkpoints": checkpoints()}), flush=True)
        if status == 0:
            return


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
