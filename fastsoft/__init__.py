"""Softmax, log-softmax and logsumexp over NumPy arrays: fast, and with error bounds."""

from ._config import show_config
from ._threads import get_num_threads, num_threads, set_num_threads
from ._validate import EmptyRowError
from .api import log_softmax, logsumexp, softmax

__all__ = [
    "EmptyRowError",
    "__version__",
    "get_num_threads",
    "log_softmax",
    "logsumexp",
    "num_threads",
    "set_num_threads",
    "show_config",
    "softmax",
]


def __getattr__(name: str) -> str:  # read when asked for: importlib.metadata takes its time
    if name == "__version__":
        from ._config import version

        return version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
