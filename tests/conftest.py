"""Fixtures and settings of the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers import use
from hypothesis import HealthCheck, settings

import fastsoft
from fastsoft import _dispatch, _machine

allowed = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]  # `isa` holds for all examples of a test
settings.register_profile("ci", derandomize=True, deadline=None, database=None, suppress_health_check=allowed)
settings.register_profile("explore", deadline=None, max_examples=2000, suppress_health_check=allowed)
settings.load_profile("ci")  # --hypothesis-profile=explore looks further


@pytest.fixture(params=_dispatch.built())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a compiled variant, which the package uses for this test."""
    name: str = request.param
    if not _machine.runs(name):
        pytest.skip(f"NOT TESTED: {name} is built, but this CPU does not run it")
    with pytest.MonkeyPatch.context() as patch:  # not the fixture, with which pytest-run-parallel uses one thread
        use(name, patch)
        yield name


@pytest.fixture(autouse=True)
def two_threads() -> None:
    """Each test starts with the same number of threads, whatever the machine and the test before."""
    fastsoft.set_num_threads(2)
