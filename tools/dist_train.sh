#!/usr/bin/env bash
# Train on the GPUs of one machine, or of several:
#
#   bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
#   NODES=2 NODE_RANK=0 MASTER=host bash tools/dist_train.sh CONFIG GPUS
#
# Environment: NODES (1), NODE_RANK (0), MASTER (127.0.0.1), PORT (29500),
# PYTHON (python). GPUS is the number on each machine.
set -euo pipefail
[ $# -ge 2 ] || {
    echo "usage: bash $0 CONFIG GPUS [options of tools/train.py]" >&2
    exit 2
}
CONFIG=$1 GPUS=$2
shift 2
HERE="$(cd "$(dirname "$0")" && pwd)"
# Each process would otherwise start a thread on every core.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "${NODES:-1}" --node_rank "${NODE_RANK:-0}" \
    --master_addr "${MASTER:-127.0.0.1}" --master_port "${PORT:-29500}" \
    --nproc_per_node "$GPUS" \
    "$HERE/train.py" "$CONFIG" --launcher pytorch "$@"
