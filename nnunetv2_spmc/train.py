"""nnUNetv2_train in several processes, on one or several machines, started by torchrun.

    torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:PORT \
        -m nnunetv2_spmc.train 510 3d_fullres 0 -tr nnUNetTrainerSPMC

The arguments are those of nnUNetv2_train. On one machine `nnUNetv2_train -num_gpus N` does it too.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from torch.backends import cudnn
from torch.distributed.elastic.multiprocessing.errors import record

from nnunetv2_spmc import discovery
from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command
from nnunetv2_spmc.common.nnunet_folders import preprocessed_folder
from nnunetv2_spmc.training.planned_files import check_planned_files
from nnunetv2_spmc.training.processes import end_process_group
from nnunetv2_spmc.training.warm_start import load_pretrained_main_branch

BACKENDS = {"cuda": "nccl", "cpu": "gloo"}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments of nnUNetv2_train."""
    parser = Parser(
        prog="torchrun ... -m nnunetv2_spmc.train",
        description="nnUNetv2_train in several processes, on one or several machines.",
    )
    parser.add_argument("dataset_name_or_id", help="dataset name or ID to train with")
    parser.add_argument("configuration", help="configuration to train")
    parser.add_argument("fold", help='0 to 4, or "all"')
    parser.add_argument("-tr", default="nnUNetTrainerSPMC", help="trainer (default: %(default)s)")
    parser.add_argument("-p", default="nnUNetPlans", help="plans (default: %(default)s)")
    parser.add_argument("-pretrained_weights", type=Path, help="checkpoint for a warm start")
    parser.add_argument("-num_gpus", type=int, help="refused: torchrun's options say it")
    parser.add_argument("--npz", action="store_true", help="save validation probabilities")
    parser.add_argument("--c", action="store_true", help="continue from the latest checkpoint")
    parser.add_argument("--val", action="store_true", help="only run the validation")
    parser.add_argument("--val_best", action="store_true", help="validate with checkpoint_best")
    parser.add_argument("--disable_checkpointing", action="store_true", help="write no checkpoint")
    parser.add_argument("-device", choices=list(BACKENDS), default="cuda", help="for all processes")
    args = parser.parse_args(arguments)
    if args.num_gpus is not None:
        parser.error("leave -num_gpus out and give torchrun --nnodes and --nproc-per-node.")
    if "LOCAL_RANK" not in os.environ:
        parser.error("start it with torchrun; on a single machine use nnUNetv2_train -num_gpus N.")
    gpus = torch.cuda.device_count()
    if args.device == "cuda" and int(os.environ["LOCAL_RANK"]) >= gpus:
        parser.error(f"this machine has {gpus} GPUs: lower torchrun's --nproc-per-node.")
    if args.c and (args.val or args.pretrained_weights):
        parser.error("--c cannot be combined with --val or -pretrained_weights.")
    if args.val_best and args.disable_checkpointing:
        parser.error("--val_best needs a checkpoint: leave --disable_checkpointing out.")
    if args.fold != "all":
        if not args.fold.isdecimal():
            parser.error(f'the fold must be a number or "all", got {args.fold}.')
        args.fold = int(args.fold)
    return args


@command("the same command with --c goes on if there is a checkpoint", unwind=False)
@record  # inside, so that torchrun reads why a process failed
def main(argv: Sequence[str] | None = None) -> None:
    """Train and validate as nnUNetv2_train does in each of its processes."""
    args = parse_arguments(argv)
    preprocessed_folder(must_exist=True)  # in a sentence, before the processes meet
    os.environ.setdefault("nnUNet_extTrainer", str(Path(discovery.__file__).parent))
    device = torch.device(args.device)
    if device.type == "cuda":
        torch.set_num_threads(1)
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        cudnn.benchmark = True
    dist.init_process_group(BACKENDS[device.type])
    train(args, device)
    end_process_group()  # not after an error: the others may wait for this process


def train(args: argparse.Namespace, device: torch.device) -> None:
    """Build the trainer and run it; mirrors nnunetv2.run.run_training.run_ddp (2.8.1)."""
    dataset = maybe_convert_to_dataset_name(args.dataset_name_or_id)
    check_planned_files(dataset, args.p, args.configuration)
    trainer: Any = get_trainer_from_args(
        args.dataset_name_or_id, args.configuration, args.fold, args.tr, args.p, args.c, device
    )
    trainer.disable_checkpointing = args.disable_checkpointing
    if args.pretrained_weights and not args.val:
        trainer.initialize()
        load_pretrained_main_branch(trainer.network, args.pretrained_weights)
    maybe_load_checkpoint(trainer, args.c, args.val)
    if not args.val:
        trainer.run_training()
    if args.val_best:
        trainer.load_checkpoint(str(Path(trainer.output_folder, "checkpoint_best.pth")))
    trainer.perform_actual_validation(args.npz)


if __name__ == "__main__":
    main()
