#!/usr/bin/env bash
# fastsoft on a Python without the GIL: it stays off, and tests run in many threads at once.
# shellcheck source=tests/machines/common.sh
source "$(dirname "$0")/common.sh"

have g++ || cannot "g++ is not installed, and cannot be"
step "A Python without the GIL"
python=$(command -v python3.14t || command -v python3.13t || true)
[ -n "$python" ] || python_from_source 3.14 --disable-gil || python_from_source 3.13 --disable-gil ||
    cannot "no python3.14t or python3.13t here, and no source to build it from"
"$python" -c 'import sys, sysconfig; sys.exit(not sysconfig.get_config_var("Py_GIL_DISABLED"))' ||
    fail "$python has a GIL"
new_python free "$python" "${tools[@]}" "${test_tools[@]}" pytest-run-parallel || cannot "pip cannot install the tools"

step "Build"
copy_tree free
build_in_place "$python" setup.py || fail "fastsoft does not build"
export PYTHONPATH=$PWD:$PWD/tests
"$python" -W error -c 'import sys, fastsoft; from fastsoft import _dispatch, _memory
for isa in _dispatch.available(): _dispatch.load(isa)
print(sys.version, fastsoft.softmax([1.0, 2.0])); sys.exit(sys._is_gil_enabled())' ||
    fail "importing fastsoft enables the GIL"

step "Tests"
"$python" -m pytest -p no:cacheprovider tests/test_threads.py
sample 5 --parallel-threads=4 tests/test_operations.py tests/test_special_values.py | tee "$work/log"
grep -q '^Collected [1-9][0-9]* items to run in parallel' "$work/log" || fail "no test has run in several threads"
"$python" -c 'import sys, fastsoft; sys.exit(sys._is_gil_enabled())'
passed
