"""Convert, plan and preprocess the datasets of scripts/benchmark_accuracy.py."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from accuracy_methods import ALL, ANNOTATED, METHODS, RANKER, RANKINGS, Dataset

SCRIPTS = Path(__file__).resolve().parent


def run(command: str, **environment: str) -> None:
    print(f"$ {command}", flush=True)
    subprocess.run(shlex.split(command), check=True, env=os.environ | environment)


def convert(kind: str, dataset: Dataset, data: Path, output: Path) -> None:
    if kind == "acdc":
        source = shlex.quote(str(data / "acdc128"))
        run(f"nnUNetv2_spmc_convert acdc -i {source} -d {dataset.id} --labeled 7 --allow-missing")
        return
    images, splits = data / "la_half" / "images", data / "splits" / "LA"
    cases = {part: (splits / f"{part}.list").read_text().split() for part in ("train", "test")}
    test = [case for case in cases["test"] if (images / f"{case}.nii.gz").exists()]
    for name, listed in (("la_labeled", cases["train"][:8]), ("la_test", test)):
        (output / f"{name}.txt").write_text("\n".join(listed), encoding="utf-8")
    run(
        f"nnUNetv2_spmc_convert folder -i {shlex.quote(str(images))} "
        f"-l {shlex.quote(str(data / 'la_half' / 'labels'))} -d {dataset.id} "
        f"-n {dataset.name.split('_')[1]} --labels background=0 atrium=1 --channels MRI "
        f"--labeled {shlex.quote(str(output / 'la_labeled.txt'))} "
        f"--test {shlex.quote(str(output / 'la_test.txt'))}"
    )


def prepare(kind: str, dataset: Dataset, data: Path, output: Path, plans: str) -> None:
    """Convert, plan and preprocess; the mark is written last, so that a broken one is repeated."""
    preprocessed = output / "nnUNet_preprocessed" / dataset.name
    mark = preprocessed / f"prepared_{plans}"
    if mark.exists() and mark.read_text(encoding="utf-8") == dataset.small:
        return
    configuration = planned_configuration(dataset, plans)
    if not (output / "nnUNet_raw" / dataset.name).exists():
        convert(kind, dataset, data, output)
    if not (preprocessed / "nnUNetPlans.json").exists():
        plan = f"nnUNetv2_plan_and_preprocess -d {dataset.id} -npfp 2 --no_pp"
        run(plan, nnUNet_n_proc_DA="1")  # planning takes it for a number of threads: 0 fails
    if plans == "small":
        small = f"-d {dataset.id} -c {dataset.configuration} {dataset.small}"
        run(f"nnUNetv2_spmc_plan small {small}")
    add_double_batch(preprocessed / "nnUNetPlans.json", configuration)
    run(f"nnUNetv2_preprocess -d {dataset.id} -c {configuration} -np 2")
    run(f"nnUNetv2_spmc_preprocess -d {dataset.id} -c {configuration}")
    mark.write_text(dataset.small, encoding="utf-8")


def planned_configuration(dataset: Dataset, plans: str) -> str:
    return dataset.configuration + ("_small" if plans == "small" else "")


def add_double_batch(plans_file: Path, configuration: str) -> None:
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    batch_size = 2 * plans["configurations"][configuration]["batch_size"]
    plans["configurations"][f"{configuration}_2x"] = {
        "inherits_from": configuration,
        "batch_size": batch_size,
    }
    write_json(plans_file, plans)


def prepare_more_labels(
    few: Dataset, labels: str, ranker: Path, output: Path, configuration: str
) -> list[str]:
    """Make labels of unlabeled cases training labels, under the plans of the few; return these."""
    more = few.with_labels(labels)
    source = {"few": few.small, "ranker": None if labels == ALL else ranker.name}
    mark = output / "nnUNet_preprocessed" / more.name / f"prepared_{configuration}.json"
    if mark.exists():
        prepared = json.loads(mark.read_text(encoding="utf-8"))
        if prepared["source"] == source:
            return list(prepared["cases"])
    trainer = METHODS[RANKER[0]].trainer
    model = ranker / "results" / few.name / f"{trainer}__nnUNetPlans__{configuration}"
    cases = cases_to_label(few, labels, model, output)
    raw, raw_few = (output / "nnUNet_raw" / name for name in (more.name, few.name))
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

    folder, folder_few = (output / "nnUNet_preprocessed" / name for name in (more.name, few.name))
    folder.mkdir(exist_ok=True)
    plans = json.loads((folder_few / "nnUNetPlans.json").read_text(encoding="utf-8"))
    write_json(folder / "nnUNetPlans.json", plans | {"dataset_name": more.name})
    write_json(folder / "dataset.json", dataset_json)
    shutil.copy(folder_few / "dataset_fingerprint.json", folder)
    if few.fold != "all":
        splits = json.loads((folder_few / "splits_final.json").read_text(encoding="utf-8"))
        for split in splits:
            split["train"] = [*split["train"], *sorted(cases)]
        write_json(folder / "splits_final.json", splits)
    for before in folder.glob("nnUNetPlans_*"):
        shutil.rmtree(before)
    run(f"nnUNetv2_preprocess -d {more.id} -c {configuration} -np 2")
    write_json(mark, {"source": source, "cases": cases})
    return cases


def cases_to_label(few: Dataset, labels: str, model: Path, output: Path) -> list[str]:
    """Return the unlabeled cases to add: all, or those of the patients that are ranked first."""
    if labels == ALL:
        files = (output / "nnUNet_raw" / few.name / "labelsUn").iterdir()
        return sorted(file.name.split(".")[0] for file in files)
    ranking = model / f"ranking_{labels}.csv"
    rank = f"nnUNetv2_spmc_rank -d {few.id} -m {shlex.quote(str(model))} -f {few.fold} -device cpu"
    run(f"{rank} --by_patient --disable_tta {RANKINGS[labels]} -o {shlex.quote(str(ranking))}")
    with ranking.open(encoding="utf-8", newline="") as file:
        first = list(csv.DictReader(file))[:ANNOTATED]
    return [case for patient in first for case in patient["case"].split()]


def write_json(path: Path, content: Any) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=4), encoding="utf-8")
    os.replace(temporary, path)
