#!/usr/bin/env bash
# fastsoft on CPUs without AVX, and with AVX2 but without AVX-512, under qemu's user emulation.
# shellcheck source=tests/machines/common.sh
source "$(dirname "$0")/common.sh"

[ "$(uname -m)" = x86_64 ] || cannot "this machine is no x86-64"
have qemu-user-static g++ || cannot "qemu-user-static and g++ are not installed, and cannot be"
new_python native python3 "${tools[@]}" "${test_tools[@]}" || cannot "pip cannot install the tools"
native=$python

step "Build, and what this CPU computes"
copy_tree native
export PYTHONPATH=$PWD:$PWD/tests
build_in_place "$native" setup.py || fail "fastsoft does not build"
"$native" tests/machines/bits.py make "$work/bits.npz"

check() {  # check CPU "CHOSEN AVAILABLE..." QEMU'S CPU
    step "$1: $2"
    python=$native
    emulated "$1" qemu-x86_64-static -cpu "$3"
    "$python" -c 'import numpy' || cannot "NumPy does not run on qemu's $1"
    found=$("$python" -c 'import fastsoft._dispatch as d; print(d.isa, *d.available())') || fail "no import on $1"
    [ "$found" = "$2" ] || fail "on $1 it chooses, and finds: $found"
    "$python" -m pytest -p no:cacheprovider tests/test_dispatch.py -k "not test_cpu_flags"  # those are this machine's
    sample 40 tests/test_special_values.py tests/test_operations.py
}

check Nehalem "portable portable" Nehalem
check Haswell "avx2 avx2 portable" Haswell,-pcid,-x2apic,-tsc-deadline,-hle,-invpcid,-rtm  # what it does not emulate
"$python" tests/machines/bits.py check "$work/bits.npz"
passed
