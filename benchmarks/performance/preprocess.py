"""Cases per second: preprocessing against nnU-Net's own, converting against copying the files.

    python -m benchmarks.performance.preprocess [--cases 12] [--small-cases 1000] [--processes 2]

The cases are fabricated. Ours and nnUNetv2_preprocess work on the same images, in turns, each in a
fresh process; the start of their workers counts. Conversion checks every voxel of
every file (truncation, NaN, label values), which copying does not: the last row says what reading
all the files once costs, without which none of that can be known.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from benchmarks.performance.tables import MACHINE, RESULTS_HELP, machine, publish

DATASET = "Dataset997_Speed"
SHAPE = (64, 128, 128)
SMALL_SHAPE = (32, 32, 32)


def write_image(file: Path, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Write a smooth random volume as int16."""
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    array = (1000 + 200 * noise / noise.std()).astype(np.int16)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 1.5 + 0.1 * (seed % 3)))  # so that most are resampled
    sitk.WriteImage(image, str(file))
    return array


def write_label(file: Path, image_file: Path, array: np.ndarray) -> None:
    """Write the bright voxels as the label of an image."""
    label = sitk.GetImageFromArray((array > 1200).astype(np.uint8))
    label.CopyInformation(sitk.ReadImage(str(image_file)))
    sitk.WriteImage(label, str(file))


def make_dataset(root: Path, cases: int) -> None:
    """Write and plan a dataset whose unlabeled cases are the labeled ones under other names."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
    )

    folder = root / DATASET
    for name in ("imagesTr", "labelsTr", "imagesUn"):
        (folder / name).mkdir(parents=True)
    for case in range(cases):
        image = folder / "imagesTr" / f"labeled{case:03d}_0000.nii.gz"
        array = write_image(image, SHAPE, case)
        write_label(folder / "labelsTr" / f"labeled{case:03d}.nii.gz", image, array)
        shutil.copy(image, folder / "imagesUn" / f"unlabeled{case:03d}_0000.nii.gz")
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "bright": 1},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    extract_fingerprint_dataset(997, num_processes=1, show_progress_bar=False)
    plan_experiment_dataset(997)


def stock(processes: int) -> float:
    """Preprocess the labeled cases by nnU-Net; return the seconds."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset

    begin = time.perf_counter()
    preprocess_dataset(997, configurations=["3d_fullres"], num_processes=[processes])
    return time.perf_counter() - begin


def ours(processes: int) -> float:
    """Preprocess the unlabeled cases; return the seconds."""
    from nnunetv2_spmc.unlabeled.preprocessing import PreprocessingOptions, preprocess_unlabeled

    options = PreprocessingOptions(
        num_processes=processes, overwrite=True, allow_overlap=True, show_progress=False
    )
    begin = time.perf_counter()
    report = preprocess_unlabeled(997, "3d_fullres", options=options)
    assert not report.failed, report.failed
    return time.perf_counter() - begin


def in_fresh_process(work: Callable[..., float], *arguments: Any) -> float:
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(work, *arguments).result()


