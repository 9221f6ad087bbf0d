"""How close to the hardware each operation is: measured time beside the least that memory and arithmetic allow."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hardware
import numpy as np
from hardware import Bandwidth

import fastsoft
from fastsoft import _bench, _dispatch
from fastsoft.__main__ import _positive, _progress
from fastsoft.reference import OPS, Operation

Array = np.ndarray[Any, Any]

CASES = (  # shape, axis
    ((64, 10), -1),
    ((16, 1000), -1),
    ((64, 1000), -1),
    ((8192, 128), -1),
    ((1, 131_072), -1),
    ((1000, 1000), -1),
    ((1000, 1000), 0),
    ((1024, 8192), -1),  # beyond most caches
)
DTYPES = ("float16", "float32", "float64")
QUICK_DTYPES = ("float32", "float64")
QUICK_SIZE = 1_000_000  # the most elements of an array in a quick run
LARGEST = 1 << 24  # the most elements of a result: there are n times more in Jacobians
ROUNDS = 3
BLOCK = 256 << 10  # bytes of the rows on which exp is timed: in every second-level cache

# Multiplications, fused with an addition or not, of one register in `reduced` and `term` (fastsoft/simd/math.hpp);
# lone additions do not count: some CPUs do them beside multiplications. So no CPU can be faster than this.
MULTIPLICATIONS = {"float32": 8, "float64": 15}
WORK_TYPE = {"float16": "float32", "bfloat16": "float32", "float32": "float32", "float64": "float64"}
NO_EXP = ("softmax_vjp_from_output", "cross_entropy")  # all others need one for each class


@dataclass(frozen=True)
class Exp:
    """Exponentials in a second, one thread."""

    isa: str
    dtype: str
    multiply_adds: float  # numbers in a second
    limit: float  # what they allow
    reached: float  # by logsumexp in cache, less the time of reading for the maximum
    logsumexp: float  # as a whole


@dataclass(frozen=True)
class Cell:
    """One operation on one array."""

    operation: str
    shape: tuple[int, ...]
    axis: int
    dtype: str
    threads: int
    bytes: int
    exps: int
    memory_seconds: float
    exp_seconds: float
    seconds: float

    @property
    def case(self) -> str:
        return "x".join(map(str, self.shape)) + (f" axis {self.axis}" if self.axis != -1 else "")

    @property
    def limit(self) -> float:
        """Seconds below which no program gets here: memory and arithmetic at work side by side."""
        return max(self.memory_seconds, self.exp_seconds)

    @property
    def bound(self) -> str:
        return "memory" if self.memory_seconds >= self.exp_seconds else "exp"

    @property
    def fraction(self) -> float:
        return self.limit / self.seconds


# ---- limits ----


def moved(arguments: Sequence[Array], result: Any) -> tuple[int, int]:
    """Bytes read and written by an operation that touches all of its arguments and results once."""
    results = result if isinstance(result, tuple) else (result,)
    return sum(a.nbytes for a in arguments), sum(np.asarray(y).nbytes for y in results)


def exps(op: Operation, x: Array) -> int:
    return 0 if op.name in NO_EXP else x.size


def memory_seconds(read: int, written: int, threads: int, bandwidths: Sequence[Bandwidth]) -> float:
    """Time for these bytes as the pass moves them that writes a share like theirs, with the better kind of stores."""
    total = read + written
    alike = min(
        (p for p in hardware.PASSES if p.value),  # not the fill with zeros
        key=lambda p: abs(p.written - written / total),
    )
    mine = [b for b in bandwidths if (b.name, b.threads) == (alike.name, threads)]
    by_kind = []
    for streaming in {b.streaming for b in mine}:
        line = sorted((b.size, b.bytes_per_second) for b in mine if b.streaming == streaming)
        known, rates = np.log(line).T
        by_kind.append(math.exp(float(np.interp(math.log(total), known, rates))))
    return total / max(by_kind)


# ---- measurements ----


def measure_bandwidths(threads: Sequence[int], quick: bool, largest: float = math.inf) -> list[Bandwidth]:
    """The best of several rounds over all passes: on a shared machine each has a slow moment.

    `largest`: bytes beyond which no pass goes, where no operation will.
    """
    library = hardware.compiled(_dispatch.isa)
    kinds = (False, True) if hardware.has_streaming(library) else (False,)
    sizes = [size for size in hardware.sizes(4 if quick else 2) if size <= largest]
    memory = hardware.Memory(sizes[-1])
    todo = [
        (move, streaming, count, size)
        for count, move, streaming, size in itertools.product(threads, hardware.PASSES, kinds, sizes)
        if move.written or not streaming
    ]
    found = [memory.bandwidth(library, *cell) for cell in _progress(todo * ROUNDS)]
    return [max(found[k :: len(todo)], key=lambda b: b.bytes_per_second) for k in range(len(todo))]


def measure_exp(isa: str, dtype: str) -> Exp:
    library = hardware.compiled(isa)
    rate = hardware.multiply_adds(library, dtype, 1)
    kernels = _dispatch.load(isa)
    x = np.random.default_rng(0).normal(0, 5, (64, BLOCK // 64 // np.dtype(dtype).itemsize)).astype(dtype)
    with fastsoft.num_threads(1):
        whole = hardware.best(lambda repeats: [kernels.logsumexp(x) for _ in range(repeats)])
    reading = x.nbytes / hardware.Memory(BLOCK).bandwidth(library, hardware.PASSES[0], False, 1, BLOCK).bytes_per_second
    return Exp(isa, dtype, rate, rate / MULTIPLICATIONS[dtype], x.size / (whole - reading), x.size / whole)


def exp_rates(threads: Sequence[int]) -> dict[tuple[str, int], float]:
    """Exponentials in a second by (dtype, threads), at most, on the instruction set that fastsoft uses here."""
    library = hardware.compiled(_dispatch.isa)
    return {
        (dtype, count): hardware.multiply_adds(library, WORK_TYPE[dtype], count) / MULTIPLICATIONS[WORK_TYPE[dtype]]
        for dtype in DTYPES
        for count in threads
    }


def measure_operation(
    op: Operation,
    shape: tuple[int, ...],
    axis: int,
    dtype: str,
    threads: Sequence[int],
    bandwidths: Sequence[Bandwidth],
    rates: dict[tuple[str, int], float],
) -> list[Cell]:
    """One cell for each number of threads."""
    x = np.random.default_rng(0).normal(0, 5, shape).astype(dtype)
    arguments, function = op.arguments(x, axis), getattr(fastsoft, op.name)
    read, written = moved(arguments, function(*arguments, axis=axis))
    cells = []
    for count in threads:
        with fastsoft.num_threads(count):
            seconds = _bench._times([function], arguments, axis, rounds=3)[0]
        at_least = memory_seconds(read, written, count, bandwidths), exps(op, x) / rates[dtype, count]
        cells.append(Cell(op.name, shape, axis, dtype, count, read + written, exps(op, x), *at_least, seconds))
    return cells


def measure_operations(threads: Sequence[int], quick: bool, bandwidths: Sequence[Bandwidth]) -> list[Cell]:
    rates = exp_rates(threads)
    todo = [
        (op, shape, axis, dtype, threads, bandwidths, rates)
        for op in OPS
        for shape, axis in CASES
        if math.prod(shape) * (shape[axis] if op.classes == 2 else 1) <= LARGEST
        and not (quick and math.prod(shape) >= QUICK_SIZE)
        for dtype in (QUICK_DTYPES if quick else DTYPES)
    ]
    return [cell for item in _progress(todo) for cell in measure_operation(*item)]


# ---- what is printed, written, drawn ----


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown: text on the left, numbers on the right."""
    text = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    right = [all(isinstance(row[k], float | int) or row[k][:1].isdigit() for row in rows) for k in range(len(head))]
    text.insert(1, ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)])
    padded = [[c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)] for row in text]
    return "\n".join(f"| {' | '.join(row)} |" for row in padded)


