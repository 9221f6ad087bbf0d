"""One extension for each instruction set, from one source: fastsoft/isa/<isa>.pyx. See CONTRIBUTING.md."""

import os
import platform
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

X86 = platform.machine().lower() in ("x86_64", "amd64")
ARM = platform.machine().lower() in ("aarch64", "arm64")
MSVC = sys.platform == "win32"
DEBUG = os.environ.get("FASTSOFT_DEBUG") == "1"

ISAS = {"portable": []}  # name -> flags; fastsoft/_dispatch.py has the order of preference
if X86:
    ISAS["avx2"] = ["/arch:AVX2"] if MSVC else ["-mavx2", "-mfma", "-mf16c"]
    ISAS["avx512"] = (
        ["/arch:AVX512"]
        if MSVC
        else ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]
    )
if ARM:
    ISAS["neon"] = []

# Never -ffast-math or a part of it: NaN, infinities and the order of sums have a meaning here. No contraction:
# where an FMA stands is part of the definition of a result's bits.
FLAGS = ["/std:c++17", "/O2"] if MSVC else ["-std=c++17", "-O3", "-g0", "-ffp-contract=off", "-Wno-ignored-attributes",
    "-fno-tree-loop-distribute-patterns"]
if DEBUG:
    FLAGS = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
DIRECTIVES = {
    "language_level": 3, "boundscheck": DEBUG, "wraparound": False, "initializedcheck": DEBUG, "cdivision": True,
    "freethreading_compatible": True, "embedsignature": True,
}  # fmt: skip


def openmp():
    """The flags of the compiler's OpenMP, or none, with a warning, where a program with it does not build."""
    flag = "/openmp" if MSVC else "-fopenmp"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text("#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n")
        compiler = ["cl"] if MSVC else os.environ.get("CXX", "c++").split()
        try:
            subprocess.run([*compiler, flag, str(source)], cwd=folder, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            warnings.warn(f"fastsoft is built WITHOUT threads: the compiler refused {flag} ({error})", stacklevel=2)
            return [], []
    return [flag], [] if MSVC else [flag]


COMPILE, LINK = openmp()
LINK = LINK + (["-fsanitize=address,undefined"] if DEBUG else [])
HEADERS = [str(p) for p in Path("fastsoft/simd").glob("*.hpp")] + [str(p) for p in Path("fastsoft/kernels").glob("*.pxi")]


def extension(name, source, flags=(), macros=()):
    return Extension(
        name, [source], language="c++", include_dirs=["fastsoft/simd", numpy.get_include()], depends=HEADERS,
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), *macros],
        extra_compile_args=[*FLAGS, *COMPILE, *flags], extra_link_args=LINK,
    )  # fmt: skip


EXTENSIONS = [extension("fastsoft._machine", "fastsoft/_machine.pyx")] + [
    extension(f"fastsoft.isa.{isa}", f"fastsoft/isa/{isa}.pyx", flags, [("FASTSOFT_ISA", isa)])
    for isa, flags in ISAS.items()
]

setup(ext_modules=cythonize(EXTENSIONS, compiler_directives=DIRECTIVES, emit_linenums=DEBUG, nthreads=0 if DEBUG else os.cpu_count() or 1))
