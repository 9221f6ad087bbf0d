"""Speed and accuracy of every operation in `reference.OPS` beside plain NumPy, on this machine."""

from __future__ import annotations

import errno
import importlib
import json
import math
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from timeit import Timer
from typing import Any

import numpy as np

import fastsoft
from fastsoft.reference import OPS, Operation, max_error

Array = np.ndarray[Any, Any]
Progress = Callable[[Sequence[Any]], Iterable[Any]]  # passes the items of a sequence on, as tqdm does

CASES = (  # shape, axis
    ((1, 10), -1),
    ((64, 10), -1),
    ((64, 1000), -1),
    ((1, 131072), -1),
    ((8192, 128), -1),
    ((1000, 1000), -1),
    ((1000, 1000), 0),
)
DTYPES = ("float32", "float64")
SAMPLE = 0.006  # seconds that the calls of one sample last, at least
QUICK_SIZE = 131072  # the most elements of an array in a quick run
LARGEST = 1 << 22  # the most elements of a result: there are n times more in Jacobians


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    operation: str
    shape: tuple[int, ...]
    axis: int
    dtype: str
    seconds: float
    numpy_seconds: float
    ratio: float  # above 1: fastsoft is faster
    error: float  # in ULP, at most
    numpy_error: float

    @property
    def case(self) -> str:
        return "x".join(map(str, self.shape)) + (f" axis {self.axis}" if self.axis != -1 else "")


def bench(*, quick: bool = False, progress: Progress = iter) -> list[Result]:
    """Check, then time, every operation on every case and dtype."""
    cases = [(shape, axis) for shape, axis in CASES if not quick or math.prod(shape) <= QUICK_SIZE]
    rounds = 3 if quick else 7
    todo = [
        (op, shape, axis, dtype, rounds)
        for op in OPS
        for shape, axis in cases
        if op.classes < 2 or math.prod(shape) * shape[axis] <= LARGEST
        for dtype in DTYPES
    ]
    return [_measure(*item) for item in progress(todo)]


def _measure(op: Operation, shape: tuple[int, ...], axis: int, dtype: str, rounds: int) -> Result:
    x = np.random.default_rng(0).normal(0, 5, shape).astype(dtype)
    function = getattr(fastsoft, op.name)
    arguments = op.arguments(x, axis)
    error = max_error(op, function(*arguments, axis=axis), x, axis)
    if not error <= op.bound:
        where = f"{op.name} of {dtype} {shape}, axis {axis}"
        raise RuntimeError(f"{where}: an error of {error:.3g} ULP, more than the {op.bound} ULP allowed")
    numpy_error = max_error(op, op.baseline(*arguments, axis=axis), x, axis)
    seconds, numpy_seconds = _times([function, op.baseline], arguments, axis, rounds)
    ratio = numpy_seconds / seconds
    return Result(op.name, shape, axis, dtype, seconds, numpy_seconds, ratio, error, numpy_error)


def _times(
    functions: Sequence[Callable[..., Any]], arguments: tuple[Array, ...], axis: int, rounds: int
) -> list[float]:
    """Seconds of a call of each function: the median over rounds, taken in turn, of the best of three samples."""
    call = f"f({', '.join(names := 'abc'[: len(arguments)])}, axis=axis)"
    given = dict(zip(names, arguments, strict=True)) | {"axis": axis}
    timers = [Timer(call, globals={"f": f, **given}) for f in functions]
    numbers = [_calls(timer) for timer in timers]
    times: list[list[float]] = [[] for _ in timers]
    for _ in range(rounds):
        for timer, number, found in zip(timers, numbers, times, strict=True):
            found.append(min(timer.repeat(3, number)) / number)
    return [statistics.median(found) for found in times]


def _calls(timer: Timer) -> int:
    """How many calls last for SAMPLE seconds; they warm up too."""
    number = 1
    while timer.timeit(number) < SAMPLE:
        number *= 2
    return number


_HEAD = ["operation", "shape", "dtype", "fastsoft us", "NumPy us", "ratio", "fastsoft ULP", "NumPy ULP"]


