"""The record of a training: what it was, what came out, its model. Knows nothing of figures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.nnunet_folders import raw_dataset_folder
from nnunetv2_spmc.evaluation.classes import read_classes
from nnunetv2_spmc.inference.case_maps import CaseMaps, predict_case
from nnunetv2_spmc.inference.loaded_fold import COPY_AGAIN, read_model_plans
from nnunetv2_spmc.inference.model_folders import FINAL_CHECKPOINT
from nnunetv2_spmc.inference.trained_model import TrainedModel, load_model
from nnunetv2_spmc.raw.dataset_json import channel_names, read_dataset_json
from nnunetv2_spmc.raw.layout import IMAGES_TRAIN
from nnunetv2_spmc.raw.plans_json import read_plans
from nnunetv2_spmc.reports import run_files
from nnunetv2_spmc.training.checkpoint import CheckpointError, own_state

if TYPE_CHECKING:
    from typing_extensions import Self

# what stock nnU-Net writes into debug.json for settings that this package's trainers store
DEBUG_SETTINGS = {
    "epochs": ("num_epochs", int),
    "iterations_per_epoch": ("num_iterations_per_epoch", int),
    "validation_iterations": ("num_val_iterations_per_epoch", int),
    "initial_lr": ("initial_lr", float),
}

NO_OVERLAP = "none found"  # though it was allowed


@dataclass(frozen=True, eq=False, repr=False)
class RunRecord:
    """One fold of a training, finished or not.

    Args:
        folder: the fold folder.
        checkpoint_name: the most advanced checkpoint in it.
        trainer: class name of the trainer.
        configuration: "3d_fullres", for example.
        epochs_done: epochs that the checkpoint has behind it.
        curves: logged values, one row per epoch.
        settings: of the training; those that stock nnU-Net has too where it was stock.
        unlabeled_cases: identifiers; empty for supervised trainings.
        versions: of what it was trained with, as far as the run tells.
        pretrained_weights: the file it started from, as far as the run tells; else empty.
        overlap: what unlabeled and evaluated cases share, where that was allowed; else empty.
        device: where its model predicts: "cpu", "cuda" or "mps".
    """

    folder: Path
    checkpoint_name: str
    trainer: str
    configuration: str
    epochs_done: int
    curves: pd.DataFrame
    settings: Mapping[str, Any]
    unlabeled_cases: Sequence[str]
    versions: Mapping[str, str]
    pretrained_weights: str = ""
    overlap: str = ""
    device: str = "cpu"

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Self:
        """Load what a training left behind.

        Args:
            folder: nnUNet_results/DatasetXXX_Name/TRAINER__PLANS__CONFIGURATION/fold_0.
            device: where its model shall predict.

        Raises:
            DataError: it is no such folder, or has no readable checkpoint.
        """
        folder = run_files.find_run(Path(folder))
        name, checkpoint = run_files.newest_checkpoint(folder)
        debug = run_files.read_debug(folder)
        configuration = checkpoint["init_args"]["configuration"]
        read_model_plans(folder.parent, configuration)  # later used in part, but whole
        dataset_json = read_dataset_json(folder.parent / "dataset.json", COPY_AGAIN)
        try:
            state = own_state(checkpoint, folder / name)
        except CheckpointError as error:
            raise DataError(str(error)) from error
        classes = list(class_values(dataset_json, folder))
        return cls(
            folder=folder,
            checkpoint_name=name,
            trainer=checkpoint["trainer_name"],
            configuration=configuration,
            epochs_done=checkpoint["current_epoch"],
            curves=run_files.curves_of(checkpoint, classes, folder / name),
            settings=state.get("settings") or _stock_settings(debug),
            unlabeled_cases=state.get("unlabeled_cases", ()),
            versions=_versions(state, debug),
            pretrained_weights=str(state.get("pretrained_weights", "")),
            overlap=_overlap(state),
            device=device,
        )

    def __repr__(self) -> str:
        """Say in a line which run it is, and how far it came."""
        dataset, trainer = self.folder.parent.parent.name, short_name(self.trainer)
        what = f"{trainer}, {self.configuration}, fold {self.fold}"
        return f"<{type(self).__name__} {dataset}: {what}, {self.epochs_done} epochs>"

    # ---- what it is ----------------------------------------------------------------------------

    @property
    def fold(self) -> str:
        """Number of the fold, or 'all'."""
        return self.folder.name.removeprefix("fold_")

    @property
    def name(self) -> str:
        """Trainer, configuration and fold."""
        return f"{self.trainer}, {self.configuration}, fold {self.fold}"

    @property
    def is_finished(self) -> bool:
        """Whether the training came to its end."""
        return self.checkpoint_name == FINAL_CHECKPOINT

    @cached_property
    def dataset_json(self) -> dict[str, Any]:
        """Content of dataset.json at the time of the training."""
        return read_dataset_json(self.folder.parent / "dataset.json", COPY_AGAIN)

    @cached_property
    def plans(self) -> dict[str, Any]:
        """Content of the plans."""
        return read_plans(self.folder.parent / "plans.json", COPY_AGAIN, self.configuration)

    @property
    def dataset_name(self) -> str:
        """DatasetXXX_Name."""
        return self.plans["dataset_name"]

    @cached_property
    def classes(self) -> dict[str, tuple[int, ...]]:
        """Foreground classes, or regions, with their label values."""
        return class_values(self.dataset_json, self.folder)

    @property
    def class_of_value(self) -> dict[int, str]:
        """Label value in a segmentation -> the class, or the region that is predicted by it."""
        order = self.dataset_json.get("regions_class_order")
        if order is not None and any(len(values) > 1 for values in self.classes.values()):
            return dict(zip(order, self.classes, strict=False))
        return {values[0]: name for name, values in self.classes.items()}

    @property
    def ignore_label(self) -> int | None:
        """The label value of voxels that count nowhere."""
        return read_classes(self.dataset_json, self.folder.parent / "dataset.json").ignore

    @cached_property
    def case_counts(self) -> tuple[int | None, int | None]:
        """How many labeled cases were trained and validated on; None where the run does not say."""
        return run_files.case_counts(self.folder, self.dataset_json)

    # ---- what came out -------------------------------------------------------------------------

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Metrics of the validation cases, one row per case and class.

        Raises:
            AbsentError: the run has not been validated.
            DataError: its metrics are damaged.
        """
        table = run_files.metrics_table(self.folder, self.dataset_json)
        if table is None:
            raise run_files.AbsentError(
                f"{self.folder} has no validation results: finish the training, or run "
                f"nnUNetv2_train {self._train_arguments} --val."
            )
        return table

    def mean_dice(self) -> pd.Series:
        """Return the mean Dice over classes of every validation case, worst case first."""
        return self.metrics.groupby("case")["dice"].mean().dropna().sort_values()

    @property
    def resume_command(self) -> str:
        """The command that goes on with an unfinished training."""
        return f"nnUNetv2_train {self._train_arguments} --c"

    @property
    def _train_arguments(self) -> str:
        plans = self.plans["plans_name"]
        option = "" if plans == "nnUNetPlans" else f" -p {plans}"
        number = int(self.dataset_name[len("Dataset") :][:3])
        return f"{number} {self.configuration} {self.fold} -tr {self.trainer}{option}"

    @property
    def channels(self) -> list[str]:
        """The names of the images that a case consists of."""
        return channel_names(self.dataset_json)

    @property
    def reader_writer(self) -> Any:
        """The reader and writer of nnU-Net that the training read its images with."""
        return read_model_plans(self.folder.parent, self.configuration).image_reader_writer_class()

    # ---- using it ------------------------------------------------------------------------------

    @cached_property
    def model(self) -> TrainedModel:
        """The trained model on its device, loaded at first use."""
        return load_model(self.folder, self.checkpoint_name, device=self.device)

    def predict(self, image: str | Path | Sequence[str | Path]) -> CaseMaps:
        """Predict a case with both branches.

        Args:
            image: the file of its only channel, or one file per channel.

        Raises:
            DataError: the number of channels is wrong, or an image cannot be read.
        """
        files = [image] if isinstance(image, (str, Path)) else list(image)
        for file in map(Path, files):
            if not file.is_file():
                raise DataError(f"{file} does not exist; give one file per channel.")
        return predict_case(self.model, [Path(file) for file in files])

    def validation_images(self, case: str) -> list[Path]:
        """Return the raw image files of a validation case, one per channel.

        Raises:
            AbsentError: nnUNet_raw does not have them.
        """
        raw, files = raw_dataset_folder(self.dataset_name), []
        if raw is not None and "dataset" in self.dataset_json:
            listed = self.dataset_json["dataset"].get(case, {}).get("images", ())
            files = [raw / os.path.expandvars(file) for file in listed]
        elif raw is not None:  # nnU-Net's own function starts twelve processes for this
            ending = self.dataset_json["file_ending"]
            channels = range(len(self.channels))
            files = [raw / IMAGES_TRAIN / f"{case}_{channel:04d}{ending}" for channel in channels]
        files = [file for file in files if os.path.lexists(file)]
        if not files:
            raise run_files.AbsentError(
                f"nnUNet_raw has no image of the case {case} in {self.dataset_name}/imagesTr; set "
                "nnUNet_raw to where the dataset lies."
            )
        return files


def class_values(dataset_json: Mapping[str, Any], folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the foreground classes or regions in the order of nnU-Net's per-class values."""
    values = dict(read_classes(dataset_json, folder.parent / "dataset.json").values)
    if all(len(value) == 1 for value in values.values()):
        return dict(sorted(values.items(), key=lambda item: item[1]))
    return values


def _stock_settings(debug: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: convert(debug[source])
        for key, (source, convert) in DEBUG_SETTINGS.items()
        if source in debug
    }


def _overlap(state: Mapping[str, Any]) -> str:
    if not state.get("settings", {}).get("allow_overlap"):
        return ""
    return str(state.get("overlap") or NO_OVERLAP)


def _versions(state: Mapping[str, Any], debug: Mapping[str, Any]) -> dict[str, str]:
    found = {"nnunetv2-spmc": state.get("version"), "torch": debug.get("torch_version")}
    return {name: str(version) for name, version in found.items() if version}


def short_name(trainer: str) -> str:
    """Return the class name of a trainer as pictures show it: 'SPMC', but 'nnUNetTrainer'."""
    return trainer.removeprefix("nnUNetTrainer") or trainer
