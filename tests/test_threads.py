"""How many threads, when none, and what threads, forks and other libraries' floating-point state must not change."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    FLOATS,
    Array,
    assert_same_bits,
    dtype_of,
    every_operation,
    function,
    given,
    in_python,
    logits,
    python,
    softmax_family,
    some_operations,
    within_reach,
)

import fastsoft
from fastsoft import _machine, _threads
from fastsoft.reference import OPS, Operation

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="NOT TESTED: this system has no fork")
PARALLEL = (400, 2000)  # a shape that is shared out among threads
STATUS = 0x3F  # the bits of x86's control register that tell what has happened


# ---- the default ----


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The default number of threads on a made-up machine: its CPUs, cores, cgroup files and environment."""

    def count(
        cpus: int = 64, files: dict[str, str] | None = None, siblings: int = 1, allowed: Any = None, **environment: str
    ) -> int:
        for name in ("FASTSOFT_NUM_THREADS", "OMP_NUM_THREADS"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(allowed or range(cpus)), raising=False)
        shutil.rmtree(tmp_path, ignore_errors=True)
        tmp_path.mkdir()
        place = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
        cores = {place.format(k): f"{k // siblings * siblings}\n" for k in range(cpus if siblings > 1 else 0)}
        for name, text in {**cores, **(files or {})}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return _threads.default_num_threads(str(tmp_path))

    return count


def test_environment(machine: Callable[..., int]) -> None:
    """FASTSOFT_NUM_THREADS, else OMP_NUM_THREADS, whatever the machine has; what is no number is ignored."""
    assert machine(FASTSOFT_NUM_THREADS="3", OMP_NUM_THREADS="5") == 3
    assert machine(OMP_NUM_THREADS="5") == 5
    assert machine(OMP_NUM_THREADS=" 6 ,2,1") == 6
    assert machine(FASTSOFT_NUM_THREADS="100") == 100  # more than there are CPUs: as told
    assert machine(FASTSOFT_NUM_THREADS="1000000") == _threads.LIMIT
    assert machine(FASTSOFT_NUM_THREADS="", OMP_NUM_THREADS="7") == 7
    for nonsense in ("0", "-1", "many", "2.5", "²", "1e3", ",2"):
        assert machine(cpus=4, FASTSOFT_NUM_THREADS=nonsense) == 4, nonsense
        assert machine(cpus=4, OMP_NUM_THREADS=nonsense) == 4, nonsense


def test_affinity_and_cores(machine: Callable[..., int]) -> None:
    """The CPUs that the process may use, two hyper-threads counted as one core."""
    assert machine(cpus=8) == 8
    assert machine(cpus=8, siblings=2) == 4
    assert machine(cpus=8, siblings=2, allowed=[0, 1]) == 1
    assert machine(cpus=8, siblings=2, allowed=[0, 2, 3]) == 2
    assert machine(cpus=8, allowed=[5]) == 1


