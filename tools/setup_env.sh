# Sourced by quickstart.sh and run_tests.sh: sets up .venv, sets $PY.
# shellcheck shell=bash
#
# Environment: PYTHON (interpreter to start from, default python3), TORCH
# (torch requirement, default torch==2.13.0; pip's own settings apply).

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
TORCH="${TORCH:-torch==2.13.0}"

say() { printf '\n== %s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# new_venv DIR: create a virtual environment, or explain what is missing.
new_venv() {
    local python="${PYTHON:-python3}"
    command -v "$python" >/dev/null || die "no $python; install Python 3.10+"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "$("$python" --version) is too old; PYTHON=python3.11 $0"
    "$python" -m venv "$1" ||
        die "no venv module; on Debian or Ubuntu: apt install python3-venv"
}

# once DIR STEP FILE...: succeed if STEP was done with these files as they
# are now; 'done_with' records it.
stamp() { cat "${@:3}" /dev/null | cksum | tr ' ' '-'; }
once() { [ "$(cat "$1/.done-$2" 2>/dev/null)" = "$TORCH $(stamp "$@")" ]; }
done_with() { echo "$TORCH $(stamp "$@")" >"$1/.done-$2"; }

# setup_hosts DIR: torch, the hosts without compiled operators, ourselves.
setup_hosts() {
    local dir="$ROOT/$1" files
    files=("$ROOT/requirements/runtime.txt" "$ROOT/setup.py")
    PY="$dir/bin/python"
    once "$dir" hosts "${files[@]}" && return
    [ -x "$PY" ] || new_venv "$dir"
    say "Installing $TORCH and the hosts into $1 (about a minute)"
    "$PY" -m pip install --quiet "$TORCH"
    # No cache: pip would also take an mmcv built before in another way.
    MMCV_WITH_OPS=0 "$PY" -m pip install --quiet --no-cache-dir \
        -r "$ROOT/requirements/runtime.txt"
    "$PY" -m pip install --quiet --no-deps -e "$ROOT"
    done_with "$dir" hosts "${files[@]}"
}
