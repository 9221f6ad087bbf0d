"""Large results: memory that is used again, and arrays that behave as any other."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import python

import fastsoft
from fastsoft import _machine, _memory, _validate

SHAPE = (_validate.LARGE // 8 + 5,)
both_sizes = pytest.mark.parametrize("shape", [SHAPE, (_validate.ALIGNED // 8 + 5,)], ids=["large", "medium"])


def address(a: np.ndarray) -> int:
    return int(a.ctypes.data)


@both_sizes
def test_freed_memory_serves_the_next_result(shape: tuple[int]) -> None:
    _memory.release()
    a = _validate.new(shape, np.dtype(float))
    a[:] = 1
    first = address(a)
    b = _validate.new(shape, np.dtype(float))
    assert address(b) != first
    b[:] = 2
    del a
    c = _validate.new((shape[0] - 1,), np.dtype(float))
    assert address(c) == first
    c[:] = 3
    assert (b == 2).all()
    _memory.release()
    assert (c == 3).all()


def test_what_is_marked_as_free() -> None:
    """Of two results freed one after the other the first: the last one goes to the next result as it is."""
    pages = Path("/proc/self/smaps_rollup")
    if not pages.exists():
        pytest.skip("NOT TESTED: the system does not say which pages are marked as free")

    def marked() -> int:
        return int(pages.read_text().partition("LazyFree:")[2].split()[0]) * 1024

    _memory.release()
    a, b = _validate.new(SHAPE, np.dtype(float)), _validate.new(SHAPE, np.dtype(float))
    a[:] = b[:] = 1
    before, size = marked(), a.nbytes
    del a
    assert marked() < before + size // 2
    del b
    assert before + size // 2 < marked() < before + size * 3 // 2
    _memory.release()


@both_sizes
def test_much_larger_blocks_are_not_used_for_less(shape: tuple[int]) -> None:
    _memory.release()
    a = _validate.new((10 * shape[0],), np.dtype(float))
    first = address(a)
    del a
    assert address(_validate.new(shape, np.dtype(float))) != first


def test_results_that_come_and_go_together_fault_no_pages() -> None:
    """Where several are freed at the end of the heap it shrinks: three of 1 MB took 300 page faults a round."""
    resource = pytest.importorskip("resource", reason="NOT TESTED: the system counts no page faults")
    x = np.zeros((256, 1000), np.float32)

    def a_round() -> None:
        y, z = fastsoft.log_softmax(x), fastsoft.softmax(x)
        fastsoft.softmax_vjp(z, y)

    for _ in range(3):
        a_round()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        a_round()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000


def test_a_large_result_is_an_ordinary_array() -> None:
    x = np.zeros((SHAPE[0] // 8, 8))
    y = fastsoft.softmax(x)
    assert y.flags.owndata
    assert y.flags.writeable
    assert y.ctypes.data % 64 == 0
    y.resize((2 * len(x), 8), refcheck=False)
    assert (y[: len(x)] == 0.125).all()
    y.resize((3, 8), refcheck=False)
    assert (y == 0.125).all()
    assert fastsoft.softmax(np.zeros((3, 8))).flags.owndata  # the allocator of other arrays is what it was
    assert np._core.multiarray.get_handler_name(y) == "fastsoft"
    assert np._core.multiarray.get_handler_name(np.zeros(SHAPE)) == "default_allocator"


@both_sizes
def test_many_python_threads(shape: tuple[int]) -> None:
    """No block is given to two arrays at once."""
    wrong = []

    def work(number: int) -> None:
        for k in range(30):
            a = _validate.new((shape[0] + 1000 * (k % 3),), np.dtype(float))
            a[::512] = number
            if not (a[::512] == number).all():
                wrong.append(number)
            del a

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_results_that_are_not_small_begin_at_a_line() -> None:
    x = np.random.default_rng(0).normal(size=(100, _validate.ALIGNED // 400))
    for y in (
        fastsoft.softmax(x),
        fastsoft.softmax(x, temperature=2),
        fastsoft.softmax_vjp(x, x),
        fastsoft.softmax_cross_entropy_with_grad(x, np.zeros(100, int))[1],
    ):
        assert address(y) % 64 == 0
        assert y.flags.owndata
        assert np._core.multiarray.get_handler_name(y) == "fastsoft_lines"
        kept = y.copy()
        y.resize((200, x.shape[1]), refcheck=False)
        assert (y[:100] == kept).all()
        y.resize((3, x.shape[1]), refcheck=False)
        assert (y == kept[:3]).all()
    assert np._core.multiarray.get_handler_name(np.zeros(x.shape)) == "default_allocator"


# ---- nothing beyond an array ----

FENCED = """
import ctypes, mmap, sys
import numpy as np
import fastsoft
from fastsoft.reference import OPS
from helpers import dtype_of

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
kept = []

