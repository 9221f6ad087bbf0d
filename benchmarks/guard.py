"""Find what has become slower: times NumPy / fastsoft of a fixed list of cells beside those of a stored baseline."""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastsoft
from fastsoft import _bench, _dispatch
from fastsoft.__main__ import _positive, _progress
from fastsoft.reference import OPS

Array = np.ndarray[Any, Any]
BASELINE = Path(__file__).with_name("baseline.json")
SLOWER = 0.15  # of the time: that much more, at the same speed of NumPy, is a failure
ROUNDS = 7  # of a measurement, each the best of some samples
AGAIN = 3  # more measurements of a cell that looks slower
REPEATS = 5  # measurements of each cell of a baseline


@dataclass(frozen=True)
class Cell:
    """One operation on one array."""

    operation: str
    shape: tuple[int, ...]
    axis: int
    dtype: str
    option: str = ""  # of fastsoft, in OPTIONS; NumPy always computes without any

    @property
    def name(self) -> str:
        axis = f" axis {self.axis}" if self.axis != -1 else ""
        option = f" {self.option}" if self.option else ""
        return f"{self.operation} {'x'.join(map(str, self.shape))}{axis} {self.dtype}{option}"


OPTIONS: Mapping[str, Callable[[Array], dict[str, Any]]] = {
    "temperature 2": lambda x: {"temperature": 2.0},
    "masked": lambda x: {"where": x > 0},
    "smoothed": lambda x: {"label_smoothing": 0.1},
}

# Every operation on rows of a middling length; those used most also on one short row, on short, long and large ones,
# between these, on columns and in the other types; a loss without its gradient; maps of few and of many classes, and
# some larger than the caches; kept outputs, which ask for little but memory; rows that do not end with a register; and
# options, above all of short rows.
CELLS = (
    *(Cell(op.name, (64, 1000), -1, "float32") for op in OPS if op.classes < 2),
    Cell("softmax_jacobian", (64, 10), -1, "float32"),
    *(
        Cell(name, shape, axis, dtype)
        for name in ("softmax", "softmax_cross_entropy_with_grad")
        for shape, axis, dtype in (
            ((1, 10), -1, "float32"),
            ((64, 10), -1, "float32"),
            ((64, 1000), -1, "float16"),
            ((64, 1000), -1, "float64"),
            ((1, 131_072), -1, "float32"),
            ((1000, 1000), -1, "float32"),
            ((1000, 1000), 0, "float32"),
        )
    ),
    Cell("softmax", (2048, 197), -1, "float32"),
    Cell("softmax_cross_entropy", (256, 1000), -1, "float32"),
    Cell("log_softmax", (8192, 128), -1, "float32"),
    Cell("log_softmax", (1, 131_072), -1, "float32"),
    Cell("log_softmax", (1, 1_000_000), -1, "float32"),
    Cell("softmax_vjp", (64, 1000), -1, "float64"),
    Cell("softmax_vjp", (8192, 128), -1, "float32"),
    Cell("softmax_vjp", (1000, 50), -1, "float32"),
    Cell("softmax_cross_entropy_with_grad", (1000, 50), -1, "float32"),
    Cell("softmax", (1, 10), -1, "float32", "temperature 2"),
    Cell("softmax", (1000, 50), -1, "float32", "temperature 2"),
    Cell("softmax_vjp", (4096, 10), -1, "float32", "temperature 2"),
    Cell("softmax_cross_entropy_with_grad", (8, 3, 128, 128), 1, "float32", "temperature 2"),
    Cell("softmax", (1, 10), -1, "float32", "masked"),
    Cell("softmax", (4096, 10), -1, "float32", "masked"),
    Cell("softmax", (64, 1000), -1, "float32", "masked"),
    Cell("softmax_cross_entropy_with_grad", (4096, 10), -1, "float32", "smoothed"),
    Cell("softmax_vjp_from_output", (4096, 17), -1, "float32"),
    Cell("softmax_vjp_from_output", (1000, 1000), -1, "float32"),
    Cell("softmax_vjp_from_output", (1000, 1000), 0, "float64"),
    *(
        Cell(name, shape, 1, "float32")
        for name in ("softmax", "softmax_vjp", "softmax_vjp_from_output", "softmax_cross_entropy_with_grad")
        for shape in ((8, 3, 128, 128), (4, 20, 150, 150), (32, 64, 64))
    ),
)
WIDE = max(len(cell.name) for cell in CELLS)
Measure = Callable[[Cell], float]  # the time of NumPy over that of fastsoft


@dataclass(frozen=True)
class Stored:
    """What the baseline says of a cell."""

    ratio: float  # the median of repeated measurements
    spread: float  # of them, the largest less the smallest, over the median


