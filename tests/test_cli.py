"""The command line: files and pipes, what it leaves behind when it fails, the bench, and the messages."""

from __future__ import annotations

import errno
import io
import itertools
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastsoft
from fastsoft import _bench, _stream
from fastsoft.__main__ import _parser, main
from fastsoft.reference import OPS

COMMANDS = {"softmax": "softmax", "log-softmax": "log_softmax", "logsumexp": "logsumexp"}
posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test runs in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few numbers."""
    monkeypatch.setattr(_stream, "BLOCK", 200)
    monkeypatch.setattr(_stream, "PIECE", 24)


def save(x: Any, name: str = "in.npy") -> np.ndarray[Any, Any]:
    np.save(name, x)
    return np.asarray(x)


def logits(*shape: int, dtype: Any = "float32", order: Any = "C") -> np.ndarray[Any, Any]:
    x = np.random.default_rng(0).normal(0, 5, shape)
    return np.asarray(x.astype(dtype), order=order)


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that must fail with status 1, one line on stderr, and no file made or changed; its message."""
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in Path().iterdir() if path.exists()}
    assert main(list(argv)) == 1
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in Path().iterdir() if path.exists()} == before
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("fastsoft: error: ") and err.count("\n") == 1
    return err


def own_process() -> dict[str, str]:
    """The environment of a process that imports this very fastsoft."""
    path = os.pathsep.join([str(Path(fastsoft.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start code in a process of its own, which does not outlive the test."""
    started = []

    def run(code: str, *, command: Sequence[str] = (sys.executable, "-c")) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        started.append(subprocess.Popen([*command, code], stdout=pipe, stderr=pipe, text=True, env=own_process()))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


# --- streaming -------------------------------------------------------------------------------------------------------


def check(name: str, x: np.ndarray[Any, Any], axis: int, *options: str, **keywords: Any) -> None:
    """The command gives, bit for bit, what the function gives for the whole array."""
    save(x)
    assert main([name, "in.npy", "out.npy", "--axis", str(axis), "--force", *options]) == 0
    want = getattr(fastsoft, COMMANDS[name])(x, axis=axis, **keywords)
    got = np.load("out.npy")
    same(got, want)
    assert sorted(os.listdir()) == ["in.npy", "out.npy"]


def same(got: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> None:
    assert got.dtype == want.dtype and got.shape == want.shape
    assert np.ascontiguousarray(got).tobytes() == np.ascontiguousarray(want).tobytes()


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("shape", [(40,), (7, 11), (40, 3), (3, 40), (3, 5, 7), (2, 3, 1, 20), (1, 1), (6, 1)])
def test_stream_equals_the_whole(name: str, shape: tuple[int, ...]) -> None:
    for axis, dtype, order in itertools.product(range(-len(shape), len(shape)), ["float32", "float64"], "CF"):
        check(name, logits(*shape, dtype=dtype, order=order), axis)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("dtype", ["float16", "bool", "int8", "uint64", ">f4", ">f8", ">i2"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_stream_dtypes(name: str, dtype: str, axis: int) -> None:
    check(name, np.abs(logits(4, 6, 9)).astype(dtype), axis)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 3), (3, 0), (2, 0, 3), (0, 0)])
def test_stream_degenerate_shapes(name: str, shape: tuple[int, ...]) -> None:
    for axis in range(-max(len(shape), 1), max(len(shape), 1)):
        check(name, logits(*shape), axis)


@pytest.mark.parametrize("name", COMMANDS)
def test_stream_of_nothing_is_one_block_however_long(name: str) -> None:
    check(name, np.empty((0, 2**40), "float32"), axis=-1 if name == "logsumexp" else 0)


def test_stream_block_of_normal_size() -> None:
    check("softmax", logits(300, 40), -1)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", ["softmax", "log-softmax"])
def test_stream_options(name: str) -> None:
    check(name, logits(9, 30), 0, "--temperature", "0.3", "--threads", "1", temperature=0.3)


def test_output_keeps_fortran_order() -> None:
    save(logits(8, 9, order="F"))
    assert main(["softmax", "in.npy", "out.npy"]) == 0
    assert np.load("out.npy").flags.f_contiguous


@pytest.mark.parametrize("block, piece", [(1, 1), (64, 16), (1000, 64), (10**6, 4096)])
@pytest.mark.parametrize("shape", list(itertools.product([0, 1, 3, 50], [0, 1, 7, 40], [0, 1, 5, 33])))
def test_blocks_cover_everything_once(
    shape: tuple[int, int, int], block: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_stream, "BLOCK", block)
    monkeypatch.setattr(_stream, "PIECE", piece)
    seen = np.zeros(shape, int)
    n = shape[1]
    for i, j in _stream._blocks(*shape, itemsize=4):
        seen[i, :, j] += 1
        assert seen[i, :, j].size * 4 <= max(block, n * max(piece, 4))
    assert (seen == 1).all()


def test_output_has_its_name_only_when_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    save(logits(4, 4))
    seen = []
    monkeypatch.setattr(fastsoft, "softmax", copying(lambda: seen.append(sorted(os.listdir()))))
    assert main(["softmax", "in.npy", "out.npy"]) == 0
    [names] = seen
    assert len(names) == 2 and names[0].startswith(".fastsoft-") and names[1] == "in.npy"


@posix
def test_output_has_the_usual_permissions() -> None:
    save(logits(4, 4))
    assert main(["softmax", "in.npy", "out.npy"]) == 0
    assert Path("out.npy").stat().st_mode == Path("in.npy").stat().st_mode


def copying(before: Callable[[], object]) -> Callable[..., np.ndarray[Any, Any]]:
    """A stand-in for a function of fastsoft that calls `before`, then copies its input."""

    def function(x: Any, axis: int = -1, *, out: Any = None, **_: Any) -> np.ndarray[Any, Any]:
        if out is None:  # the trial that comes first
            return np.array(x)
        before()
        out[...] = x
        return np.asarray(out)

    return function


@linux
@pytest.mark.parametrize("axis", [0, 1])
def test_memory_stays_bounded(axis: int, start: Start) -> None:
    """32 MiB read and 32 MiB written in blocks of 1 MiB take little memory."""
    if "VmHWM" not in Path("/proc/self/status").read_text():
        pytest.skip("this kernel does not tell the peak of memory (VmHWM)")
    np.lib.format.open_memmap("in.npy", "w+", "float32", (256, 32768)).flush()
    # By columns the system may map far more than is touched, which costs nothing: only memory of our own counts then.
    kind = "VmHWM" if axis else "RssAnon"
    code = f"""
import re, numpy as np
from fastsoft import _stream
peak = 0
def copy(x, axis, out=None):
    global peak
    if out is None:
        return x.copy()
    out[...] = x
    peak = max(peak, int(re.search(r"{kind}:\\s*(\\d+)", open("/proc/self/status").read())[1]))
_stream.BLOCK = 1 << 20
np.save("small.npy", np.zeros((3, 4)))
_stream.stream(copy, "small.npy", "a.npy")  # so that what Python needs itself is not counted
start = peak
_stream.stream(copy, "in.npy", "out.npy", axis={axis})
print((peak - start) / 1024)
"""
    out, err = start(code).communicate()
    assert err == "" and float(out) < 16


# --- pipes -----------------------------------------------------------------------------------------------------------


def stream_of(x: Any, **keywords: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, x, **keywords)
    return file.getvalue()


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Put bytes on standard input."""
    return lambda content: monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("shape", [(), (40,), (0, 3), (7, 11), (40, 3), (2, 0, 3), (3, 5, 7), (2, 3, 1, 20)])
def test_pipe_gives_what_the_file_gives(
    name: str, shape: tuple[int, ...], feed: Callable[[bytes], None], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The same bytes, header included, from a file or standard input to a file or standard output."""
    for axis, dtype, order in itertools.product(range(len(shape)), ["float16", "float32", "float64", ">f4"], "CF"):
        x = save(logits(*shape, dtype=dtype, order=order))
        assert main([name, "in.npy", "out.npy", f"--axis={axis}", "--force"]) == 0
        want = Path("out.npy").read_bytes()
        feed(stream_of(x))
        assert main([name, "-", "-", f"--axis={axis}"]) == 0
        assert capfdbinary.readouterr() == (want, b"")
        assert main([name, "in.npy", "-", f"--axis={axis}"]) == 0
        assert capfdbinary.readouterr() == (want, b"")
        feed(stream_of(x))
        assert main([name, "-", "out.npy", f"--axis={axis}", "--force"]) == 0
        assert Path("out.npy").read_bytes() == want


@posix
def test_pipeline() -> None:
    """Of processes, as the manual shows it, with more than a pipe holds."""
    x = save(logits(200, 300))
    save(fastsoft.softmax(x), "want.npy")
    line = f"cat in.npy | {shlex.quote(sys.executable)} -m fastsoft softmax - - --threads 1 | cat > out.npy"
    result = subprocess.run(line, shell=True, env=own_process(), capture_output=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert Path("out.npy").read_bytes() == Path("want.npy").read_bytes()


@posix
def test_broken_pipe() -> None:
    """Who reads the output has gone: a quiet end with the status of SIGPIPE."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "fastsoft", "softmax", "-", "-"]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=own_process())
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(stream_of(logits(200, 300)))
    assert (process.returncode, err) == (128 + signal.SIGPIPE, b"")


@posix
def test_broken_pipe_of_text(start: Start) -> None:
    """Also where Python itself would write the rest when it ends."""
    code = """
import os, sys
from fastsoft.__main__ import main
reading, writing = os.pipe()
os.close(reading)
os.dup2(writing, 1)
sys.exit(main(["info"]))
"""
    process = start(code)
    _, err = process.communicate()
    assert (process.returncode, err) == (128 + signal.SIGPIPE, "")


@linux
def test_full_disk_behind_standard_output(start: Start) -> None:
    save(logits(200, 300))
    code = """
import os, sys
from fastsoft.__main__ import main
os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
sys.exit(main(["softmax", "in.npy", "-"]))
"""
    process = start(code)
    _, err = process.communicate()
    assert (process.returncode, err) == (1, "fastsoft: error: standard output: No space left on device\n")


@pytest.mark.usefixtures("tiny")
def test_standard_output_is_written_block_by_block(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    x = save(logits(30, 10))
    calls = itertools.count()

    def function(x: Any, axis: int = -1, **_: Any) -> np.ndarray[Any, Any]:
        if next(calls) == 4:
            raise MemoryError("no more")
        return np.array(x)

    monkeypatch.setattr(fastsoft, "softmax", function)
    assert main(["softmax", "in.npy", "-"]) == 1
    out, err = capfdbinary.readouterr()
    assert out == stream_of(x)[: 128 + 3 * 200] and err == b"fastsoft: error: no more\n"


def test_no_bytes_for_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    save(logits(3, 4))
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    assert "standard output is closed or a terminal" in fails(capsys, "softmax", "in.npy", "-")
    assert screen.getvalue() == ""
    monkeypatch.setattr(sys, "stdout", None)
    assert "standard output is closed or a terminal" in fails(capsys, "softmax", "in.npy", "-")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1,2,3",
        stream_of(logits(3, 4))[:-1],
        stream_of(logits(3, 4)) + b"x",
        stream_of(logits(3, 4)) * 2,
        stream_of(np.array([{}]), allow_pickle=True),
    ],
    ids=["empty", "text", "truncated", "byte too many", "two arrays", "objects"],
)
def test_bad_standard_input(content: bytes, feed: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]) -> None:
    for target in "-", "out.npy":
        feed(content)
        assert "standard input: not a complete .npy file" in fails(capsys, "softmax", "-", target)


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is closed" in fails(capsys, "softmax", "-", "out.npy")


def test_wrong_arguments_write_nothing_to_standard_output(
    feed: Callable[[bytes], None], capfd: pytest.CaptureFixture[str]
) -> None:
    feed(stream_of(logits(3, 4)))
    assert "standard input: axis 2 is out of bounds" in fails(capfd, "softmax", "-", "-", "--axis", "2")
    feed(stream_of(np.zeros((2, 3), "complex64")))
    assert "standard input: " in fails(capfd, "softmax", "-", "-")


def test_existing_output_is_found_before_standard_input_is_read(
    feed: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    save(1, "out.npy")
    feed(b"not even an array")
    assert "out.npy: the output exists already" in fails(capsys, "softmax", "-", "out.npy")


@posix
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_pipe_with_a_name(kind: str) -> None:
    """A FIFO, or what the system calls /dev/stdin, is read whole."""
    x = logits(200, 300)
    (np.save if kind == "npy" else np.savez)(f"in.{kind}", x)
    os.mkfifo(f"pipe.{kind}")
    writer = subprocess.Popen(["sh", "-c", f"cat in.{kind} > pipe.{kind}"])
    assert main(["softmax", f"pipe.{kind}", f"out.{kind}"]) == 0
    assert writer.wait() == 0
    got = np.load(f"out.{kind}")
    same(got if kind == "npy" else got["arr_0"], fastsoft.softmax(x))


@linux
def test_standard_input_by_its_name() -> None:
    x = save(logits(200, 300))
    for n, line in enumerate(("cat in.npy | {}", "{} < in.npy")):
        command = f"{shlex.quote(sys.executable)} -m fastsoft softmax /dev/stdin out{n}.npy"
        result = subprocess.run(line.format(command), shell=True, env=own_process(), capture_output=True)
        assert (result.returncode, result.stderr) == (0, b"")
        same(np.load(f"out{n}.npy"), fastsoft.softmax(x))


def test_npz_in_a_pipe(feed: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]) -> None:
    """... or under another name: the message says what it is."""
    np.savez("in.npz", logits(3, 4))
    feed(Path("in.npz").read_bytes())
    assert "standard input: not a complete .npy file" in (message := fails(capsys, "softmax", "-", "out.npy"))
    assert "it looks like an .npz" in message


def test_files_with_the_name_of_a_pipe() -> None:
    x = save(logits(3, 4), "in.npy")
    Path("in.npy").rename("-")
    assert main(["softmax", "./-", "out.npy"]) == 0
    same(np.load("out.npy"), fastsoft.softmax(x))


# --- .npz ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("savez", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("axis", [0, -1])
def test_npz(name: str, savez: Callable[..., None], axis: int) -> None:
    arrays = {
        "x": logits(7, 11),
        "a/b": logits(40, dtype="float64"),
        "ä": logits(3, 20, 2, order="F"),
        "e": logits(0, 3),
    }
    arrays |= {"half": logits(9, 30, dtype="float16"), "whole": np.arange(12).reshape(3, 4)}
    if axis:
        arrays["0-d"] = logits()
    savez("in.npz", **arrays)
    assert main([name, "in.npz", "out.npz", f"--axis={axis}", "--threads=1"]) == 0
    with np.load("out.npz", allow_pickle=False) as out:
        assert list(out) == list(arrays)
        for key, x in arrays.items():
            same(out[key], getattr(fastsoft, COMMANDS[name])(x, axis=axis))
    assert sorted(os.listdir()) == ["in.npz", "out.npz"]
    with zipfile.ZipFile("out.npz") as archive:
        assert archive.testzip() is None


def test_npz_arrays_by_name() -> None:
    arrays = {"x": logits(3, 4), "y": np.array(["not", "numbers"]), "z": logits(5)}
    np.savez("in.npz", **arrays)
    assert main(["softmax", "in.npz", "out.npz", "--array", "z", "--array", "x", "--array", "z"]) == 0
    with np.load("out.npz") as out:
        assert list(out) == ["z", "x"]
        for key in out:
            same(out[key], fastsoft.softmax(arrays[key]))


def test_npz_without_arrays() -> None:
    np.savez("in.npz")
    assert main(["softmax", "in.npz", "out.npz"]) == 0
    with np.load("out.npz") as out:
        assert list(out) == []


def test_npz_errors(capsys: pytest.CaptureFixture[str]) -> None:
    run = "softmax", "in.npz", "out.npz"
    assert "in.npz: No such file" in fails(capsys, *run)
    save(logits(3, 4))
    Path("in.npy").rename("in.npz")
    assert "in.npz: not a complete .npz file" in fails(capsys, *run)
    np.savez("in.npz", x=logits(3, 4), y=logits(5))
    message = "--array z: in.npz has no such array; it has: x, y"
    assert message in fails(capsys, *run, "--array", "x", "--array", "z")
    assert "in.npz: y: axis 1 is out of bounds" in fails(capsys, *run, "--axis", "1")
    assert "the output is the input" in fails(capsys, "softmax", "in.npz", "in.npz", "--force")
    np.savez("in.npz", x=logits(3, 4), y=np.zeros(3, "complex64"))
    assert "in.npz: y: " in fails(capsys, *run)
    np.savez("in.npz", x=logits(3, 4), y=np.array([{}]))
    assert "in.npz: y: not a complete .npy file of numbers: Object arrays" in fails(capsys, *run)
    with zipfile.ZipFile("in.npz", "a") as archive:
        archive.writestr("notes.txt", "text")
    assert "in.npz: notes.txt: not a complete .npy file" in fails(capsys, *run, "--array", "notes.txt")
    Path("out.npz").write_text("mine")
    assert "out.npz: the output exists already" in fails(capsys, *run)


@pytest.mark.parametrize("savez", [np.savez, np.savez_compressed])
def test_damaged_npz(savez: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    """A byte changed, or the end cut off: a message, or what is right, since bytes of no meaning may change too."""
    x, y = logits(3, 4), logits(5)
    savez("in.npz", x=x, y=y)
    content = Path("in.npz").read_bytes()
    versions = [content[:k] + bytes([content[k] ^ 0x55]) + content[k + 1 :] for k in range(0, len(content), 3)]
    for version in versions + [content[:k] for k in range(0, len(content), 7)]:
        Path("in.npz").write_bytes(version)
        Path("out.npz").unlink(missing_ok=True)
        if main(["softmax", "in.npz", "out.npz"]):
            assert os.listdir() == ["in.npz"]
            assert "in.npz" in capsys.readouterr().err
        else:
            with np.load("out.npz") as out:
                for z in out.values():
                    assert z.tobytes() in (fastsoft.softmax(x).tobytes(), fastsoft.softmax(y).tobytes())


@posix
def test_file_size_limit_of_npz(start: Start) -> None:
    np.savez("in.npz", x=logits(300, 100), y=logits(300, 100))
    code = """
import resource, sys
from fastsoft.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
sys.exit(main(["softmax", "in.npz", "out.npz"]))
"""
    process = start(code)
    _, err = process.communicate()
    assert process.returncode == 1 and err == "fastsoft: error: out.npz: File too large\n"
    assert os.listdir() == ["in.npz"]


# --- errors, and what they leave behind ------------------------------------------------------------------------------


def test_missing_input(capsys: pytest.CaptureFixture[str]) -> None:
    assert "in.npy: No such file" in fails(capsys, "softmax", "in.npy", "out.npy")


def test_directory_as_input(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.npy").mkdir()
    assert "in.npy" in fails(capsys, "softmax", "in.npy", "out.npy")


@pytest.mark.parametrize("size", [0, 1, 6, 9, 60, 127, 128, 129, 128 + 4 * 4 * 4 - 1])
def test_truncated_input(size: int, capsys: pytest.CaptureFixture[str]) -> None:
    save(logits(4, 4))
    os.truncate("in.npy", size)
    assert "in.npy: not a complete .npy file" in fails(capsys, "softmax", "in.npy", "out.npy")


def test_other_kinds_of_files(capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.npy").write_text("1,2,3\n" * 100)
    np.savez("zip.npz", x=logits(3))
    Path("zip.npz").rename("zip.npy")
    logits(3).dump("pickle.npy")
    for name in "text.npy", "zip.npy", "pickle.npy":
        assert f"{name}: not a complete .npy file" in fails(capsys, "softmax", name, "out.npy")


def test_damaged_headers(capsys: pytest.CaptureFixture[str]) -> None:
    """Any byte of the header changed: a result or a message, never a traceback."""
    save(logits(4, 4))
    content = Path("in.npy").read_bytes()
    random = np.random.default_rng(0)
    for position, value in itertools.product(range(128), random.integers(0, 256, 4)):
        Path("in.npy").write_bytes(content[:position] + bytes([value]) + content[position + 1 :])
        Path("out.npy").unlink(missing_ok=True)
        if main(["softmax", "in.npy", "out.npy"]):
            assert os.listdir() == ["in.npy"]
            assert "in.npy: " in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["complex64", "S3", "U2", "V3", "M8[s]", "f4,i4", "longdouble"])
def test_refused_dtypes(dtype: str, capsys: pytest.CaptureFixture[str]) -> None:
    if dtype == "longdouble" and np.dtype(dtype) == np.float64:
        pytest.skip("longdouble is float64 here")
    save(np.zeros((2, 3), dtype))
    assert "in.npy: " in fails(capsys, "softmax", "in.npy", "out.npy")


def test_objects_are_never_unpickled(capsys: pytest.CaptureFixture[str]) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, ("unpickled",)

    np.save("in.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    assert "in.npy: " in fails(capsys, "softmax", "in.npy", "out.npy")


def test_bfloat16_is_refused_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    save(logits(3, 4).astype(pytest.importorskip("ml_dtypes").bfloat16))
    assert "bfloat16" in fails(capsys, "softmax", "in.npy", "out.npy")


@pytest.mark.parametrize("shape, axis", [((3, 4), 2), ((3, 4), -3), ((5,), 1), ((), 1)])
def test_axis_out_of_range(shape: tuple[int, ...], axis: int, capsys: pytest.CaptureFixture[str]) -> None:
    save(logits(*shape))
    assert f"in.npy: axis {axis} is out of bounds" in fails(capsys, "softmax", "in.npy", "out.npy", f"--axis={axis}")


def test_output_exists(capsys: pytest.CaptureFixture[str]) -> None:
    save(logits(3, 4))
    save(1, "out.npy")
    assert "out.npy: the output exists already" in fails(capsys, "softmax", "in.npy", "out.npy")
    assert main(["softmax", "in.npy", "out.npy", "--force"]) == 0
    assert np.load("out.npy").shape == (3, 4)


@posix
def test_output_is_a_link(capsys: pytest.CaptureFixture[str]) -> None:
    save(logits(3, 4))
    Path("out.npy").symlink_to("nowhere.npy")
    assert "out.npy: the output exists already" in fails(capsys, "softmax", "in.npy", "out.npy")
    assert "not a regular file" in fails(capsys, "softmax", "in.npy", "out.npy", "--force")
    save(1, "nowhere.npy")
    assert main(["softmax", "in.npy", "out.npy", "--force"]) == 0
    assert Path("out.npy").is_symlink() and np.load("nowhere.npy").shape == (3, 4)


@posix
def test_output_is_the_input(capsys: pytest.CaptureFixture[str]) -> None:
    save(logits(3, 4))
    Path("soft.npy").symlink_to("in.npy")
    os.link("in.npy", "hard.npy")
    for name in "in.npy", "./in.npy", "soft.npy", "hard.npy":
        assert "the output is the input" in fails(capsys, "softmax", "in.npy", name, "--force")


def test_output_is_a_directory(capsys: pytest.CaptureFixture[str]) -> None:
    save(logits(3, 4))
    Path("out.npy").mkdir()
    assert "out.npy: not a regular file" in fails(capsys, "softmax", "in.npy", "out.npy", "--force")


@posix
def test_device_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    save(logits(3, 4))
    os.mkfifo("out.npy")
    assert "out.npy: not a regular file" in fails(capsys, "softmax", "in.npy", "out.npy", "--force")


@pytest.mark.parametrize("target", ["missing/out.npy", "in.npy/out.npy"])
def test_no_such_folder(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    save(logits(3, 4))
    assert "no such directory" in fails(capsys, "softmax", "in.npy", target)


def test_longest_name() -> None:
    save(logits(3, 4))
    name = "o" * 251 + ".npy"
    assert main(["softmax", "in.npy", name]) == 0
    assert sorted(os.listdir()) == ["in.npy", name]


@posix
def test_folder_that_may_not_be_written(start: Start) -> None:
    save(logits(3, 4))
    os.chmod(".", 0o555)
    code = """
import os, sys
import numpy.ma
from fastsoft.__main__ import main
main(["info"])  # imported: what it needs from folders that the other user may not read
if os.getuid() == 0:
    os.setuid(65534)
sys.exit(main(["softmax", "in.npy", "out.npy"]))
"""
    process = start(code)
    _, err = process.communicate()
    os.chmod(".", 0o755)
    assert process.returncode == 1 and err == "fastsoft: error: out.npy: Permission denied\n"
    assert os.listdir() == ["in.npy"]


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_output_appears_meanwhile(
    links: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(logits(3, 4))
    monkeypatch.setattr(fastsoft, "softmax", copying(lambda: Path("out.npy").write_text("mine")))
    if not links:
        monkeypatch.setattr(os, "link", failing(errno.EPERM))
    assert main(["softmax", "in.npy", "out.npy"]) == 1
    assert "out.npy: the output appeared meanwhile" in capsys.readouterr().err
    assert Path("out.npy").read_text() == "mine" and sorted(os.listdir()) == ["in.npy", "out.npy"]


def test_file_system_without_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", failing(errno.EPERM))
    save(logits(3, 4))
    assert main(["softmax", "in.npy", "out.npy"]) == 0
    assert sorted(os.listdir()) == ["in.npy", "out.npy"]


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("broken")])
def test_failure_in_the_middle(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(logits(30, 10))
    calls = itertools.count()

    def fail() -> None:
        if next(calls) == 3:
            raise error

    monkeypatch.setattr(fastsoft, "softmax", copying(fail))
    fails(capsys, "softmax", "in.npy", "out.npy")
    assert next(calls) == 4


# --- full disks ------------------------------------------------------------------------------------------------------


def failing(number: int) -> Callable[..., None]:
    """A stand-in for a system call that fails with this errno."""

    def function(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    return function


def test_full_disk_while_allocating(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    save(logits(30, 10))
    monkeypatch.setattr(os, "posix_fallocate", failing(errno.ENOSPC), raising=False)
    assert "out.npy: No space left" in fails(capsys, "softmax", "in.npy", "out.npy")


def test_full_disk_while_syncing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    save(logits(30, 10))
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    assert "out.npy: No space left" in fails(capsys, "softmax", "in.npy", "out.npy")


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL, None])
def test_file_system_that_cannot_allocate(number: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if number is None:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", failing(number), raising=False)
    check("softmax", logits(700, 500), -1)


@posix
@pytest.mark.parametrize("allocates", [True, False], ids=["allocating", "writing"])
def test_file_size_limit(allocates: bool, start: Start) -> None:
    save(logits(300, 100))
    code = """
import os, resource, sys
from fastsoft.__main__ import main
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
sys.exit(main(["softmax", "in.npy", "out.npy"]))
"""
    process = start(code if allocates else code.replace("resource.setr", "del os.posix_fallocate\nresource.setr", 1))
    _, err = process.communicate()
    assert process.returncode == 1 and err == "fastsoft: error: out.npy: File too large\n"
    assert os.listdir() == ["in.npy"]


@linux
@pytest.mark.parametrize("allocates", [True, False], ids=["allocating", "writing"])
def test_full_file_system(allocates: bool, start: Start) -> None:
    """A real one of 64 KiB, mounted where only the child sees it."""
    save(logits(300, 100))
    Path("disk").mkdir()
    code = """
import os, sys
from fastsoft.__main__ import main
status = main(["softmax", "in.npy", "disk/out.npy"])
print(status, os.listdir("disk"))
"""
    if not allocates:
        code = code.replace("status", "del os.posix_fallocate\nstatus", 1)
    mount = ["unshare", "--mount", "--map-root-user", "sh", "-c", 'mount -t tmpfs -o size=64k none disk && exec "$@"']
    if shutil.which("unshare") is None or subprocess.run([*mount, "sh", "true"], capture_output=True).returncode:
        pytest.skip("NOT TESTED: this machine allows no mounts in a namespace, so no file system can be filled")
    process = start(code, command=(*mount, "sh", sys.executable, "-c"))
    out, err = process.communicate()
    assert (out, err) == ("1 []\n", "fastsoft: error: disk/out.npy: No space left on device\n")


# --- signals ---------------------------------------------------------------------------------------------------------

STOPPABLE = """
import signal, sys, time
import fastsoft
from fastsoft import _stream
from fastsoft.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)
for each in signal.SIGTERM, signal.SIGHUP:
    signal.signal(each, signal.SIG_DFL)
_stream.BLOCK = 200
blocks = 0
def softmax(x, axis, out=None, **_):
    global blocks
    blocks += 1
    if blocks == 4:
        print("ready", flush=True)
        while True:
            time.sleep(1)
    return x.copy()
fastsoft.softmax = softmax
"""


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_signal_in_the_middle(kind: str, name: str, start: Start) -> None:
    (np.save if kind == "npy" else np.savez)(f"in.{kind}", logits(30, 10))
    process = start(STOPPABLE + f'sys.exit(main(["softmax", "in.{kind}", "out.{kind}"]))')
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert len(os.listdir()) == 2 and f"out.{kind}" not in os.listdir()
    process.send_signal(signal.Signals[name])
    out, err = process.communicate()
    assert process.returncode == 128 + signal.Signals[name] and (out, err) == ("", "")
    assert os.listdir() == [f"in.{kind}"]


@posix
def test_second_signal_does_not_stop_the_cleaning(start: Start) -> None:
    """An impatient Ctrl-C while the temporary file is removed."""
    save(logits(30, 10))
    code = """
import pathlib
unlink = pathlib.Path.unlink
def slow(path, missing_ok=False):
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    unlink(path, missing_ok)
pathlib.Path.unlink = slow
sys.exit(main(["softmax", "in.npy", "out.npy"]))
"""
    process = start(STOPPABLE + code)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert os.listdir() == ["in.npy"]


@posix
@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("call", ["link", "fsync", "unlink", "open"])
def test_signal_at_every_step(call: str, place: str, start: Start) -> None:
    """A signal around any system call: either the complete output or none, and no temporary file."""
    save(logits(30, 10))
    code = f"""
import os, pathlib
owner, name = {{"open": (pathlib.Path, "open"), "unlink": (pathlib.Path, "unlink")}}.get("{call}", (os, "{call}"))
real = getattr(owner, name)
def signalling(first, *arguments, **keywords):
    if not isinstance(first, int) and pathlib.Path(first).suffix != ".tmp":
        return real(first, *arguments, **keywords)
    if "{place}" == "before":
        signal.raise_signal(signal.SIGINT)
    result = real(first, *arguments, **keywords)
    signal.raise_signal(signal.SIGINT)
    return result
setattr(owner, name, signalling)
blocks = 10
main(["softmax", "in.npy", "out.npy"])
"""
    process = start(STOPPABLE + code)
    _, err = process.communicate()
    assert process.returncode == 130 and err == ""
    assert sorted(os.listdir()) in (["in.npy"], ["in.npy", "out.npy"])
    if Path("out.npy").exists():
        assert np.load("out.npy").shape == (30, 10)


@posix
@pytest.mark.parametrize("force", [False, True])
def test_kill_at_every_line(force: bool, start: Start) -> None:
    """SIGKILL before any line: the output is absent, or what it was with --force; or else complete."""
    save(logits(30, 10))
    assert main(["softmax", "in.npy", "whole.npy"]) == 0
    Path("old.npy").write_text("mine")
    code = f"""
import os, shutil, signal, sys
from fastsoft import _stream
from fastsoft.__main__ import main
_stream.BLOCK = 400
states = {{open(name, "rb").read(): name for name in ("whole.npy", "old.npy")}}

def run(line):  # in a child that does not reach this line
    lines = 0
    def trace(frame, event, _):
        nonlocal lines
        if frame.f_code.co_filename != _stream.__file__:
            return None
        lines += event == "line"
        if lines == line:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    os._exit(main(["softmax", "in.npy", "out.npy"] + ["--force"] * {force}))

found, status = [], -signal.SIGKILL
while status == -signal.SIGKILL:
    if {force}:
        shutil.copy("old.npy", "out.npy")
    pid = os.fork() or run(len(found) + 1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    found.append(states[open("out.npy", "rb").read()] if os.path.exists("out.npy") else "absent")
    if os.path.exists("out.npy"):
        os.unlink("out.npy")
print(status, *found)
"""
    out, err = start(code).communicate()
    status, *found = out.split()
    assert status == "0" and err == ""
    complete = found.index("whole.npy")
    assert complete > 50 and len(found) > complete + 1
    assert set(found[:complete]) == {"old.npy" if force else "absent"} and set(found[complete:]) == {"whole.npy"}


@posix
def test_signal_handlers_are_put_back() -> None:
    numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
    defaults: tuple[Any, ...] = signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL
    before = [signal.signal(*pair) for pair in zip(numbers, defaults, strict=True)]
    try:
        assert main(["info"]) == 0
        assert tuple(signal.getsignal(number) for number in numbers) == defaults
    finally:
        for pair in zip(numbers, before, strict=True):
            signal.signal(*pair)


@posix
def test_ignored_signals_stay_ignored(start: Start) -> None:
    """As under nohup."""
    save(logits(30, 10))
    process = start(STOPPABLE.replace("SIG_DFL", "SIG_IGN") + 'main(["softmax", "in.npy", "out.npy"])')
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 128 + signal.SIGINT
    assert os.listdir() == ["in.npy"]


# --- progress bars ---------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    check("softmax", logits(30, 10), -1)
    assert "0%" in screen.getvalue()


def test_bar_beside_standard_output(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    pytest.importorskip("tqdm")
    x = save(logits(30, 10))
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    assert main(["softmax", "in.npy", "-"]) == 0
    assert "0%" in screen.getvalue() and capfdbinary.readouterr().out == stream_of(fastsoft.softmax(x))


def test_no_bar_without_tqdm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    check("softmax", logits(30, 10), -1)
    assert screen.getvalue() == ""


def test_no_bar_off_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    check("softmax", logits(30, 10), -1)
    assert capsys.readouterr() == ("", "")


# --- bench -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bench of small arrays and single calls."""
    monkeypatch.setattr(_bench, "CASES", (((1, 10), -1), ((6, 5), 0), ((9, 9), -1)))
    monkeypatch.setattr(_bench, "QUICK_SIZE", 30)
    monkeypatch.setattr(_bench, "SAMPLE", 0.0)


@pytest.mark.usefixtures("short")
def test_bench_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert err == "" and lines[0].split()[:6] == ["|", "operation", "|", "shape", "|", "dtype"]
    assert len(lines) == 2 + len(OPS) * 3 * 2 + 4
    table = lines[: 2 + len(OPS) * 3 * 2]
    assert len({len(line) for line in table}) == 1 and {line.count("|") for line in table} == {9}  # Markdown
    assert re.fullmatch(r"\|( -+ \|){3}( -+: \|){5}", table[1])
    threads = f"threads {fastsoft.get_num_threads()}"
    for what in fastsoft.__version__, np.__version__, _bench.cpu_model(), threads:
        assert what in lines[-1]


@pytest.mark.usefixtures("short")
def test_bench_json() -> None:
    assert main(["bench", "--quick", "--json", "bench.json"]) == 0
    content = json.loads(Path("bench.json").read_text())
    assert content["environment"]["NumPy"] == np.__version__
    found = {(r["operation"], tuple(r["shape"]), r["axis"], r["dtype"]) for r in content["results"]}
    shapes = [((1, 10), -1), ((6, 5), 0)]  # without the one that is too large for a quick run
    assert found == {(op.name, *case, d) for op in OPS for case in shapes for d in ("float32", "float64")}
    bounds = {op.name: op.bound for op in OPS}
    for r in content["results"]:
        assert r["ratio"] == pytest.approx(r["numpy_seconds"] / r["seconds"])
        assert 0 <= r["error"] <= bounds[r["operation"]] and r["numpy_error"] >= 0


@pytest.mark.usefixtures("short")
def test_bench_plot() -> None:
    pytest.importorskip("matplotlib")
    assert main(["bench", "--quick", "--plot", "bench.png"]) == 0
    assert Path("bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("short")
def test_bench_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "pip install fastsoft[cli]" in fails(capsys, "bench", "--plot", "bench.png")


@pytest.mark.usefixtures("short")
def test_bench_refuses_wrong_results(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = fastsoft.softmax
    monkeypatch.setattr(fastsoft, "softmax", lambda x, axis: right(x, axis=axis) * (1 + 1e-5))
    assert "softmax of float32 (1, 10), axis -1: an error of" in fails(capsys, "bench")


@pytest.mark.usefixtures("short")
def test_bench_threads() -> None:
    before = fastsoft.get_num_threads()
    try:
        assert main(["bench", "--quick", "--threads", "1", "--json", "bench.json"]) == 0
        assert json.loads(Path("bench.json").read_text())["environment"]["threads"] == 1
    finally:
        fastsoft.set_num_threads(before)


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """No measuring begins."""
    monkeypatch.setattr(_bench, "bench", lambda **_: pytest.fail("it measures"))


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    "name, message",
    [
        ("missing/bench.json", "No such file"),
        ("in.npy/bench.json", "Not a directory"),
        (".", "Is a directory"),
        ("locked/bench.json", "Permission denied"),
    ],
)
@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_bench_file_that_cannot_be_written(
    option: str, name: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found before the measuring, and nothing is made."""
    save(1)
    Path("locked").mkdir()
    access = os.access  # which lets root write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != "locked" and access(path, mode))
    assert f"{name}: {message}" in fails(capsys, "bench", option, name)


@pytest.mark.usefixtures("unmeasured")
def test_bench_plot_of_unknown_kind(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    message = fails(capsys, "bench", "--plot", "bench.nosuch")
    assert "--plot bench.nosuch: the name must end in one of " in message and " .png, " in message


def test_bench_cases_are_within_reach() -> None:
    """No array is large, and there is a case small enough for Jacobians, n times as large."""
    assert all(math.prod(shape) <= 2**21 for shape, _ in _bench.CASES)
    assert sum(math.prod(shape) * shape[axis] <= _bench.LARGEST for shape, axis in _bench.CASES) >= 2


@pytest.mark.usefixtures("short")
def test_bench_leaves_out_jacobians_that_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_bench, "LARGEST", 500)
    found = {r.case for r in _bench.bench() if r.operation == "softmax_jacobian"}
    assert found == {"1x10", "6x5 axis 0"}
    assert {r.case for r in _bench.bench() if r.operation == "softmax_vjp"} == {*found, "9x9"}


# --- the rest --------------------------------------------------------------------------------------------------------


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    fastsoft.show_config()
    want = capsys.readouterr().out
    assert main(["info"]) == 0
    assert capsys.readouterr() == (want, "") and fastsoft.__version__ in want


def test_run_as_a_module(start: Start) -> None:
    process = start("info", command=(sys.executable, "-m", "fastsoft"))
    out, err = process.communicate()
    assert process.returncode == 0 and err == "" and fastsoft.__version__ in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0 and capsys.readouterr().out == f"fastsoft {fastsoft.__version__}\n"


@pytest.mark.parametrize("name", ["", "info", "bench", *COMMANDS])
def test_help_has_examples_that_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    examples = re.findall(r"fastsoft( [^|<>\n]*)", capsys.readouterr().out.split("\nexamples:\n")[1].split("\n\n")[0])
    examples = [example.split("   ")[0] for example in examples]
    assert len(examples) >= 2 and all(f" {name}".rstrip() in example for example in examples)
    for example in examples:
        if "--help" not in example:
            _parser().parse_args(shlex.split(example))


WRONG = [
    [],
    ["nonsense"],
    ["softmax"],
    ["softmax", "in.npy"],
    ["softmax", "in.npy", "out.npy", "more.npy"],
    ["softmax", "in.npy", "out.npy", "--axis", "x"],
    *(["softmax", "in.npy", "out.npy", f"--temperature={value}"] for value in ("warm", "0", "-1", "nan", "inf")),
    *(["softmax", "in.npy", "out.npy", "--threads", n] for n in ("0", "4097")),
    ["logsumexp", "in.npy", "out.npy", "--temperature", "2"],
    ["softmax", "in.npy", "out.npz"],
    ["softmax", "in.npz", "out.npy"],
    ["softmax", "in.NPZ", "out.npy"],
    ["softmax", "in.npy", "out.txt"],
    ["softmax", "in.npy", "out"],
    ["softmax", "in.npz", "-"],
    ["softmax", "-", "out.npz"],
    ["softmax", "in.npy", "out.npy", "--array", "x"],
    ["bench", "--threads", "two"],
    ["bench", "--threads", "4097"],
    ["info", "--force"],
]


@pytest.mark.parametrize("argv", WRONG, ids=" ".join)
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    save(logits(3, 4))
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2 and "usage: fastsoft" in capsys.readouterr().err
    assert os.listdir() == ["in.npy"]


def test_wrong_usage_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["softmax", "in.npy", "out.npy", "--threads", "4097"])
    assert "argument --threads: must be a positive integer up to 4096, not '4097'" in capsys.readouterr().err
