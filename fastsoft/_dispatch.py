"""Which compiled variant runs here. `load` is the only door to `fastsoft.isa`: importing a variant that the CPU
lacks would crash, since its module initialisation already holds such instructions."""

from __future__ import annotations

import importlib
import importlib.util
import os
from types import ModuleType

from . import _machine

ORDER = ("avx512", "avx2", "neon", "portable")  # the fastest first


def built() -> tuple[str, ...]:
    """The variants that this installation holds."""
    return tuple(isa for isa in ORDER if importlib.util.find_spec(f"{__package__}.isa.{isa}") is not None)


def available() -> tuple[str, ...]:
    """The variants that this installation holds and this CPU runs, the fastest first."""
    return tuple(isa for isa in built() if _machine.runs(isa))


def load(isa: str) -> ModuleType:
    """The kernels compiled for `isa`; ImportError where that is impossible."""
    if isa not in ORDER or not _machine.runs(isa) or importlib.util.find_spec(f"{__package__}.isa.{isa}") is None:
        raise ImportError(f"the instruction set {isa!r} is not available: built {built()}, this CPU runs {available()}")
    return importlib.import_module(f"{__package__}.isa.{isa}")


def choose() -> tuple[str, ModuleType]:
    """The variant that FASTSOFT_ISA names, else the fastest."""
    wanted = os.environ.get("FASTSOFT_ISA", "")
    if wanted:
        try:
            return wanted, load(wanted)
        except ImportError as error:
            raise ImportError(f"FASTSOFT_ISA: {error}") from None
    for isa in ORDER:  # the first that is there; `available` would look for all
        if _machine.runs(isa) and importlib.util.find_spec(f"{__package__}.isa.{isa}") is not None:
            return isa, load(isa)
    raise ImportError("fastsoft holds no compiled variant that this CPU runs; build it again with pip")


isa, kernels = choose()
