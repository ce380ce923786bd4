#!/usr/bin/env bash
# Finds the CPythons of this machine that can run this project.
#
# usage: deploy/python.sh        the one to take: the newest with Qlib's wheels (3.12, 3.11), else the newest (3.14, 3.13)
#        deploy/python.sh all    every one, that one first: "3.12.1 /path/to/python" a line
# PYTHON=/path/to/python is the only candidate where it is set.
set -euo pipefail

# Prints "version executable", or ends with the reason why this one will not do. A virtual environment leads to its base.
probe='
import platform, sys, sysconfig
def no(reason): sys.exit("Python %d.%d.%d %s" % (sys.version_info[:3] + (reason,)))
if platform.python_implementation() != "CPython": no("is " + platform.python_implementation() + ", not CPython")
if not (3, 11) <= sys.version_info[:2] <= (3, 14): no("is not one of 3.11 to 3.14")
if sys.version_info.releaselevel != "final": no("is a pre-release")
if sysconfig.get_config_var("Py_GIL_DISABLED"): no("is the free-threaded build, for which not all wheels exist")
if sys.maxsize < 2**32: no("is a 32-bit build, for which not all wheels exist")
missing = []
for name in ("ctypes", "sqlite3", "ssl", "zlib"):
    try: __import__(name)
    except ImportError: missing.append(name)
if missing: no("was built without " + ", ".join(missing))
print("%d.%d.%d" % sys.version_info[:3], sys._base_executable or sys.executable)'

candidates() {
    local minor
    if [[ -n ${PYTHON:-} ]]; then
        command -v "$PYTHON" || echo "$PYTHON"
        return
    fi
    for minor in 12 11 14 13; do
        type -ap "python3.$minor" || true
        compgen -G "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$minor.*/bin/python3.$minor" || true
        compgen -G "$HOME/.local/share/uv/python/cpython-3.$minor.*/bin/python3.$minor" || true
        compgen -G "/usr/bin/python3.$minor" || true
        compgen -G "/usr/local/bin/python3.$minor" || true
        compgen -G "/opt/homebrew/bin/python3.$minor" || true
    done
    type -ap python3 python || true
    compgen -G /usr/bin/python3 || true
}

reasons=$(mktemp)
trap 'rm -f "$reasons"' EXIT
usable=$(candidates | awk '!seen[$0]++' | while read -r candidate; do
    if ! "$candidate" -I -c "$probe" 2>"$reasons.one"; then
        reason=$(tail -n 1 "$reasons.one")
        echo "$candidate: ${reason:-does not run}" >>"$reasons"
    fi
    rm -f "$reasons.one"
done | sort -u | awk '
    { split($1, part, "."); rank = part[2]; if (part[2] <= 12) rank += 100; print rank, part[3], $0 }' |
    sort -k1,1nr -k2,2nr | cut -d" " -f3- | awk '!seen[$1]++')

if [[ -z $usable ]]; then
    if [[ -n ${PYTHON:-} ]]; then
        echo "PYTHON=$(head -n 1 "$reasons")" >&2
    else
        echo "CPython 3.11 to 3.14 is needed, none was found; name one: make PYTHON=/path/to/python" >&2
        grep 'Python 3' "$reasons" | head -n 5 | sed 's/^/  /' >&2 || true
    fi
    exit 1
fi
if [[ ${1:-} == all ]]; then echo "$usable"; else echo "$usable" | head -n 1 | cut -d" " -f2-; fi
