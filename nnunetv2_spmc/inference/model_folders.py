"""Where trained models and their folds lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunetv2_spmc.common.errors import DataError
from nnunetv2_spmc.common.nnunet_folders import find_dataset, results_folder
from nnunetv2_spmc.raw.cases import name_some
from nnunetv2_spmc.raw.plans_json import read_plans

FINAL_CHECKPOINT = "checkpoint_final.pth"


def find_model(dataset: str, configuration: str, trainer: str, plans: str) -> Path:
    """Return the model folder of a dataset in nnUNet_results.

    Raises:
        DataError: there is no such dataset or model; says which models there are.
    """
    root = results_folder()
    folder = root / find_dataset(dataset, root)
    name = f"{trainer}__{plans}__{configuration}"
    if not (folder / name).is_dir():
        there = sorted(path.parent.name for path in folder.glob("*__*__*/plans.json"))
        raise DataError(
            f"{folder} has no model {name}; there is {name_some(there) if there else 'none'}: "
            "choose with -tr, -p and -c, or train it."
        )
    return folder / name


def dataset_of(fold_folder: Path) -> str:
    """Return the name of the dataset that a fold was trained on, as its plans say.

    Raises:
        DataError: the plans cannot be read.
    """
    file = fold_folder.parent / "plans.json"
    return str(read_plans(file, "copy the model folder again")["dataset_name"])


def find_folds(
    model_folder: Path,
    folds: Sequence[str] | None = None,
    checkpoint_name: str = FINAL_CHECKPOINT,
) -> list[Path]:
    """Return the folders of folds that have the checkpoint.

    Args:
        model_folder: TRAINER__PLANS__CONFIGURATION inside nnUNet_results/DatasetXXX_Name, or a
            fold inside of it.
        folds: "0" or "all", for example; None takes the only fold with the checkpoint.
        checkpoint_name: file name of the checkpoint.

    Raises:
        DataError: there is no such folder, fold or checkpoint, or several folds and none chosen.
    """
    if model_folder.name.startswith("fold_") and (model_folder.parent / "plans.json").is_file():
        inner = model_folder.name.removeprefix("fold_")
        if folds and set(folds) != {inner}:
            raise DataError(
                f"{model_folder} is fold {inner}, not fold {', '.join(folds)}; drop one of them."
            )
        model_folder, folds = model_folder.parent, [inner]
    for name in ("plans.json", "dataset.json"):
        if not (model_folder / name).is_file():
            raise DataError(
                f"{model_folder} is not a model folder: it has no {name}; give the folder "
                "TRAINER__PLANS__CONFIGURATION inside nnUNet_results/DatasetXXX_Name."
            )
    found = {path.parent.name: path.parent for path in model_folder.glob(f"*/{checkpoint_name}")}
    found = {name: found[name] for name in sorted(found) if name.startswith("fold_")}
    wanted = list(found) if folds is None else [f"fold_{fold}" for fold in dict.fromkeys(folds)]
    missing = [name for name in wanted if name not in found]
    if missing or not wanted:
        where = ", ".join(missing) or "any fold"
        there = ", ".join(str(p.relative_to(model_folder)) for p in _checkpoints(model_folder))
        raise DataError(
            f"{model_folder} has no {checkpoint_name} in {where}: finish the training, or name "
            f"another file with -chk{f' (there is {there})' if there else ''}."
        )
    if folds is None and len(wanted) > 1:
        names = [name.removeprefix("fold_") for name in wanted]
        raise DataError(
            f"{model_folder} has the folds {', '.join(names)}; choose with -f, one or several: "
            f"-f {' '.join(names)}."
        )
    return [found[name] for name in wanted]


def _checkpoints(model_folder: Path) -> list[Path]:
    return sorted(model_folder.glob("fold_*/checkpoint_*.pth"))
