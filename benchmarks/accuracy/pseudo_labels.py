"""What the branches have to teach each other during a training, and how much of it they are told.

    python -m benchmarks.accuracy.queue DATASET METHOD --times 6 ...    # keeps six checkpoints
    python -m benchmarks.accuracy.run DATA OUTPUT
    python -m benchmarks.accuracy.pseudo_labels OUTPUT RUN [RUN ...]    # by their names in runs.csv

For every kept checkpoint, written to pseudo_labels.csv:

- Both branches predict the whole unlabeled cases, without augmentation, feature noise or mirroring.
  Withheld labels (labelsUn) tell who is right, each branch being the student of the other once: how
  many voxels are wrong, and how many of these confident (> tau); on how many would SPLAT teach
  (suspicious student, trusted teacher), and how often are student and teacher right there; on how
  many do the branches differ, and which one is right there?
- Batches of the training tell how hard each term pulls: the norm of the mean gradient of the
  parameters of the main branch, its encoder included, by both branches' losses, every term with its
  weight in the loss at that time. Pasted boxes with their labels count, as in the training.

The rows with a confidence say of the last checkpoint how often voxels of that confidence (the lower
edge of a bin) are right, and which share of all voxels they are.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from torch import Tensor

from benchmarks import long_csv
from benchmarks.accuracy.voxel_counts import Counts, rounded
from nnunetv2_spmc import methods
from nnunetv2_spmc.inference.trained_model import load_model
from nnunetv2_spmc.networks.unwrap import unwrapped
from nnunetv2_spmc.training.as_data import load
from nnunetv2_spmc.training.checkpoint import CHECKPOINT_KEY
from nnunetv2_spmc.training.passes import labeled_pass, step_of, unlabeled_pass
from nnunetv2_spmc.unlabeled.raw_images import raw_unlabeled_cases

TERMS = {  # of the loss of a step -> whether lambda(t) and beta weigh it
    "supervised": (False, False),
    "cdps": (False, True),
    "cps": (True, False),
    "splat": (True, True),
}


def count_voxels(fold: Path, checkpoint: Path, raw: Path, device: str) -> Counts:
    """Predict the unlabeled cases with both branches and compare with their withheld labels."""
    model = load_model(fold, checkpoint.name, device=device, mirroring=False)
    if model.second is None:
        raise SystemExit(f"error: {checkpoint} has no second branch.")
    manager = model.main.label_manager
    if manager.has_regions or manager.has_ignore_label:
        raise SystemExit("error: regions and ignore labels are not counted here.")
    ending = model.file_ending
    files = raw_unlabeled_cases(raw, ending, model.channels).cases
    counts = Counts(
        manager.num_segmentation_heads, model.settings["tau"], model.settings["temperature"]
    )
    preprocessor = model.main.configuration_manager.preprocessor_class(verbose=False)
    reader = model.main.plans_manager.image_reader_writer_class()
    for case, images in sorted(files.items()):
        data, _, properties = preprocessor.run_case(
            [str(image) for image in images],
            None,
            model.main.plans_manager,
            model.main.configuration_manager,
            model.main.dataset_json,
        )
        probabilities = []
        for predictor in (model.main, model.second):
            logits = predictor.predict_logits_from_preprocessed_data(
                torch.from_numpy(np.asarray(data, dtype=np.float32))
            )
            _, predicted = convert_predicted_logits_to_segmentation_with_correct_shape(
                logits.cpu(),
                predictor.plans_manager,
                predictor.configuration_manager,
                predictor.label_manager,
                properties,
                return_probabilities=True,
            )
            probabilities.append(torch.from_numpy(predicted))
        labels, _ = reader.read_seg(str(raw / "labelsUn" / f"{case}{ending}"))
        counts.add(probabilities[0], probabilities[1], torch.from_numpy(labels[0]).long())
    return counts


def gradient_norms(checkpoint: Path, batches: int, device: str) -> dict[str, float]:
    """Return how hard each term of the loss pulls at the main branch at the time of a checkpoint.

    A term that the run does not have pulls with 0.

    Args:
        checkpoint: of SPMC or of an ablation.
        batches: how many to average over, of those with unlabeled patches.
        device: "cpu" or "cuda".
    """
    content = load(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["nnUNet_results"] = folder  # read by the trainer; nothing of it is kept
        trainer = trainer_of(content, device)
        trainer.load_checkpoint(str(checkpoint))
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        sums: dict[str, Tensor | float] = dict.fromkeys(TERMS, 0.0)
        unlabeled = (batch for batch in trainer.dataloader_train if "unlabeled" in batch)
        for batch in itertools.islice(unlabeled, batches):
            for term, gradient in term_gradients(trainer, batch).items():
                sums[term] = sums[term] + gradient
        weight = trainer.ramp_up_weight()
    norms = {term: float(torch.as_tensor(total).norm()) / batches for term, total in sums.items()}
    return {"lambda": weight} | {f"gradient_{term}": norm for term, norm in norms.items()}


def trainer_of(content: Mapping[str, Any], device: str) -> Any:
    """Return a trainer with the plans and settings that a checkpoint names."""
    os.environ["nnUNet_spmc_settings"] = json.dumps(content[CHECKPOINT_KEY]["settings"])
    arguments = content["init_args"]
    return getattr(methods, content["trainer_name"])(
        arguments["plans"] | {"continue_training": True},
        arguments["configuration"],
        arguments["fold"],
        arguments["dataset_json"],
        torch.device(device),
    )


def term_gradients(trainer: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the gradient of the main branch by every term of a step, as it is weighted there.

    Returns:
        Term -> float64, (number of parameters,). The terms add up to the gradient of the step.
    """
    parameters = list(unwrapped(trainer.network).parameters())
    step = step_of(trainer, batch)
    with trainer.autocast():
        _, values = unlabeled_pass(trainer, step)
        values |= labeled_pass(trainer, step)[1]
    gradients = {}
    for term, (by_lambda, by_beta) in TERMS.items():
        if f"{term}_main" not in values:
            continue
        weight = trainer.ramp_up_weight() if by_lambda else 1.0
        weight *= trainer.method_settings.beta if by_beta else 1.0
        loss = weight * (values[f"{term}_main"] + values[f"{term}_auxiliary"])
        gradients[term] = torch.cat(
            [
                gradient.double().flatten()
                for gradient in torch.autograd.grad(
                    loss, parameters, retain_graph=True, materialize_grads=True
                )
            ]
        )
    return gradients


