"""What the files beside the package say of it: one version, every public name in the changelog."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import fastsoft

TREE = Path(__file__).parents[1]
if not (TREE / "CITATION.cff").is_file():
    pytest.skip(f"NOT TESTED: {TREE} is not the source tree", allow_module_level=True)

CHANGELOG = (TREE / "CHANGELOG.md").read_text(encoding="utf-8")


def test_one_version() -> None:
    """pyproject.toml has it; the installed package, CITATION.cff and the newest version in CHANGELOG.md agree."""
    version = tomllib.loads((TREE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert fastsoft.__version__ == version, "installed from another version: pip install -e ."
    cited = dict(re.findall(r"^(version|date-released): (\S+)$", (TREE / "CITATION.cff").read_text("utf-8"), re.M))
    newest, date = re.findall(r"^## \[(\d.*?)\] - (Unreleased|\d{4}-\d\d-\d\d)$", CHANGELOG, re.M)[0]
    assert (cited["version"], cited.get("date-released", "Unreleased")) == (newest, date)
    assert newest == version


def test_changelog_names_what_is_public() -> None:
    """Each name of __all__ stands in CHANGELOG.md."""
    assert [name for name in fastsoft.__all__ if not re.search(rf"`{name}\b", CHANGELOG)] == []