def bytes_text(size: float) -> str:
    power = min(int(math.log(size, 1000)), 3)
    size /= 1024**power
    return f"{size:.0f} {UNITS[power]}" if size >= 100 else f"{size:.3g} {UNITS[power]}"


def bandwidth_table(bandwidths: Sequence[Bandwidth]) -> str:
    columns = list(dict.fromkeys((b.name, b.streaming) for b in bandwidths))
    head = ["threads", "size", *(name + (" streaming" if streaming else "") for name, streaming in columns)]
    requested: dict[tuple[int, int], dict[tuple[str, bool], float]] = {}
    for b in bandwidths:  # sizes are rounded to whole steps, differently for each pass: one line for those alike
        line = requested.setdefault((b.threads, round(2 * math.log2(b.size))), {})
        line[b.name, b.streaming] = b.bytes_per_second
    rows = [
        [threads, bytes_text(2 ** (half / 2)), *(f"{line[c] / 1e9:.1f}" for c in columns)]
        for (threads, half), line in requested.items()
    ]
    return table(head, rows)


def exp_table(found: Sequence[Exp]) -> str:
    head = ["instruction set", "dtype", "multiply-adds", "exp, limit", "exp, reached", "fraction", "whole logsumexp"]
    rates = [(e.multiply_adds, e.limit, e.reached, e.reached / e.limit, e.logsumexp) for e in found]
    rows = [
        [e.isa, e.dtype, *(f"{n:.2f}" if k == 3 else f"{n / 1e9:.2f}" for k, n in enumerate(r))]
        for e, r in zip(found, rates, strict=True)
    ]
    return table(head, rows)


