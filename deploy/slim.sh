#!/usr/bin/env bash
# Removes from an environment what no process of this project reads: a third of the image, a tenth of the demo's .venv.
#
# usage: deploy/slim.sh FOLDER [--strip]     --strip also removes symbols from libraries; the files must be the folder's own,
#                                            no links into a cache
# Tests hold a worker against what is left: tests/integration/test_slim.py. What goes:
# - packages' own tests, byte code (it is written again where the folder can be written), sources and headers of C, C++ and Cython;
# - of pyarrow: the clients of Flight and of cloud stores, and the names of libraries that only linkers want;
# - of jedi, which IPython brings for alphalens: the stubs that complete what somebody types.
set -euo pipefail

folder=$1
before=$(du -sk "$folder" | cut -f1)
site=$(find "$folder" -type d -name site-packages | head -n 1)
[[ -n $site ]] || { echo "deploy/slim.sh: there is no site-packages below $folder" >&2; exit 1; }

find "$site" -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} +
find "$site" -type f \( -name '*.py[xdi]' -o -name '*.px[di]' -o -name '*.pxi' -o -name '*.[ach]' -o -name '*.cc' -o -name '*.cpp' \
    -o -name '*.hpp' -o -name '*.f90' -o -name '*.pdb' \) ! -name '*.pyi' -delete
rm -rf "$site"/pyarrow/include "$site"/pyarrow/src "$site"/numpy/_core/include "$site"/jedi/third_party
# libarrow_python is there under three names, once for each; programs ask for the one with the version.
for library in "$site"/pyarrow/lib*.so; do
    ! compgen -G "$library.[0-9]*" >/dev/null || rm -f "$library"
done
rm -f "$site"/pyarrow/lib*.so.*.*.* "$site"/pyarrow/*flight* "$site"/pyarrow/*_s3* "$site"/pyarrow/_pyarrow_cpp_tests*
find "$folder" -type d -empty -delete

if [[ ${2:-} == --strip ]]; then
    # The largest alone: what was patched after linking, as libraries of *.libs, does not load any more once it is stripped.
    find "$site"/llvmlite "$site"/pyarrow "$site"/scipy -type f -name '*.so*' -links 1 -exec strip --strip-unneeded {} +
fi
echo "$folder: $((before / 1024)) MB before, $(($(du -sk "$folder" | cut -f1) / 1024)) MB after"