def test_cpus_without_topology(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /sys is hidden, or the system tells no affinity, CPUs count as cores."""
    monkeypatch.delenv("FASTSOFT_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 3, 5}, raising=False)
    assert _threads.default_num_threads(str(tmp_path)) == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert _threads.default_num_threads(str(tmp_path)) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert _threads.default_num_threads(str(tmp_path)) == 1


V2 = {"proc/self/cgroup": "0::/a/b\n"}
V1 = {"proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/a/b\n2:cpuset:/\n"}


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 64),
        (V2, 64),
        ({**V2, "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 64),
        ({**V2, "sys/fs/cgroup/a/b/cpu.max": "200000 100000\n"}, 2),
        ({**V2, "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 2),  # rounded up
        ({**V2, "sys/fs/cgroup/a/b/cpu.max": "1000 100000\n"}, 1),
        ({**V2, "sys/fs/cgroup/a/b/cpu.max": "10000000 100000\n"}, 64),
        ({**V2, "sys/fs/cgroup/a/cpu.max": "300000 100000\n"}, 3),  # of the group above
        ({**V2, "sys/fs/cgroup/a/cpu.max": "300000 100000\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 3),
        ({**V2, "sys/fs/cgroup/a/cpu.max": "300000 100000\n", "sys/fs/cgroup/a/b/cpu.max": "500000 100000\n"}, 3),
        ({**V2, "sys/fs/cgroup/a/cpu.max": "900000 100000\n", "sys/fs/cgroup/a/b/cpu.max": "500000 100000\n"}, 5),
        ({**V2, "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),  # in a namespace the root is the container's
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        ({**V2, "sys/fs/cgroup/a/b/cpu.max": "nonsense\n"}, 64),
        ({**V2, "sys/fs/cgroup/a/b/cpu.max": ""}, 64),
        ({**V2, "sys/fs/cgroup/a/b/cpu.max": "100000 0\n"}, 64),
        ({"proc/self/cgroup": "\n"}, 64),
        ({"proc/self/cgroup": "0::/a:b\n", "sys/fs/cgroup/a:b/cpu.max": "200000 100000\n"}, 2),
        (V1, 64),
        *(
            ({**V1, f"{folder}/cpu.cfs_quota_us": "250000\n", f"{folder}/cpu.cfs_period_us": "100000\n"}, 3)
            for folder in ("sys/fs/cgroup/cpu,cpuacct/a/b", "sys/fs/cgroup/cpu,cpuacct/a", "sys/fs/cgroup/cpu,cpuacct")
        ),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n",
            },
            64,
        ),
        (  # both: the quota is where version 1 has it
            {
                "proc/self/cgroup": "1:cpu:/a\n0::/a\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "600000\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
            },
            6,
        ),
    ],
)
def test_quota(machine: Callable[..., int], files: dict[str, str], count: int) -> None:
    """The cgroup's quota of either version, rounded up; the smallest on the way to the root; nothing that is odd."""
    assert machine(files=files) == count
    assert machine(files=files, cpus=2) == min(count, 2)
    assert machine(files=files, OMP_NUM_THREADS="9") == 9


def test_default_of_this_process() -> None:
    """What is read from this machine is a number of threads, and get_num_threads starts with it."""
    code = "import os, fastsoft; {}; print(fastsoft.get_num_threads())"
    clean: dict[str, str | None] = {"FASTSOFT_NUM_THREADS": None, "OMP_NUM_THREADS": None}
    done = python(code.format("pass"), **clean)
    assert 1 <= int(done.stdout) <= (os.cpu_count() or 1), done.stderr
    if hasattr(os, "sched_setaffinity"):
        done = python(code.format("os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"), **clean)
        assert int(done.stdout) == 1, done.stderr
    assert int(python(code.format("pass"), **{**clean, "FASTSOFT_NUM_THREADS": "3"}).stdout) == 3


# ---- settings ----


def test_set_and_get() -> None:
    """What is set holds for all threads of the process, until it is set again."""
    fastsoft.set_num_threads(5)
    assert fastsoft.get_num_threads() == 5
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(fastsoft.get_num_threads).result() == 5
        pool.submit(fastsoft.set_num_threads, 3).result()
    assert fastsoft.get_num_threads() == 3
    fastsoft.set_num_threads(np.int64(2))
    assert fastsoft.get_num_threads() == 2
    assert type(fastsoft.get_num_threads()) is int


def test_with_num_threads() -> None:
    """In a with block, for this thread only; blocks nest, and an exception ends them too."""
    fastsoft.set_num_threads(2)
    with ThreadPoolExecutor(1) as other, fastsoft.num_threads(7):
        assert fastsoft.get_num_threads() == 7
        assert other.submit(fastsoft.get_num_threads).result() == 2
        with pytest.raises(RuntimeError, match="end"), fastsoft.num_threads(1):
            assert fastsoft.get_num_threads() == 1
            fastsoft.set_num_threads(4)  # of the process: not of this block
            assert fastsoft.get_num_threads() == 1
            raise RuntimeError("end")
        assert fastsoft.get_num_threads() == 7
        assert other.submit(fastsoft.get_num_threads).result() == 4
    assert fastsoft.get_num_threads() == 4


@pytest.mark.parametrize("function", [fastsoft.set_num_threads, fastsoft.num_threads])
def test_settings_out_of_range(function: Callable[[Any], Any]) -> None:
    """From 1 to 4096, an int; the message says so, and nothing changes."""

    def use(n: Any) -> None:
        made = function(n)
        if made is not None:
            with made:
                pass

    before = fastsoft.get_num_threads()
    for n in (0, -1, 4097, 1 << 70):
        with pytest.raises(ValueError, match=rf"^n must be from 1 to 4096, got {n}$"):
            use(n)
    for n in (1.0, "2", None, True, [1]):
        with pytest.raises(TypeError, match=rf"^n must be an int, got {type(n).__name__}$"):
            use(n)
    assert fastsoft.get_num_threads() == before
    use(1)
    use(4096)


@softmax_family
def test_argument_comes_first(op: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    """num_threads= of a call counts, else the with block, else what is set."""
    seen: list[int] = []
    kernels = fastsoft.api.kernels

    class Spy:
        def __getattr__(self, name: str) -> Any:
            return getattr(kernels, name)

        def apply(self, *arguments: Any) -> None:
            seen.append(arguments[8])
            kernels.apply(*arguments)

    in_python(monkeypatch)
    monkeypatch.setattr(fastsoft.api, "kernels", Spy())
    x = logits((3, 4), "float64")
    fastsoft.set_num_threads(5)
    function(op)(x, 0)
    with fastsoft.num_threads(6):
        function(op)(x, 0)
        function(op)(x, 0, num_threads=7)
        function(op)(x, 0, num_threads=None)
    assert seen == [5, 6, 7, 6]


# ---- many threads ----


@every_operation
def test_ten_python_threads(op: Operation, isa: str) -> None:
    """Ten Python threads at once, each with threads of its own: every result is right."""
    inputs = [logits(within_reach(op, PARALLEL), dtype_of(FLOATS[k % 4]), k) for k in range(10)]
    wanted = [function(op)(x, num_threads=1) for x in inputs]
    barrier = threading.Barrier(10)

    def work(k: int) -> list[Array]:
        barrier.wait(60)
        return [function(op)(inputs[k], num_threads=1 + j) for j in range(4)]

    with ThreadPoolExecutor(10) as pool:
        for results, want in zip(pool.map(work, range(10), timeout=120), wanted, strict=True):
            for y in results:
                assert_same_bits(y, want)


def test_many_small_calls() -> None:
    """Thousands of small calls from each of 32 threads, while another sets the number of threads."""
    x = logits((8, 20), "float32")
    arguments = [(op, op.arguments(x), op.arguments(x.T, 0)) for op in OPS]
    wanted = [(given(op, *rows), given(op, *columns, axis=0)) for op, rows, columns in arguments]
    stop = threading.Event()

    def calls(_: int) -> int:
        wrong = 0
        for _ in range(75):
            for (op, rows, columns), (want, turned) in zip(arguments, wanted, strict=True):
                wrong += given(op, *rows).tobytes() != want.tobytes()
                wrong += given(op, *columns, axis=0).tobytes() != turned.tobytes()
                with fastsoft.num_threads(3):
                    wrong += given(op, *rows, out=np.empty_like(want)).tobytes() != want.tobytes()
        return wrong

    def settings() -> None:
        while not stop.is_set():
            fastsoft.set_num_threads(1)
            fastsoft.set_num_threads(4)

    with ThreadPoolExecutor(33) as pool:
        setter = pool.submit(settings)
        try:
            assert sum(pool.map(calls, range(32), timeout=120)) == 0
        finally:
            stop.set()
        setter.result(60)


def test_one_thread_from_the_start() -> None:
    """A process that never has a second thread computes work of all sizes."""
    code = """
import numpy as np, fastsoft
from fastsoft.reference import OPS
for op in OPS:
    for rows in (1, 30, 100, 300, 1000):
        x = np.random.default_rng(rows).normal(size=(rows, 40))
        for a, axis in ((x, -1), (np.ascontiguousarray(x.T), 0)):
            getattr(fastsoft, op.name)(*op.arguments(a, axis), axis)
"""
    done = python(code, FASTSOFT_NUM_THREADS="1")
    assert done.returncode == 0, (done.returncode, done.stderr)


def test_threads_stay() -> None:
    """Work that is worth fewer threads than have been started ends none of them, to start them again later."""
    if not Path("/proc/self/task").exists() or not _machine.openmp():
        pytest.skip("NOT TESTED: this system does not show which threads a process has, or there is no OpenMP")
    code = """
import os
import numpy as np, fastsoft
fastsoft.set_num_threads(4)
threads = lambda: set(os.listdir("/proc/self/task"))
before = threads()
fastsoft.softmax(np.zeros((400, 2000)))
started = threads()
assert len(started - before) == 3, (before, started)
for rows in (5, 10, 20, 50, 100, 400) * 3:
    fastsoft.softmax(np.zeros((rows, 2000)))
    assert threads() == started, (rows, started, threads())
"""
    done = python(code)
    assert done.returncode == 0, done.stderr


@every_operation
def test_one_array_for_many_threads(op: Operation) -> None:
    """Several threads read one array and write parts of one output."""
    x = logits(within_reach(op, (64, 3000)), "float32")
    want = function(op)(x)
    out = np.empty_like(want)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: function(op)(x[8 * k : 8 * k + 8], out=out[8 * k : 8 * k + 8]), range(8), timeout=60))
    assert_same_bits(out, want)


