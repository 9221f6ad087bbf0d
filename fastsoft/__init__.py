"""Softmax, log-softmax, logsumexp, their derivatives and cross-entropy over NumPy arrays: fast, with error bounds."""

try:
    from . import _machine as _machine
except ImportError as error:
    from importlib.util import find_spec

    if find_spec(f"{__name__}._machine"):
        raise
    raise ImportError(
        "this is fastsoft's source tree, which is not compiled, not the package that pip installed: start Python in "
        "another folder, or install with `pip install -e .`"
    ) from error

from ._config import show_config
from ._threads import get_num_threads, num_threads, set_num_threads
from ._validate import EmptyRowError, SingularGradientError
from .api import log_softmax, logsumexp, softmax
from .derivatives import (
    SoftmaxJacobian,
    log_softmax_vjp,
    log_softmax_vjp_from_output,
    softmax_jacobian,
    softmax_jacobian_diagonal,
    softmax_jvp,
    softmax_vjp,
    softmax_vjp_from_output,
    softmax_vjp_zeros,
)
from .losses import cross_entropy, cross_entropy_grad, softmax_cross_entropy, softmax_cross_entropy_with_grad
from .state import LogSumExp

__all__ = [
    "EmptyRowError",
    "LogSumExp",
    "SingularGradientError",
    "SoftmaxJacobian",
    "__version__",
    "cross_entropy",
    "cross_entropy_grad",
    "get_num_threads",
    "log_softmax",
    "log_softmax_vjp",
    "log_softmax_vjp_from_output",
    "logsumexp",
    "num_threads",
    "set_num_threads",
    "show_config",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_grad",
    "softmax_jacobian",
    "softmax_jacobian_diagonal",
    "softmax_jvp",
    "softmax_vjp",
    "softmax_vjp_from_output",
    "softmax_vjp_zeros",
]


_HINTS = {
    "torch": f"; write `import {__name__}.torch` first",
    "compat": f"; write `import {__name__}.compat.scipy` first",
    "dask": "; the functions take Dask arrays as they are",
}


def __getattr__(name: str) -> str:  # read when asked for: importlib.metadata takes its time
    if name == "__version__":
        from ._config import version

        return version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{_HINTS.get(name, '')}")
