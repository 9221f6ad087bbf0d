"""How many threads, and when none. Small work stays on the caller's thread whatever is set here (see threads.pxi)."""

from __future__ import annotations

import contextlib
import math
import operator
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from . import _machine
from ._dispatch import kernels
from ._entry import general

LIMIT = 4096  # more is a mistake


class _Local(threading.local):
    count: int | None = None  # of `num_threads`, for this thread


_local = _Local()
_global: int | None = None  # of `set_num_threads`
_default: int | None = None  # read once, and again after a fork
_serial = False  # in a child whose parent's OpenMP could not be paused


def checked(n: object, name: str = "num_threads") -> int:
    """A number of threads, or an error that names the argument."""
    if isinstance(n, bool):
        raise TypeError(f"{name} must be an int, got bool")
    try:
        count = operator.index(n)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an int, got {type(n).__name__}") from None
    if not 1 <= count <= LIMIT:
        raise ValueError(f"{name} must be from 1 to {LIMIT}, got {count}")
    return count


def _of_environment() -> int | None:
    """FASTSOFT_NUM_THREADS, else OMP_NUM_THREADS (which may be a list, one number for each level)."""
    for name in ("FASTSOFT_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").split(",")[0].strip()
        if text.isascii() and text.isdigit() and int(text) > 0:
            return min(int(text), LIMIT)
    return None


def _of_affinity(root: Path) -> int:
    """Physical cores among the CPUs that this process may use."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    cpus = os.sched_getaffinity(0)
    cores = set()
    for cpu in cpus:
        try:
            cores.add((root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def _of_quota(root: Path) -> int | None:
    """The cgroup's CPU quota, rounded up: of this process's groups, and the groups above them, the smallest."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    found: list[float] = []
    for line in lines:
        _, controllers, group = (line + "::").split(":", 2)
        group = group.removesuffix("::")
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / (controllers if controllers else "")
        for folder in (group, *map(str, Path(group).parents)):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                place = base / folder.lstrip("/")
                if controllers:
                    quota, period = ((place / f"cpu.cfs_{k}_us").read_text() for k in ("quota", "period"))
                else:
                    quota, period = (place / "cpu.max").read_text().split()
                if quota.strip() not in ("max", "-1"):
                    found.append(int(quota) / int(period))
    return max(1, math.ceil(min(found))) if found else None


def default_num_threads(root: str = "/") -> int:
    """What the environment says, else the smallest of affinity, cgroup quota and physical cores."""
    named = _of_environment()
    if named is not None:
        return named
    return min(_of_affinity(Path(root)), _of_quota(Path(root)) or LIMIT, LIMIT)


def get_num_threads() -> int:
    """Return the number of threads that a call may use.

    Returns
    -------
    int
        Of `num_threads` in this thread, else of `set_num_threads`, else the default: ``FASTSOFT_NUM_THREADS``,
        else ``OMP_NUM_THREADS``, else the smallest of CPU affinity, cgroup quota and physical cores.

    Examples
    --------
    >>> import fastsoft
    >>> fastsoft.set_num_threads(2)
    >>> fastsoft.get_num_threads()
    2
    """
    global _default
    if _serial:
        return 1
    if _local.count is not None:
        return _local.count
    if _global is not None:
        return _global
    if _default is None:
        _default = default_num_threads()
    return _default


def set_num_threads(n: int) -> None:
    """Set the number of threads that calls may use, in the whole process.

    Parameters
    ----------
    n : int
        From 1 to 4096. Small work runs on the caller's thread whatever is set.

    Raises
    ------
    TypeError, ValueError
        `n` is not an int, or not in that range.

    Examples
    --------
    >>> import fastsoft
    >>> fastsoft.set_num_threads(2)
    """
    global _global
    _global = checked(n, "n")


@contextlib.contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Set the number of threads inside a ``with`` block, for this thread only.

    Parameters
    ----------
    n : int
        From 1 to 4096.

    Yields
    ------
    None
        The number that was set before counts again when the block ends.

    Raises
    ------
    TypeError, ValueError
        `n` is not an int, or not in that range.

    Examples
    --------
    >>> import fastsoft
    >>> with fastsoft.num_threads(1):
    ...     fastsoft.get_num_threads()
    1
    """
    count, before = checked(n, "n"), _local.count
    _local.count = count
    try:
        yield
    finally:
        _local.count = before


def allowed(n: object) -> int:
    """The number of threads of a call whose argument ``num_threads`` is `n`."""
    if n is None:
        return get_num_threads()
    count = checked(n)
    return 1 if _serial else count


general["allowed"] = allowed  # the compiled ways in ask, for large arrays and where a number is given


_paused = False


def _before_fork() -> None:
    """End the workers: a child that found them gone would wait for them for good (as PyTorch's did)."""
    global _paused
    _paused = _machine.openmp() == 0 or _machine.pause_openmp()
    kernels.before_fork()


def _after_fork_in_child() -> None:
    global _default, _serial
    _default = None
    _serial = _serial or not _paused
    kernels.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
