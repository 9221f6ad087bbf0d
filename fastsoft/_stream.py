"""Apply a softmax-like function to an .npy file larger than memory, into another .npy file.

Both files are memory-mapped. An array in C order is seen as (outer, n, inner) around its axis of n classes,
and blocks are cut from outer and inner: none holds a part of a row, so a block gives what the whole array would.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

Array = np.ndarray[Any, Any]
Block = tuple[slice, slice]
Progress = Callable[[Sequence[Any]], Iterable[Any]]  # passes the items of a sequence on, as tqdm does

BLOCK = 32 << 20  # bytes of input in a block, about
PIECE = 4096  # bytes: no cut through a line of memory is narrower, since whole pages are read from the file


def stream(
    function: Callable[..., Array],
    source: str | Path,
    target: str | Path,
    *,
    axis: int = -1,
    force: bool = False,
    progress: Progress = iter,
    **options: Any,
) -> None:
    """Write function(array in `source`, axis, **options) to `target`, which appears complete or not at all."""
    source, target = Path(source), Path(target)
    x = _open(source)
    axis = normalize_axis_index(axis, max(x.ndim, 1), str(source))
    try:
        sample = function(np.zeros((1, 1, 1), x.dtype), axis=1, **options)  # also checks the dtype and the options
    except TypeError as error:
        raise TypeError(f"{source}: {error}") from error
    target = _checked_target(source, target, force)
    # A short name of its own, since the target's may have the greatest length; known before the file exists.
    temporary = target.with_name(f".fastsoft-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x+b") as file:
            _write(file, function, x, axis, sample, progress, options)
            os.fsync(file.fileno())
        _publish(temporary, target, force)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _open(source: Path) -> Array:
    """Map an .npy file; nothing in it is ever unpickled."""
    try:
        x: Array = np.lib.format.open_memmap(source, mode="r")
    except OSError:
        raise
    except Exception as error:  # a damaged header raises nearly anything
        raise ValueError(f"{source}: not a complete .npy file of numbers: {error}") from error
    if x.dtype == "V2":
        raise TypeError(f"{source}: dtype V2 is not supported; if it was bfloat16, .npy files lose that: save float32")
    return x


def _checked_target(source: Path, target: Path, force: bool) -> Path:
    """The file to create or to replace, behind symbolic links; an error if that may not be done."""
    if not target.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "no such directory", str(target.parent))
    if not os.path.lexists(target):
        return target
    if target.exists() and target.samefile(source):
        raise ValueError(f"{target}: the output is the input file {source}; it must be another one")
    if not force:
        raise FileExistsError(errno.EEXIST, "the output exists already; --force replaces it", str(target))
    if not target.is_file():
        raise ValueError(f"{target}: not a regular file; only such a one can be replaced")
    return target.resolve()


def _write(
    file: IO[bytes],
    function: Callable[..., Array],
    x: Array,
    axis: int,
    sample: Array,
    progress: Progress,
    options: dict[str, Any],
) -> None:
    """Write header and data of function(x), in the memory order of `x`; `sample` is the result for shape (1, 1, 1)."""
    reduces = sample.ndim == 2
    shape = x.shape[:axis] + x.shape[axis + 1 :] if reduces else x.shape
    fortran = x.flags.f_contiguous and not x.flags.c_contiguous
    out = _create(file, sample.dtype, shape, fortran)
    maps: list[Any] = [x.base, out.base]  # the mmap objects
    y: Array = out
    if fortran:  # the same memory, seen in C order
        x, y, axis = x.T, y.T, x.ndim - 1 - axis
    outer, n, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis : axis + 1]), math.prod(x.shape[axis + 1 :])
    x = x.reshape(outer, n, inner)
    y = y.reshape((outer, inner) if reduces else x.shape)
    for i, j in progress(_blocks(outer, n, inner, x.dtype.itemsize)):
        function(x[i, :, j], axis=1, out=y[i, j] if reduces else y[i, :, j], **options)
        for pages in maps:
            if hasattr(pages, "madvise"):  # give back the memory of what is done; the data stay in the file
                pages.madvise(mmap.MADV_DONTNEED)
    out.flush()


def _create(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool) -> np.memmap[Any, Any]:
    """Write the header to an empty file and map the data after it."""
    descr = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": fortran, "shape": shape})
    offset = file.tell()
    _allocate(file, math.prod(shape) * dtype.itemsize)
    return np.memmap(file, dtype, "r+", offset, shape, "F" if fortran else "C")


def _allocate(file: IO[bytes], size: int) -> None:
    """Set room aside after the header: on a full disk a write to the map would kill the process (SIGBUS)."""
    file.flush()
    if size and hasattr(os, "posix_fallocate"):
        try:
            return os.posix_fallocate(file.fileno(), file.tell(), size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # the file system cannot do it
                raise
    zeros = bytes(1 << 20)
    for start in range(0, size, len(zeros)):
        file.write(zeros[: size - start])
    file.flush()


def _blocks(outer: int, n: int, inner: int, itemsize: int) -> list[Block]:
    """Cut outer into blocks of about BLOCK bytes, and inner too where (n, inner) alone is larger."""
    size = n * inner * itemsize
    if not size:
        return [(slice(None), slice(None))]
    count, width = max(BLOCK // size, 1), inner
    if size > BLOCK:
        piece = max(PIECE // itemsize, 1)
        width = max(BLOCK // (n * piece * itemsize), 1) * piece
    return [(slice(i, i + count), slice(j, j + width)) for i in range(0, outer, count) for j in range(0, inner, width)]


def _publish(temporary: Path, target: Path, force: bool) -> None:
    """Give the complete file its name; without `force` nothing that has that name by now is replaced."""
    if force:
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target)
    except OSError as error:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "the output appeared meanwhile and is kept") from error
        temporary.rename(target)  # the file system has no hard links
    else:
        temporary.unlink()
