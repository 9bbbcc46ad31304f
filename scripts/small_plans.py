"""Add a configuration that trains in minutes on a CPU to existing nnU-Net plans.

    python scripts/small_plans.py -d 510 -c 3d_fullres --patch-size 48 48 48

adds the configuration 3d_fullres_small: it inherits everything from 3d_fullres (so the preprocessed
data is shared) but the number of features and, where given, the patch size and the batch size.
With --coarser 2 voxels are twice as long, too; such a configuration is preprocessed by itself.
For first runs, tests and CPU benchmarks; train real models with the plans as nnU-Net made them.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import sys
from pathlib import Path
from typing import Any


def small_configuration(
    planned: dict[str, Any],
    parent: str,
    *,
    features: tuple[int, int],
    patch_size: list[int] | None,
    batch_size: int | None,
    coarser: float | None = None,
) -> dict[str, Any]:
    """Derive a small configuration from a planned one."""
    architecture = copy.deepcopy(planned["architecture"])
    arguments = architecture["arch_kwargs"]
    patch_size = patch_size or list(planned["patch_size"])
    strides = arguments["strides"]
    if len(patch_size) != len(strides[0]):
        sys.exit(f"error: --patch-size needs {len(strides[0])} numbers, got {len(patch_size)}.")
    stages = sum(
        all(
            size >= 4 * math.prod(s[axis] for s in strides[: stage + 1])
            for axis, size in enumerate(patch_size)
        )
        for stage in range(len(strides))
    )
    # nnU-Net takes the lowest output out of its loss: of two stages nothing would be left (0/0)
    stages = min(max(stages, 3), len(strides))
    divisor = [math.prod(s[axis] for s in strides[:stages]) for axis in range(len(patch_size))]
    if any(size % d for size, d in zip(patch_size, divisor, strict=True)):
        sys.exit(f"error: --patch-size {patch_size} must be a multiple of {divisor}.")
    first, largest = features
    for key, value in arguments.items():
        if isinstance(value, list) and len(value) == len(strides) and key != "strides":
            arguments[key] = value[:stages]
    arguments["strides"] = strides[:stages]
    arguments["n_conv_per_stage_decoder"] = arguments["n_conv_per_stage_decoder"][: stages - 1]
    arguments["n_stages"] = stages
    arguments["features_per_stage"] = [min(first * 2**i, largest) for i in range(stages)]
    small = {
        "inherits_from": parent,
        "patch_size": patch_size,
        "batch_size": batch_size or planned["batch_size"],
        "architecture": architecture,
    }
    if coarser is not None:
        small["data_identifier"] = f"{planned['data_identifier']}_x{coarser:g}"
        small["spacing"] = [coarser * length for length in planned["spacing"]]
        sizes = planned["median_image_size_in_voxels"]
        small["median_image_size_in_voxels"] = [size / coarser for size in sizes]
    return small


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-d", type=int, required=True, metavar="ID", help="dataset id")
    parser.add_argument("-c", required=True, help="configuration to derive from")
    parser.add_argument("-p", default="nnUNetPlans", help="plans identifier (default: %(default)s)")
    parser.add_argument("--features", type=int, nargs=2, default=(16, 128), metavar=("N", "MAX"))
    parser.add_argument("--patch-size", type=int, nargs="+", help="default: as planned")
    parser.add_argument("--batch-size", type=int, help="default: as planned")
    parser.add_argument("--coarser", type=float, metavar="N", help="voxels N times as long")
    parser.add_argument("--name", help="name of the new one (default: CONFIGURATION_small)")
    arguments = parser.parse_args()
    if not os.environ.get("nnUNet_preprocessed"):
        sys.exit("error: nnUNet_preprocessed is not set; export it as for nnU-Net.")
    root = Path(os.environ["nnUNet_preprocessed"])
    plans_file = next(root.glob(f"Dataset{arguments.d:03d}_*/{arguments.p}.json"), None)
    if plans_file is None:
        sys.exit(f"error: {root} has no {arguments.p}.json of dataset {arguments.d}; plan first.")
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    planned = plans["configurations"].get(arguments.c, {})
    if "architecture" not in planned:
        complete = [c for c, values in plans["configurations"].items() if "architecture" in values]
        sys.exit(
            f"error: {plans_file} has no configuration {arguments.c} with an architecture of its "
            f"own; take one of {', '.join(complete)}."
        )
    name = arguments.name or f"{arguments.c}_small"
    plans["configurations"][name] = small_configuration(
        planned,
        arguments.c,
        features=tuple(arguments.features),
        patch_size=arguments.patch_size,
        batch_size=arguments.batch_size,
        coarser=arguments.coarser,
    )
    temporary = plans_file.with_suffix(".tmp")
    temporary.write_text(json.dumps(plans, indent=4), encoding="utf-8")
    os.replace(temporary, plans_file)
    print(f"Added the configuration {name} to {plans_file}")


if __name__ == "__main__":
    main()
