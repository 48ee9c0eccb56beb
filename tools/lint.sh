#!/usr/bin/env bash
# Check style and types with the tools of run_tests.sh's environment.
#
#     bash tools/lint.sh
set -euo pipefail
cd "$(dirname "$0")/.."
[ -x .venv/bin/ruff ] && [ -x .venv/bin/mypy ] || {
    echo 'error: run bash tools/run_tests.sh once; it installs the linter' >&2
    exit 1
}
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
