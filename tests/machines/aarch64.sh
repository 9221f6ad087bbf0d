#!/usr/bin/env bash
# The NEON and the portable variant, cross-compiled for 64-bit Arm, under qemu's user emulation: Debian's Python for
# arm64 with NumPy's wheel. NEON must give this machine's bits.
# shellcheck source=tests/machines/common.sh
source "$(dirname "$0")/common.sh"

[ "$(uname -m)" = x86_64 ] || cannot "this machine is no x86-64; on Arm run pytest"
have qemu-user-static g++-aarch64-linux-gnu g++ || cannot "no emulator or cross-compiler, and they cannot be installed"

step "Python for arm64, beside this system"
sysroot=$kept/arm64
if [ ! -e "$sysroot/done" ]; then
    # shellcheck source=/dev/null
    apt_elsewhere arm64 "$(. /etc/os-release && echo "$VERSION_CODENAME")" || cannot "no Debian packages for arm64"
    apt-get "${apt[@]}" install -y --download-only python3 libpython3-dev libgomp1 libstdc++6 >"$work/log" 2>&1 ||
        cannot "apt cannot fetch Python for arm64: $(tail -n 1 "$work/log")"
    for package in "$kept"/apt-arm64-*/cache/archives/*.deb; do dpkg -x "$package" "$sysroot"; done
    touch "$sysroot/done"
fi
there=$(readlink "$sysroot/usr/bin/python3")  # such as python3.11
packages=$kept/arm64-packages
[ -e "$packages" ] || python3 -m pip install -q --target "$packages" --only-binary=:all: --implementation cp \
    --python-version "${there#python}" --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 "numpy>=2.0" "${test_tools[@]}" ||
    cannot "pip cannot fetch NumPy's wheel for arm64"

step "What this CPU computes"
new_python native python3 "${tools[@]}" "${test_tools[@]}" || cannot "pip cannot install the tools"
copy_tree native
build_in_place "$python" setup.py || fail "fastsoft does not build"
PYTHONPATH=$PWD:$PWD/tests "$python" tests/machines/bits.py make "$work/bits.npz"
"$python" -c 'import sys; from fastsoft import _dispatch; sys.exit(_dispatch.isa == "portable")' ||
    cannot "this CPU has no FMA: there are no bits to compare with"

step "Cross-compile"
copy_tree arm
cat >cross.py <<END
import os, platform, runpy, sys, numpy
platform.machine = lambda: "aarch64"
numpy.get_include = lambda: "$packages/numpy/_core/include"
runpy.run_path("setup.py", run_name="__main__")
END
include=$sysroot/usr/include
PYTHONPATH=$sysroot/usr/lib/$there _PYTHON_SYSCONFIGDATA_NAME=_sysconfigdata__aarch64-linux-gnu \
    _PYTHON_HOST_PLATFORM=linux-aarch64 CC="aarch64-linux-gnu-gcc -I$include/$there -I$include" \
    CXX="aarch64-linux-gnu-g++ -I$include/$there -I$include" \
    LDSHARED="aarch64-linux-gnu-gcc -shared" LDCXXSHARED="aarch64-linux-gnu-g++ -shared" \
    build_in_place "$python" cross.py || fail "fastsoft does not build"
file=$(ls fastsoft/isa/neon.*aarch64*.so)
[ "$(aarch64-linux-gnu-objdump -d "$file" | grep -c 'fmla.*v[0-9]*\.4s')" -gt 0 ] || fail "$file holds no FMA of NEON"

step "Tests on Arm"
python=$sysroot/usr/bin/$there
emulated arm-python qemu-aarch64-static -L "$sysroot"
export PYTHONPATH=$PWD:$PWD/tests:$packages CC=/nonexistent
found=$("$python" -c 'import platform, fastsoft._dispatch as d; print(platform.machine(), d.isa, *d.available())')
[ "$found" = "aarch64 neon neon portable" ] || fail "it is, chooses, and finds: $found"
"$python" -m pytest -p no:cacheprovider tests/test_dispatch.py
sample 40 tests/test_special_values.py tests/test_operations.py
"$python" -m pytest -p no:cacheprovider tests/test_special_values.py -k "neon and (status_flags or bits_of_nan)"

step "The bits of this machine's CPU"
"$python" tests/machines/bits.py check "$work/bits.npz"
passed
