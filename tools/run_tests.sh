#!/usr/bin/env bash
# Install what is missing and run the tests.
#
#     bash tools/run_tests.sh [--hosts onedl|openmmlab|oldest] [pytest ...]
#
# VENV names another environment, to try another interpreter:
#
#     PYTHON=python3.13 VENV=.venv-3.13 bash tools/run_tests.sh -m "not slow"
#
# .venv has the hosts; .venv-zoo lies on top of it and adds the model
# libraries that some tests compare against (they want a torchvision that
# fits torch, and hosts should not meet it), Triton and torch's newer exporter.
# It runs only without arguments. TEST_WORKERS processes (2) share the files.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/setup_env.sh

declare -A SETS=([onedl]=runtime.txt [openmmlab]=openmmlab.txt
    [oldest]=oldest.txt)
declare -A VENVS=([onedl]=.venv [openmmlab]=.venv-openmmlab
    [oldest]=.venv-oldest)
HOSTS=onedl
if [ "${1:-}" = --hosts ]; then
    HOSTS="${2:-}"
    [ -n "${SETS[${HOSTS:-none}]:-}" ] ||
        die "--hosts must be one of ${!SETS[*]}, got '$HOSTS'"
    shift 2
fi
if [ "$HOSTS" = oldest ]; then
    TORCH=torch==2.1.2
    pick_python 3.11 3.10
fi

VENV="${VENV:-${VENVS[$HOSTS]}}"
setup_hosts "$VENV" "${SETS[$HOSTS]}"
LIBRARIES=(requirements/tests.txt requirements/deploy.txt)
# Its torch is too old to export.
[ "$HOSTS" != oldest ] || LIBRARIES=(requirements/tests.txt)
if ! is_done "$VENV" tests "${LIBRARIES[@]}"; then
    pip_install "$PY" "${LIBRARIES[@]/#/--requirement=}"
    mark_done "$VENV" tests "${LIBRARIES[@]}"
fi

# Two data workers and two cores: more threads only wait for each other.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# Whole files to a worker: what a file sets up is set up once. A run that goes
# on without a worker that died may wait for its tests for ever.
SHARED=(-n "${TEST_WORKERS:-2}" --dist loadfile --no-loadscope-reorder
    --max-worker-restart 0)

if [ $# -eq 0 ] && [ "$HOSTS" = onedl ]; then
    EXTRAS=(requirements/optional.txt requirements/zoo.txt)
    if ! is_done .venv-zoo zoo "${EXTRAS[@]}"; then
        [ -x .venv-zoo/bin/python ] || new_venv .venv-zoo
        say 'Installing the model libraries into .venv-zoo'
        SITE='import site; print(site.getsitepackages()[0])'
        # On top of .venv, not a second copy of torch.
        "$PY" -c "$SITE" >"$(.venv-zoo/bin/python -c "$SITE")/hosts.pth"
        pip_install .venv-zoo/bin/python -r requirements/optional.txt
        pip_install .venv-zoo/bin/python --no-deps -r requirements/zoo.txt
        mark_done .venv-zoo zoo "${EXTRAS[@]}"
    fi
    say 'Tests against the model libraries'
    mapfile -t ZOO < <(grep -rlE "import_zoo|importorskip" tests \
        --include="test_*.py")
    .venv-zoo/bin/python -m pytest -q "${SHARED[@]}" "${ZOO[@]}"
    # It has the same hosts: these files have run.
    SHARED+=("${ZOO[@]/#/--ignore=}")
fi
say "Tests with the hosts of ${SETS[$HOSTS]}"
[ $# -gt 0 ] || set -- "${SHARED[@]}"
"$PY" -m pytest -q "$@"
