#!/usr/bin/env bash
# Makes .venv and installs this project with one extra, once: a stamp names what was installed.
#
# usage: deploy/venv.sh demo|dev|bench  PYTHON=/path/to/python picks the interpreter (3.11 or 3.12)
# The stamp holds pyproject.toml, the constraints, the folder and the interpreter, so that a moved clone is installed anew and an
# unchanged one needs no network. `dev` contains `demo`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extra=$1
venv=.venv
suits='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'

find_python() {
    local candidate
    # shellcheck disable=SC2043
    for candidate in "${PYTHON:-}" python3.12 python3.11 python3 python; do
        if [[ -n $candidate ]] && "$candidate" -c "$suits" >/dev/null 2>&1; then
            command -v "$candidate"
            return
        fi
        if [[ -n $candidate && $candidate == "${PYTHON:-}" ]]; then
            echo "PYTHON=$candidate is no Python 3.11 or 3.12 with its venv module" >&2
            return 1
        fi
    done
    echo "Python 3.11 or 3.12 with its venv module is needed (Debian and Ubuntu: python3-venv)." >&2
    echo "None of python3.12, python3.11, python3, python is one; name one: make PYTHON=/path/to/python" >&2
    return 1
}

key=$({ cat pyproject.toml deploy/constraints.txt; pwd; "$venv/bin/python" -V 2>/dev/null || true; } | cksum | cut -d' ' -f1)
if "$venv/bin/python" -c "$suits" >/dev/null 2>&1; then
    [[ ! -e $venv/.installed-$extra-$key ]] || exit 0
    [[ $extra != demo || ! -e $venv/.installed-dev-$key ]] || exit 0
fi

python=$(find_python)
if ! "$venv/bin/python" -c "$suits" >/dev/null 2>&1 || [[ -n ${PYTHON:-} ]]; then
    echo "making $venv with $("$python" -V)"
    "$python" -m venv --clear "$venv"
fi

echo "installing .[$extra] (the first time takes about a minute; log in $venv/install.log)"
show='
    /^Collecting|^Obtaining/ { if (++n % 25 == 0) print "  " n " packages found"; fflush() }
    /^Installing collected/  { print "  " n " packages found, unpacking them"; fflush() }
    /^ERROR|^error/          { print; fflush() }'
if ! "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --log "$venv/install.log" \
    --no-compile --constraint deploy/constraints.txt --editable ".[$extra]" | awk "$show"; then
    echo "installing failed; the whole story is in $venv/install.log" >&2
    exit 1
fi

# Byte code, by all cores, where hundreds of processes will be started: where PYTHONDONTWRITEBYTECODE is set, as in many
# containers, none of them would keep what it compiled. Some libraries carry files that are no Python, as templates.
if [[ $extra != demo ]]; then
    echo "compiling to byte code"
    "$venv/bin/python" -m compileall -q -j 0 "$venv/lib" contracts strategies worker >>"$venv/install.log" 2>&1 || true
fi

# LightGBM's wheel expects the system's OpenMP runtime, which a bare machine lacks; scikit-learn's wheel carries one.
if [[ $(uname) == Linux ]] && ! "$venv/bin/python" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null; then
    carried=$(find "$PWD/$venv/lib" -path '*/scikit_learn.libs/libgomp*' | head -n 1)
    if [[ -z $carried ]]; then
        echo "LightGBM needs the OpenMP runtime libgomp.so.1 (Debian and Ubuntu: libgomp1)" >&2
        exit 1
    fi
    mkdir -p "$venv/lib/openmp"
    ln -sf "$carried" "$venv/lib/openmp/libgomp.so.1"
fi

key=$({ cat pyproject.toml deploy/constraints.txt; pwd; "$venv/bin/python" -V; } | cksum | cut -d' ' -f1)
find "$venv" -maxdepth 1 -name '.installed-*' ! -name "*-$key" -delete
touch "$venv/.installed-$extra-$key"
