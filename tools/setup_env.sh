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

# pick_python VERSION...: set PYTHON to the first of these that is installed,
# for a set of requirements without wheels for newer ones.
pick_python() {
    local version
    for version in "$@"; do
        if "${PYTHON:-python3}" --version 2>&1 | grep -q " $version\."; then
            return
        fi
    done
    for version in "$@"; do
        if "python$version" --version >/dev/null 2>&1; then
            PYTHON="python$version"
            return
        fi
    done
    die "this set needs Python $(printf '%s or ' "$@" | sed 's/ or $//'); \
install one, or name it: PYTHON=/path/to/python $0"
}

# is_done DIR STEP FILE...: whether STEP was done with these files as they
# are now; mark_done records it.
stamp_of() { echo "$TORCH $(cat "${@:3}" /dev/null | cksum)"; }
is_done() { [ "$(cat "$1/.done-$2" 2>/dev/null)" = "$(stamp_of "$@")" ]; }
mark_done() { stamp_of "$@" >"$1/.done-$2"; }

# pip_install PYTHON ARGUMENT...: pip install, or say what to do about a failure.
pip_install() {
    "$1" -m pip install -qq "${@:2}" || die "pip could not install \
'${*:2}' with $("$1" --version): its reason is above. Where the network broke \
off, run $0 again: it goes on from here. PIP_INDEX_URL and PIP_FIND_LINKS \
name another index and folders of wheels."
}

# setup_hosts DIR REQUIREMENTS: torch, the hosts without compiled operators,
# ourselves.
setup_hosts() {
    local dir="$ROOT/$1" files=("$ROOT/requirements/$2" "$ROOT/setup.py")
    PY="$dir/bin/python"
    is_done "$dir" hosts "${files[@]}" && return
    [ -x "$PY" ] || new_venv "$dir"
    say "Installing $TORCH and the hosts of $2 into $1 (about a minute)"
    pip_install "$PY" "$TORCH"
    # No cache: pip would also take an mmcv built before in another way.
    MMCV_WITH_OPS=0 pip_install "$PY" --no-cache-dir -r "$ROOT/requirements/$2"
    pip_install "$PY" --no-deps -e "$ROOT"
    mark_done "$dir" hosts "${files[@]}"
}