def operation_table(cells: Sequence[Cell]) -> str:
    head = ["operation", "shape", "dtype", "threads", "moved", "exps", "limit us", "set by", "measured us", "fraction"]
    rows = [
        [c.operation, c.case, c.dtype, c.threads, bytes_text(c.bytes), c.exps, f"{c.limit * 1e6:.2f}", c.bound,
         f"{c.seconds * 1e6:.2f}", f"{c.fraction:.2f}"]
        for c in cells
    ]  # fmt: skip
    return table(head, rows)


UNITS = ("B", "KiB", "MiB", "GiB")
COLOURS = {"read": "#0072B2", "fill": "#D55E00", "fill with zeros": "#999999", "copy": "#009E73", "triad": "#CC79A7"}


def draw_bandwidths(panel: Any, bandwidths: Sequence[Bandwidth], threads: int) -> None:
    """Lines over the size: dashed with streaming stores."""
    for name, streaming in dict.fromkeys((b.name, b.streaming) for b in bandwidths):
        mine = [b for b in bandwidths if (b.name, b.streaming, b.threads) == (name, streaming, threads)]
        label = name + (", streaming stores" if streaming else "")
        panel.loglog(
            [b.size for b in mine], [b.bytes_per_second / 1e9 for b in mine], "--" if streaming else "-",
            marker="s" if streaming else "o", markersize=3, color=COLOURS[name], label=label,
        )  # fmt: skip
    panel.axvline(hardware.last_cache(), color="black", linewidth=0.6)
    panel.set(xlabel="size of all arrays (bytes); line: last-level cache", ylabel="bandwidth (GB/s)")
    panel.set_title(f"Memory, {threads} thread{'s'[: threads > 1]}")
    panel.grid(alpha=0.3)
    for which in ("major", "minor"):  # 30 rather than 3 x 10^1
        panel.tick_params(axis="y", which=which, labelsize=8)
        getattr(panel.yaxis, f"set_{which}_formatter")("{x:.0f}")


