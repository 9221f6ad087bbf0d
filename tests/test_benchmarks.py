"""The arithmetic of the scripts in benchmarks/: bytes, limits, comparisons. Nothing is timed here."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastsoft
from fastsoft import _dispatch
from fastsoft.reference import OPS

TREE = Path(__file__).parents[1]
FOLDER = TREE / "benchmarks"
if not FOLDER.is_dir():
    pytest.skip(f"NOT TESTED: the benchmarks are not in {TREE}", allow_module_level=True)


@pytest.fixture(scope="module")
def load() -> Iterator[Callable[[str], Any]]:
    """Import a script by its path, with the others beside it, and forget them all afterwards."""
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look there
        spec.loader.exec_module(module)
        return module

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield load
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == FOLDER:
            del sys.modules[name]


@pytest.fixture(scope="module")
def roofline(load: Callable[[str], Any]) -> Any:
    return load("roofline")


@pytest.fixture(scope="module")
def guard(load: Callable[[str], Any]) -> Any:
    return load("guard")


@pytest.fixture(scope="module")
def call_cost(load: Callable[[str], Any]) -> Any:
    return load("call_cost")


# ---- roofline.py ----

MOVED = {  # bytes read and written for 3 rows of 5 float32, with int64 labels
    "softmax": (60, 60),
    "logsumexp": (60, 12),
    "softmax_jacobian": (60, 300),
    "softmax_vjp": (120, 60),
    "cross_entropy": (120, 12),
    "softmax_cross_entropy": (84, 12),
    "softmax_cross_entropy_with_grad": (84, 72),
}


def test_measurement_of_exp_runs(roofline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called of each variant can be called; the clock is not asked."""
    calls: list[Any] = []

    def best(call: Callable[[int], Any]) -> float:
        calls.append(call(1))
        return 1.0

    bandwidth = SimpleNamespace(bandwidth=lambda *_: SimpleNamespace(bytes_per_second=math.inf))
    hardware = roofline.hardware
    monkeypatch.setattr(hardware, "compiled", lambda isa: isa)
    monkeypatch.setattr(hardware, "multiply_adds", lambda *_: 10.0)
    monkeypatch.setattr(hardware, "Memory", lambda _: bandwidth)
    monkeypatch.setattr(hardware, "best", best)
    for isa in _dispatch.available():
        for dtype in roofline.MULTIPLICATIONS:
            assert roofline.measure_exp(isa, dtype).isa == isa
            assert calls[-1][0].dtype == dtype


@pytest.mark.parametrize("name", MOVED)
def test_bytes_moved(roofline: Any, name: str) -> None:
    op = next(op for op in OPS if op.name == name)
    arguments = op.arguments(np.arange(15, dtype=np.float32).reshape(3, 5))
    assert roofline.moved(arguments, getattr(fastsoft, name)(*arguments)) == MOVED[name]


def test_exponentials(roofline: Any) -> None:
    """One for each logit, but for the operations on probabilities; their names exist."""
    x = np.zeros((3, 5))
    assert {op.name: roofline.exps(op, x) for op in OPS if roofline.exps(op, x) != 15} == {
        "softmax_vjp_from_output": 0,
        "cross_entropy": 0,
    }


def test_multiplications_are_those_of_the_header(roofline: Any) -> None:
    """Six, and one for each coefficient of the polynomial but the last."""
    source = (TREE / "fastsoft" / "simd" / "math.hpp").read_text(encoding="utf-8")
    lists = re.findall(r"(float exp_quarter|double exp_q)\[\] = \{([^}]*)\}", source)
    counted = {{"f": "float32", "d": "float64"}[name[0]]: 6 + numbers.count(",") for name, numbers in lists}
    assert counted == roofline.MULTIPLICATIONS
    value = source[source.index("vec<T, U> value(") :].partition("}")[0]
    first, _, rest = source[source.index("Reduced<T, U> reduced(pair") :].partition("if constexpr (is_in_two_parts")
    steps = first + rest[rest.index("const vec<T, U> r_hi") :].partition("exp_less_1")[0]
    last = source[source.index("if constexpr (C::by_quarters && std::is_same<Which, Exact>") :]
    with_fma = value + steps + last.partition("    else\n")[0]
    for other in ("r_hi + sub_mul(z.lo, k, lo)", "mul_add(a.square, polynomial(a.r, C::exp_quarter_exact), a.r)"):
        assert other in with_fma
        with_fma = with_fma.replace(other, "")
    assert len(re.findall(r"mul_add|mul_sub|sub_mul|r \* r", with_fma)) == 6  # besides those in the polynomial


