# shellcheck shell=bash
# What the scripts of this folder share; they source it. Exit 0: passed, 1: failed, 77: could not be tried here.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off PYTEST_ADDOPTS="-q -rs" PY_COLORS=0
export DEBIAN_FRONTEND=noninteractive PYTHONDONTWRITEBYTECODE=1
unset FASTSOFT_DEBUG FASTSOFT_ISA FASTSOFT_NUM_THREADS OMP_NUM_THREADS PYTHONPATH PYTHONHOME
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
kept=${FASTSOFT_KEEP:-$work/kept}  # what is slow to fetch or to build; a folder of yours keeps it for the next run
mkdir -p "$kept"
not_tried=()

step() { printf '\n=== %s (after %d s)\n' "$*" "$SECONDS"; }
fail() { printf '\nFAILED: %s\n' "$*" >&2; exit 1; }
cannot() { printf '\nNOT TRIED: %s\n' "$*" >&2; exit 77; }
without() { printf '\nNOT TRIED: %s\n' "$*" >&2; not_tried+=("$*"); }
passed() {  # the last line of a script
    [ ${#not_tried[@]} = 0 ] || printf '\nNOT TRIED: %s' "${not_tried[@]}"
    printf '\n%s: passed (%d s)\n' "$(basename "$0")" "$SECONDS"
}

have() {  # have PACKAGE...: Debian packages are there, or have been installed now
    local missing=() package
    command -v dpkg >/dev/null && command -v apt-get >/dev/null || return 1
    for package; do dpkg -s "$package" 2>/dev/null | grep -q '^Status: install ok' || missing+=("$package"); done
    [ ${#missing[@]} = 0 ] && return
    echo "installing ${missing[*]}"
    [ "$(id -u)" = 0 ] || return 1
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$work/apt.log" 2>&1 && return
    apt-get update -qq >"$work/apt.log" 2>&1 || true
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$work/apt.log" 2>&1 ||
        { tail -n 3 "$work/apt.log"; return 1; }
}

apt_elsewhere() {  # apt_elsewhere ARCHITECTURE SUITE: sets `apt`, options of apt-get that leave this system untouched
    local place=$kept/apt-$1-$2 site
    # shellcheck disable=SC2016  # the names are apt's
    site=$(apt-get indextargets --format '$(ORIGIN) $(SITE)' 2>/dev/null | awk '$1 == "Debian" { print $2; exit }')
    [ -n "$site" ] || return 1
    mkdir -p "$place/lists/partial" "$place/cache/archives/partial"
    : >"$place/status"
    printf '%s [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
        deb "$site" "$2" deb-src "$site" "$2" >"$place/sources.list"
    apt=(
        -qq -o "APT::Architecture=$1" -o "APT::Architectures=$1" -o "Dir::Etc::sourcelist=$place/sources.list"
        -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$place/lists" -o "Dir::State::status=$place/status"
        -o "Dir::Cache=$place/cache" -o "APT::Sandbox::User=$(id -un)" -o APT::Install-Recommends=false
    )
    apt-get "${apt[@]}" update >"$work/apt.log" 2>&1 || { tail -n 3 "$work/apt.log"; return 1; }
}

copy_tree() {  # copy_tree NAME: sets `tree`, and goes there: this tree, but of what was built only what a copy has kept
    tree=$kept/tree-$1
    mkdir -p "$tree"
    tar -C "$root" -c --exclude=./.git --exclude=./.venv --exclude=./build --exclude=./dist --exclude='./*.egg-info' \
        --exclude='*.so' --exclude='./fastsoft/_m*.c*' --exclude='./fastsoft/isa/*.c*' --exclude=__pycache__ . |
        tar -x -C "$tree"
    cd "$tree"
}

# shellcheck disable=SC2034  # used by those that source this
tools=("setuptools>=77" "Cython>=3.3,<4" "numpy>=2.0")  # to build
# shellcheck disable=SC2034
test_tools=(pytest hypothesis mpmath ml_dtypes)  # to run most tests; the others are skipped or left out

new_python() {  # new_python NAME PYTHON PACKAGE...: sets `python`, of an environment with these packages
    python=$kept/venv-$1/bin/python
    [ ! -e "$kept/venv-$1/done" ] || return 0
    "$2" -m venv --clear "$kept/venv-$1" >"$work/log" 2>&1 || { tail -n 3 "$work/log"; return 1; }
    # An older wheel rather than the newest source: building NumPy would take longer than all the tests.
    "$python" -m pip install -q --prefer-binary "${@:3}" >"$work/log" 2>&1 || { tail -n 5 "$work/log"; return 1; }
    touch "$kept/venv-$1/done"
}

build_in_place() {  # build_in_place COMMAND...: in the current folder, by setup.py or what COMMAND ends with
    "$@" -q egg_info build_ext --inplace >"$work/log" 2>&1 || { tail -n 30 "$work/log"; return 1; }
}

emulated() {  # emulated NAME QEMU...: sets `python` to a script beside it that runs it in an emulator
    local place
    place=$(dirname "$python")/$1
    # shellcheck disable=SC2016
    printf '#!/bin/sh\nexec %s -0 "$0" "%s" "$@"\n' "${*:2}" "$python" >"$place"  # children of tests are emulated, too
    chmod +x "$place"
    python=$place
}

sample() {  # sample EVERY ARGUMENT...: pytest with every so manieth test that stays; FASTSOFT_EVERY says otherwise
    local every=${FASTSOFT_EVERY:-$1}
    echo "every ${every}. test of ${*:2}"
    FASTSOFT_EVERY=$every PYTHONPATH=$PWD/tests/machines:$PYTHONPATH \
        "$python" -m pytest -p sample -p no:cacheprovider "${@:2}"
}

source_of() {  # source_of PACKAGE: the newest source that can be had; a mirror may list one that it does not have yet
    local version
    for version in $(apt-cache "${apt[@]}" showsrc "$1" | awk '$1 == "Version:" { print $2 }' | sort -rV); do
        apt-get "${apt[@]}" source --download-only "$1=$version" && return
    done
    return 1
}

python_from_source() {  # python_from_source VERSION OPTION...: sets `python`; Debian's source of CPython, configured so
    local version=$1 place=$kept/python-$1${2:+-nogil}
    python=$place/bin/python$version
    [ ! -x "$python" ] || return 0
    have dpkg-dev gcc make libssl-dev zlib1g-dev libffi-dev pkg-config libbz2-dev liblzma-dev libsqlite3-dev || return 1
    apt_elsewhere "$(dpkg --print-architecture)" sid || return 1
    echo "building Python $version ${*:2} from source, some minutes"
    (
        cd "$(mktemp -d -p "$work")" && source_of "python$version" &&
            tar --strip-components=1 -xf python"$version"_*.orig.tar.?z &&  # not its signature, .asc
            ./configure -q --prefix="$place" "${@:2}" && make -s -j"$(nproc)" && make -s install
    ) >"$work/log" 2>&1 || { tail -n 5 "$work/log"; return 1; }
}
