#!/usr/bin/env bash
# The main job on synthetic scans, on a CPU in minutes: bash scripts/demo.sh [FOLDER]
# FOLDER (default: demo_output in the clone) receives everything; every run makes it again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
output="${1:-$repository/demo_output}"
if [ -e "$output" ] && [ ! -e "$output/.spmc-demo" ]; then
    echo "error: $output exists and is not from an earlier demo; name another folder." >&2
    exit 1
fi
rm -rf "$output"
mkdir -p "$output/nnUNet_raw" "$output/nnUNet_preprocessed" "$output/nnUNet_results"
touch "$output/.spmc-demo"

export nnUNet_raw="$output/nnUNet_raw"
export nnUNet_preprocessed="$output/nnUNet_preprocessed"
export nnUNet_results="$output/nnUNet_results"
export nnUNet_extTrainer="$(nnUNetv2_spmc_trainers)"
export nnUNet_n_proc_DA=1 nnUNet_def_n_proc=2
# both runs: the same seed and as many steps as fit into minutes; a real training takes the defaults
export nnUNet_spmc_settings='{"epochs": 15, "iterations_per_epoch": 30, "validation_iterations": 4, "keep_every": 3, "seed": 1}'
dataset=500
configuration=3d_fullres_small
log="$output/log.txt"

step() {  # says what runs, keeps the output in the log, shows its end if it fails
    say "$1"
    shift
    echo "\$ $*" | tee -a "$log"
    "$@" >>"$log" 2>&1 || { tail -n 30 "$log" >&2; echo "error: the command above failed; see $log" >&2; exit 1; }
}

step "Make 4 labeled, 16 unlabeled and 6 test scans" \
    nnUNetv2_spmc_convert phantom -d $dataset --labeled 4 --unlabeled 16 --test 6 -np 2
step "Plan and preprocess the labeled scans: stock nnU-Net" \
    nnUNetv2_plan_and_preprocess -d $dataset -c 3d_fullres -npfp 2 -np 2 --verify_dataset_integrity
step "Add a configuration small enough for a CPU" \
    nnUNetv2_spmc_plan small -d $dataset -c 3d_fullres --features 8 64 \
    --batch_size 2 --patch_size 16 32 32
step "Preprocess the unlabeled scans with the same plans" \
    nnUNetv2_spmc_preprocess -d $dataset -c $configuration -np 2
for trainer in nnUNetTrainerSupervisedControl nnUNetTrainerSPMC; do
    step "Train $trainer" nnUNetv2_train $dataset $configuration all -tr $trainer -device cpu
    step "Predict the test scans with it: stock nnU-Net" \
        nnUNetv2_predict -d $dataset -c $configuration -f all -tr $trainer -device cpu -npp 1 -nps 1 \
        --save_probabilities -i "$nnUNet_raw/Dataset500_Phantom/imagesTs" -o "$output/$trainer"
    step "Evaluate it: stock nnU-Net" \
        nnUNetv2_evaluate_folder "$nnUNet_raw/Dataset500_Phantom/labelsTs" "$output/$trainer" \
        -djfile "$output/$trainer/dataset.json" -pfile "$output/$trainer/plans.json"
    step "Evaluate it with surface distances" \
        nnUNetv2_spmc_evaluate -ref "$nnUNet_raw/Dataset500_Phantom/labelsTs" -pred "$output/$trainer"
done

say "The two compared, case by case"
nnUNetv2_spmc_compare "$output/nnUNetTrainerSupervisedControl" "$output/nnUNetTrainerSPMC" -o "$output"
say "Pictures of what the method sees"
runs="$nnUNet_results/Dataset500_Phantom"
python "$repository/scripts/figures.py" -o "$output" \
    "$runs/nnUNetTrainerSupervisedControl__nnUNetPlans__$configuration/fold_all" \
    "$runs/nnUNetTrainerSPMC__nnUNetPlans__$configuration/fold_all"

say "Mean Dice of the test scans, and a picture of one"
python "$repository/scripts/demo_figure.py" --images "$nnUNet_raw/Dataset500_Phantom/imagesTs" \
    --labels "$nnUNet_raw/Dataset500_Phantom/labelsTs" --output "$output/demo.png" \
    "$output/nnUNetTrainerSupervisedControl" "$output/nnUNetTrainerSPMC"
