#!/usr/bin/env bash
# From a fresh clone to trained and evaluated models with pictures, on a CPU:
# installs into .venv, draws demo data, and takes the way that your own data
# takes: new_project.py, train.py, predict.py, once for label maps and once
# for objects. A second run reuses what is there.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/setup_env.sh
START=$SECONDS
WORK=work_dirs/quickstart

# project NAME FOLDER EPOCHS: a config for a folder of images and labels.
project() {
    local config="$WORK/$1.py"
    [ -f "$config" ] && return
    mkdir -p "$WORK"
    say "A project for $2: tools/new_project.py (its report: $WORK/$1.txt)"
    "$PY" tools/new_project.py "$2" --out "$config" --arch atto \
        --weights none --epochs "$3" --html >"$WORK/$1.txt"
}

# run NAME IMAGES: train, evaluate while training, and draw.
run() {
    local work="$WORK/$1-run" options=(--work-dir "$WORK/$1-run")
    [ -f "$work/last_checkpoint" ] && options+=(--resume)
    say "Training: tools/train.py $WORK/$1.py"
    "$PY" tools/train.py "$WORK/$1.py" "${options[@]}"
    echo "Drawing: tools/predict.py (its scores: $work/scores.txt)"
    "$PY" tools/predict.py "$WORK/$1.py" "$(cat "$work/last_checkpoint")" \
        "$2" --labels --html --out "$work/pictures" >"$work/scores.txt"
}

# report NAME: what came out, and where it is.
report() {
    local work="$WORK/$1-run"
    cat <<REPORT

$1: $(grep '^class' "$work/scores.txt" | tr -s ' ')
    $(grep '^mean' "$work/scores.txt" | tr -s ' ')
  pictures:  $work/pictures/index.html  (input | label | prediction)
  data:      $WORK/$1/report.html
REPORT
}

setup_hosts .venv runtime.txt
say 'Drawing the demo data'
"$PY" tools/make_demo_data.py
project segmentation data/demo/ade20k 6
run segmentation data/demo/ade20k/images/validation
project detection data/demo/coco 5
run detection data/demo/coco/val2017

say "Done in $((SECONDS - START)) s"
report segmentation
report detection
cat <<'NEXT'

Next, your own data (see README.md):
  .venv/bin/python tools/new_project.py FOLDER --out my_project.py --html
NEXT