def bandwidths(roofline: Any) -> list[Any]:
    """Ordinary stores: 100 GB/s up to 1000 bytes, 10 from 100000; streaming 20; a read 40; zeros, never to be used."""
    make = roofline.Bandwidth
    found = [make("fill with zeros", False, 1, size, 1e15) for size in (1000, 100_000)]
    for name in ("fill", "copy", "triad"):
        found += [make(name, False, 1, 1000, 1e11), make(name, False, 1, 100_000, 1e10)]
        found += [make(name, True, 1, size, 2e10) for size in (1000, 100_000)]
    return [*found, make("read", False, 1, 1000, 4e10), make("copy", False, 2, 1000, 7e11)]


@pytest.mark.parametrize(
    ("read", "written", "threads", "rate"),
    [
        (500, 500, 1, 1e11),  # in cache, as a copy
        (5, 5, 1, 1e11),  # smaller than what was measured
        (5000, 5000, 1, 10**10.5),  # half way between two sizes, on a scale of logarithms
        (1_000_000, 1_000_000, 1, 2e10),  # beyond: streaming stores are better there
        (1000, 0, 1, 4e10),  # as a read
        (0, 1000, 1, 1e11),  # as a fill, not one with zeros
        (500, 500, 2, 7e11),  # two threads
    ],
)
def test_memory_limit(roofline: Any, read: int, written: int, threads: int, rate: float) -> None:
    seconds = roofline.memory_seconds(read, written, threads, bandwidths(roofline))
    assert seconds == pytest.approx((read + written) / rate, rel=1e-12)


def test_the_larger_limit_counts(roofline: Any) -> None:
    memory = roofline.Cell("softmax", (8, 8), -1, "float32", 1, 512, 64, 4e-6, 1e-6, 8e-6)
    assert (memory.limit, memory.bound, memory.fraction) == (4e-6, "memory", 0.5)
    exp = roofline.Cell("softmax", (8, 8), 0, "float32", 1, 512, 64, 1e-6, 2e-6, 8e-6)
    assert (exp.limit, exp.bound, exp.fraction, exp.case) == (2e-6, "exp", 0.25, "8x8 axis 0")


def test_table(roofline: Any) -> None:
    assert roofline.table(["name", "us"], [["a", "1.5"], ["long b", 12]]).splitlines() == [
        "| name   |  us |",
        "| ------ | --: |",
        "| a      | 1.5 |",
        "| long b |  12 |",
    ]
    assert [roofline.bytes_text(n) for n in (1, 1024, 1000 << 10, 3 << 29)] == ["1 B", "1 KiB", "0.977 MiB", "1.5 GiB"]


# ---- guard.py ----


def of_all(guard: Any, ratio: float) -> dict[str, Any]:
    return {cell.name: guard.Stored(ratio, 0.01) for cell in guard.CELLS}


def timings(guard: Any, factors: dict[str, list[float]]) -> Callable[[Any], float]:
    """A clock for which NumPy takes 3 us and fastsoft 1 us, times the next factor of the cell, the last for good."""
    left = {name: list(given) for name, given in factors.items()}

    def measure(cell: Any) -> float:
        given = left.get(cell.name, [1.0])
        return 3e-6 / (1e-6 * (given.pop(0) if len(given) > 1 else given[0]))

    return measure


