"""nnUNetv2_spmc_train: nnUNetv2_train that takes settings, and says what is wrong in a sentence.

    nnUNetv2_spmc_train 510 3d_fullres 0 --set epochs=200 tau=0.65

The arguments are those of nnUNetv2_train. On several machines torchrun starts it:

    torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:PORT \
        -m nnunetv2_spmc.train 510 3d_fullres 0

Settings: class defaults < dataset.json "spmc" < $nnUNet_spmc_settings < --settings < --set.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from nnunetv2.run.run_training import find_free_network_port
from torch.backends import cudnn
from torch.distributed.elastic.multiprocessing.errors import record

from nnunetv2_spmc import discovery
from nnunetv2_spmc.cli.parser import Parser
from nnunetv2_spmc.cli.runner import command
from nnunetv2_spmc.common.cores import usable_cores
from nnunetv2_spmc.common.signals import termination_raises
from nnunetv2_spmc.methods import TRAINERS
from nnunetv2_spmc.training.devices import DEVICES
from nnunetv2_spmc.training.processes import end_process_group, run_in_processes
from nnunetv2_spmc.training.settings_sources import OPTIONS_VARIABLE, read_settings
from nnunetv2_spmc.training.start import (
    TrainingRequest,
    add_trainer_folder,
    check_request,
    train,
)

BACKENDS = {"cuda": "nccl", "cpu": "gloo"}
OWN_TRAINERS = [trainer.__name__ for trainer in TRAINERS]


def build_parser() -> Parser:
    """Return the parser: the arguments of nnUNetv2_train, and settings."""
    parser = Parser(
        prog="nnUNetv2_spmc_train",
        description="Train and validate a fold, with the arguments of nnUNetv2_train. Unlike "
        "nnUNetv2_train, this command needs no nnUNet_extTrainer, takes settings, and says what "
        "is wrong in a sentence. torchrun starts it as -m nnunetv2_spmc.train.",
        example="nnUNetv2_spmc_train 510 3d_fullres 0 --set epochs=200",
    )
    add = parser.add_argument
    add("dataset", metavar="DATASET", help="name or id of a planned dataset")
    add("configuration", metavar="CONFIG", help="configuration to train, 3d_fullres for example")
    add("fold", metavar="FOLD", help='0 to 4, or "all"')
    add("-tr", default="nnUNetTrainerSPMC", metavar="TRAINER", help="default: %(default)s")
    add("-p", default="nnUNetPlans", metavar="PLANS", help="plans (default: %(default)s)")
    text = "settings of the training, as KEY=VALUE; they override all others"
    add("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help=text)
    text = "JSON file with settings, which override dataset.json and $nnUNet_spmc_settings"
    add("--settings", metavar="FILE", help=text)
    add("-pretrained_weights", type=Path, metavar="FILE", help="checkpoint for a warm start")
    add("-num_gpus", type=int, metavar="N", help="GPUs of this machine to train on (default: 1)")
    add("--npz", action="store_true", help="also save the probabilities of the validation cases")
    text = "go on from the last checkpoint; the setting epochs may be larger than before"
    add("--c", action="store_true", help=text)
    add("--val", action="store_true", help="only validate a training that is finished")
    add("--val_best", action="store_true", help="validate with checkpoint_best")
    add("--disable_checkpointing", action="store_true", help="write no checkpoint")
    text = "default: %(default)s; CUDA_VISIBLE_DEVICES chooses the GPU"
    add("-device", choices=DEVICES, default=DEVICES[0], help=text)
    return parser


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the arguments; refuse what contradicts itself or the way this process was started."""
    parser = build_parser()
    args = parser.parse_args(arguments)
    if "LOCAL_RANK" in os.environ:
        _check_torchrun(parser, args)
    if args.num_gpus is not None and args.num_gpus < 1:
        parser.error(f"-num_gpus must be at least 1, got {args.num_gpus}.")
    if args.num_gpus is not None and args.num_gpus > 1 and args.device != "cuda":
        parser.error("-num_gpus needs GPUs; torchrun starts several processes on CPUs.")
    if args.c and (args.val or args.pretrained_weights):
        parser.error("--c cannot be combined with --val or -pretrained_weights.")
    if args.val_best and args.disable_checkpointing:
        parser.error("--val_best needs a checkpoint: leave --disable_checkpointing out.")
    if args.fold != "all":
        if not args.fold.isdecimal():
            parser.error(f'the fold must be a number or "all", got {args.fold}.')
        args.fold = int(args.fold)
    args.set = _settings(parser, args.set)
    return args


