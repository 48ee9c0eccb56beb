#!/usr/bin/env bash
# From a fresh clone to trained and evaluated models with pictures, on a CPU:
# installs into .venv, draws demo data, trains UPerNet and Mask R-CNN with
# ConvNeXt V2 atto. A second run reuses what is there.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/setup_env.sh
START=$SECONDS
WORK=work_dirs/quickstart

# run NAME CONFIG IMAGES: train, evaluate and draw, into $WORK/NAME.
run() {
    local work="$WORK/$1" checkpoint
    say "Training: tools/train.py $2"
    "$PY" tools/train.py "$2" --work-dir "$work" --resume
    checkpoint=$(cat "$work/last_checkpoint")
    say "Evaluating $checkpoint"
    "$PY" tools/test.py "$2" "$checkpoint" --work-dir "$work" |
        tee "$work/test.txt"
    say 'Drawing predictions'
    "$PY" tools/predict.py "$2" "$checkpoint" "$3" --out "$work/pictures"
}

# report NAME METRICS: where everything of a run is.
report() {
    cat <<REPORT

$1: $(grep -E "^($2): " "$WORK/$1/test.txt" | tr '\n' ' ')
  pictures:   $WORK/$1/pictures  (input | prediction)
  checkpoint: $(cat "$WORK/$1/last_checkpoint")
  log:        $(ls -t "$WORK/$1"/*/*.log | head -n 1)
REPORT
}

setup_hosts .venv runtime.txt
# Threads that wait for each other must not keep data workers off the cores.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
say 'Drawing the demo data'
"$PY" tools/make_demo_data.py
run segmentation configs/upernet_convnextv2_atto_demo.py \
    data/demo/ade20k/images/validation
run detection configs/mask_rcnn_convnextv2_atto_demo.py data/demo/coco/val2017

say "Done in $((SECONDS - START)) s"
report segmentation mIoU
report detection 'coco/bbox_mAP|coco/segm_mAP'
cat <<'NEXT'

Next, your own data (see README.md), or a recipe:
  .venv/bin/python tools/train.py configs/upernet_convnextv2_base_ade20k.py
NEXT
