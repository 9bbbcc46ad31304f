"""One process at the end of several epochs: python distributed_epoch_end.py FOLDER.

FOLDER/inputs.pt holds plans, dataset.json, and per epoch and rank which step has a NaN value and
how many steps were skipped; every process writes the loss that it logged for each epoch, or the
message with which it stopped, to FOLDER/rank_R.pt.
"""

import math
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from nnunetv2_spmc.methods import nnUNetTrainerSPMC
from nnunetv2_spmc.training.processes import end_process_group
from nnunetv2_spmc.training.stability import TAKEN, DivergedError, DivergenceCheck


def outputs(broken=None, skipped=0):
    """Return what ten steps returned; the first ones were skipped."""
    values = [torch.tensor(math.nan if step == broken else 1.0) for step in range(10)]
    return [
        {"supervised_main": value, "total_loss": value, TAKEN: step >= skipped}
        for step, value in enumerate(values)
    ]


def main(folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    inputs = torch.load(folder / "inputs.pt", weights_only=False)
    trainer = nnUNetTrainerSPMC(
        inputs["plans"] | {"continue_training": False},
        "2d_small",
        0,
        inputs["dataset_json"],
        torch.device("cpu"),
    )
    trainer.initialize()
    trainer.grad_scaler = torch.amp.GradScaler("cpu")
    outcomes = {}
    for epoch, (name, per_rank) in enumerate(inputs["epochs"].items()):
        trainer.current_epoch = epoch
        trainer.check_divergence = DivergenceCheck(folder)
        try:
            trainer.on_train_epoch_end(outputs(**per_rank[rank]))
            outcomes[name] = float(trainer.logger.get_value("train_losses", step=-1))
        except DivergedError as error:
            outcomes[name] = str(error)
            trainer.logger.log("train_losses", math.nan, epoch)
    torch.save(outcomes, folder / f"rank_{rank}.pt")
    end_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
