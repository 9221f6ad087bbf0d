"""A plugin of pytest (`-p sample`) that keeps every FASTSOFT_EVERY-th test: a fair part of a suite of thousands."""

from __future__ import annotations

import os

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the others out, and say so."""
    every = int(os.environ["FASTSOFT_EVERY"])
    out = [item for k, item in enumerate(items) if k % every]
    items[:] = items[::every]
    config.hook.pytest_deselected(items=out)
