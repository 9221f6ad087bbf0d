"""The code that README.md and the pages show: each block of Python, and each command, runs as it stands.

Blocks with prompts (pycon) are for doctest, in `make docs`. Here a command finds `fastsoft` and `python` to be those
that run the test, and `fastsoft bench` to measure little.
"""

from __future__ import annotations

import ast
import gzip
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from test_typing import check

import fastsoft

TREE = Path(__file__).parents[1]
if not (TREE / "docs" / "conf.py").is_file():
    pytest.skip(f"NOT TESTED: {TREE} is not the source tree", allow_module_level=True)

PAGES = (TREE / "README.md", *sorted(TREE.glob("*/README.md")), *sorted(TREE.glob("docs/*.rst")))

# Commands that begin like this are not run here, because
NOT_RUN = {
    "python3 -m venv": "pip puts nothing into it here",
    ".venv/bin/pip install": "compiles for minutes; .ci/run installs the package in the same ways",
    ".venv/bin/python -m pytest": "these are the tests",
    "make docs": "takes a minute; .ci/run does what it does",
    "pip install": "changes the environment",
    "python logistic_regression.py": "make docs runs it",
    "python calibration.py": "make docs runs it",
    "python dask_vocabulary.py": "make docs runs it",
    "pytest benchmarks/": "measures for minutes",
    "FASTSOFT_ISA=avx2 OMP_NUM_THREADS=1 pytest benchmarks/": "measures for minutes",
    "python benchmarks/": "measures for minutes; test_benchmarks.py runs its parts",
    "FASTSOFT_ISA=avx2 python benchmarks/": "measures for minutes; test_benchmarks.py runs its parts",
}

FASTSOFT = """
import sys
from fastsoft import _bench
from fastsoft.__main__ import main
_bench.CASES = (((2, 5), -1),)
_bench.SAMPLE = 0.0
sys.exit(main())
"""


def blocks(page: Path, *languages: str) -> Iterator[str]:
    """The code blocks of these languages."""
    words, text = "|".join(languages), page.read_text(encoding="utf-8")
    if page.suffix == ".md":
        yield from re.findall(rf"^```(?:{words})\n(.*?)^```$", text, re.M | re.S)
    else:
        found = re.findall(rf"^( *)\.\. code-block:: (?:{words})\n\n((?:\1 +.*\n|\n)+)", text, re.M)
        yield from (textwrap.dedent(block) for _, block in found)


def programs(page: Path) -> list[str]:
    """The Python code of a page: a block of README.md that imports nothing goes on from the one before it."""
    found: list[str] = []
    for block in blocks(page, "python", "py"):
        if found and page.suffix == ".md" and not re.search(r"^(import|from) ", block, re.M):
            found[-1] += block
        else:
            found.append(block)
    return found


def commands(page: Path) -> list[str]:
    """The commands of a page, one by one."""
    text = "".join(blocks(page, "sh", "bash", "console"))
    lines = re.sub(r"([|\\])\n", r"\1 ", text).splitlines()
    return [command for line in lines for command in line.split(" && ") if command.strip()]


def name_of(page: Path) -> str:
    return page.relative_to(TREE).as_posix()


def listed(found: list[tuple[Path, str]]) -> list[object]:
    return [pytest.param(page, text, id=f"{name_of(page)}: {text.partition(chr(10))[0]}") for page, text in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the commands find: the files they name, and in bin/ the programs."""
    shutil.copytree(TREE / "examples", tmp_path / "examples")
    content = (TREE / "examples" / "digits_logits.npy").read_bytes()
    (tmp_path / "logits.npy").write_bytes(content)
    (tmp_path / "logits.npy.gz").write_bytes(gzip.compress(content))
    for place in tmp_path / "bin", tmp_path / ".venv" / "bin":
        place.mkdir(parents=True)
        for name, code in ("fastsoft", f"-c {shlex.quote(FASTSOFT)}"), ("python", ""):
            (place / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {code} "$@"\n')
            (place / name).chmod(0o755)
    return tmp_path


@pytest.mark.skipif(shutil.which("bash") is None, reason="NOT TESTED: bash is not here, which the commands are for")
@pytest.mark.parametrize(
    "page, command",
    listed([(page, text) for page in PAGES for text in commands(page) if not text.startswith(tuple(NOT_RUN))]),
)
def test_command_runs(page: Path, command: str, folder: Path) -> None:
    """In the folder of its page, README.md being in that of the sources."""
    if "--plot" in command:
        pytest.importorskip("matplotlib", reason="NOT TESTED: a command that needs matplotlib")
    place = folder / "examples" if page.parent.name == "examples" else folder
    env = {
        **os.environ,
        "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(Path(fastsoft.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=place, env=env, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr


def test_commands_that_are_not_run() -> None:
    """Each reason is needed, and the programs that these commands name are there."""
    found = [(page, text) for page in PAGES for text in commands(page)]
    assert [start for start in NOT_RUN if not any(text.startswith(start) for _, text in found)] == []
    for page, text in found:
        for name in re.findall(r"\S+\.py\b", text):
            assert (TREE / name).is_file() or (page.parent / name).is_file(), text


@pytest.mark.parametrize("page, code", listed([(page, code) for page in PAGES for code in programs(page)]))
def test_code_runs(page: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither raises nor warns, as far as what it imports is installed; what it says of types holds."""
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in imports if isinstance(node, ast.ImportFrom) and node.module}
    missing = sorted(name for name in {name.partition(".")[0] for name in names} if not importlib.util.find_spec(name))
    if missing:
        pytest.skip(f"NOT TESTED: code in {name_of(page)}, since {', '.join(missing)} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(typing, "assert_type", check)
    x = np.random.default_rng(0).normal(0, 5, (2, 3)).astype(np.float32)
    # The pages import at their beginning; README.md shows all that is needed.
    given: dict[str, object] = {} if page.suffix == ".md" else {"np": np, "fastsoft": fastsoft, "x": x}
    module = ModuleType("shown")
    vars(module).update(given)
    exec(compile(code, name_of(page), "exec"), vars(module))
    if hasattr(module, "types"):  # what type checkers see, of arguments like these
        module.types(x, np.array([0, 2]))


def test_readme_has_code() -> None:
    """... in which the main functions are called."""
    code = "".join(programs(TREE / "README.md"))
    assert [name for name in ("softmax", "log_softmax", "logsumexp") if f"fastsoft.{name}(" not in code] == []


@pytest.mark.parametrize("page", [*TREE.glob("*.md"), *TREE.glob("*/README.md")], ids=name_of)
def test_links_of_files(page: Path) -> None:
    """What a file that is no page links to in the source tree is there."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    """tools/check_links.py names the links to no file and to no place in a file, and no others."""
    (tmp_path / "sub").mkdir()
    good = '<a href="../b.html#here"><img src="a.png" srcset="a.png, a.png 2.00x"></a><a href="https://x.y/z#w"></a>'
    (tmp_path / "sub" / "a.html").write_text(good)
    (tmp_path / "sub" / "a.png").touch()
    (tmp_path / "b.html").write_text('<p id="here"><a href="#here"></a><a href="#"></a><a href="sub/a%2Ehtml"></a>')
    command = [sys.executable, str(TREE / "tools" / "check_links.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (tmp_path / "c.html").write_text('<a href="b.html#there"><img src="c.png" srcset="d.png 2x"></a><a href="#no"></a>')
    done = subprocess.run(command, capture_output=True, text=True)
    wrong = ["c.html: #no", "c.html: b.html#there", "c.html: c.png", "c.html: d.png"]
    assert (done.returncode, done.stdout.splitlines()) == (1, wrong)
