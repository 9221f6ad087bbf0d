"""Large results: memory that is used again, and arrays that behave as any other."""

from __future__ import annotations

import threading

import numpy as np

import fastsoft
from fastsoft import _memory, _validate

SHAPE = (_validate.LARGE // 8 + 5,)


def address(a: np.ndarray) -> int:
    return int(a.ctypes.data)


def test_freed_memory_serves_the_next_result() -> None:
    _memory.release()
    a = _validate.new(SHAPE, np.dtype(float))
    a[:] = 1
    first = address(a)
    b = _validate.new(SHAPE, np.dtype(float))
    assert address(b) != first
    b[:] = 2
    del a
    c = _validate.new((SHAPE[0] - 1,), np.dtype(float))
    assert address(c) == first
    c[:] = 3
    assert (b == 2).all()
    _memory.release()
    assert (c == 3).all()


def test_much_larger_blocks_are_not_used_for_less() -> None:
    _memory.release()
    a = _validate.new((10 * SHAPE[0],), np.dtype(float))
    first = address(a)
    del a
    assert address(_validate.new(SHAPE, np.dtype(float))) != first


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


def test_many_python_threads() -> None:
    """No block is given to two arrays at once."""
    wrong = []

    def work(number: int) -> None:
        for k in range(30):
            a = _validate.new((SHAPE[0] + 1000 * (k % 3),), np.dtype(float))
            a[::4096] = number
            if not (a[::4096] == number).all():
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
