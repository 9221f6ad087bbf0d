"""What this machine can do at best: bandwidth of passes over memory, and multiply-adds in registers (roofline.c)."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from fastsoft import _memory

SOURCE = Path(__file__).with_name("roofline.c")
FLAGS = {  # as in setup.py; without FMA nothing may be fused, with it everything should
    "portable": ["-ffp-contract=off"],
    "avx2": ["-mavx2", "-mfma", "-ffp-contract=fast"],
    "avx512": ["-mavx512f", "-mfma", "-ffp-contract=fast"],
    "neon": ["-ffp-contract=fast"],
}
SAMPLE = 0.004  # seconds that one sample lasts, at least
SMALLEST = 16 << 10  # bytes: in every first-level cache
TIMES_LAST_CACHE = 4  # the largest passes go over this many times the last-level cache
UNKNOWN_CACHE = 32 << 20


@dataclass(frozen=True)
class Pass:
    """One way to go over memory."""

    name: str
    number: int  # in roofline.c
    arrays: int
    written: float  # of the bytes moved, this share is written
    value: float = 1.5  # what fill writes


# A fill with zeros is measured beside the one with numbers and used for no limit: some CPUs keep lines that are all
# zero apart, and move them several times as fast as real data.
PASSES = (
    Pass("read", 0, 1, 0.0),
    Pass("fill", 1, 1, 1.0),
    Pass("fill with zeros", 1, 1, 1.0, 0.0),
    Pass("copy", 2, 2, 1 / 2),
    Pass("triad", 3, 3, 1 / 3),
)


@dataclass(frozen=True)
class Bandwidth:
    """Bytes read and written in a second; what the hardware reads besides, before it writes a line, does not count."""

    name: str
    streaming: bool
    threads: int
    size: int  # bytes of all arrays
    bytes_per_second: float


def last_cache() -> int:
    """Bytes of the last-level cache, or a guess where the system does not say."""
    for level in (4, 3, 2):
        name = f"SC_LEVEL{level}_CACHE_SIZE"
        if name in os.sysconf_names and (size := os.sysconf(name)) > 0:
            return size
    return UNKNOWN_CACHE


def sizes(factor: int) -> list[int]:
    """Bytes of all arrays of a pass, from the first-level cache to several times the last-level cache."""
    found = [SMALLEST]
    while found[-1] < TIMES_LAST_CACHE * last_cache():
        found.append(found[-1] * factor)
    return found


def compiled(isa: str) -> ctypes.CDLL:
    """roofline.c for one instruction set."""
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder, f"roofline_{isa}.so"))
        compiler = os.environ.get("CC", "cc").split()
        command = [*compiler, "-O3", "-fopenmp", "-shared", "-fPIC", *FLAGS[isa], str(SOURCE), "-o", target]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except OSError as error:
            raise SystemExit(f"no C compiler {command[0]!r}: install one, or name it in CC") from error
        except subprocess.CalledProcessError as error:
            raise SystemExit(f"{' '.join(command)} failed:\n{error.stderr}") from error
        library = ctypes.CDLL(target)
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    library.move_bytes.argtypes = [ctypes.c_int] * 2 + [pointer] * 3 + [ctypes.c_float, size, ctypes.c_int, size]
    library.move_bytes.restype = None
    library.multiply_add.argtypes = [ctypes.c_int, size, ctypes.c_int]
    library.multiply_add.restype = ctypes.c_double
    return library


def has_streaming(library: ctypes.CDLL) -> bool:
    """Whether this platform's passes exist with streaming stores too, which go around the caches."""
    return bool(ctypes.c_int.in_dll(library, "has_streaming").value)


def best(call: Callable[[int], Any], samples: int = 3) -> float:
    """Seconds of one of the repeats that `call` does: the fastest of some samples, since noise only adds."""

    def seconds(repeats: int) -> float:
        start = perf_counter()
        call(repeats)
        return perf_counter() - start

    repeats = 1
    while seconds(repeats) < SAMPLE:
        repeats *= 2
    return min(seconds(repeats) for _ in range(samples)) / repeats


class Memory:
    """Huge pages that passes read, which hold random numbers for good, and others that they write."""

    def __init__(self, size: int) -> None:
        self.read = _memory.empty((size // 4,), np.dtype("float32"))
        self.written = _memory.empty((size // 4,), np.dtype("float32"))
        np.random.default_rng(0).random(dtype=np.float32, out=self.read)
        self.written.fill(1)  # the first touch: pages exist from here on

    def bandwidth(self, library: ctypes.CDLL, move: Pass, streaming: bool, threads: int, size: int) -> Bandwidth:
        """Measure one pass over `size` bytes, or a little less."""
        step = ctypes.c_int.in_dll(library, "step").value * threads
        each = max(size // move.arrays // step, 1) * step
        y, x = self.written.ctypes.data, self.read.ctypes.data
        z = x + each if move.arrays == 3 else x

        def call(repeats: int) -> None:
            library.move_bytes(move.number, streaming, y, x, z, move.value, each, threads, repeats)

        return Bandwidth(move.name, streaming, threads, each * move.arrays, each * move.arrays / best(call))


def multiply_adds(library: ctypes.CDLL, dtype: str, threads: int) -> float:
    """Numbers in a second of which a product and a sum are made, in registers alone."""
    rounds = 1000
    in_double = dtype == "float64"
    count: float = library.multiply_add(in_double, rounds, threads)
    return count / best(lambda repeats: library.multiply_add(in_double, rounds * repeats, threads))
