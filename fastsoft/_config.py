"""What this installation is and what it chose."""

from __future__ import annotations

import functools
import importlib.metadata

from . import _dispatch, _machine
from ._threads import get_num_threads


@functools.cache
def version() -> str:
    """The installed version; from the package's metadata, the one place that has it."""
    return importlib.metadata.version("fastsoft")


def show_config() -> None:
    """Print the version, the instruction sets built and chosen, OpenMP, and the number of threads.

    Examples
    --------
    >>> import fastsoft
    >>> fastsoft.show_config()  # doctest: +ELLIPSIS
    fastsoft ...
    """
    openmp = _machine.openmp()
    print(f"fastsoft {version()}")
    print(f"instruction sets: built {', '.join(_dispatch.built())}; this CPU runs {', '.join(_dispatch.available())}")
    print(f"chosen:           {_dispatch.isa}")
    print(f"OpenMP:           {openmp if openmp else 'no (built without it: one thread)'}")
    print(f"threads:          {get_num_threads()}")
