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
import json
import os
import tempfile
from collections import Counter
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
from nnunetv2_spmc import losses, methods
from nnunetv2_spmc.inference.trained_model import load_model
from nnunetv2_spmc.networks.unwrap import unwrapped
from nnunetv2_spmc.training.checkpoint import CHECKPOINT_KEY
from nnunetv2_spmc.training.passes import labeled_pass, step_of, unlabeled_pass
from nnunetv2_spmc.unlabeled.cases import raw_unlabeled_cases

CONFIDENCES = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0)  # edges of the bins
TERMS = {  # of the loss of a step -> whether lambda(t) and beta weigh it
    "supervised": (False, False),
    "cdps": (False, True),
    "cps": (True, False),
    "splat": (True, True),
}


class Counts:
    """Voxels of all cases, counted.

    Args:
        classes: number of classes, the background included.
        tau: a voxel is suspicious at confidence <= tau.
        temperature: of the sharpening.
    """

    def __init__(self, classes: int, tau: float, temperature: float) -> None:
        self.classes, self.tau, self.temperature = classes, tau, temperature
        self.of: Counter[str] = Counter()
        self.dice: dict[str, list[float]] = {"main": [], "auxiliary": []}
        self.bins = np.zeros((2, len(CONFIDENCES) - 1))  # voxels, right ones

    def add(self, main: Tensor, auxiliary: Tensor, labels: Tensor) -> None:
        """Count a case.

        Args:
            main: (C, ...) probabilities of the main branch.
            auxiliary: the same of the auxiliary branch.
            labels: (...) withheld labels.
        """
        branches = {"main": main, "auxiliary": auxiliary}
        confidence = {name: p.amax(dim=0) for name, p in branches.items()}
        predicted = {name: p.argmax(dim=0) for name, p in branches.items()}
        right = {name: segmentation == labels for name, segmentation in predicted.items()}
        different = predicted["main"] != predicted["auxiliary"]
        masks = {"voxels": torch.ones_like(different), "different": different}
        masks |= {f"different_{name}_right": different & right[name] for name in branches}
        for student, teacher in (("main", "auxiliary"), ("auxiliary", "main")):
            sharpened = losses.sharpen(branches[teacher], self.temperature)
            taught = losses.taught(confidence[student], sharpened.amax(dim=0), self.tau)
            masks |= {
                f"{student}/wrong": ~right[student],
                f"{student}/wrong_confident": ~right[student] & (confidence[student] > self.tau),
                f"{student}/suspicious": confidence[student] <= self.tau,
                f"{student}/taught": taught,
                f"{student}/taught_student_right": taught & right[student],
                f"{student}/taught_teacher_right": taught & right[teacher],
            }
            for values, of in enumerate((masks["voxels"], right[student])):
                sure = confidence[student][of].numpy()
                self.bins[values] += np.histogram(sure, CONFIDENCES)[0]
            for c in range(1, self.classes):
                score = dice(predicted[student] == c, labels == c)
                self.dice[student] += [] if score is None else [score]
        for name, mask in masks.items():
            self.of[name.rpartition("/")[2]] += int(mask.sum())

    def summary(self) -> dict[str, float]:
        """Return the mean Dice of both branches, shares of the voxels and who is right there."""
        of, voxels = self.of, self.of["voxels"]
        return {
            **{f"dice_{branch}": float(np.mean(dice)) for branch, dice in self.dice.items()},
            "wrong": of["wrong"] / (2 * voxels),  # of the voxels of both branches
            "wrong_confident": of["wrong_confident"] / max(of["wrong"], 1),
            "suspicious": of["suspicious"] / (2 * voxels),
            "taught": of["taught"] / (2 * voxels),
            "taught_student_right": of["taught_student_right"] / max(of["taught"], 1),
            "taught_teacher_right": of["taught_teacher_right"] / max(of["taught"], 1),
            "different": of["different"] / voxels,
            "different_main_right": of["different_main_right"] / max(of["different"], 1),
            "different_auxiliary_right": of["different_auxiliary_right"] / max(of["different"], 1),
        }

    def calibration(self) -> list[dict[str, Any]]:
        """Return a row per bin of confidence: its part of the voxels, and how many are right."""
        voxels, right = self.bins
        return [
            {
                "confidence_above": low,
                "share": rounded(voxels[i] / voxels.sum()),
                "right": rounded(right[i] / voxels[i]),
            }
            for i, low in enumerate(CONFIDENCES[:-1])
            if voxels[i]
        ]


def dice(predicted: Tensor, reference: Tensor) -> float | None:
    """Return the Dice of two masks, None where both are empty."""
    total = int(predicted.sum() + reference.sum())
    return 2 * int((predicted & reference).sum()) / total if total else None


def count_voxels(fold: Path, checkpoint: Path, raw: Path, device: str) -> Counts:
    """Predict the unlabeled cases with both branches and compare with their withheld labels."""
    model = load_model(fold, checkpoint.name, device=device, mirroring=False)
    if model.second is None:
        raise SystemExit(f"error: {checkpoint} has no second branch.")
    manager = model.main.label_manager
    if manager.has_regions or manager.has_ignore_label:
        raise SystemExit("error: regions and ignore labels are not counted here.")
    ending = model.file_ending
    files = raw_unlabeled_cases(raw, ending, model.num_channels)
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
        batches: how many to average over.
        device: "cpu" or "cuda".
    """
    content = torch.load(checkpoint, map_location="cpu", weights_only=False)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["nnUNet_results"] = folder  # read by the trainer; nothing of it is kept
        trainer = trainer_of(content, device)
        trainer.load_checkpoint(str(checkpoint))
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        sums: dict[str, Tensor | float] = dict.fromkeys(TERMS, 0.0)
        for _ in range(batches):
            for term, gradient in term_gradients(trainer, next(trainer.dataloader_train)).items():
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


def rounded(value: float) -> str:
    """Return five digits of a number."""
    return f"{value:.5g}"


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
