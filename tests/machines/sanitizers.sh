#!/usr/bin/env bash
# The tests under AddressSanitizer and UndefinedBehaviorSanitizer (GCC), and threads under ThreadSanitizer (Clang, its
# OpenMP and archer). Each part must also find a fault that is planted.
# shellcheck source=tests/machines/common.sh
source "$(dirname "$0")/common.sh"

have g++ || cannot "g++ is not installed, and cannot be"
new_python native python3 "${tools[@]}" "${test_tools[@]}" || cannot "pip cannot install the tools"
cat >"$work/fault.cpp" <<'END'
#include <cstdlib>
extern "C" int over() { volatile char* p = (char*)malloc(8); volatile int k = 8; return p[k]; }
extern "C" int race() {
    int sum = 0;
#pragma omp parallel for num_threads(2)
    for (int k = 0; k < 100000; k++) { volatile int* p = &sum; *p = *p + k; }
    return sum;
}
END
planted() {  # planted NAME REPORT: whether calling it is reported
    local output  # of a process that fails, which in a pipe would be the pipe's failure
    output=$(PYTHONPATH='' "$python" -c "import ctypes; ctypes.CDLL('$work/fault.so').$1()" 2>&1) || true
    [[ $output == *"$2"* ]]
}

address() {
    step "Address and undefined behaviour: build"
    copy_tree sanitized
    FASTSOFT_DEBUG=1 build_in_place "$python" setup.py || fail "fastsoft does not build with sanitizers"
    g++ -shared -fPIC -g -fsanitize=address,undefined -o "$work/fault.so" "$work/fault.cpp"
    LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)"
    export LD_PRELOAD ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc
    planted over heap-buffer-overflow || fail "AddressSanitizer does not see a planted fault"
    step "Address and undefined behaviour: tests"
    sample 15 -m "not slow" tests
}

thread() {
    step "Threads: build"
    copy_tree threads
    local clang=clang-16 library output
    export CC="$clang -fsanitize=thread -shared-libsan" CXX="clang++-16 -fsanitize=thread -shared-libsan"
    LDSHARED="$CC -shared" LDCXXSHARED="$CXX -shared" build_in_place "$python" setup.py || fail "no build with Clang"
    $CXX -shared -fPIC -g -fopenmp -o "$work/fault.so" "$work/fault.cpp"
    library=$($clang -print-file-name=libclang_rt.tsan-x86_64.so)
    printf '%s\n' 'called_from_lib:libpython' 'race:^_Py' 'race:^Py' >"$work/suppressions"  # of the interpreter itself
    export LD_PRELOAD=$library OMP_TOOL_LIBRARIES ARCHER_OPTIONS=verbose=1
    OMP_TOOL_LIBRARIES=$(dirname "$(readlink -f "$(command -v $clang)")")/../lib/libarcher.so
    export TSAN_OPTIONS="ignore_noninstrumented_modules=1 exitcode=66 suppressions=$work/suppressions"
    if ! "$python" -c 'import fastsoft' >"$work/log" 2>&1; then
        tail -n 3 "$work/log"
        return 1
    fi
    planted race "data race" || fail "ThreadSanitizer does not see a planted race"
    # Of OpenMP's threads alone: TSan does not see the interpreter's lock, nor that references are counted under it.
    output=$("$python" -c "import fastsoft, numpy; fastsoft.softmax(numpy.zeros((2000, 200)), num_threads=2)" 2>&1)
    [[ $output == *"Archer detected"* ]] || fail "archer is not there: without it a parallel region is a race"
    step "Threads: tests"
    sample 5 tests/test_same_bits.py -k "number_of_threads and not portable"
}

export PYTHONPATH=$kept/tree-sanitized:$kept/tree-sanitized/tests
(address)
export PYTHONPATH=$kept/tree-threads:$kept/tree-threads/tests
if [ "$(uname -m)" = x86_64 ] && have clang-16 libomp-16-dev libclang-rt-16-dev; then
    (thread)
else
    without "ThreadSanitizer: clang-16, libomp-16-dev and libclang-rt-16-dev are not installed, and cannot be"
fi
passed
