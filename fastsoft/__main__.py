"""The command line: `fastsoft` or `python -m fastsoft`."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import fastsoft
from fastsoft import _bench, _stream, _threads

DESCRIPTION = "Fast, accurate softmax: of .npy and .npz files and of pipes, and measured beside NumPy on this machine."
EXAMPLES = """\
examples:
  fastsoft info
  fastsoft bench --quick
  fastsoft softmax logits.npy probabilities.npy
  fastsoft softmax --help             more of these

An exit status of 1 is an error while running, 2 a wrong command line, 130 an interrupt (Ctrl-C), 141 an output that
nobody reads on (as in | head).

On a terminal a bar shows how far long work is, if tqdm is installed: pip install fastsoft[cli]
"""
INFO_EXAMPLES = """\
examples:
  fastsoft info
  FASTSOFT_ISA=avx2 fastsoft info     what another variant says
"""
BENCH_EXAMPLES = """\
examples:
  fastsoft bench --quick
  fastsoft bench > report.md          the table is Markdown
  fastsoft bench --threads 2 --json bench.json --plot bench.png
"""
STREAM_EXAMPLES = """\
examples:
  fastsoft {0} logits.npy out.npy
  fastsoft {0} logits.npy out.npy --axis 0 --threads 2 --force
  fastsoft {0} layers.npz out.npz --array first --array last
  zcat logits.npy.gz | fastsoft {0} - - | gzip > out.npy.gz
"""
STREAMED = {
    "softmax": "exp(x_i / T) / sum_j exp(x_j / T)",
    "log-softmax": "x_i / T - log sum_j exp(x_j / T)",
    "logsumexp": "log sum_j exp(x_j)",
}
SOURCE = """an .npy file, which is mapped, so it may be larger than memory; an .npz file, whose arrays are read into
memory one after the other; or - for an .npy file from standard input, read into memory, as from any other pipe"""
TARGET = """a name that ends in .npy, or for an .npz in .npz; the file appears when complete and must not exist yet. Or
- for an .npy file to standard output, written in blocks as they are ready"""
ARRAY = "of an .npz: take this one alone; may be given several times (default: all)"


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    try:
        with _signals_as_exit():
            arguments = _parser().parse_args(argv)
            arguments.run(arguments)
            print(end="", flush=True)
    except BrokenPipeError:  # who reads the output has enough of it, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where Python ends by writing what is left
        return 141  # as if ended by SIGPIPE
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except (ImportError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        return _fail(str(error) or type(error).__name__)
    return 0


def _fail(message: str) -> int:
    print(f"fastsoft: error: {message}", file=sys.stderr)
    return 1


def _info(_: argparse.Namespace) -> None:
    fastsoft.show_config()


def _run_bench(arguments: argparse.Namespace) -> None:
    if arguments.threads is not None:
        fastsoft.set_num_threads(arguments.threads)
    for path in filter(None, (arguments.json, arguments.plot)):
        _bench.check_writable(path)  # say before the measuring what would go wrong after it
    if arguments.plot:
        _bench.check_format(arguments.plot)
    results = _bench.bench(quick=arguments.quick, progress=_progress)
    print(_bench.table(results))
    if arguments.json:
        _bench.write_json(results, arguments.json)
    if arguments.plot:
        _bench.plot(results, arguments.plot)


def _run_stream(arguments: argparse.Namespace) -> None:
    source, target = arguments.source, arguments.target
    if _stream.is_npz(source) != _stream.is_npz(target):
        arguments.error(f"an .npz goes to an .npz, and nothing else does: IN is {source}, OUT is {target}")
    if target != "-" and not target.lower().endswith((".npy", ".npz")):
        arguments.error(f"OUT must end in .npy, or be - for standard output: it is {target}")
    if arguments.array and not _stream.is_npz(source):
        arguments.error(f"--array takes arrays of an .npz: IN is {source}")
    options = {"num_threads": arguments.threads}
    if "temperature" in arguments:
        options["temperature"] = arguments.temperature
    function = getattr(fastsoft, arguments.command.replace("-", "_"))
    options |= {"axis": arguments.axis, "arrays": arguments.array, "force": arguments.force}
    _stream.stream(function, source, target, progress=_progress, **options)


def _progress(items: Sequence[Any]) -> Iterable[Any]:
    """Show a bar while `items` are taken, on a terminal and where tqdm is installed."""
    if sys.stderr.isatty():
        try:
            bar: Iterable[Any] = importlib.import_module("tqdm").tqdm(items, leave=False)
            return bar
        except ImportError:
            pass
    return items


@contextmanager
def _signals_as_exit() -> Iterator[None]:
    """Make the first SIGINT, SIGTERM or SIGHUP a SystemExit, so that files are cleaned up, and ignore further ones."""
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {getattr(signal, name): signal.getsignal(getattr(signal, name)) for name in names}
    ours = [number for number, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]

    def stop(number: int, _: object) -> None:
        for each in ours:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # where Python lets nobody set a handler
        ours = []
    try:
        for each in ours:
            signal.signal(each, stop)
        yield
    finally:
        for each in ours:
            signal.signal(each, before[each])


def _positive(text: str, number: type[float] = int, words: str = "integer", largest: float = math.inf) -> float:
    try:
        if 0 < (value := number(text)) <= largest and value < math.inf:
            return value
    except ValueError:
        pass
    limit = f" up to {largest}" if largest < math.inf else ""
    raise argparse.ArgumentTypeError(f"must be a positive {words}{limit}, not {text!r}")


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    temperature = partial(_positive, number=float, words="finite number")
    count = partial(_positive, largest=_threads.LIMIT)
    parser = argparse.ArgumentParser("fastsoft", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"fastsoft {fastsoft.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    threads = argparse.ArgumentParser(add_help=False)
    threads.add_argument("--threads", type=count, metavar="N", help="threads to use (default: as fastsoft chooses)")

    def add(name: str, examples: str, **keywords: Any) -> argparse.ArgumentParser:
        return commands.add_parser(name, epilog=examples, formatter_class=raw, **keywords)

    info = add("info", INFO_EXAMPLES, help="version, instruction sets and threads")
    info.set_defaults(run=_info)

    bench = add("bench", BENCH_EXAMPLES, parents=[threads], help="speed and accuracy beside NumPy on this machine")
    bench.add_argument("--quick", action="store_true", help="smaller arrays and less time: a few seconds")
    bench.add_argument("--json", metavar="FILE", help="write the results to this file")
    bench.add_argument("--plot", metavar="FILE.png", help="draw them too (pip install fastsoft[cli])")
    bench.set_defaults(run=_run_bench)

    for name, formula in STREAMED.items():
        about = f"{formula} of arrays in files or pipes"
        command = add(name, STREAM_EXAMPLES.format(name), parents=[threads], help=about)
        command.add_argument("source", metavar="IN", help=SOURCE)
        command.add_argument("target", metavar="OUT", help=TARGET)
        command.add_argument("--axis", type=int, default=-1, metavar="K", help="of the classes (default: the last)")
        command.add_argument("--array", action="append", default=[], metavar="NAME", help=ARRAY)
        if name != "logsumexp":
            command.add_argument("--temperature", type=temperature, default=1.0, metavar="T", help="default: 1")
        command.add_argument("--force", action="store_true", help="replace OUT if it exists")
        command.set_defaults(run=_run_stream, error=command.error)
    return parser


if __name__ == "__main__":
    sys.exit(main())
