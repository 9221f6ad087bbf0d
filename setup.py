"""One extension for each instruction set, from one source: fastsoft/isa/<isa>.pyx. See CONTRIBUTING.md."""

import os
import platform
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

X86 = platform.machine().lower() in ("x86_64", "amd64")
ARM = platform.machine().lower() in ("aarch64", "arm64")
DEBUG = os.environ.get("FASTSOFT_DEBUG") == "1"

ISAS = {"portable": []}  # name -> flags; fastsoft/_dispatch.py has the order of preference
if X86:
    ISAS["avx2"] = ["-mavx2", "-mfma", "-mf16c"]
    ISAS["avx512"] = ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]
if ARM:
    ISAS["neon"] = []

# For GCC and Clang: the registers of the portable variant are their vector extension.
# Never -ffast-math or a part of it: NaN, infinities and the order of sums have a meaning here. No contraction:
# where an FMA stands is part of the definition of a result's bits.
FLAGS = ["-std=c++17", "-O3", "-g0", "-ffp-contract=off", "-Wno-ignored-attributes"]
if DEBUG:
    FLAGS = [
        "-std=c++17", "-O1", "-g", "-ffp-contract=off", "-Wno-ignored-attributes", "-fsanitize=address,undefined",
        "-fno-sanitize-recover=undefined",
    ]  # fmt: skip
DIRECTIVES = {
    "language_level": 3, "boundscheck": DEBUG, "wraparound": False, "initializedcheck": DEBUG, "cdivision": True,
    "freethreading_compatible": True, "embedsignature": True,
}  # fmt: skip


def refusal(flag, program="int main() {}\n"):
    """Why the compiler does not build a program with a flag; None where it does."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text(program)
        compiler = os.environ.get("CXX", "c++").split()
        try:
            subprocess.run([*compiler, flag, str(source)], cwd=folder, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            return error
    return None


LOOPS = "-fno-tree-loop-distribute-patterns"  # GCC: short copies stay loops, where a call of memcpy would cost more
if not DEBUG and not refusal(LOOPS):
    FLAGS.append(LOOPS)
OPENMP = ["-fopenmp"]
if error := refusal("-fopenmp", "#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n"):
    warnings.warn(f"fastsoft is built WITHOUT threads: the compiler refused -fopenmp ({error})", stacklevel=1)
    OPENMP = []
STRIP = ["-Wl,-s"] if platform.system() == "Linux" else []  # names of functions are a twentieth of the wheel
SOURCES = [str(p) for pattern in ("simd/*.hpp", "kernels/*.pxi") for p in sorted(Path("fastsoft").glob(pattern))]


def extension(name, source, flags=(), macros=()):
    return Extension(
        name, [source], language="c++", include_dirs=["fastsoft/simd", numpy.get_include()], depends=SOURCES,
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), *macros],
        extra_compile_args=[*FLAGS, *OPENMP, *flags],
        extra_link_args=[*OPENMP, *(["-fsanitize=address,undefined"] if DEBUG else STRIP)],
    )  # fmt: skip


EXTENSIONS = [extension(f"fastsoft.{name}", f"fastsoft/{name}.pyx") for name in ("_machine", "_memory")] + [
    extension(f"fastsoft.isa.{isa}", f"fastsoft/isa/{isa}.pyx", flags, [("FASTSOFT_ISA", isa)])
    for isa, flags in ISAS.items()
]

setup(
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
    ext_modules=cythonize(
        EXTENSIONS, compiler_directives=DIRECTIVES, emit_linenums=DEBUG, nthreads=0 if DEBUG else os.cpu_count() or 1
    )
)