def measure(run: str, arguments: argparse.Namespace) -> None:
    """Put what a run has to teach into pseudo_labels.csv."""
    kept = {
        int(path.stem.rpartition("_")[2]): path
        for path in (arguments.output / "runs" / run / "results").rglob("checkpoint_epoch_*.pth")
    }
    if not kept:
        raise SystemExit(f"error: {run} kept no checkpoints: train it with times in the queue.")
    rows: list[dict[str, Any]] = []
    for epochs, checkpoint in sorted(kept.items()):
        fold = checkpoint.parent
        raw = arguments.output / "nnUNet_raw" / fold.parents[1].name
        counts = count_voxels(fold, checkpoint, raw, arguments.device)
        norms = gradient_norms(checkpoint, arguments.batches, arguments.device)
        for measure, value in (counts.summary() | norms).items():
            rows.append({"epochs": epochs, "measure": measure, "value": rounded(value)})
        print(f"{run}: {epochs} epochs measured", flush=True)
    for of_bin in counts.calibration():
        low = of_bin.pop("confidence_above")
        at = {"epochs": epochs, "confidence_above": low}
        rows += [at | {"measure": measure, "value": value} for measure, value in of_bin.items()]
    with long_csv.locked(arguments.results):
        long_csv.put("pseudo_labels", [{"run": run} | row for row in rows], arguments.results)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure runs whose checkpoints were kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="of benchmarks.accuracy.run")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="acdc-small-30x100-spmc-seed3")
    parser.add_argument("--results", type=Path, default=long_csv.RESULTS, help="folder of the CSVs")
    parser.add_argument("--batches", type=int, default=40, help="per checkpoint, for gradients")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args(argv)
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        os.environ[variable] = str(arguments.output / variable)
    os.environ["nnUNet_n_proc_DA"] = "0"  # draws the same patches again
    for run in arguments.runs:
        measure(run, arguments)


if __name__ == "__main__":
    main()
