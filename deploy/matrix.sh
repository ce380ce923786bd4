#!/usr/bin/env bash
# Installs this commit, runs the demo and the quick tests on each Python of this machine, each in a clone below .matrix/.
#
# usage: deploy/matrix.sh    PYTHONS='/usr/bin/python3 …' names the interpreters instead; SKIP=3.12.1 leaves a version out
# A line an interpreter: version, result, seconds of the demo with its install and of the tests with theirs, size and packages
# of the demo's .venv. What a step printed is in .matrix/<version>.log. Exit code 1 where any failed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

home=$PWD
work=$home/.matrix
# Servers of the environment are for others: each run has its own.
unset REDIS_URL DATABASE_URL PYTHON MAKEFLAGS MAKELEVEL

interpreters() {
    local each
    if [[ -z ${PYTHONS:-} ]]; then
        deploy/python.sh all
        return
    fi
    for each in $PYTHONS; do
        PYTHON=$each deploy/python.sh all
    done
}

# The tree as it is, with what is not committed yet.
copy_tree() {
    rm -rf "$1"
    mkdir -p "$1"
    git ls-files --cached --others --exclude-standard -z | while IFS= read -r -d '' file; do
        [[ ! -e $file ]] || printf '%s\0' "$file"
    done | tar --null --files-from=- -cf - | tar -xf - -C "$1"
    # Tests ask git which files are the project's.
    git -C "$1" init --quiet && git -C "$1" add --all
    [[ ! -x .uv/bin/uv ]] || cp -R .uv "$1"/.uv
}

step() {
    echo "\$ make $*" >>"$log"
    (cd "$folder" && make "$@" </dev/null) >>"$log" 2>&1
}

failed=0
mkdir -p "$work"
found=$(interpreters)
printf '%-8s %-8s %8s %8s %6s %9s\n' python result 'demo s' 'tests s' MB packages
while read -r version python; do
    [[ ${SKIP:-} != "$version" ]] || continue
    folder=$work/$version log=$work/$version.log result=passed
    : >"$log"
    copy_tree "$folder"
    begun=$SECONDS
    step demo PYTHON="$python" || result='no demo'
    demo=$((SECONDS - begun)) size=- packages=-
    if [[ -d $folder/.venv ]]; then
        size=$(du -sm "$folder/.venv" | cut -f1)
        packages=$(find "$folder/.venv" -type d -name '*.dist-info' | wc -l | tr -d ' ')
    fi
    begun=$SECONDS
    [[ $result != passed ]] || step quick PYTHON="$python" QUICK='tests/unit tests/parity' || result=failed
    printf '%-8s %-8s %8d %8d %6s %9s\n' "$version" "$result" "$demo" $((SECONDS - begun)) "$size" "$packages"
    if [[ $result == passed ]]; then
        rm -rf "$folder"
    else
        failed=1
        tail -n 15 "$log" | sed 's/^/    /'
    fi
done <<<"$found"
exit $failed
