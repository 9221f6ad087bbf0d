"""Apply a softmax-like function to arrays in files or pipes, into another one.

.npy files are memory-mapped, so they may be larger than memory; arrays of an .npz, and standard input, are read into
it. An array in C order is seen as (outer, n, inner) around its axis of n classes, and blocks are cut from outer and
inner: none holds a part of a row, so a block gives what the whole array would.
"""

from __future__ import annotations

import errno
import io
import math
import mmap
import os
import secrets
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, TypeVar

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

Array = np.ndarray[Any, Any]
Block = tuple[slice, slice]
Progress = Callable[[Sequence[Any]], Iterable[Any]]  # passes the items of a sequence on, as tqdm does
Read = TypeVar("Read")

BLOCK = 32 << 20  # bytes of input in a block, about
PIECE = 4096  # bytes: no cut through a line of memory is narrower, since whole pages are read from the file

ARRAY = ".npy file of numbers"


def stream(
    function: Callable[..., Array],
    source: str,
    target: str,
    *,
    axis: int = -1,
    arrays: Sequence[str] = (),
    force: bool = False,
    progress: Progress = iter,
    **options: Any,
) -> None:
    """Write function(array in `source`, axis, **options) to `target`, which appears complete or not at all.

    "-" is standard input, or output. Of an .npz each array, or those that `arrays` names, goes into another .npz.
    """
    path = _checked_target(source, target, force)

    def write(file: IO[bytes], x: Array, place: str, mapped: bool = False) -> None:
        _write(file, mapped, function, x, axis, place, progress, options)

    if is_npz(source):
        with _read(source, ".npz file", lambda: zipfile.ZipFile(_seekable(source))) as archive:
            members = _members(archive, source, arrays)

            def write_all(file: IO[bytes]) -> None:
                with zipfile.ZipFile(file, "w") as output:
                    for name, member in members.items():
                        place = f"{source}: {name}"
                        with (
                            _read(place, ARRAY, archive.open, member) as part,
                            output.open(member, "w", force_zip64=True) as result,
                        ):
                            write(result, _read(place, ARRAY, _whole, part), place)

            _save(path, force, write_all)
    else:
        place = "standard input" if source == "-" else source
        if source == "-" and sys.stdin is None:
            raise ValueError("standard input is closed; the bytes of an .npy file need a pipe or < FILE")
        x = _read(place, ARRAY, lambda: _whole(sys.stdin.buffer) if source == "-" else _map(source))
        _save(path, force, lambda file: write(file, x, place, mapped=path is not None))


def is_npz(name: str) -> bool:
    """Whether a file of this name holds several arrays."""
    return name.lower().endswith(".npz")


def _read(place: str, kind: str, read: Callable[..., Read], *arguments: Any) -> Read:
    """What read(*arguments) gives; errors say that `place` should be a file of this kind."""
    try:
        return read(*arguments)
    except (OSError, MemoryError) as error:
        raise ValueError(f"{place}: {getattr(error, 'strerror', None) or error}") from error
    except Exception as error:  # a damaged header raises nearly anything
        raise ValueError(f"{place}: not a complete {kind}: {error}") from error


def _map(source: str) -> Array:
    """Map an .npy file, or read it where it has no place to map, as a pipe."""
    if not Path(source).is_file():
        with open(source, "rb") as file:
            return _whole(file)
    return np.lib.format.open_memmap(source, mode="r")  # nothing is ever unpickled


def _seekable(source: str) -> str | IO[bytes]:
    """What zipfile, which begins at the end, reads of a file, or of a pipe."""
    return source if Path(source).is_file() or not os.path.lexists(source) else io.BytesIO(Path(source).read_bytes())


def _whole(file: IO[bytes]) -> Array:
    """Read the array of an .npy file to its end, where a zip file finds out whether it is what was written."""
    start = [file.read(2)]
    if start == [b"PK"]:
        raise ValueError("it looks like an .npz, which is read only from a file whose name ends so")
    # With no other attribute NumPy takes no file for one in which it could seek.
    reader = SimpleNamespace(read=lambda size: start.pop() if start else file.read(size))
    x: Array = np.lib.format.read_array(reader, allow_pickle=False)
    if file.read(1):
        raise ValueError("there are more bytes after the array")
    return x