class Interrupted(Exception):
    """What the handler below raises."""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="NOT TESTED: this system has no interval timer")
@pytest.mark.parametrize("kind", ["rows", "columns"])
def test_signals_come_through(kind: str) -> None:
    """Python sees to a signal in the middle of a large call, which then ends; a part of `out` is not written."""
    shape = (1 << 20, 2048)
    x = np.broadcast_to(np.float32(0), shape if kind == "rows" else shape[::-1])
    out = np.full(shape[0], 9, np.float32)

    def handler(*_: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            fastsoft.logsumexp(x, -1 if kind == "rows" else 0, out=out, num_threads=1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert 9 in out
    assert set(out.tolist()) <= {9.0, float(np.float32(np.log(2048)))}
    assert_same_bits(fastsoft.logsumexp(x[:2, :2]), fastsoft.logsumexp(np.zeros((2, 2), np.float32)))


INTERRUPT = """
import os, signal, sys, threading, time
import numpy as np
import fastsoft
signal.signal(signal.SIGINT, signal.default_int_handler)
rows, n = 1 << 24, 1 << 16  # hours of work
x, labels = np.broadcast_to(np.float32(0), (rows, n)), np.broadcast_to(np.int64(0), rows)
out = np.full(rows, 9, np.float32)
small = np.random.default_rng(0).normal(0, 5, (400, 2000)).astype("float32")
want = fastsoft.softmax(small, num_threads=1)
main = threading.get_ident()

def interrupt():  # once it computes
    while "fastsoft" not in os.path.dirname(sys._current_frames()[main].f_code.co_filename):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)

def computes():
    return all((fastsoft.softmax(small, num_threads=k) == want).all() for k in (1, 2, 3))

for _ in range(2):
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        CALL
    except KeyboardInterrupt:
        thread.join()
        assert computes()
        thread = threading.Thread(target=lambda: print("interrupted", computes()))
        thread.start()
        thread.join()
print((out == 9).any())
"""


@pytest.mark.skipif(os.name != "posix", reason="NOT TESTED: needs signals")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "call", ["logsumexp(x, out=out", "logsumexp(x.T, 0, out=out", "softmax_cross_entropy(x, labels, out=out"]
)
def test_keyboard_interrupt(call: str, threads: int) -> None:
    """KeyboardInterrupt comes long before the work is complete, and the process computes on, in threads too."""
    done = python(INTERRUPT.replace("CALL", f"fastsoft.{call}, num_threads={threads})"))
    assert done.stdout.split() == ["interrupted", "True"] * 2 + ["True"], done.stderr


@every_operation
def test_long_work_is_done_in_pieces(op: Operation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operation comes back to Python, which sees to signals, after a limited number of numbers."""
    x = logits(within_reach(op, (300, 64)), "float32")
    size = x.shape[1] ** max(op.classes, 1)
    starts = {"apply": 9, "derive": 8, "jacobian": 6}  # which argument is the first row, and the next the last
    runs: list[int] = []

    class Spy:
        def __init__(self, kernels: Any) -> None:
            self.kernels = kernels

        def __getattr__(self, name: str) -> Any:
            def call(*arguments: Any, **options: Any) -> Any:
                k = starts[name]
                runs.append(arguments[k + 1] - arguments[k])
                return getattr(self.kernels, name)(*arguments, **options)

            return call if name in starts else getattr(self.kernels, name)

    in_python(monkeypatch)
    monkeypatch.setattr("fastsoft._run.PIECE", 10 * size)
    for module in (fastsoft.api, fastsoft.derivatives, fastsoft.losses):
        monkeypatch.setattr(module, "kernels", Spy(module.kernels))
    function(op)(x, num_threads=2)
    assert 0 < max(runs) <= 10
    assert sum(runs) >= len(x)


def test_busy_machine() -> None:
    """More threads than cores, and other processes on all of these: no hang, and the same bits."""
    threads = 4 * (os.cpu_count() or 1)
    code = f"""
from fastsoft._dispatch import kernels
long = x.reshape(1, -1)
for k in range(5):
    for threads in ({threads}, {threads} - 1, 2):
        kernels.after_fork()  # were workers late, this call would be on one thread
        assert fastsoft.softmax(x, num_threads=threads).tobytes() == want[0].tobytes()
        kernels.after_fork()
        assert fastsoft.logsumexp(long, num_threads=threads).tobytes() == want[1].tobytes()
print("right")
"""
    burn = [sys.executable, "-c", "while True: pass"]
    burners = [subprocess.Popen(burn) for _ in range(min(2 * (os.cpu_count() or 1), 16))]
    try:
        done = python(SETUP + code, timeout=100)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    assert done.stdout.strip() == "right", done.stderr


# ---- fork ----

SETUP = """
import os, signal, sys, time
import numpy as np
import fastsoft
fastsoft.set_num_threads(2)
x = np.random.default_rng(0).normal(0, 5, (400, 2000)).astype("float32")
long = x.reshape(1, -1)
want = fastsoft.softmax(x, num_threads=1), fastsoft.logsumexp(long, num_threads=1)

def right():
    fastsoft.log_softmax(x.T, 0)
    got = fastsoft.softmax(x), fastsoft.logsumexp(long)
    return all(a.tobytes() == b.tobytes() for a, b in zip(got, want))

def end_of(pid):  # the exit status of a child, 99 where it hangs
    for _ in range(300):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 99

def child(work):  # likewise, of one that works
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return end_of(pid)
"""


@forks
@pytest.mark.parametrize(
    "code",
    [
        pytest.param("assert right(); print(child(right)); assert right()", id="after a parallel call"),
        pytest.param("print(child(right)); assert right()", id="before any"),
        pytest.param("assert right(); print(child(lambda: right() and child(right) == 0))", id="child of a child"),
        pytest.param(
            "assert right(); print(max(child(right) for _ in range(5))); assert right()", id="several children"
        ),
        pytest.param(
            "import threading\n"
            "results = []\n"
            "def run(): results.append(right() and child(right))\n"
            "t = threading.Thread(target=run); t.start(); t.join(100); print(results[0]); assert right()",
            id="from another thread",
        ),
        pytest.param(
            "import threading\n"
            "stop = threading.Event()\n"
            "def run():\n"
            "    while not stop.is_set(): right()\n"
            "t = threading.Thread(target=run, daemon=True); t.start(); time.sleep(0.2)\n"
            "print(max(child(right) for _ in range(5))); stop.set(); t.join(100); assert right()",
            id="while another thread computes",
        ),
        pytest.param(
            "import threading\n"
            "results = []\n"
            "def run(): right(); ready.set(); results.append(max(child(right) for _ in range(5)))\n"
            "ready, t = threading.Event(), threading.Thread(target=run)\n"
            "t.start(); ready.wait(100)\n"
            "while t.is_alive(): right()\n"
            "t.join(100); print(results[0]); assert right()",
            id="from another thread while the first computes",
        ),
    ],
)
def test_fork(code: str) -> None:
    """After a fork parent and child both compute, with threads, and neither hangs."""
    done = python(SETUP + code, timeout=100)
    assert (done.stdout.strip(), done.returncode) == ("0", 0), f"99 is a child that hangs\n{done.stdout}\n{done.stderr}"


@pytest.fixture
def pausing() -> None:
    """Skips where the OpenMP runtime in this process cannot be paused."""
    maps = Path("/proc/self/maps")
    paths = re.findall(r"/\S+/lib[gi]?omp\S*\.so\S*", maps.read_text()) if maps.exists() else []
    if not any(hasattr(ctypes.CDLL(path), "omp_pause_resource_all") for path in paths):
        pytest.skip("NOT TESTED: no OpenMP runtime is seen here that can be paused; a child keeps to one thread")


@forks
@pytest.mark.usefixtures("pausing")
def test_child_is_parallel_too() -> None:
    """Where OpenMP can be paused a child keeps its threads, and reads the default anew."""
    assert _machine.pause_openmp()
    code = """
fastsoft._threads._global = None
os.environ["OMP_NUM_THREADS"] = "3"
assert fastsoft.get_num_threads() == 3
assert right()
def work():
    os.environ["OMP_NUM_THREADS"] = "4"
    return fastsoft.get_num_threads() == 4 and right()
print(child(work), fastsoft.get_num_threads())
"""
    done = python(SETUP + code, FASTSOFT_NUM_THREADS=None)
    assert done.stdout.split() == ["0", "3"], done.stderr


SERVER = """
import threading
assert right()  # the parent warms up

def serve():  # two requests side by side, and then a worker's usual end
    answers = []
    requests = [threading.Thread(target=lambda: answers.append(right())) for _ in range(2)]
    for t in requests: t.start()
    for t in requests: t.join()
    sys.exit(0 if answers == [True, True] and right() else 2)

def worker():
    sys.stdout.flush()
    return os.fork() or serve()

workers, ends = [worker() for _ in range(4)], []
while workers and 99 not in ends:
    ends.append(right() - 1 or end_of(workers.pop(0)))  # the parent computes as well
    if len(ends) <= 4:
        workers.append(worker())  # in place of the one that has ended
for pid in workers:
    os.kill(pid, signal.SIGKILL)
print(*ends)
"""


@forks
def test_server_that_forks_workers() -> None:
    """As gunicorn does: a parent that has computed forks workers, which all compute in parallel, and end well."""
    done = python(SETUP + SERVER, timeout=100)
    assert done.stdout.split() == ["0"] * 8, f"99 is a worker that hangs\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_pool_of_processes(method: str, tmp_path: Path) -> None:
    """A multiprocessing pool; what forks its workers, the parent or a server, has computed in parallel before."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"NOT TESTED: multiprocessing knows no {method} here")
    (tmp_path / "warm.py").write_text(
        """
import os
import numpy as np
import fastsoft
x = np.random.default_rng(0).normal(0, 5, (400, 2000)).astype("float32")
def compute(k): return fastsoft.softmax(x[k:], num_threads=2).tobytes()
pid, first = os.getpid(), compute(0)
def work(k): return compute(k), compute(0) == first, os.getpid() != pid
"""
    )
    code = f"""
import multiprocessing, fastsoft, warm
multiprocessing.set_forkserver_preload(["warm"])
with multiprocessing.get_context("{method}").Pool(3) as pool:
    answers = pool.map_async(warm.work, range(30), 1).get(60)
assert [a for a, _, _ in answers] == [warm.compute(k) for k in range(30)]
print({{rest for _, *rest in map(tuple, answers) for rest in [tuple(rest)]}})
"""
    path = os.pathsep.join([str(tmp_path), str(Path(fastsoft.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = python(code, timeout=100, PYTHONPATH=path)
    assert done.stdout.strip() == str({(True, method != "spawn")}), done.stdout + done.stderr


# ---- floating-point control ----

STATE = """
#if defined(__x86_64__)
#include <xmmintrin.h>
unsigned long state(void) { return _mm_getcsr(); }
void set_state(unsigned long s) { _mm_setcsr((unsigned)s); }
unsigned long flush(void) { return 0x8040; }
unsigned long upwards(void) { return 0x4000; }
#elif defined(__aarch64__)
unsigned long state(void) { unsigned long s; __asm__ __volatile__("mrs %0, fpcr" : "=r"(s)); return s; }
void set_state(unsigned long s) { __asm__ __volatile__("msr fpcr, %0" ::"r"(s)); }
unsigned long flush(void) { return 1ul << 24; }
unsigned long upwards(void) { return 1ul << 22; }
#else
#error "the control register of this machine is not known here"
#endif
void set_states(unsigned long s) {
#pragma omp parallel num_threads(2)
  set_state(s);
}
unsigned long states(void) {  /* what is set in all threads */
  unsigned long all = ~0ul;
#pragma omp parallel num_threads(2) reduction(&:all)
  all &= state();
  return all;
}
"""


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Functions that read and write the thread's floating-point control register."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("NOT TESTED: there is no C compiler to reach the floating-point control register with")
    folder = tmp_path_factory.mktemp("control")
    (folder / "state.c").write_text(STATE)
    command = [compiler, "-O1", "-fopenmp", "-shared", "-fPIC", "-o", "state.so", "state.c"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED on {platform.machine()}: {done.stderr.strip()}")
    library = ctypes.CDLL(str(folder / "state.so"))
    for name in ("state", "states", "flush", "upwards"):
        getattr(library, name).restype = ctypes.c_ulong
    library.set_state.argtypes = library.set_states.argtypes = [ctypes.c_ulong]
    return library


@every_operation
@pytest.mark.parametrize("change", ["flush", "upwards"])
def test_floating_point_control(op: Operation, isa: str, control: ctypes.CDLL, change: str) -> None:
    """Flush-to-zero, or a rounding mode, of the caller and its workers changes no result, and stays set."""
    cases = []
    for shape, axis, dtypes in (
        ((1, 131072), -1, ["float32"]),
        (PARALLEL, -1, ["float64"]),
        (PARALLEL, 0, ["bfloat16"]),
        ((20, 33), -1, FLOATS),
        ((33, 20), 0, FLOATS),
        ((50, 5), -1, FLOATS),
    ):
        for dtype in dtypes:
            x = np.zeros(within_reach(op, shape, axis), dtype_of(dtype))
            x += np.asarray(-100 * np.arange(x.size).reshape(x.shape) / x.size, x.dtype)  # subnormal results, too
            cases.append((x, axis))
    cases += [(x[:, ::2], -1) for x, _ in cases[-4:]]
    given_ = [op.arguments(x, axis) for x, axis in cases]  # NumPy heeds the state
    wanted = [given(op, *a, axis=axis, num_threads=1) for a, (_, axis) in zip(given_, cases, strict=True)]
    results, states = [], []

    def compute() -> None:
        control.set_state(control.state() | getattr(control, change)())
        states.append(control.state())
        fastsoft.softmax(np.zeros(PARALLEL), num_threads=2)  # starts workers, which inherit the state
        for (x, axis), arguments in zip(cases, given_, strict=True):
            if x.size > 10_000:
                time.sleep(0.05)  # were workers late, the calls after that would be on one thread for a while
            for threads in (2, 1):
                results.append(given(op, *arguments, axis=axis, num_threads=threads))
                states.append(control.state())

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join(60)
    assert len(results) == 2 * len(cases)
    assert len({s & ~STATUS for s in states}) == 1
    assert states[0] & getattr(control, change)()
    for k, got in enumerate(results):
        assert_same_bits(got, wanted[k // 2])


@some_operations
@pytest.mark.parametrize("where", ["the caller", "the workers", "both"])
def test_floating_point_control_after_the_start(op: Operation, isa: str, control: ctypes.CDLL, where: str) -> None:
    """Flush-to-zero that another library sets once there are workers, in these or in the caller, changes no result."""
    shape = within_reach(op, PARALLEL)
    x = np.broadcast_to(np.linspace(0, -100, shape[1], dtype="float32"), shape).copy()  # subnormal results, too
    arguments = op.arguments(x)
    want = given(op, *arguments, num_threads=1)
    results, kept = [], []

    def compute() -> None:
        before = control.state()
        results.append(given(op, *arguments, num_threads=2))
        flushing = before | control.flush()
        if where != "the caller":
            control.set_states(flushing)
        control.set_state(before if where == "the workers" else flushing)
        fastsoft.api.kernels.after_fork()  # were workers late, the next call would be on one thread
        results.append(given(op, *arguments, num_threads=2))
        kept.append(control.state() & ~STATUS == (before if where == "the workers" else flushing) & ~STATUS)
        control.set_state(flushing)
        kept.append(where == "the caller" or control.states() & control.flush() == control.flush())

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join(60)
    assert kept == [True, True]
    for got in results:
        assert_same_bits(got, want)


@pytest.mark.parametrize("change", ["flush", "upwards"])
def test_floating_point_control_of_a_state(isa: str, control: ctypes.CDLL, change: str) -> None:
    """The same for rows in chunks, their merging too."""
    x = np.linspace(0, -745, 300_000).reshape(2, -1)  # the sum of the others, and results, are subnormal
    x[1] = -745
    x[1, 0] = 0
    results, states = [], []

    def compute() -> None:
        for threads in (1, 2):
            s = fastsoft.LogSumExp(2).update(x[:, ::2], num_threads=threads)
            s.merge(fastsoft.LogSumExp(2).update(x[:, 1::2].astype(np.float64), num_threads=threads))
            for f in (s.softmax, s.log_softmax, s.softmax_complement):
                results.append(f(x, num_threads=threads))
            results.append(s.result())
        states.append(control.state())

    compute()

    def compute_so() -> None:
        control.set_state(control.state() | getattr(control, change)())
        states.append(control.state())
        compute()

    thread = threading.Thread(target=compute_so)
    thread.start()
    thread.join(60)
    assert states[1] == states[2]
    for k in range(4, len(results)):
        assert_same_bits(results[k], results[k % 4])


@pytest.mark.parametrize("change", ["flush", "upwards"])
def test_floating_point_control_of_options(isa: str, control: ctypes.CDLL, change: str) -> None:
    """The same for what Python makes of temperatures, weights, smoothing and means; nor does anything of it stay."""
    x = 9 * np.random.default_rng(0).normal(size=(7, 50))
    t = np.arange(7)
    soft, weight = fastsoft.softmax(x), np.linspace(0.1, 1.3, 50)
    both = fastsoft.softmax_cross_entropy_with_grad

    def computed() -> list[np.ndarray]:
        found = [fastsoft.softmax(x, temperature=T) for T in (10.1, 0.3, 8e307, 1e-300)]
        for options in ({}, {"weight": weight}, {"label_smoothing": 0.1}, {"weight": weight, "label_smoothing": 0.3}):
            for targets in (t, soft):
                found += both(x, targets, reduction="mean", **options)
        return [*found, *both(np.asfortranarray(x), t, reduction="sum", temperature=7.7)]

    wanted = computed()
    fastsoft._validate._inverse.cache_clear()
    results: list[list[np.ndarray]] = []

    def compute_so() -> None:
        control.set_state(control.state() | getattr(control, change)())
        results.append(computed())

    thread = threading.Thread(target=compute_so)
    thread.start()
    thread.join(60)
    results.append(computed())
    assert len(results) == 2
    for found in results:
        for got, want in zip(found, wanted, strict=True):
            assert_same_bits(got, want)


def test_import_leaves_the_control_register(control: ctypes.CDLL) -> None:
    """Importing the package, and computing in threads, changes no control bit of the importing thread."""
    code = f"""
import ctypes, numpy as np
control = ctypes.CDLL({control._name!r})
control.state.restype = ctypes.c_ulong
before = control.state() & ~{STATUS}
import fastsoft
after = control.state() & ~{STATUS}
fastsoft.softmax(np.zeros((400, 2000)), num_threads=2)
print(before == after == control.state() & ~{STATUS})
"""
    done = python(code)
    assert done.stdout.strip() == "True", done.stderr
