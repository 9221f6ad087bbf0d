"""What the files beside the package say of it: one version, every public name in the changelog, README's code."""

from __future__ import annotations

import ast
import importlib.util
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


def readme_code() -> list[str]:
    """The Python code of README.md: a block that imports nothing goes on from the one before it."""
    text = (TREE / "README.md").read_text(encoding="utf-8")
    found: list[str] = []
    for block in re.findall(r"^```(?:python|py|pycon)\n(.*?)^```$", text, re.M | re.S):
        if found and not re.search(r"^(import|from) ", block, re.M):
            found[-1] += block
        else:
            found.append(block)
    return found


@pytest.mark.parametrize("code", readme_code(), ids=lambda code: code.partition("\n")[0])
def test_readme_code_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What README.md shows neither raises nor warns, as far as the packages that it imports are installed."""
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in imports if isinstance(node, ast.ImportFrom) and node.module}
    missing = sorted(name for name in {name.partition(".")[0] for name in names} if not importlib.util.find_spec(name))
    if missing:
        pytest.skip(f"NOT TESTED: code in README.md, since {', '.join(missing)} is not installed")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def test_readme_has_code() -> None:
    """... in which the main functions are called."""
    code = "".join(readme_code())
    assert [name for name in ("softmax", "log_softmax", "logsumexp") if f"fastsoft.{name}(" not in code] == []
