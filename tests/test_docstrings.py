"""The docstrings of all that is public: numpydoc finds nothing wrong, and what it does not ask for is there as well."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

import fastsoft
from fastsoft.compat import scipy as compat

MODULES = ("_config", "_threads", "_validate", "api", "compat.scipy", "derivatives", "losses", "state")
UNCHOSEN = {
    "GL01",  # the summary stands beside the quotes
    "SS05",  # takes "Probabilities" for a verb
    "ES01",  # Notes are enough of a longer description
    "SA01",  # links stand in sentences
}


def names() -> Iterator[str]:
    """Public functions and classes, and the public members of these."""
    for name in fastsoft.__all__:
        if name != "__version__":
            yield f"fastsoft.{name}"
        if inspect.isclass(owner := getattr(fastsoft, name)):
            members = inspect.getmembers(owner, lambda m: inspect.isfunction(m) or isinstance(m, property))
            yield from (f"fastsoft.{name}.{member}" for member, _ in members if not member.startswith("_"))
    yield from (f"fastsoft.compat.scipy.{name}" for name in compat.__all__)


def found(name: str) -> Any:
    """What has this name."""
    value: Any = fastsoft
    for part in name.split(".")[1:]:
        value = getattr(value, part)
    return value if isinstance(value, property) else inspect.unwrap(value)  # not the compiled way in


def takes_arrays(name: str) -> bool:
    """Whether it is a function or method whose first argument is an array."""
    value = found(name)
    arguments = inspect.signature(value).parameters if inspect.isfunction(value) else ()
    return next((a for a in arguments if a != "self"), "") in ("a", "chunk", "v", "w", "x", "y", "z")


def test_numpydoc_finds_nothing() -> None:
    """The sections are there, in order, and name each argument with a type; there are examples."""
    validate = pytest.importorskip("numpydoc.validate", reason="NOT TESTED: numpydoc, of the group docs, is not here")
    docscrape = pytest.importorskip("numpydoc.docscrape")
    wrong = {}
    for name in names():
        unchosen = UNCHOSEN | {"EX01"} if isinstance(found(name), property) else UNCHOSEN
        doc = docscrape.get_doc_object(found(name))  # by its name it would be the compiled way in
        errors = [error for error in validate.validate(doc)["errors"] if error[0] not in unchosen]
        if errors:
            wrong[name] = errors
    assert wrong == {}


@pytest.mark.parametrize("name", [name for name in names() if takes_arrays(name)])
def test_what_takes_arrays(name: str) -> None:
    """Says shapes and errors; a function, rather than a method, also its source and what Dask arrays give."""
    text = inspect.getdoc(found(name)) or ""
    sections = re.findall(r"^([A-Z][a-z]+)\n-+$", text, re.M)
    assert {"Parameters", "Returns", "Raises", "Examples"} <= set(sections)
    assert "shape" in text
    if not re.search(r"\.[A-Z]", name):
        assert "References" in sections
        assert re.search(r"Dask\s+arrays\s+give\s+((a|two)\s+)?Dask\s+arrays?,\s+lazily", text)


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str) -> None:
    """They give what they say."""
    failed, tried = doctest.testmod(importlib.import_module(f"fastsoft.{module}"))
    assert tried and not failed
