"""The ways into the public functions. Each is compiled, in kernels/entry.pxi: it answers plain calls itself, in a few
checks, and passes all others on to the function in Python of the same name, which validates."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

general: dict[str, Callable[..., Any]] = {}  # what the kernels call in Python, by name

F = TypeVar("F", bound=Callable[..., Any])


def entry(kernels: ModuleType, name: str) -> Any:
    """The compiled way into a public function, with the signature and the docstring of that in Python."""
    return functools.update_wrapper(getattr(kernels, name), general[name])


def public(function: F) -> F:
    """In place of a public function its compiled way in."""
    from ._dispatch import kernels  # which read `general` while they are loaded

    general[function.__name__] = function
    return entry(kernels, function.__name__)  # type: ignore[no-any-return]