def fenced(a, at_end):  # a copy that ends, or begins, where no memory is
    if not a.nbytes:
        return a
    pages = -(-a.nbytes // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    first = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for fence in (first, first + (pages + 1) * PAGE):
        assert libc.mprotect(ctypes.c_void_p(fence), ctypes.c_size_t(PAGE), 0) == 0
    kept[:] = [*kept[-9:], memory]
    start = PAGE + (pages * PAGE - a.nbytes if at_end else 0)
    b = np.frombuffer(memory, a.dtype, a.size, start).reshape(a.shape)
    b[...] = a
    return b

def same(a, b):
    return np.array_equal(a, b, equal_nan=True)

def results(y):
    return y if isinstance(y, tuple) else (y,)

for dtype in map(dtype_of, ("float16", "bfloat16", "float32", "float64")):
    for op in OPS:
        for rows, n in ((1, 1), (3, 5), (16, 3), (32, 2), (40, 7), (16, 33), (3, 100)) if op.classes > 1 else (
            (1, 1), (3, 5), (16, 3), (32, 2), (40, 7), (16, 33), (3, 100), (70, 16), (2, 4099), (1, 20_003)):
            x = np.random.default_rng(n).normal(0, 3, (rows, n)).astype(dtype)
            for axis in (-1, 0):
                arguments = op.arguments(x if axis else np.ascontiguousarray(x.T), axis)
                function = getattr(fastsoft, op.name)
                want = results(function(*arguments, axis))
                out = want[-1]
                for at_end in (True, False):
                    got = results(function(*(fenced(a, at_end) for a in arguments), axis, out=fenced(out, at_end)))
                    assert all(map(same, got, want)), (op.name, dtype, x.shape)
                    if op.name == "softmax":  # masks, and weights of classes and targets made of them
                        own, mask = arguments[0], arguments[0] > 0
                        for m in (mask[:1], mask[:, :1], mask):  # the first two are broadcast
                            got = function(fenced(own, at_end), axis, where=fenced(m, at_end), temperature=2)
                            assert same(got, function(own, axis, where=m, temperature=2))
                        some = np.s_[::2, ::2]
                        apart = function(fenced(own, at_end)[some], axis, where=fenced(mask, at_end)[some])
                        assert same(apart, function(own[some].copy(), axis, where=mask[some].copy()))
                        for t in (np.arange(rows) % n, *([got] if dtype.itemsize > 2 else [])):
                            for smoothing in (0, 0.1):
                                loss, slope = fastsoft.softmax_cross_entropy_with_grad(
                                    fenced(own, at_end), fenced(t, at_end), axis, label_smoothing=smoothing,
                                    weight=fenced(np.ones(n), at_end), out=fenced(out, at_end))
                                want_ = fastsoft.softmax_cross_entropy(own, t, axis, label_smoothing=smoothing)
                                assert same(loss, want_)
    for far in (0, 1e9, 1e20):
        x = (np.random.default_rng(0).normal(0, 3, (3, 4101)) + far).astype(dtype if far < 1e5 else np.float64)
        state = fastsoft.LogSumExp(3, dtype=x.dtype)
        for at_end in (True, False):
            y = state.update(fenced(x, at_end)).softmax(fenced(x, at_end), out=fenced(x, at_end))
            state.log_softmax(fenced(x, at_end), out=fenced(y, at_end))
print("nothing")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: memory is fenced off by calls of Linux")
def test_nothing_is_touched_beyond_an_array(isa: str) -> None:
    """Arguments and results that end, and that begin, where there is no memory: a process that touches that dies."""
    done = python(FENCED, FASTSOFT_ISA=isa, PYTHONPATH=str(Path(__file__).parent), timeout=200)
    assert (done.returncode, done.stdout) == (0, "nothing\n"), done.stdout + done.stderr


# ---- where there is no more ----

linux = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: a limit on memory needs Linux")
LIMITED = """
import os, resource, zlib
import numpy as np
import fastsoft
from fastsoft._dispatch import kernels
from fastsoft.reference import OPS

small = np.random.default_rng(0).normal(0, 5, (400, 2000)).astype("float32")
long, wide = small.reshape(1, -1), np.ascontiguousarray(small[:, :40])
logits = np.zeros((1 << 15, 16), np.float32)
matrices = np.empty((*logits.shape, 16), np.float32)
results = np.empty_like(small), np.empty(1, np.float32), np.empty((400, 40, 40), np.float32)
allocator = np._core.multiarray.get_handler_name

def compute(threads):  # with little memory
    for y in results:
        y.fill(0)
    fastsoft.softmax(small, out=results[0], num_threads=threads)
    fastsoft.logsumexp(long, out=results[1], num_threads=threads)
    fastsoft.softmax_jacobian(wide, out=results[2], num_threads=threads)
    return [zlib.crc32(y) for y in results]

want = compute(1)

def limit(room):  # in bytes, beyond what the process has now
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + room, resource.RLIM_INFINITY))

def unlimit():
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

def refused(function, *arguments, **options):
    try:
        function(*arguments, **options)
    except MemoryError as error:
        return str(error)
    raise AssertionError(f"{function.__name__} had enough")
"""


def limited(code: str) -> None:
    """Run a program that limits its memory. Nothing is in reserve: blocks of 64 KB or more are mapped one by one."""
    reserve = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    done = python(LIMITED + code + "\nprint('ended')", timeout=100, **reserve)
    assert (done.returncode, done.stdout) == (0, "ended\n"), done.stdout + done.stderr


@linux
@pytest.mark.parametrize("threads", [1, 2])
def test_no_memory_for_results(threads: int) -> None:
    """MemoryError, for huge results and for ordinary ones, and then the process computes on."""
    limited(f"""
assert compute({threads}) == want
def refuse(op, rows, n):
    arguments = [np.broadcast_to(a, (rows, *a.shape[1:])) for a in op.arguments(np.zeros((1, n), np.float32))]
    refused(getattr(fastsoft, op.name), *arguments, num_threads={threads})
    assert allocator(np.zeros(100000)) == "default_allocator"
limit(64 << 20)
for op in OPS:
    refuse(op, *(((1 << 25, 1), (1 << 15, 1 << 10), (1, 1 << 13))[op.classes]))
    assert compute({threads}) == want
limit(1 << 20)
for op in OPS:
    refuse(op, *(((1 << 20, 1), (1 << 20, 2), (1 << 13, 16))[op.classes]))
refused(fastsoft.softmax, small)  # the short way
refused(fastsoft.softmax_vjp, small, small)
assert allocator(np.zeros(100000)) == "default_allocator"
limit(64 << 20)
assert compute({threads}) == want
""")


@linux
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_no_memory_for_scratch(threads: int) -> None:
    """Likewise for what a call needs while it runs: a row in the type that is computed in, on each thread."""
    limited(f"""
assert compute({threads}) == want
x, t = np.broadcast_to(np.float16(0), (2, 1 << 28)), np.zeros(2, int)
limit(64 << 20)
for call in (fastsoft.logsumexp, x), (fastsoft.softmax_cross_entropy, x, t):
    for _ in range(2):
        assert "scratch rows of 268435456 classes" in refused(*call, num_threads={threads})
    assert compute({threads}) == want
limit(1 << 20)
for _ in range(2):
    what = refused(fastsoft.softmax_jacobian, logits, out=matrices, num_threads={threads})
    assert "probabilities of 32768 rows of 16 classes" in what
limit(64 << 20)
assert compute({threads}) == want
fastsoft.softmax_jacobian(logits, out=matrices, num_threads={threads})
""")


@linux
@pytest.mark.parametrize("room", ["2 << 20", "20 << 20", "40 << 20"])
def test_no_memory_for_threads(room: str) -> None:
    """Where the system gives no threads, or fewer, the call does with those there are."""
    if not _machine.openmp():
        pytest.skip("NOT TESTED: built without threads")
    limited(f"""
limit({room})
for threads in (2, 4, 30, 3):
    kernels.after_fork()
    assert compute(threads) == want, threads
unlimit()
assert compute(4) == want
kernels.after_fork()  # were workers late, this call would be on one thread
fastsoft.softmax(small, num_threads=4)
assert len(os.listdir("/proc/self/task")) >= 4
""")


@linux
def test_kept_memory_goes_where_there_is_no_other() -> None:
    """What is kept for the next result is given up for one that it is too small for."""
    limited("""
x, more = np.zeros((50_000, 1000), np.float32), np.zeros((55_000, 1000), np.float32)
kept = fastsoft.softmax(x)  # 200 MB
limit(100 << 20)
refused(fastsoft.softmax, x)
del kept
y = fastsoft.softmax(more)
assert y[0, 0] == y[-1, -1] == np.float32(0.001)
""")


NO_THREAD = """
import os, resource, threading
import numpy as np
import fastsoft

n = 65536
x = np.random.default_rng(0).standard_normal(((1 << 24) // n + 1, n), np.float32)  # its last piece is one row
out, want = np.zeros_like(x), fastsoft.log_softmax(x[-1:])
fastsoft.log_softmax(x, out=out, num_threads=2)
out[...] = 0
go = threading.Event()

def work():
    go.wait()
    fastsoft.log_softmax(x, out=out, num_threads=2)

thread = threading.Thread(target=work)
thread.start()
pages = int(open("/proc/self/statm").read().split()[0])
room = pages * os.sysconf("SC_PAGE_SIZE") + (3 << 20)
resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))
go.set()
thread.join()
print(np.array_equal(out[-1:], want))
"""


@linux
def test_no_memory_for_a_second_thread(isa: str) -> None:
    """A row that two threads should share, past the caches, when there is none for the second: one computes it."""
    done = python(NO_THREAD, FASTSOFT_ISA=isa, timeout=200)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stdout + done.stderr
