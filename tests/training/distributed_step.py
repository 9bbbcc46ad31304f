"""One process of a distributed training step: python distributed_step.py FOLDER.

FOLDER/inputs.pt holds plans, dataset.json, configuration and a whole batch; every process takes
its part of the batch and writes its gradients and logged values to FOLDER/rank_R.pt.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from nnunetv2_spmc.methods import nnUNetTrainerSPMC
from nnunetv2_spmc.training.processes import end_process_group


def part(data, rank, size):
    if isinstance(data, list):
        return [part(item, rank, size) for item in data]
    return data[rank * len(data) // size : (rank + 1) * len(data) // size]


def main(folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    inputs = torch.load(folder / "inputs.pt", weights_only=False)
    trainer = nnUNetTrainerSPMC(
        inputs["plans"] | {"continue_training": False},
        inputs["configuration"],
        0,
        inputs["dataset_json"],
        torch.device("cpu"),
    )
    trainer.initialize()
    trainer.joint_network.train()
    trainer.iteration = inputs["iteration"]
    optimizer_step, trainer._optimizer_step = trainer._optimizer_step, lambda: None
    batch = inputs["batch"]
    values = trainer.train_step(
        {
            "data": part(batch["data"], rank, size),
            "target": part(batch["target"], rank, size),
            "unlabeled": {k: part(v, rank, size) for k, v in batch["unlabeled"].items()},
        }
    )
    named = list(trainer.joint_network.module.named_parameters())
    gradients = {name: p.grad.clone() for name, p in named if p.grad is not None}
    optimizer_step()
    weights = {name: p.detach() for name, p in named}
    outcome = {"gradients": gradients, "weights": weights, "values": values}
    torch.save(outcome, folder / f"rank_{rank}.pt")
    end_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
