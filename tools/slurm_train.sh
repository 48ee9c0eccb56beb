#!/usr/bin/env bash
# Train under Slurm, one task per GPU:
#
#   bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of train.py]
#
# Environment: GPUS (8), GPUS_PER_NODE (8, at most GPUS), CPUS_PER_TASK (5),
# SRUN_ARGS (further options of srun), PYTHON (python).
set -euo pipefail
[ $# -ge 3 ] || {
    echo "usage: bash $0 PARTITION JOB_NAME CONFIG [options of train.py]" >&2
    exit 2
}
PARTITION=$1 JOB_NAME=$2 CONFIG=$3
shift 3
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
[ "$GPUS_PER_NODE" -le "$GPUS" ] || GPUS_PER_NODE=$GPUS
HERE="$(cd "$(dirname "$0")" && pwd)"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# shellcheck disable=SC2086
exec srun -p "$PARTITION" --job-name "$JOB_NAME" \
    --gres "gpu:$GPUS_PER_NODE" --ntasks "$GPUS" \
    --ntasks-per-node "$GPUS_PER_NODE" \
    --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -u "$HERE/train.py" "$CONFIG" --launcher slurm "$@"
