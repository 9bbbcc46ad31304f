"""Convert, plan and preprocess the datasets, with few labels and with more of them."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.accuracy.methods import ALL, ANNOTATED, DATASETS, DOUBLE, RANKINGS, VEHICLES, Run
from nnunetv2_spmc.common.whole_file import whole_file

FOLDERS = {  # folder in DATA, folder of its lists, what the converter needs to know
    "la": ("la_half", "LA", "--labels background=0 atrium=1 --channels MRI"),
    "hippocampus": (
        *("hippocampus", "Hippocampus"),
        "--labels background=0 anterior=1 posterior=2 --channels MRI",
    ),
}

OF_RANKER = (  # the defaults at the time of those runs
    '{"reduction": "all", "turns": false, "unlabeled_every": 1, '
    '"SPMC": {"pseudo_loss": "cross-entropy"}}'
)


def run(command: str, **environment: str) -> None:
    """Print a command and run it, from the folder of the outputs."""
    print(f"$ {command}", flush=True)
    subprocess.run(shlex.split(command), check=True, env=os.environ | environment)


def convert(kind: str, data: Path, output: Path) -> None:
    """Convert a dataset by the literature's lists of cases."""
    dataset = DATASETS[kind]
    name = dataset.name.split("_")[1]
    if kind not in FOLDERS:  # ACDC, which has a converter of its own
        source = shlex.quote(str(data / "acdc128"))
        labeled = f"--labeled {dataset.few} --allow_missing"
        run(f"nnUNetv2_spmc_convert acdc -i {source} -d {dataset.id} -n {name} {labeled}")
        return
    folder, splits, options = FOLDERS[kind]
    images, lists = data / folder / "images", data / "splits" / splits
    cases = {file.stem: file.read_text().split() for file in lists.glob("*.list")}
    chosen = {"labeled": cases["train"][: dataset.few], "test": cases["test"]}
    chosen |= {"val": cases["val"]} if "val" in cases else {}
    command = (
        f"nnUNetv2_spmc_convert folder -i {shlex.quote(str(images))} "
        f"-l {shlex.quote(str(data / folder / 'labels'))} -d {dataset.id} "
        f"-n {name} {options}"
    )
    for part, listed in chosen.items():
        file = output / f"{kind}_{part}.txt"
        here = [case for case in listed if (images / f"{case}.nii.gz").exists()]
        file.write_text("\n".join(here), encoding="utf-8")
        command += f" --{part} {shlex.quote(str(file))}"
    run(command)


def prepare(asked: Run, data: Path, output: Path) -> None:
    """Convert, plan and preprocess; the mark is written last, so that a broken one is repeated."""
    dataset = DATASETS[asked.dataset]
    preprocessed = output / "nnUNet_preprocessed" / dataset.name
    mark = preprocessed / f"prepared_{asked.vehicle}"
    if mark.exists() and mark.read_text(encoding="utf-8") == dataset.small:
        return
    if not (output / "nnUNet_raw" / dataset.name).exists():
        convert(asked.dataset, data, output)
    if not (preprocessed / "nnUNetPlans.json").exists():
        plan = f"nnUNetv2_plan_and_preprocess -d {dataset.id} -npfp 2 --no_pp"
        run(plan, nnUNet_n_proc_DA="1")  # planning takes it for a number of threads: 0 fails
    if asked.vehicle == "small":
        run(f"nnUNetv2_spmc_plan small -d {dataset.id} -c {dataset.configuration} {dataset.small}")
    add_double_batch(preprocessed / "nnUNetPlans.json", asked.planned)
    run(f"nnUNetv2_preprocess -d {dataset.id} -c {asked.planned} -np 2")
    run(f"nnUNetv2_spmc_preprocess -d {dataset.id} -c {asked.planned}")
    mark.write_text(dataset.small, encoding="utf-8")


def add_double_batch(plans_file: Path, configuration: str) -> None:
    """Add a configuration with twice the batch to the plans."""
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    batch_size = 2 * plans["configurations"][configuration]["batch_size"]
    plans["configurations"][configuration + DOUBLE] = {
        "inherits_from": configuration,
        "batch_size": batch_size,
    }
    write_json(plans_file, plans)


