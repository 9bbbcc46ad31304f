#!/usr/bin/env bash
# What unlabeled scans give, on synthetic scans, on a CPU in ten minutes: bash scripts/demo.sh [FOLDER]
# FOLDER (default: demo_output in the clone) receives everything; every run makes it again.
# DEMO_SEED (default: 1) is the seed of the scans and of the trainings.
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
output="$(cd "$output" && pwd)"

export nnUNet_raw="$output/nnUNet_raw"
export nnUNet_preprocessed="$output/nnUNet_preprocessed"
export nnUNet_results="$output/nnUNet_results"
export nnUNet_extTrainer="$(nnUNetv2_spmc_trainers)"
export nnUNet_def_n_proc=1 OMP_NUM_THREADS=1  # two trainings at a time, a core each
seed="${DEMO_SEED:-1}"
# the same seed, and as many steps as fit into minutes; a real training takes the defaults
export nnUNet_spmc_settings='{"iterations_per_epoch": 100, "validation_iterations": 1, "average_last": 0.2, "seed": '"$seed"'}'
few=500 all=501 configuration=2d_small
raw="$nnUNet_raw/Dataset${few}_Phantom" raw_all="$nnUNet_raw/Dataset${all}_PhantomAllLabels"
log="$output/log.txt"

step() {  # says what runs, keeps the output in a log, shows its end if it fails
    say "$1"
    shift
    run "$@"
}

run() {
    echo "\$ $*" | tee -a "$log"
    "$@" >>"$log" 2>&1 || { tail -n 30 "$log" >&2; echo "error: the command above failed; see $log" >&2; exit 1; }
}

step "Make synthetic hearts: 6 labeled, 60 unlabeled and 30 test scans" \
    nnUNetv2_spmc_convert phantom -d $few --look heart --labeled 6 --unlabeled 60 --test 30 \
    --seed "$seed" -np 2
step "Plan and preprocess the labeled scans: stock nnU-Net" \
    nnUNetv2_plan_and_preprocess -d $few -c 2d -npfp 2 -np 2 --verify_dataset_integrity
step "Add a configuration small enough for a CPU" \
    nnUNetv2_spmc_plan small -d $few -c 2d --features 8 64 --batch_size 4 --patch_size 64 64
step "Preprocess the unlabeled scans with the same plans" \
    nnUNetv2_spmc_preprocess -d $few -c $configuration -np 2

say "The upper bound: a dataset in which the unlabeled scans have their labels, too"
for kind in images labels; do
    mkdir -p "$raw_all/${kind}Tr"
    cp "$raw/${kind}Tr/"* "$raw/${kind}Un/"* "$raw_all/${kind}Tr"
done
sed 's/"numTraining": 6/"numTraining": 66/' "$raw/dataset.json" > "$raw_all/dataset.json"
run nnUNetv2_extract_fingerprint -d $all -np 2
run nnUNetv2_move_plans_between_datasets -s $few -t $all -sp nnUNetPlans -tp nnUNetPlans
cp "$raw_all/dataset.json" "$nnUNet_preprocessed/${raw_all##*/}"
run nnUNetv2_preprocess -d $all -c $configuration -np 2

model() {  # NAME DATASET TRAINER EPOCHS: trains a model, predicts the test scans and evaluates them
    local log="$output/$1.txt"
    nnUNet_n_proc_DA=0 run $pin nnUNetv2_spmc_train "$2" $configuration all -tr "$3" -device cpu \
        --set epochs="$4"
    run $pin nnUNetv2_predict -d "$2" -c $configuration -f all -tr "$3" -device cpu -npp 1 -nps 1 \
        --disable_tta -i "$raw/imagesTs" -o "$output/$1"
    run nnUNetv2_spmc_evaluate -ref "$raw/labelsTs" -pred "$output/$1"
}

pin() {  # NUMBER: prints the command that keeps another one to a core of its own; nothing on macOS
    if command -v taskset >/dev/null; then
        echo taskset -c "$(python -c "import os; print((sorted(os.sched_getaffinity(0)) * 2)[$1])")"
    fi
}

# On a CPU, nnU-Net uses as many threads as there are cores: two trainings would wait for each other.
# A step of the view control is shorter than one of SPMC. It takes more of them: as many minutes.
say "Train, predict and evaluate four models, two at a time"
(
    pin="$(pin 0)"
    model view_control $few nnUNetTrainerViewControl 27
    model all_labels $all nnUNetTrainerSupervisedControl 20
) &
first=$!
trap 'pkill -P $first || true' EXIT  # Ctrl-C does not reach what runs in the background
(
    pin="$(pin 1)"
    model spmc $few nnUNetTrainerSPMC 20
    model control $few nnUNetTrainerSupervisedControl 20
)
wait $first

for other in control view_control; do
    say "SPMC against the ${other/_/ }, scan by scan"
    nnUNetv2_spmc_compare "$output/$other" "$output/spmc" -o "$output/spmc_against_$other"
done
say "Mean Dice of the 30 test scans"
python "$repository/scripts/demo_figure.py" "$output"
