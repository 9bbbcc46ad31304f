"""Print the table of docs/first-runs.md from the output folder of first_runs.sh."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch


def main() -> None:
    output = Path(sys.argv[1])
    print("| dataset | configuration | trainer | test cases | Dice | mean Dice | s per epoch |")
    print("|---|---|---|---|---|---|---|")
    for file in sorted(output.glob("predictions/*/summary.json")):
        dataset, configuration, trainer = file.parent.name.split("-")
        summary = json.loads(file.read_text(encoding="utf-8"))
        classes = ", ".join(f"{values['Dice']:.3f}" for values in summary["mean"].values())
        model = f"nnUNet_results/{dataset}/{trainer}__nnUNetPlans__{configuration}"
        checkpoint = next(output.glob(f"{model}/fold_*/checkpoint_final.pth"))
        curves = torch.load(checkpoint, map_location="cpu", weights_only=False)["logging"]
        seconds = sorted(
            end - start
            for start, end in zip(
                curves["epoch_start_timestamps"], curves["epoch_end_timestamps"], strict=True
            )
        )
        print(
            f"| {dataset} | {configuration} | {trainer} | {len(summary['metric_per_case'])} | "
            f"{classes} | {summary['foreground_mean']['Dice']:.3f} | "
            f"{seconds[len(seconds) // 2]:.1f} |"
        )


if __name__ == "__main__":
    main()
