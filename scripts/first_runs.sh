#!/usr/bin/env bash
# The runs of docs/first-runs.md: ACDC (2d, 7 labeled patients) and LA (3d_fullres, 8 labeled scans),
# each with the supervised control and with SPMC, from scans to the Dice of the test cases.
#
#   bash scripts/first_runs.sh DATA OUTPUT
#
# DATA holds acdc128/, la_half/ and splits/; OUTPUT receives everything. What is finished is skipped,
# so the script can be interrupted and started again. Environment:
#   DEVICE    cpu (default) or cuda
#   PLANS     small (default: fits a CPU) or full (the plans as nnU-Net made them)
#   SETTINGS  nnUNet_spmc_settings of the trainings instead of those below
#   RUNS      which datasets: "acdc la" (default)
set -euo pipefail
scripts="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
data="$1"
output="$2"
device="${DEVICE:-cpu}"
plans="${PLANS:-small}"
mkdir -p "$output"/{nnUNet_raw,nnUNet_preprocessed,nnUNet_results,predictions}
output="$(cd "$output" && pwd)"
export nnUNet_raw="$output/nnUNet_raw"
export nnUNet_preprocessed="$output/nnUNet_preprocessed"
export nnUNet_results="$output/nnUNet_results"
export nnUNet_extTrainer="$(nnUNetv2_spmc_trainers)"
settings='{"epochs": 20, "iterations_per_epoch": 20, "validation_iterations": 5, "seed": 1}'
export nnUNet_spmc_settings="${SETTINGS:-$settings}"
trainers="nnUNetTrainerSupervisedControl nnUNetTrainerSPMC"

run() { echo "\$ $*" && "$@"; }

convert_acdc() {
    run nnUNetv2_spmc_convert acdc -i "$data/acdc128" -d 502 --labeled 7 --allow-missing
}

convert_la() {
    head -n 8 "$data/splits/LA/train.list" > "$output/la_labeled.txt"
    : > "$output/la_test.txt"  # the test cases of the list that are in this folder
    while read -r case; do
        if [ -e "$data/la_half/images/$case.nii.gz" ]; then echo "$case" >> "$output/la_test.txt"; fi
    done < "$data/splits/LA/test.list"
    run nnUNetv2_spmc_convert folder -i "$data/la_half/images" -l "$data/la_half/labels" -d 511 \
        -n LAhalf --labels background=0 atrium=1 --channels MRI \
        --labeled "$output/la_labeled.txt" --test "$output/la_test.txt"
}

first_run() {  # KIND ID NAME CONFIGURATION FOLD [options of nnUNetv2_spmc_plan]
    local kind=$1 id=$2 name=$3 configuration=$4 fold=$5 raw="$nnUNet_raw/$3"
    shift 5
    [ -d "$raw" ] || "convert_$kind"
    if [ ! -d "$nnUNet_preprocessed/$name/nnUNetPlans_$configuration" ]; then
        run nnUNetv2_plan_and_preprocess -d "$id" -c "$configuration" --verify_dataset_integrity
        run nnUNetv2_spmc_preprocess -d "$id" -c "$configuration"
    fi
    if [ "$plans" = small ]; then
        run nnUNetv2_spmc_plan small -d "$id" -c "$configuration" "$@"
        configuration="${configuration}_small"
    fi
    for trainer in $trainers; do
        local predictions="$output/predictions/$name-$configuration-$trainer"
        [ -e "$predictions/summary.json" ] && continue
        local model="$nnUNet_results/$name/${trainer}__nnUNetPlans__$configuration/fold_$fold"
        if [ ! -e "$model/checkpoint_final.pth" ]; then
            run nnUNetv2_train "$id" "$configuration" "$fold" -tr "$trainer" -device "$device" --c
        fi
        run nnUNetv2_predict -d "$id" -c "$configuration" -f "$fold" -tr "$trainer" \
            -device "$device" --disable_tta -i "$raw/imagesTs" -o "$predictions"
        run nnUNetv2_evaluate_folder "$raw/labelsTs" "$predictions" \
            -djfile "$predictions/dataset.json" -pfile "$predictions/plans.json"
    done
}

for kind in ${RUNS:-acdc la}; do
    case $kind in
        acdc) first_run acdc 502 Dataset502_ACDC 2d 0 --patch-size 64 64 --batch-size 8 ;;
        la) first_run la 511 Dataset511_LAhalf 3d_fullres all --features 8 64 \
            --patch-size 32 48 64 ;;
        *) echo "error: RUNS knows acdc and la, not $kind." >&2; exit 1 ;;
    esac
done
python "$scripts/first_runs_table.py" "$output"
