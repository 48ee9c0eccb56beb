#!/usr/bin/env bash
# Install what is missing and run the tests; arguments go to pytest.
#
# Two environments: .venv has the hosts, .venv-zoo adds the model libraries
# that some tests compare against. Those libraries want a torchvision that
# fits torch, and hosts should not meet it.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/setup_env.sh

setup_hosts .venv
if ! once .venv tests requirements/tests.txt; then
    "$PY" -m pip install --quiet -r requirements/tests.txt
    done_with .venv tests requirements/tests.txt
fi
if ! once .venv-zoo zoo requirements/optional.txt; then
    [ -x .venv-zoo/bin/python ] || new_venv .venv-zoo
    say 'Installing the model libraries into .venv-zoo'
    # On top of .venv, not a second copy of torch.
    "$PY" -c 'import site; print(site.getsitepackages()[0])' >"$(
        .venv-zoo/bin/python -c 'import site; print(site.getsitepackages()[0])'
    )/hosts.pth"
    .venv-zoo/bin/python -m pip install --quiet --no-deps \
        -r requirements/optional.txt
    done_with .venv-zoo zoo requirements/optional.txt
fi

# Two data workers and two cores: more threads only wait for each other.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
if [ $# -eq 0 ]; then
    say 'Tests against the model libraries'
    .venv-zoo/bin/python -m pytest -q \
        tests/test_convnext.py tests/test_checkpoint.py
fi
say 'Tests'
"$PY" -m pytest -q "$@"