def _members(archive: zipfile.ZipFile, source: str, names: Sequence[str]) -> dict[str, str]:
    """Where each array lies in an .npz: all of them, or those with these names."""
    found = {member.removesuffix(".npy"): member for member in archive.namelist()}
    for name in names:
        if name not in found:
            raise ValueError(f"--array {name}: {source} has no such array; it has: {', '.join(found) or 'none'}")
    return {name: found[name] for name in names or found}


def _checked_target(source: str, name: str, force: bool) -> Path | None:
    """The file to create or to replace, behind symbolic links, or None for "-"; an error if that may not be done."""
    if name == "-":
        if sys.stdout is None or sys.stdout.isatty():
            raise ValueError("standard output is closed or a terminal; the bytes of an .npy file need a pipe or > FILE")
        return None
    target = Path(name)
    if not target.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "no such directory", str(target.parent))
    if not os.path.lexists(target):
        return target
    if source != "-" and target.exists() and target.samefile(source):
        raise ValueError(f"{target}: the output is the input file {source}; it must be another one")
    if not force:
        raise FileExistsError(errno.EEXIST, "the output exists already; --force replaces it", str(target))
    if not target.is_file():
        raise ValueError(f"{target}: not a regular file; only such a one can be replaced")
    return target.resolve()


def _save(target: Path | None, force: bool, write: Callable[[IO[bytes]], None]) -> None:
    """Let `write` fill a file that has the name `target` when it is complete; None is standard output."""
    if target is None:
        try:
            # A file of its own: what an error leaves in a buffer is not written once more when Python ends.
            with open(sys.stdout.fileno(), "wb", closefd=False) as file:
                write(file)
        except OSError as error:
            raise OSError(error.errno, error.strerror, "standard output") from error
        return
    # A short name of its own, since the target's may have the greatest length; known before the file exists.
    temporary = target.with_name(f".fastsoft-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, target, force)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write(
    file: IO[bytes],
    mapped: bool,
    function: Callable[..., Array],
    x: Array,
    axis: int,
    place: str,
    progress: Progress,
    options: dict[str, Any],
) -> None:
    """Write header and data of function(x), in the memory order of `x`, to a mapped file or one block after the other.

    Nothing is written where the axis, the dtype or the options are wrong.
    """
    axis = normalize_axis_index(axis, max(x.ndim, 1), place)
    if x.dtype == "V2":
        raise TypeError(f"{place}: dtype V2 is not supported; if it was bfloat16, .npy files lose that: save float32")
    try:
        sample = function(np.zeros((1, 1, 1), x.dtype), axis=1, **options)  # also checks the dtype and the options
    except TypeError as error:
        raise TypeError(f"{place}: {error}") from error
    reduces = sample.ndim == 2
    shape = x.shape[:axis] + x.shape[axis + 1 :] if reduces else x.shape
    fortran = x.flags.f_contiguous and not x.flags.c_contiguous
    header = {"descr": np.lib.format.dtype_to_descr(sample.dtype), "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    maps: list[Any] = [x.base]  # the mmap object, if it is one
    if fortran:  # the same memory, seen in C order
        x, axis = x.T, x.ndim - 1 - axis
    outer, n, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis : axis + 1]), math.prod(x.shape[axis + 1 :])
    x = x.reshape(outer, n, inner)
    if mapped:
        y = _create(file, sample.dtype, (outer, inner) if reduces else x.shape)
        maps.append(y.base)
        blocks = _blocks(outer, n, inner, x.dtype.itemsize)
    else:  # in the order of the file: no cuts through inner
        blocks = _blocks(outer, n, 1, inner * x.dtype.itemsize)
    for i, j in progress(blocks):
        if mapped:
            function(x[i, :, j], axis=1, out=y[i, j] if reduces else y[i, :, j], **options)
        else:
            file.write(function(x[i], axis=1, **options).data)
        for pages in maps:
            if hasattr(pages, "madvise"):  # give back the memory of what is done; the data stay in the file
                pages.madvise(mmap.MADV_DONTNEED)
    if mapped:
        y.flush()


def _create(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Map the data after the header."""
    offset = file.tell()
    _allocate(file, math.prod(shape) * dtype.itemsize)
    return np.memmap(file, dtype, "r+", offset, shape)


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
