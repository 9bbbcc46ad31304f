"""One process of two: python distributed_contract.py FOLDER.

FOLDER/inputs.pt holds, for every method, settings, this process' part of a batch and its view;
the gradients, and all weights after two steps, go to FOLDER/rank_R.pt.
"""

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from nnunetv2_spmc.training.processes import end_process_group
from tests.methods.contract import (
    EXAMPLES,
    gradients_of_a_step,
    ready,
    replayed,
    without_chance,
)


def main(folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    inputs = torch.load(folder / "inputs.pt", weights_only=False)
    found = []
    for name, settings, parts, views in inputs["cases"]:
        os.environ["nnUNet_spmc_settings"] = settings
        trainer = {example.trainer.__name__: example.trainer for example in EXAMPLES}[name](
            inputs["plans"] | {"continue_training": False},
            inputs["configuration"],
            0,
            inputs["dataset_json"],
            torch.device("cpu"),
        )
        ready(trainer)
        with pytest.MonkeyPatch.context() as patch:
            without_chance(patch)
            replayed(patch, views[rank])
            gradients = gradients_of_a_step(trainer, parts[rank])
            trainer.train_step(parts[rank])  # on what the first one left
        found.append((gradients, trainer.joint_network.module.state_dict()))
    torch.save(found, folder / f"rank_{rank}.pt")
    end_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