@dataclass(frozen=True)
class Slower:
    """A cell that has become slower, or looks so."""

    cell: Cell
    before: float
    now: float


def is_slower(before: float, now: float) -> bool:
    """Whether fastsoft takes at least SLOWER more time, if NumPy takes what it took."""
    return round(before / now, 9) >= 1 + SLOWER


def measure(cell: Cell) -> float:
    """Time fastsoft and NumPy in turn."""
    op = next(op for op in OPS if op.name == cell.operation)
    x = np.random.default_rng(0).normal(0, 5, cell.shape).astype(cell.dtype)
    function = getattr(fastsoft, op.name)
    if cell.option:
        function = functools.partial(function, **OPTIONS[cell.option](x))
    functions = function, op.baseline
    seconds, numpy_seconds = _bench._times(functions, op.arguments(x, cell.axis), cell.axis, ROUNDS)
    return numpy_seconds / seconds


def stored(ratios: Sequence[float]) -> Stored:
    middle = statistics.median(ratios)
    return Stored(round(middle, 4), round((max(ratios) - min(ratios)) / middle, 4))


def slower_cells(now: Mapping[Cell, float], baseline: Mapping[str, Stored], measure: Measure) -> list[Slower]:
    """The cells that look slower and, measured again, still do: by the median of all measurements."""
    found = []
    for cell, ratio in now.items():
        before = baseline[cell.name].ratio
        if is_slower(before, ratio):
            ratio = statistics.median([ratio, *(measure(cell) for _ in range(AGAIN))])
            if is_slower(before, ratio):
                found.append(Slower(cell, before, ratio))
    return found


def machine() -> str:
    """What a baseline holds for: ratios of another CPU, instruction set or number of threads say nothing."""
    parts = _bench.cpu_model(), _dispatch.isa, f"threads {fastsoft.get_num_threads()}", f"NumPy {np.__version__}"
    return ", ".join(parts)


def read(path: Path) -> dict[str, dict[str, Stored]]:
    """All baselines, by machine and cell; none where there is no file yet."""
    if not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return {key: {name: Stored(**entry) for name, entry in cells.items()} for key, cells in content.items()}


def update(path: Path) -> None:
    """Measure all cells several times, and write them as this machine's baseline beside those of others."""
    ratios: dict[str, list[float]] = {cell.name: [] for cell in CELLS}
    for cell in _progress(CELLS * REPEATS):  # a cell's measurements lie apart, as do those of two runs
        ratios[cell.name].append(measure(cell))
    content = {key: {name: vars(s) for name, s in cells.items()} for key, cells in read(path).items()}
    content[machine()] = {name: vars(stored(found)) for name, found in ratios.items()}
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for name, found in ratios.items():
        s = stored(found)
        print(f"{name:{WIDE}} {s.ratio:7.2f}  spread {100 * s.spread:3.0f} %")
    print(f"{path}: the baseline of {machine()}")


def check(baseline: Mapping[str, Stored], measure: Measure = measure) -> int:
    """Compare all cells that the baseline has, print them, and return the exit status."""
    unknown = [cell.name for cell in CELLS if cell.name not in baseline]
    if unknown:
        print(f"NOT COMPARED, for the baseline does not have them: {', '.join(unknown)}; write it again with --update")
    if len(unknown) == len(CELLS):
        return 2
    now = {cell: measure(cell) for cell in _progress([cell for cell in CELLS if cell.name in baseline])}
    for cell, ratio in now.items():
        before = baseline[cell.name]
        change = 100 * (before.ratio / ratio - 1)
        times = f"{ratio:7.2f}  was {before.ratio:7.2f}  time {change:+4.0f} %"
        print(f"{cell.name:{WIDE}} {times}  (spread {100 * before.spread:.0f} %)")
    found = slower_cells(now, baseline, measure)
    for s in found:
        print(f"SLOWER: {s.cell.name}: {s.before:.2f} times as fast as NumPy before, now {s.now:.2f}")
    print(f"{len(found)} of {len(now)} cells take at least {100 * SLOWER:.0f} % more time")
    return 1 if found else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, epilog="Exit status: 0 as before, 1 slower, 2 no baseline.")
    parser.add_argument("--update", action="store_true", help="measure several times, and write the baseline")
    parser.add_argument("--threads", type=_positive, default=1, metavar="N", help="default: 1")
    parser.add_argument("--baseline", type=Path, default=BASELINE, metavar="FILE", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    fastsoft.set_num_threads(arguments.threads)
    if arguments.update:
        update(arguments.baseline)
        return 0
    baseline = read(arguments.baseline).get(machine())
    if baseline is None:
        print(f"{arguments.baseline} has no baseline of {machine()}; --update writes it", file=sys.stderr)
        return 2
    return check(baseline)


if __name__ == "__main__":
    sys.exit(main())
