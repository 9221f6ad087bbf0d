# The ways into the public functions: the short ones (plain.pxi, plain_losses.pxi), else the function in Python of the
# same name. Its signature, which is that here, its docstring and its name take the place of those here
# (fastsoft/_entry.py).

cdef object short_way_of_pair(
    Kind kind, object x, object v, object axis, object temperature, object out, object num_threads
):
    cdef Batch b
    z = None
    if set_operation(&b.op, kind, temperature):
        z = quick_pair(&b, x, v, axis, out, num_threads)
    return z


def softmax(x, axis=-1, *, where=None, temperature=ONE, empty=NAN_NAME, out=None, num_threads=None):
    cdef Batch b
    y = None
    if set_operation(&b.op, SOFTMAX, temperature) and set_empty(&b.op, empty):
        y = quick(&b, x, axis, where, False, out, num_threads)
    if y is None:
        y = general["softmax"](
            x, axis, where=where, temperature=temperature, empty=empty, out=out, num_threads=num_threads
        )
    return y


def log_softmax(x, axis=-1, *, where=None, temperature=ONE, empty=NAN_NAME, out=None, num_threads=None):
    cdef Batch b
    y = None
    if set_operation(&b.op, LOG_SOFTMAX, temperature) and set_empty(&b.op, empty):
        y = quick(&b, x, axis, where, False, out, num_threads)
    if y is None:
        y = general["log_softmax"](
            x, axis, where=where, temperature=temperature, empty=empty, out=out, num_threads=num_threads
        )
    return y


def logsumexp(x, axis=-1, *, keepdims=False, where=None, out=None, num_threads=None):
    cdef Batch b
    y = None
    if type(keepdims) is bool:
        set_plain(&b.op, LOGSUMEXP)
        y = quick(&b, x, axis, where, keepdims, out, num_threads)
    if y is None:
        y = general["logsumexp"](x, axis, keepdims=keepdims, where=where, out=out, num_threads=num_threads)
    return y


def softmax_jacobian(x, axis=-1, *, temperature=ONE, out=None, num_threads=None):
    cdef Batch b
    y = None
    if set_operation(&b.op, JACOBIAN, temperature):
        y = quick_jacobian(&b, x, axis, out, num_threads)
    if y is None:
        y = general["softmax_jacobian"](x, axis, temperature=temperature, out=out, num_threads=num_threads)
    return y


def softmax_jacobian_diagonal(x, axis=-1, *, temperature=ONE, out=None, num_threads=None):
    cdef Batch b
    y = None
    if set_operation(&b.op, DIAGONAL, temperature):
        b.op.scale = b.op.factor.hi
        y = quick(&b, x, axis, None, False, out, num_threads)
    if y is None:
        y = general["softmax_jacobian_diagonal"](x, axis, temperature=temperature, out=out, num_threads=num_threads)
    return y


def softmax_vjp(x, v, axis=-1, *, temperature=ONE, out=None, num_threads=None):
    z = short_way_of_pair(VJP, x, v, axis, temperature, out, num_threads)
    if z is None:
        z = general["softmax_vjp"](x, v, axis, temperature=temperature, out=out, num_threads=num_threads)
    return z


def softmax_jvp(x, u, axis=-1, *, temperature=ONE, out=None, num_threads=None):
    z = short_way_of_pair(VJP, x, u, axis, temperature, out, num_threads)
    if z is None:
        z = general["softmax_jvp"](x, u, axis, temperature=temperature, out=out, num_threads=num_threads)
    return z


def softmax_vjp_from_output(y, v, axis=-1, *, out=None, num_threads=None):
    z = short_way_of_pair(VJP_FROM_OUTPUT, y, v, axis, ONE, out, num_threads)
    if z is None:
        z = general["softmax_vjp_from_output"](y, v, axis, out=out, num_threads=num_threads)
    return z


def log_softmax_vjp(x, g, axis=-1, *, temperature=ONE, out=None, num_threads=None):
    z = short_way_of_pair(LOG_VJP, x, g, axis, temperature, out, num_threads)
    if z is None:
        z = general["log_softmax_vjp"](x, g, axis, temperature=temperature, out=out, num_threads=num_threads)
    return z


def log_softmax_vjp_from_output(y, g, axis=-1, *, out=None, num_threads=None):
    z = short_way_of_pair(LOG_VJP_FROM_OUTPUT, y, g, axis, ONE, out, num_threads)
    if z is None:
        z = general["log_softmax_vjp_from_output"](y, g, axis, out=out, num_threads=num_threads)
    return z


def cross_entropy(z, t, axis=-1, *, out=None, num_threads=None):
    loss = quick_cross_entropy(z, t, axis, out, num_threads)
    if loss is None:
        loss = general["cross_entropy"](z, t, axis, out=out, num_threads=num_threads)
    return loss


def cross_entropy_grad(z, t, axis=-1, *, singular="raise", return_singular=False, out=None, num_threads=None):
    y = None
    if return_singular is False and type(singular) is str and singular in ("raise", "inf", "nan", "zero"):
        y = quick_cross_entropy_grad(z, t, axis, out, num_threads)
    if y is None:
        y = general["cross_entropy_grad"](
            z, t, axis, singular=singular, return_singular=return_singular, out=out, num_threads=num_threads
        )
    return y


cdef object loss_of_logits(
    object name, object x, object t, object axis, object weight, object ignore_index, object label_smoothing,
    object z_loss, object temperature, object reduction, object out, object num_threads, bint gradient
):
    """The loss, with its gradient if that is wanted: the short way, or what the function in Python gives"""
    cdef Batch b
    cdef double smoothing
    found = None
    if (
        set_operation(&b.op, LABELS, temperature) and as_number(z_loss, 0, DBL_MAX, &b.op.z_loss)
        and as_number(label_smoothing, 0, 1, &smoothing) and (gradient or out is None)
    ):
        found = quick_loss(
            &b, x, t, axis, weight, ignore_index, smoothing, reduction, gradient, out, num_threads
        )
    if found is None:
        found = general[name](
            x, t, axis, weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing, z_loss=z_loss,
            temperature=temperature, reduction=reduction, out=out, num_threads=num_threads
        )
    return found


def softmax_cross_entropy(
    x, t, axis=-1, *, weight=None, ignore_index=None, label_smoothing=ZERO, z_loss=ZERO, temperature=ONE,
    reduction="none", out=None, num_threads=None
):
    return loss_of_logits(
        "softmax_cross_entropy", x, t, axis, weight, ignore_index, label_smoothing, z_loss, temperature, reduction,
        out, num_threads, False
    )


def softmax_cross_entropy_with_grad(
    x, t, axis=-1, *, weight=None, ignore_index=None, label_smoothing=ZERO, z_loss=ZERO, temperature=ONE,
    reduction="none", out=None, num_threads=None
):
    return loss_of_logits(
        "softmax_cross_entropy_with_grad", x, t, axis, weight, ignore_index, label_smoothing, z_loss, temperature,
        reduction, out, num_threads, True
    )
