"""Which compiled variant runs, how another is asked for, and that there is no way round."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import json
import pickle
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, every_operation, function, logits, python, use

import fastsoft
from fastsoft import _dispatch, _entry, _machine
from fastsoft.reference import OPS, Operation

SOURCE = Path(fastsoft.__file__).parent
MACHINE = platform.machine().lower()
X86, ARM = MACHINE in ("x86_64", "amd64"), MACHINE in ("aarch64", "arm64")


def test_source_tree_that_is_not_compiled(tmp_path: Path) -> None:
    """Importing it says so, and what to do; and a module that must be imported by itself says that."""
    (tmp_path / "fastsoft").mkdir()
    for file in SOURCE.glob("*.py"):
        (tmp_path / "fastsoft" / file.name).write_bytes(file.read_bytes())
    editable = "[f for f in sys.meta_path if 'editable' in getattr(f, '__module__', '')]"  # would find what is compiled
    start_there = f"import os, sys; os.chdir({str(tmp_path)!r}); [sys.meta_path.remove(f) for f in {editable}]"
    done = python(f"{start_there}; import fastsoft")
    assert "ImportError: this is fastsoft's source tree, which is not compiled" in done.stderr
    hints = {"torch": "; write `import fastsoft.torch` first", "nonsense": ""}
    hints |= {"compat": "; write `import fastsoft.compat.scipy` first", "dask": "; the functions take Dask arrays"}
    for name, also in hints.items():
        done = python(f"import fastsoft; fastsoft.{name}")
        assert f"AttributeError: module 'fastsoft' has no attribute '{name}'{also}" in done.stderr


def test_variants_of_this_platform() -> None:
    """Everything that is meant for the platform is built, the portable one always runs, and the fastest comes first."""
    wanted = ("avx512", "avx2", "portable") if X86 else ("neon", "portable") if ARM else ("portable",)
    assert _dispatch.built() == wanted
    assert _dispatch.available()[-1] == "portable"
    assert set(_dispatch.available()) <= set(_dispatch.built())
    assert list(_dispatch.available()) == sorted(_dispatch.available(), key=_dispatch.ORDER.index)
    assert [isa for isa in _dispatch.ORDER if _machine.runs(isa) and isa in wanted] == list(_dispatch.available())


def test_cpu_flags() -> None:
    """What the CPU is said to run is what the kernel says that it has."""
    if not (sys.platform == "linux" and X86):
        pytest.skip("NOT TESTED: the CPU's flags are compared on Linux on x86-64 only")
    flags = set(
        next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
    )
    assert _machine.runs("avx2") == ({"avx2", "fma", "f16c"} <= flags)
    assert _machine.runs("avx512") == ({"avx2", "fma", "f16c", "avx512f", "avx512dq", "avx512bw", "avx512vl"} <= flags)
    assert not _machine.runs("neon")


@every_operation
def test_every_variant_is_complete(op: Operation, isa: str) -> None:
    """Each variant has what the package asks of it, and is what the fixture put in place."""
    assert fastsoft.api.kernels.__name__ == f"fastsoft.isa.{isa}"
    assert Path(fastsoft.api.kernels.__file__ or "").parent == SOURCE / "isa"
    for name in ("apply", "after_fork"):
        assert callable(getattr(fastsoft.api.kernels, name))
    assert function(op)(logits((3, 4), "float32")).dtype == np.float32


def test_ways_in(isa: str) -> None:
    """Each compiled way into a public function takes what that function takes, and passes on what is not plain."""

    def parameters(function: Any) -> list[tuple[str, Any, Any]]:
        found = inspect.signature(function, follow_wrapped=False).parameters.values()
        return [(a.name, a.kind, a.default) for a in found]

    for name in fastsoft.__all__:
        function = getattr(fastsoft, name)
        if name in _entry.general:
            assert type(function).__name__ == "cython_function_or_method"
            assert function.__wrapped__ is _entry.general[name]
            assert parameters(function) == parameters(function.__wrapped__)
            assert pickle.loads(pickle.dumps(function)) is function
    assert set(_entry.general) - set(fastsoft.__all__) == {"allowed"}
    with pytest.raises(TypeError, match="positional"):
        fastsoft.softmax(np.ones(3), -1, None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="celsius"):
        fastsoft.softmax(np.ones(3), celsius=2.0)  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ["", "AVX2", "avx", "sse2", "avx2 ", "../avx2", "portable.x", "x" * 100, "_machine"])
def test_load_of_something_else(name: str) -> None:
    """ImportError, with what there is."""
    with pytest.raises(ImportError, match=r"is not available: built .*'portable'.*this CPU runs") as caught:
        _dispatch.load(name)
    assert repr(name) in str(caught.value)


def test_load_of_what_the_cpu_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """ImportError, before the module, whose first instruction may crash, is touched."""
    monkeypatch.setattr(_machine, "runs", lambda isa: isa == "portable")
    monkeypatch.delitem(sys.modules, "fastsoft.isa.avx2", raising=False)
    for isa in _dispatch.ORDER[:-1]:
        with pytest.raises(ImportError, match=rf"'{isa}' is not available: .* this CPU runs \('portable',\)"):
            _dispatch.load(isa)
    assert "fastsoft.isa.avx2" not in sys.modules
    assert _dispatch.choose()[0] == "portable"
    assert _dispatch.available() == ("portable",)


def test_nothing_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package without variants says so."""
    monkeypatch.setattr(_machine, "runs", lambda isa: False)
    monkeypatch.delenv("FASTSOFT_ISA", raising=False)
    with pytest.raises(ImportError, match="no compiled variant"):
        _dispatch.choose()


