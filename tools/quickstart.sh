#!/usr/bin/env bash
# From a fresh clone to a trained, evaluated model with pictures, on a CPU:
# installs into .venv, draws demo data, trains UPerNet with ConvNeXt V2 atto.
# A second run reuses what is there.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/setup_env.sh

CONFIG=configs/upernet_convnextv2_atto_demo.py
WORK=work_dirs/quickstart/segmentation
PICTURES=work_dirs/quickstart/pictures
START=$SECONDS

setup_hosts .venv

say 'Drawing the demo data'
"$PY" tools/make_demo_data.py

say "Training: tools/train.py $CONFIG (a few minutes)"
"$PY" tools/train.py "$CONFIG" --work-dir "$WORK" --resume

CHECKPOINT=$(cat "$WORK/last_checkpoint")
say 'Evaluating'
"$PY" tools/test.py "$CONFIG" "$CHECKPOINT" --work-dir "$WORK" |
    tee "$WORK/test.txt"

say 'Drawing predictions'
"$PY" tools/predict.py "$CONFIG" "$CHECKPOINT" \
    data/demo/ade20k/images/validation --out "$PICTURES"

cat <<SUMMARY

== Done in $((SECONDS - START)) s
$(grep '^mIoU:' "$WORK/test.txt") (validation, $CONFIG)
pictures:   $PICTURES  (input | prediction)
checkpoint: $CHECKPOINT
log:        $(ls -t "$WORK"/*/*.log | head -n 1)

Next, your own data: README.md, "Your own data", or try a recipe:
  .venv/bin/python tools/train.py configs/upernet_convnextv2_base_ade20k.py
SUMMARY