@pytest.mark.parametrize(
    ("factors", "status"),
    [
        ([1.0], 0),
        ([1.10], 0),
        ([1.15], 1),
        ([1.5], 1),
        ([0.5], 0),  # faster
        ([1.5, 1.0], 0),  # slower once: noise
        ([1.3, 1.2, 1.0, 1.2], 1),  # measured again, by the median
        ([1.3, 1.0, 1.2, 1.0], 0),
    ],
)
def test_a_slower_cell_is_found(
    guard: Any, factors: list[float], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    name = guard.CELLS[3].name
    assert guard.check(of_all(guard, 3.0), timings(guard, {name: factors})) == status
    slower = [line for line in capsys.readouterr().out.splitlines() if line.startswith("SLOWER")]
    assert len(slower) == status and all(name in line for line in slower)


def test_cells_are_of_existing_operations(guard: Any) -> None:
    names = [cell.name for cell in guard.CELLS]
    assert len(names) == len(set(names)) >= 25
    assert {cell.operation for cell in guard.CELLS} == {op.name for op in OPS}


def test_baseline_is_written_and_read(guard: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another machine's baseline stays; ratios are medians, and the spread is that of the measurements."""
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({"another machine": {"a cell": {"ratio": 2.0, "spread": 0.1}}}))
    assert guard.main(["--baseline", str(path)]) == 2
    name = guard.CELLS[0].name
    monkeypatch.setattr(guard, "measure", timings(guard, {name: [1.0, 1.25, 1.0, 0.8, 1.0]}))
    assert guard.main(["--baseline", str(path), "--update"]) == 0
    found = guard.read(path)
    assert set(found) == {"another machine", guard.machine()}
    assert found["another machine"] == {"a cell": guard.Stored(2.0, 0.1)}
    assert found[guard.machine()][name] == guard.Stored(3.0, 0.45)  # (3 / 0.8 - 3 / 1.25) / 3
    assert "threads 1" in guard.machine()


def test_without_a_baseline(guard: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert guard.main(["--baseline", str(tmp_path / "none.json")]) == 2
    assert "no baseline" in capsys.readouterr().err
    assert guard.check({"a cell": guard.Stored(3.0, 0.01)}, timings(guard, {})) == 2


def test_cell_without_a_baseline(guard: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Said aloud, and the others are compared."""
    first, seventh = guard.CELLS[0].name, guard.CELLS[7].name
    incomplete = of_all(guard, 3.0)
    del incomplete[seventh]
    assert guard.check(incomplete, timings(guard, {})) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("NOT COMPARED") and seventh in said[0]
    assert not any(line.startswith(seventh) for line in said)
    assert guard.check(incomplete, timings(guard, {first: [1.5]})) == 1


def test_stored_baseline_has_all_cells(guard: Any) -> None:
    """That of one CPU at least; others may wait for one who has it."""
    baselines = [set(cells) for cells in guard.read(guard.BASELINE).values()]
    names = {cell.name for cell in guard.CELLS}
    assert all(cells <= names for cells in baselines)
    assert names in baselines


# ---- call_cost.py ----


def test_what_a_process_does_besides_cancels(call_cost: Any) -> None:
    assert call_cost.of_a_call(600_000_000 + 100 * 9000, 600_000_000 + 200 * 9000, 100) == 9000


@pytest.mark.parametrize(("count", "status"), [(9000.0, 0), (9440.0, 0), (9460.0, 1), (8000.0, 0)])
def test_more_instructions_are_found(
    call_cost: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: float, status: int
) -> None:
    path = tmp_path / "call_cost.json"
    before = dict.fromkeys(call_cost.OPERATIONS, 9000.0)
    monkeypatch.setattr(call_cost, "shutil", SimpleNamespace(which=lambda name: name))
    monkeypatch.setattr(call_cost, "build", lambda: "this build")
    monkeypatch.setattr(call_cost, "measure", lambda: before)
    assert call_cost.main(["--stored", str(path)]) == 2
    assert call_cost.main(["--stored", str(path), "--update"]) == 0
    monkeypatch.setattr(call_cost, "measure", lambda: before | {"logsumexp": count})
    assert call_cost.main(["--stored", str(path)]) == status


def test_callgrind_is_read(call_cost: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    done = SimpleNamespace(returncode=0, stderr="==7== Events    : Ir\n==7== Collected : 637238738\n==7==\n")
    monkeypatch.setattr(call_cost, "subprocess", SimpleNamespace(run=lambda *_, **__: done))
    assert call_cost.instructions("softmax", 1) == 637238738
    done.stderr = "valgrind: failed to start tool"
    with pytest.raises(RuntimeError, match="failed to start"):
        call_cost.instructions("softmax", 1)


def test_without_valgrind(call_cost: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(call_cost, "shutil", SimpleNamespace(which=lambda name: None))
    assert call_cost.main([]) == 2
    assert "install" in capsys.readouterr().err