PROGRAM = """
import json, sys, numpy as np, fastsoft
from fastsoft import _dispatch
variants = [name for name in sys.modules if name.startswith("fastsoft.isa.")]
x = (np.arange(60.0) ** 1.3 / 10).reshape(6, 10)
rows, columns = fastsoft.softmax(x), fastsoft.softmax(x.T, 0)
print(json.dumps([_dispatch.isa, variants, rows.tobytes().hex(), columns.tobytes().hex()]))
"""


@pytest.mark.parametrize("isa", _dispatch.available())
def test_force_one(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FASTSOFT_ISA names the one variant that is imported and computes."""
    done = python(PROGRAM, FASTSOFT_ISA=isa)
    assert done.returncode == 0, done.stderr
    chosen, variants, rows, columns = json.loads(done.stdout)
    assert (chosen, variants) == (isa, [f"fastsoft.isa.{isa}"])
    use(isa, monkeypatch)
    x = (np.arange(60.0) ** 1.3 / 10).reshape(6, 10)
    assert_same_bits(np.frombuffer(bytes.fromhex(rows)).reshape(6, 10), fastsoft.softmax(x))
    assert_same_bits(np.frombuffer(bytes.fromhex(columns)).reshape(10, 6), fastsoft.softmax(x.T, 0))


@pytest.mark.parametrize("value", [None, ""])
def test_default_choice(value: str | None) -> None:
    """Without FASTSOFT_ISA, or with an empty one, the fastest, and no other is imported."""
    done = python(PROGRAM, FASTSOFT_ISA=value)
    fastest = _dispatch.available()[0]
    assert json.loads(done.stdout)[:2] == [fastest, [f"fastsoft.isa.{fastest}"]], done.stderr


@pytest.mark.parametrize("wanted", ["neon" if X86 else "avx2", "mmx", "AVX2"])
def test_force_an_impossible_one(wanted: str) -> None:
    """An ImportError that names the variable, what it got, and what is possible."""
    done = python("import fastsoft", FASTSOFT_ISA=wanted)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: FASTSOFT_ISA: ")
    for text in (repr(wanted), *map(repr, _dispatch.available())):
        assert text in last


def imports(path: Path) -> list[str]:
    """The full names of what a source file of the package imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["fastsoft" if node.level else "", node.module]))
            found += [f"{base}.{alias.name}" for alias in node.names]
    return found


def test_load_is_the_only_door() -> None:
    """No other source imports a compiled variant, or names one: on a CPU that lacks it that would crash."""
    named = re.compile(r"(?<!_dispatch)\.isa\b")
    tree = Path(__file__).parents[1] / "fastsoft"  # a wheel holds no .pyx
    paths = {path.name: path for path in tree.glob("*.py*") if path.suffix in (".py", ".pyx")}
    assert {"__init__.py", "_dispatch.py", "_machine.pyx", "api.py"} <= set(paths)
    assert named.search(paths.pop("_dispatch.py").read_text(encoding="utf-8"))
    for name, path in paths.items():
        assert not named.search(path.read_text(encoding="utf-8")), name
        if path.suffix == ".py":
            assert not [module for module in imports(path) if module.startswith("fastsoft.isa")], name


def test_import_is_lean() -> None:
    """Importing the package takes no module with it that only the command line or the tests need."""
    done = python("import sys, fastsoft; print(*sys.modules)")
    loaded = set(done.stdout.split())
    assert "fastsoft.api" in loaded, done.stderr
    for name in ("argparse", "scipy", "tqdm", "matplotlib", "ml_dtypes", "multiprocessing", "fastsoft.reference"):
        assert name not in loaded, name


def test_show_config(capsys: pytest.CaptureFixture[str]) -> None:
    """The version, the variants, the choice, OpenMP and the threads."""
    with fastsoft.num_threads(3):
        assert fastsoft.show_config() is None
    text = capsys.readouterr().out
    assert f"fastsoft {fastsoft.__version__}" in text
    assert importlib.metadata.version("fastsoft") == fastsoft.__version__
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    built, runs = lines["instruction sets"].split(";")
    for isa in _dispatch.ORDER:
        assert (isa in built) == (isa in _dispatch.built())
        assert (isa in runs) == (isa in _dispatch.available())
    assert lines["chosen"].strip() == _dispatch.isa
    assert str(_machine.openmp() or "no") in lines["OpenMP"]
    assert lines["threads"].strip() == "3"


def test_public_names() -> None:
    """What __all__ says is there, every operation among it, and nothing else is asked for in vain."""
    for name in fastsoft.__all__:
        assert getattr(fastsoft, name) is not None
    assert {op.name for op in OPS} <= set(fastsoft.__all__)
    with pytest.raises(AttributeError, match="no attribute 'softmin'"):
        _ = fastsoft.softmin


def test_module_as_a_program() -> None:
    """python -m fastsoft info shows the configuration."""
    done = subprocess.run(
        [sys.executable, "-m", "fastsoft", "info"], capture_output=True, text=True, timeout=60, check=True
    )
    assert f"chosen:           {_dispatch.isa}" in done.stdout