def _cells(r: Result) -> list[str]:
    times = f"{r.seconds * 1e6:.2f}", f"{r.numpy_seconds * 1e6:.2f}", f"{r.ratio:.2f}"
    return [r.operation, r.case, r.dtype, *times, f"{r.error:.2f}", f"{r.numpy_error:.4g}"]


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table, and a summary in the last lines."""
    rows = [_HEAD, *(_cells(r) for r in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width if k <= 2 else "-" * (width - 1) + ":" for k, width in enumerate(widths)])
    lines = []
    for row in rows:
        padded = [c.rjust(w) if k > 2 else c.ljust(w) for k, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append(f"| {' | '.join(padded)} |")
    mean = statistics.geometric_mean(r.ratio for r in results)
    about = ", ".join(f"{key} {value}" for key, value in _environment().items())
    return "\n".join([*lines, "", f"fastsoft is {mean:.2f} times as fast as NumPy (geometric mean).", "", about])


def cpu_model() -> str:
    """The CPU's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = dict(line.split("\t", 1) for line in lines if "\t" in line)
    return named.get("model name", "").lstrip("\t: ").strip() or platform.processor() or platform.machine()


def _environment() -> dict[str, str | int]:
    return {
        "fastsoft": fastsoft.__version__,
        "NumPy": np.__version__,
        "Python": platform.python_version(),
        "machine": platform.machine(),
        "CPU": cpu_model(),
        "threads": fastsoft.get_num_threads(),
    }


def write_json(results: Sequence[Result], path: str | Path) -> None:
    """Write what the table shows, times in seconds and errors in ULP."""
    content = {"environment": _environment(), "results": [asdict(r) for r in results]}
    Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def figure_class() -> Any:
    """matplotlib's Figure, used without pyplot so that no window system is needed."""
    try:
        return importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise ImportError("--plot needs matplotlib: pip install fastsoft[cli]") from error


def check_writable(path: str | Path) -> None:
    """Raise OSError if a file of this name cannot be made or replaced. Nothing is made yet."""
    path = Path(path)
    if path.is_dir():
        wrong = errno.EISDIR
    elif not path.parent.is_dir():
        wrong = errno.ENOTDIR if path.parent.exists() else errno.ENOENT
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        wrong = errno.EACCES
    else:
        return
    raise OSError(wrong, os.strerror(wrong), str(path))


def check_format(path: str | Path) -> None:
    """Raise ValueError if `plot` could not write a file with this suffix, ImportError if it could write none."""
    kinds = figure_class()().canvas.get_supported_filetypes()
    suffix = Path(path).suffix
    if suffix and suffix[1:].lower() not in kinds:
        raise ValueError(f"--plot {path}: the name must end in one of .{', .'.join(sorted(kinds))}")


def plot(results: Sequence[Result], path: str | Path) -> None:
    """Draw the ratios as bars, one panel for each operation."""
    operations = list(dict.fromkeys(r.operation for r in results))
    cases = list(dict.fromkeys(r.case for r in results))
    rows, columns = -(-len(operations) // 4), min(4, len(operations))
    size = 4 * columns, (2 + 0.4 * len(cases)) * rows
    figure = figure_class()(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = grid.ravel()[: len(operations)]
    for unused in grid.ravel()[len(operations) :]:
        unused.set_axis_off()
    height = 0.8 / len(DTYPES)
    for panel, operation in zip(panels, operations, strict=True):
        for k, dtype in enumerate(DTYPES):
            mine = [r for r in results if (r.operation, r.dtype) == (operation, dtype)]
            places = [cases.index(r.case) + (k - (len(DTYPES) - 1) / 2) * height for r in mine]
            bars = panel.barh(places, [r.ratio for r in mine], height, label=dtype)
            panel.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set_title(operation)
        panel.set_xscale("log")
    panels[0].set_yticks(range(len(cases)), cases)
    panels[0].invert_yaxis()
    panels[-1].legend()
    figure.supxlabel("times as fast as NumPy")
    figure.savefig(path, dpi=150)
