#!/usr/bin/env bash
# Build and tests on each Python that fastsoft is for: what is on the machine, or can be installed.
# shellcheck source=tests/machines/common.sh
source "$(dirname "$0")/common.sh"

have g++ || cannot "g++ is not installed, and cannot be"
tried=0
for version in ${FASTSOFT_PYTHONS:-3.11 3.12 3.13 3.14}; do
    step "Python $version"
    found=$(type -ap "python$version" ~/.pyenv/versions/"$version".*/bin/"python$version" 2>/dev/null |
        while read -r each; do "$each" -c 'import venv, ensurepip' 2>/dev/null && echo "$each" && break; done) || true
    if [ -z "$found" ]; then
        have "python$version-dev" "python$version-venv" && found=$(command -v "python$version") ||
            { python_from_source "$version" && found=$python; } ||
            { without "Python $version: not here, and neither apt's package nor its source"; continue; }
    fi
    new_python "$version" "$found" "${tools[@]}" "${test_tools[@]}" ||
        { without "Python $version: no packages"; continue; }
    "$python" -c 'import sys, numpy; print(sys.version, "NumPy", numpy.__version__)'
    copy_tree "$version"
    build_in_place "$python" setup.py || fail "fastsoft does not build on Python $version"
    export PYTHONPATH=$PWD:$PWD/tests
    "$python" -m pytest -p no:cacheprovider tests/test_dispatch.py
    sample 20 -m "not slow" tests
    tried=$((tried + 1))
done
[ "$tried" != 0 ] || cannot "no Python could be had"
passed
