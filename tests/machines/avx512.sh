#!/usr/bin/env bash
# The AVX-512 variant's header on a CPU that has only AVX2 and FMA: each intrinsic lane by lane (avx512_emulated.hpp).
# It shows that the variant computes the same bits, not that its instructions run: the compiler sees none of them here.
# shellcheck source=tests/machines/common.sh
source "$(dirname "$0")/common.sh"

[ "$(uname -m)" = x86_64 ] && grep -qw avx2 /proc/cpuinfo && grep -qw fma /proc/cpuinfo || cannot "this CPU has no AVX2"
have g++ || cannot "g++ is not installed, and cannot be"
new_python native python3 "${tools[@]}" "${test_tools[@]}" || cannot "pip cannot install the tools"

step "Build, and what AVX2 computes"
copy_tree native
build_in_place "$python" setup.py || fail "fastsoft does not build"
PYTHONPATH=$PWD:$PWD/tests FASTSOFT_ISA=avx2 "$python" tests/machines/bits.py make "$work/bits.npz"

step "The variant avx2 from the header of AVX-512, emulated"
copy_tree avx512
cp tests/machines/avx512_emulated.hpp fastsoft/simd/
sed 's#<immintrin.h>#"avx512_emulated.hpp"#' fastsoft/simd/avx512.hpp >fastsoft/simd/avx2.hpp
sed -i '/ISAS\["avx512"\] = /d; s/"-O3"/"-O1"/' setup.py  # GCC 12 compiles the emulation wrongly with -O2
build_in_place "$python" setup.py || fail "the emulation does not build"
export PYTHONPATH=$PWD:$PWD/tests FASTSOFT_ISA=avx2
"$python" tests/machines/bits.py check "$work/bits.npz" || fail "AVX-512 gives other bits than AVX2"

step "Tests"
sample 3 tests/test_special_values.py tests/test_operations.py tests/test_same_bits.py -k "avx2 or not portable"
passed