def ranker_of(asked: Run) -> Run | None:
    """Return the training whose model chooses the cases to label, None if none does."""
    if asked.chosen_by not in RANKINGS:
        return None
    schedule = VEHICLES[asked.vehicle]
    return Run(
        dataset=asked.dataset,
        method="SPMC",
        settings=OF_RANKER,
        labels=DATASETS[asked.dataset].few,
        stage="older",
        seed=1,
        epochs=schedule["epochs"],
        iterations=schedule["epochs"] * schedule["iterations_per_epoch"],
        name="all_voxels",
        configuration=asked.planned,
    )


def prepare_more_labels(asked: Run, ranker: Path | None, output: Path) -> list[str]:
    """Make labels of unlabeled cases training labels, under the plans of the few.

    Args:
        asked: a training with more labels.
        ranker: folder of the model that chooses them; None for all.
        output: the folder of the outputs.

    Returns:
        The cases whose labels were added.
    """
    few = DATASETS[asked.dataset]
    number, name = few.with_labels(asked.chosen_by)
    folder, folder_few = (output / "nnUNet_preprocessed" / n for n in (name, few.name))
    source = {"few": few.small, "ranker": ranker and str(ranker.relative_to(output))}
    mark = folder / f"prepared_{asked.planned}.json"
    if mark.exists():
        prepared = json.loads(mark.read_text(encoding="utf-8"))
        if prepared["source"] == source:
            return list(prepared["cases"])
    cases = cases_to_label(asked, ranker, output)
    raw, raw_few = (output / "nnUNet_raw" / n for n in (name, few.name))
    shutil.rmtree(raw, ignore_errors=True)
    dataset_json = json.loads((raw_few / "dataset.json").read_text(encoding="utf-8"))
    ending = dataset_json["file_ending"]
    for kind in ("images", "labels"):
        shutil.copytree(raw_few / f"{kind}Tr", raw / f"{kind}Tr")
        channel = "_0000" if kind == "images" else ""
        for case in cases:
            shutil.copy(raw_few / f"{kind}Un" / f"{case}{channel}{ending}", raw / f"{kind}Tr")
    dataset_json["numTraining"] = len(list((raw / "labelsTr").iterdir()))
    write_json(raw / "dataset.json", dataset_json)

    folder.mkdir(exist_ok=True)
    plans = json.loads((folder_few / "nnUNetPlans.json").read_text(encoding="utf-8"))
    write_json(folder / "nnUNetPlans.json", plans | {"dataset_name": name})
    write_json(folder / "dataset.json", dataset_json)
    shutil.copy(folder_few / "dataset_fingerprint.json", folder)
    if few.fold != "all":
        splits = json.loads((folder_few / "splits_final.json").read_text(encoding="utf-8"))
        for split in splits:
            split["train"] = [*split["train"], *sorted(cases)]
        write_json(folder / "splits_final.json", splits)
    for before in folder.glob("nnUNetPlans_*"):
        shutil.rmtree(before)
    run(f"nnUNetv2_preprocess -d {number} -c {asked.planned} -np 2")
    write_json(mark, {"source": source, "cases": cases})
    return cases


def cases_to_label(asked: Run, ranker: Path | None, output: Path) -> list[str]:
    """Return the unlabeled cases to add: all, or those of the patients that are ranked first."""
    few = DATASETS[asked.dataset]
    if asked.chosen_by == ALL or ranker is None:
        files = (output / "nnUNet_raw" / few.name / "labelsUn").iterdir()
        return sorted(file.name.split(".")[0] for file in files)
    ranking = ranker / f"ranking_{asked.chosen_by}.csv"
    model = shlex.quote(str(ranker))
    rank = f"nnUNetv2_spmc_rank -d {few.id} -m {model} -f {few.fold} -device cpu --by_patient"
    options = RANKINGS[asked.chosen_by]
    run(f"{rank} --disable_tta {options} -o {shlex.quote(str(ranking))}")
    with ranking.open(encoding="utf-8", newline="") as file:
        first = list(csv.DictReader(file))[:ANNOTATED]
    return [case for patient in first for case in patient["case"].split()]


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=4), encoding="utf-8")