def _check_torchrun(parser: Parser, args: argparse.Namespace) -> None:
    if args.num_gpus is not None:
        parser.error("leave -num_gpus out and give torchrun --nnodes and --nproc-per-node.")
    if args.device not in BACKENDS:
        parser.error(f"torchrun trains on {' or '.join(BACKENDS)}, not on {args.device}.")
    gpus = torch.cuda.device_count()
    if args.device == "cuda" and 0 < gpus <= int(os.environ["LOCAL_RANK"]):
        parser.error(f"this machine has {gpus} GPUs: lower torchrun's --nproc-per-node.")


def _settings(parser: Parser, words: Sequence[str]) -> dict[str, Any]:
    """Return what KEY=VALUE words say; values are JSON, or else text."""
    settings: dict[str, Any] = {}
    for word in words:
        key, is_set, value = word.partition("=")
        if not (key and is_set):
            parser.error(f"--set takes KEY=VALUE, such as epochs=200, after all else; got {word}.")
        if key in settings:
            parser.error(f"--set has {key} twice.")
        try:
            settings[key] = json.loads(value)
        except (ValueError, RecursionError):
            settings[key] = value
    return settings


@command("the same command with --c goes on if there is a checkpoint", unwind=False)
def main(argv: Sequence[str] | None = None) -> int | None:
    """Train and validate, in this process or in several."""
    # no handler of Python breaks off a process that waits for others in NCCL
    with nullcontext() if "LOCAL_RANK" in os.environ else termination_raises():
        return None if _train(argv) else 0  # --version: `record` keeps SystemExit(0) back


@record  # so that torchrun reads why a process failed
def _train(argv: Sequence[str] | None) -> bool:
    args = parse_arguments(argv)
    by_torchrun = "LOCAL_RANK" in os.environ
    request = TrainingRequest(
        args.dataset,
        args.configuration,
        args.fold,
        args.tr,
        args.p,
        args.device,
        processes=int(os.environ["WORLD_SIZE"]) if by_torchrun else args.num_gpus or 1,
        pretrained_weights=args.pretrained_weights,
        continues=args.c,
        validates_only=args.val,
        validates_best=args.val_best,
        writes_checkpoints=not args.disable_checkpointing,
        saves_probabilities=args.npz,
    )
    with _options(args.settings, args.set):
        add_trainer_folder(Path(discovery.__file__).parent)
        target = check_request(request, OWN_TRAINERS)
        request = replace(request, dataset=target.dataset_name)
        if by_torchrun:
            train_one_of_several(int(os.environ["LOCAL_RANK"]), request)
        elif request.processes > 1:
            start_several(request)
        else:
            use_device(request.device)
            if request.device == "cpu":
                torch.set_num_threads(usable_cores())
            train(request)
    return True


@contextmanager
def _options(file: str | None, assignments: Mapping[str, Any]) -> Iterator[None]:
    """Leave settings where the trainers of this process and of its children find them."""
    options = {} if file is None else {f"--settings {file}": read_settings(file)}
    options |= {"--set": assignments} if assignments else {}
    before = os.environ.get(OPTIONS_VARIABLE)
    os.environ[OPTIONS_VARIABLE] = json.dumps(options)
    try:
        yield
    finally:
        os.environ.pop(OPTIONS_VARIABLE)
        if before is not None:
            os.environ[OPTIONS_VARIABLE] = before


def use_device(kind: str, number: int = 0) -> None:
    """Set PyTorch up as nnU-Net does."""
    if kind == "cuda":
        torch.set_num_threads(1)  # more do not help where the GPU computes
        torch.cuda.set_device(number)
        cudnn.benchmark = True


def start_several(request: TrainingRequest) -> None:
    """Train in several processes of this machine, as nnU-Net's -num_gpus does."""
    os.environ["MASTER_ADDR"] = "localhost"
    os.environ.setdefault("MASTER_PORT", str(find_free_network_port()))
    os.environ["WORLD_SIZE"] = str(request.processes)
    run_in_processes(train_one_of_several, request.processes, request)


def train_one_of_several(local_rank: int, request: TrainingRequest) -> None:
    """Train in one of the processes that torchrun or -num_gpus started."""
    use_device(request.device, local_rank)
    if "LOCAL_RANK" not in os.environ:  # torchrun sets both
        os.environ["RANK"] = str(local_rank)
    dist.init_process_group(BACKENDS[request.device])
    train(request)
    end_process_group()  # not after an error: the others may wait for this process


if __name__ == "__main__":
    main()