def draw_fractions(panel: Any, cells: Sequence[Cell], threads: int) -> Any:
    """A map of the fraction of the limit: operations down, arrays across."""
    operations = list(dict.fromkeys(c.operation for c in cells))
    arrays = list(dict.fromkeys((c.case, c.dtype) for c in cells))
    values = np.full((len(operations), len(arrays)), np.nan)
    for c in cells:
        if c.threads == threads:
            row, column = operations.index(c.operation), arrays.index((c.case, c.dtype))
            values[row, column] = 100 * c.fraction
            text, colour = f"{100 * c.fraction:.0f}{c.bound[0]}", "white" if c.fraction < 0.5 else "black"
            panel.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    image = panel.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    panel.set_xticks(range(len(arrays)), [f"{case} {dtype}" for case, dtype in arrays], rotation=60, ha="right")
    panel.set_yticks(range(len(operations)), operations)
    panel.tick_params(labelsize=8)
    panel.set(xlabel="logits: shape, dtype", ylabel="operation")
    panel.set_title(f"Percent of the limit that memory (m) or exp (e) sets, {threads} thread{'s'[: threads > 1]}")
    return image


def plot(bandwidths: Sequence[Bandwidth], cells: Sequence[Cell], path: str) -> None:
    """Bandwidths above, fractions below, a column for each number of threads."""
    threads = list(dict.fromkeys(b.threads for b in bandwidths))
    wide = max(7.0, 0.42 * len({(c.case, c.dtype) for c in cells}) + 3)
    figure = _bench.figure_class()(figsize=(wide * len(threads), 11), layout="constrained")
    figure.suptitle(f"fastsoft {fastsoft.__version__} ({_dispatch.isa}) beside the limits of {_bench.cpu_model()}")
    panels = figure.subplots(2, len(threads), squeeze=False)
    for count, (above, below) in zip(threads, panels.T, strict=True):
        draw_bandwidths(above, bandwidths, count)
        image = draw_fractions(below, cells, count)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.colorbar(image, ax=list(panels[1]), label="percent of the limit", shrink=0.8)
    figure.savefig(path, dpi=110)


def arguments_of(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer sizes, shapes and dtypes: about a minute")
    parser.add_argument("--threads", type=_positive, nargs="+", metavar="N", help="default: 1, and as fastsoft chooses")
    parser.add_argument("--json", metavar="FILE", help="write the measurements to this file")
    parser.add_argument("--plot", metavar="FILE.png", help="draw them (needs matplotlib)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = arguments_of(argv)
    if arguments.plot:
        _bench.figure_class()  # without matplotlib, say so before the measuring
    threads = arguments.threads or sorted({1, fastsoft.get_num_threads()})
    found = [measure_exp(isa, dtype) for isa in _dispatch.available() for dtype in MULTIPLICATIONS]
    bandwidths = measure_bandwidths(threads, arguments.quick)
    cells = measure_operations(threads, arguments.quick, bandwidths)
    print(f"{_bench.cpu_model()}, fastsoft {fastsoft.__version__}, {_dispatch.isa}")
    print(f"\nBandwidth in GB/s; the size is that of all arrays together\n\n{bandwidth_table(bandwidths)}")
    if not any(b.streaming for b in bandwidths):
        print("\nStreaming stores: not measured, roofline.c has none for this platform")
    print(f"\nNumbers in 1e9/s, one thread\n\n{exp_table(found)}")
    print(f"\nOperations\n\n{operation_table(cells)}")
    if arguments.json:
        content = {
            "machine": {"cpu": _bench.cpu_model(), "isa": _dispatch.isa, "last_cache": hardware.last_cache()},
            "bandwidths": [asdict(b) for b in bandwidths],
            "exp": [asdict(e) for e in found],
            "operations": [asdict(c) | {"limit": c.limit, "fraction": c.fraction} for c in cells],
        }
        Path(arguments.json).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        plot(bandwidths, cells, arguments.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
