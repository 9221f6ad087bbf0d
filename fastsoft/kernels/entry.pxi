# The ways into the public functions: the short ones (plain.pxi) with default arguments, else the function in Python of
# the same name. Its signature, which is that here, its docstring and its name take the place of those here
# (fastsoft/_entry.py).

from fastsoft._entry import general as _general

cdef dict general = _general
cdef object ONE = 1.0  # the defaults, compared by identity
cdef object ZERO = 0.0
cdef object NAN_NAME = "nan"


cdef int threads_now() except -1:
    return general["get_num_threads"]()


cdef object short_way(Kind kind, object x, object axis, object out):
    """`quick` on one thread or, for large arrays, with as many as are allowed"""
    y = quick(kind, x, axis, out, 0)
    return quick(kind, x, axis, out, threads_now()) if y is None else y


cdef object short_way_of_pair(Kind kind, object x, object v, object axis, object out):
    y = quick_pair(kind, x, v, axis, out, 0)
    return quick_pair(kind, x, v, axis, out, threads_now()) if y is None else y


def softmax(x, axis=-1, *, where=None, temperature=ONE, empty=NAN_NAME, out=None, num_threads=None):
    y = None
    if where is None and temperature is ONE and empty is NAN_NAME and num_threads is None:
        y = short_way(SOFTMAX, x, axis, out)
    if y is None:
        y = general["softmax"](
            x, axis, where=where, temperature=temperature, empty=empty, out=out, num_threads=num_threads
        )
    return y


def log_softmax(x, axis=-1, *, where=None, temperature=ONE, empty=NAN_NAME, out=None, num_threads=None):
    y = None
    if where is None and temperature is ONE and empty is NAN_NAME and num_threads is None:
        y = short_way(LOG_SOFTMAX, x, axis, out)
    if y is None:
        y = general["log_softmax"](
            x, axis, where=where, temperature=temperature, empty=empty, out=out, num_threads=num_threads
        )
    return y


def logsumexp(x, axis=-1, *, keepdims=False, where=None, out=None, num_threads=None):
    y = None
    if keepdims is False and where is None and num_threads is None:
        y = short_way(LOGSUMEXP, x, axis, out)
    if y is None:
        y = general["logsumexp"](x, axis, keepdims=keepdims, where=where, out=out, num_threads=num_threads)
    return y


def softmax_jacobian(x, axis=-1, *, temperature=ONE, out=None, num_threads=None):
    y = None
    if temperature is ONE and num_threads is None:
        y = quick_jacobian(x, axis, out, 0)
        if y is None:
            y = quick_jacobian(x, axis, out, threads_now())
    if y is None:
        y = general["softmax_jacobian"](x, axis, temperature=temperature, out=out, num_threads=num_threads)
    return y


def softmax_jacobian_diagonal(x, axis=-1, *, temperature=ONE, out=None, num_threads=None):
    y = None
    if temperature is ONE and num_threads is None:
        y = short_way(DIAGONAL, x, axis, out)
    if y is None:
        y = general["softmax_jacobian_diagonal"](x, axis, temperature=temperature, out=out, num_threads=num_threads)
    return y


def softmax_vjp(x, v, axis=-1, *, temperature=ONE, out=None, num_threads=None):
    z = None
    if temperature is ONE and num_threads is None:
        z = short_way_of_pair(VJP, x, v, axis, out)
    if z is None:
        z = general["softmax_vjp"](x, v, axis, temperature=temperature, out=out, num_threads=num_threads)
    return z


def softmax_jvp(x, u, axis=-1, *, temperature=ONE, out=None, num_threads=None):
    z = None
    if temperature is ONE and num_threads is None:
        z = short_way_of_pair(VJP, x, u, axis, out)
    if z is None:
        z = general["softmax_jvp"](x, u, axis, temperature=temperature, out=out, num_threads=num_threads)
    return z


def softmax_vjp_from_output(y, v, axis=-1, *, out=None, num_threads=None):
    z = short_way_of_pair(VJP_FROM_OUTPUT, y, v, axis, out) if num_threads is None else None
    if z is None:
        z = general["softmax_vjp_from_output"](y, v, axis, out=out, num_threads=num_threads)
    return z


def log_softmax_vjp(x, g, axis=-1, *, temperature=ONE, out=None, num_threads=None):
    z = None
    if temperature is ONE and num_threads is None:
        z = short_way_of_pair(LOG_VJP, x, g, axis, out)
    if z is None:
        z = general["log_softmax_vjp"](x, g, axis, temperature=temperature, out=out, num_threads=num_threads)
    return z


def log_softmax_vjp_from_output(y, g, axis=-1, *, out=None, num_threads=None):
    z = short_way_of_pair(LOG_VJP_FROM_OUTPUT, y, g, axis, out) if num_threads is None else None
    if z is None:
        z = general["log_softmax_vjp_from_output"](y, g, axis, out=out, num_threads=num_threads)
    return z


def cross_entropy(z, t, axis=-1, *, out=None, num_threads=None):
    loss = None
    if num_threads is None:
        loss = quick_cross_entropy(z, t, axis, out, 0)
        if loss is None:
            loss = quick_cross_entropy(z, t, axis, out, threads_now())
    if loss is None:
        loss = general["cross_entropy"](z, t, axis, out=out, num_threads=num_threads)
    return loss


cdef object loss_of_labels(
    object name, object x, object t, object axis, object weight, object ignore_index, object label_smoothing,
    object z_loss, object temperature, object reduction, object out, object num_threads, bint gradient
):
    """(loss, gradient or None) the short way; or what the function in Python gives"""
    both = None
    if (
        weight is None and label_smoothing is ZERO and z_loss is ZERO and temperature is ONE and num_threads is None
        and (gradient or out is None)
    ):
        both = quick_loss(x, t, axis, ignore_index, reduction, gradient, out, 0)
        if both is None:
            both = quick_loss(x, t, axis, ignore_index, reduction, gradient, out, threads_now())
        if both is not None:
            return both if gradient else both[0]
    return general[name](
        x, t, axis, weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing, z_loss=z_loss,
        temperature=temperature, reduction=reduction, out=out, num_threads=num_threads
    )


def softmax_cross_entropy(
    x, t, axis=-1, *, weight=None, ignore_index=None, label_smoothing=ZERO, z_loss=ZERO, temperature=ONE,
    reduction="none", out=None, num_threads=None
):
    return loss_of_labels(
        "softmax_cross_entropy", x, t, axis, weight, ignore_index, label_smoothing, z_loss, temperature, reduction,
        out, num_threads, False
    )


def softmax_cross_entropy_with_grad(
    x, t, axis=-1, *, weight=None, ignore_index=None, label_smoothing=ZERO, z_loss=ZERO, temperature=ONE,
    reduction="none", out=None, num_threads=None
):
    return loss_of_labels(
        "softmax_cross_entropy_with_grad", x, t, axis, weight, ignore_index, label_smoothing, z_loss, temperature,
        reduction, out, num_threads, True
    )