def measure_preprocessing(cases: int, processes: int, repeats: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            root = Path(folder, variable)
            root.mkdir()
            os.environ[variable] = str(root)
        make_dataset(Path(folder, "nnUNet_raw"), cases)
        pairs = [
            (in_fresh_process(stock, processes), in_fresh_process(ours, processes))
            for _ in range(repeats)
        ]
    return [
        {
            "what": f"preprocessing {cases} cases of {'x'.join(map(str, SHAPE))}",
            "against": "nnUNetv2_preprocess",
            "processes": processes,
            "theirs/s": f"{cases / statistics.median(a for a, _ in pairs):.2f}",
            "ours/s": f"{cases / statistics.median(b for _, b in pairs):.2f}",
            "speed/theirs": f"{statistics.median(a / b for a, b in pairs):.2f}",
        }
    ]


def write_scans(folder: Path, cases: int) -> list[Path]:
    """Write small scans, every tenth of them with a label; return all files."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for case in range(cases):
        image = folder / "images" / f"case{case:04d}_0000.nii.gz"
        array = write_image(image, SMALL_SHAPE, case)
        if case % 10 == 0:
            write_label(folder / "labels" / f"case{case:04d}.nii.gz", image, array)
    return sorted([*folder.glob("images/*"), *folder.glob("labels/*")])


def copied(files: list[Path], output: Path) -> float:
    """Copy the files one after the other; return the seconds."""
    begin = time.perf_counter()
    for file in files:
        target = output / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return time.perf_counter() - begin


def read_once(files: list[Path]) -> float:
    """Decompress the files one after the other; return the seconds."""
    begin = time.perf_counter()
    for file in files:
        with gzip.open(file) as stream:
            stream.read()
    return time.perf_counter() - begin


def converted(folder: Path, output: Path, processes: int) -> float:
    """Convert the scans; return the seconds."""
    from nnunetv2_spmc.dataset_conversion.folder import (
        LabelDefinition,
        SplitRequest,
        convert_folder,
    )
    from nnunetv2_spmc.dataset_conversion.folder_files import FolderLayout
    from nnunetv2_spmc.raw.writer import WriteOptions

    begin = time.perf_counter()
    convert_folder(
        FolderLayout(folder / "images", folder / "labels", ("MRI",)),
        LabelDefinition({"background": 0, "bright": 1}),
        SplitRequest(),
        dataset_id=998,
        name="Small",
        options=WriteOptions(processes=processes, raw=output, preprocessed=output),
    )
    return time.perf_counter() - begin


def measure_conversion(cases: int, processes: int, repeats: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as root:
        files = write_scans(Path(root, "scans"), cases)
        times: dict[str, list[float]] = {"copying": [], "ours": [], "reading once": []}
        for repeat in range(repeats):
            outputs = [Path(root, f"{name}{repeat}") for name in ("copied", "converted")]
            for output in outputs:
                output.mkdir()
            times["copying"].append(copied(files, outputs[0]))
            times["reading once"].append(read_once(files))
            times["ours"].append(
                in_fresh_process(converted, Path(root, "scans"), outputs[1], processes)
            )
            for output in outputs:
                shutil.rmtree(output)
    median = {name: statistics.median(values) for name, values in times.items()}
    shape = "x".join(map(str, SMALL_SHAPE))
    return [
        {
            "what": f"converting {cases} cases of {shape}",
            "against": name,
            "processes": processes,
            "theirs/s": f"{cases / median[name]:.1f}",
            "ours/s": f"{cases / median['ours']:.1f}",
            "speed/theirs": f"{median[name] / median['ours']:.3f}",
        }
        for name in ("copying", "reading once")
    ]


def measure_parts(cases: int) -> list[dict[str, Any]]:
    """Measure what a conversion does with each small file, on one core."""
    from nnunetv2_spmc.raw.nifti_check import check_nifti, num_dimensions
    from nnunetv2_spmc.raw.reader import ImageFile
    from nnunetv2_spmc.raw.scan_facts import facts_of

    with tempfile.TemporaryDirectory() as root:
        files = write_scans(Path(root, "scans"), cases)
        image = sitk.ReadImage(str(files[0]))
        parts: dict[str, Callable[[Path], Any]] = {
            "checking and reading": lambda file: ImageFile(file).read(),
            "the check alone: whole, no NaN": check_nifti,
            "header (is it 3D?)": num_dimensions,
            "digest and intensities (duplicates)": lambda _: facts_of([image]),
            "copying": lambda file: shutil.copyfile(file, Path(root, "copy")),
        }
        rows = []
        for name, work in parts.items():
            work(files[0])
            begin = time.process_time()
            for file in files:
                work(file)
            spent = (time.process_time() - begin) / len(files)
            rows.append({"part": name, "CPU ms per file": f"{1000 * spent:.2f}"})
    return [row | {MACHINE: machine(1, f"means of {len(files)} files")} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=12, help="to preprocess")
    parser.add_argument("--small-cases", type=int, default=1000, help="to convert")
    parser.add_argument("--parts-only", action="store_true", help="only what a conversion does")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, metavar="FOLDER", help=RESULTS_HELP)
    arguments = parser.parse_args()
    publish("conversion", measure_parts(100), arguments.results, ["part"])
    if arguments.parts_only:
        return
    rows = measure_preprocessing(arguments.cases, arguments.processes, arguments.repeats)
    rows += measure_conversion(arguments.small_cases, arguments.processes, arguments.repeats)
    where = machine(1, f"medians of {arguments.repeats} interleaved repeats")
    publish(
        "preprocess",
        [row | {MACHINE: where} for row in rows],
        arguments.results,
        ["what", "against"],
    )


if __name__ == "__main__":
    main()
