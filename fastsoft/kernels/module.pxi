# What Python sees of one instruction set. Arguments are taken as valid: _validate.py has looked at them.
from libc.math cimport NAN
cimport numpy as cnp

cnp.import_array()

cdef enum:
    APART = 512  # bytes of a row of which lines that it shares are few; twice as many where less is computed
    HELD = 1024  # numbers up to which the GIL is held: to give it back and take it again would take longer

cdef atomic[int] active  # calls that are running now, in all Python threads


cdef inline Py_ssize_t stride_of(cnp.ndarray a, int axis) noexcept:
    return cnp.PyArray_STRIDE(a, axis) if a is not None else 0


cdef inline char* data_of(cnp.ndarray a) noexcept:
    return <char*> cnp.PyArray_DATA(a) if a is not None else NULL


cdef char* entries_of(cnp.ndarray a, int typenum, str name) except? NULL:
    """Where the numbers of a lie, which must be contiguous and of one type. In place of typed memoryviews: what Cython
    writes for these would be a tenth of the module."""
    if a is not None and not (cnp.PyArray_EquivTypenums(cnp.PyArray_TYPE(a), typenum) and cnp.PyArray_ISCARRAY_RO(a)):
        raise TypeError(f"{name} must be contiguous numbers of NumPy's type {typenum}, got {a.dtype}")
    return data_of(a)


cdef void set_axes(
    Batch* b, cnp.ndarray x, cnp.ndarray v, cnp.ndarray out, cnp.ndarray where, int axis
) noexcept:
    """The class axis and the batch axes, those merged that lie as one; all arrays have x's axes (out may have 1 as
    its class axis), or are None"""
    cdef Py_ssize_t[MAX_NDIM] shape, xs, vs, os, ws
    cdef int d, n = 0, ndim = cnp.PyArray_NDIM(x)
    cdef Py_ssize_t size, last, xi, vi, oi, wi
    b.x, b.v, b.out, b.where = data_of(x), data_of(v), data_of(out), data_of(where)
    b.n = cnp.PyArray_DIM(x, axis)
    b.x_step, b.v_step, b.out_step, b.where_step = (
        stride_of(x, axis), stride_of(v, axis), stride_of(out, axis), stride_of(where, axis)
    )
    b.rows = 1
    b.ndim = 0
    for d in range(ndim - 1, -1, -1):  # innermost first, turned round below
        size = cnp.PyArray_DIM(x, d)
        if d == axis or size == 1:
            continue
        b.rows *= size
        xi, vi, oi, wi = stride_of(x, d), stride_of(v, d), stride_of(out, d), stride_of(where, d)
        last = shape[n - 1] if n > 0 else 0
        if n > 0 and (
            xi == xs[n - 1] * last and vi == vs[n - 1] * last and oi == os[n - 1] * last and wi == ws[n - 1] * last
        ):
            shape[n - 1] *= size
            continue
        shape[n], xs[n], vs[n], os[n], ws[n] = size, xi, vi, oi, wi
        n += 1
    b.ndim = n
    for d in range(n):
        b.shape[d], b.x_stride[d], b.v_stride[d], b.out_stride[d], b.where_stride[d] = (
            shape[n - 1 - d], xs[n - 1 - d], vs[n - 1 - d], os[n - 1 - d], ws[n - 1 - d]
        )


cdef int run_typed(const Batch* b, Py_ssize_t start, Py_ssize_t stop, int threads, int typenum) noexcept nogil:
    """Rows start .. stop; -1 where there is no memory for them"""
    if typenum == cnp.NPY_FLOAT32:
        return run_all[float](b, start, stop, threads, NULL)
    if typenum == cnp.NPY_FLOAT64:
        return run_all[double](b, start, stop, threads, NULL)
    if typenum == cnp.NPY_FLOAT16:
        return run_all[half](b, start, stop, threads, NULL)
    return run_all[bfloat](b, start, stop, threads, NULL)  # ml_dtypes registers it; it has no number of its own


cdef inline int claim(int threads) noexcept nogil:
    """How many threads this call may use: while other Python threads use several, this one alone"""
    return 1 if threads > 1 and active.fetch_add(1) > 0 else threads


cdef inline void give_back(int threads) noexcept nogil:
    """What was claimed for `threads`"""
    if threads > 1:
        active.fetch_sub(1)


cdef int execute(const Batch* b, Py_ssize_t start, Py_ssize_t stop, int threads, int typenum) except -1:
    """Rows start .. stop, without the GIL but for few numbers"""
    cdef int status
    if (stop - start) * b.n <= HELD:
        status = run_typed(b, start, stop, 1, typenum)
    else:
        with nogil:
            status = run_typed(b, start, stop, claim(threads), typenum)
            give_back(threads)
    if status < 0:
        raise MemoryError(f"no memory for the scratch rows of {b.n} classes on {threads} threads")
    return 0


cdef void set_plain(Operation* op, Kind kind) noexcept:
    """An operation with default arguments"""
    memset(op, 0, sizeof(Operation))
    op.kind = kind
    op.how = PLAIN
    op.factor.hi, op.factor.lo, op.factor.g = 1.0, 0.0, 1.0
    op.empty = NAN
    op.scale = op.on = 1.0


cdef void set_factor(Operation* op, int how, tuple factor):
    op.how = <Argument> how
    op.factor.hi, op.factor.lo, op.factor.g = factor


cdef bint streams(const Batch* b, cnp.ndarray out) noexcept:
    """Whether out is written past the caches: not where rows are short and share lines, which hold up the others"""
    cdef Py_ssize_t size = b.n * cnp.PyArray_ITEMSIZE(out) if out is not None else 0
    cdef Py_ssize_t apart = APART if b.op.kind < VJP else 2 * APART
    if out is None or cnp.PyArray_NBYTES(out) < STREAM or b.n * REGISTER >= STREAM:
        return False
    return b.out_step != cnp.PyArray_ITEMSIZE(out) or size >= apart or (size | <uintptr_t> b.out) % REGISTER == 0


def apply(
    int kind, cnp.ndarray x not None, cnp.ndarray out not None, cnp.ndarray where, int axis, int how,
    tuple factor not None, double empty, int threads, Py_ssize_t start, Py_ssize_t stop
):
    """Compute rows start .. stop of x into out. Both have the same dtype (float16, bfloat16, float32, float64),
    aligned and in native byte order, and the same axes; for logsumexp the class axis of out has length 1.
    where: None, or booleans of x's shape. factor: (hi, lo, g) with 1/temperature = g (hi + lo)."""
    cdef Batch b
    set_plain(&b.op, <Kind> kind)
    set_factor(&b.op, how, factor)
    b.op.empty = empty
    set_axes(&b, x, None, out, where, axis)
    b.stream = streams(&b, out)
    execute(&b, start, min(stop, b.rows), threads, cnp.PyArray_TYPE(x))


def derive(
    int kind, cnp.ndarray x not None, cnp.ndarray v, cnp.ndarray out, int axis, int how, tuple factor not None,
    int threads, Py_ssize_t start, Py_ssize_t stop, cnp.ndarray labels=None, cnp.ndarray row_weights=None,
    cnp.ndarray class_weights=None, cnp.ndarray loss=None, double on=1, double off=0, double scale=1, double z_loss=0
):
    """As `apply`, for derivatives and losses. v: the second argument, of x's dtype and axes, or None; out: the same,
    or None where only the loss is wanted. labels, -1 for ignored rows, row_weights, and loss (of the type that is
    computed in) have an entry for each row, class_weights for each class."""
    cdef Batch b
    set_plain(&b.op, <Kind> kind)
    set_factor(&b.op, how, factor)
    b.op.on, b.op.off, b.op.scale, b.op.z_loss = on, off, scale, z_loss
    b.op.labels = <const int64_t*> entries_of(labels, cnp.NPY_INT64, "labels")
    b.op.row_weights = <const double*> entries_of(row_weights, cnp.NPY_FLOAT64, "row_weights")
    b.op.class_weights = <const double*> entries_of(class_weights, cnp.NPY_FLOAT64, "class_weights")
    b.op.loss = data_of(loss)
    set_axes(&b, x, v, out, None, axis)
    b.stream = streams(&b, out)
    execute(&b, start, min(stop, b.rows), threads, cnp.PyArray_TYPE(x))


cdef int jacobian_typed(
    Batch* b, Py_ssize_t start, Py_ssize_t stop, double c, int threads, int x_type, int out_type, char* out
) noexcept nogil:
    if x_type == cnp.NPY_FLOAT64:
        return run_jacobian[double, double](b, start, stop, c, threads, NULL, <double*> out)
    if out_type == cnp.NPY_FLOAT32:
        return run_jacobian[float, float](b, start, stop, c, threads, NULL, <float*> out)
    if out_type == cnp.NPY_FLOAT16:
        return run_jacobian[float, half](b, start, stop, c, threads, NULL, <half*> out)
    return run_jacobian[float, bfloat](b, start, stop, c, threads, NULL, <bfloat*> out)


cdef int jacobian_run(
    Batch* b, Py_ssize_t start, Py_ssize_t stop, double c, int threads, int x_type, int out_type, char* out
) except -1:
    cdef int status
    if (stop - start) * b.n * b.n <= HELD:
        status = jacobian_typed(b, start, stop, c, 1, x_type, out_type, out)
    else:
        with nogil:
            status = jacobian_typed(b, start, stop, c, claim(threads), x_type, out_type, out)
            give_back(threads)
    if status < 0:
        raise MemoryError(f"no memory for the probabilities of {stop - start} rows of {b.n} classes")
    return 0


def jacobian(
    cnp.ndarray x not None, cnp.ndarray out not None, int how, tuple factor not None, double c, int threads,
    Py_ssize_t start, Py_ssize_t stop
):
    """Matrices start .. stop, times c. x: (rows, n), float32 or float64; out: (rows, n, n), of x's dtype or, for
    float32, of a type of 16 bits; both contiguous."""
    cdef Batch b
    set_plain(&b.op, JACOBIAN)
    set_factor(&b.op, how, factor)
    set_rows(&b, x, cnp.PyArray_NDIM(x) - 1, cnp.PyArray_NDIM(x) - 1)
    stop = min(stop, b.rows)
    jacobian_run(&b, start, stop, c, threads, cnp.PyArray_TYPE(x), cnp.PyArray_TYPE(out), data_of(out))


def round_to(cnp.ndarray x not None, cnp.ndarray out not None):
    """x, contiguous float32, to out, contiguous, of a type of 16 bits; without a trace in the floating-point state"""
    cdef control state = enter()
    cdef const float* values = <const float*> cnp.PyArray_DATA(x)
    if cnp.PyArray_TYPE(out) == cnp.NPY_FLOAT16:
        scatter(values, 1, cnp.PyArray_SIZE(x), data_of(out), sizeof(half), <half*> NULL)
    else:
        scatter(values, 1, cnp.PyArray_SIZE(x), data_of(out), sizeof(bfloat), <bfloat*> NULL)
    leave(state)


cdef double quotient(double a, double b) noexcept:
    """a / b, and 0 for b = 0; in the floating-point state of the kernels"""
    cdef control state = enter()
    cdef double q = a / b if b != 0 else 0.0
    leave(state)
    return q if q == q else NAN


cdef double loss_total(const char* loss, Py_ssize_t count, int typenum) noexcept:
    """The sum of losses, without loss of digits"""
    cdef control state = enter()
    cdef Py_ssize_t i
    cdef double a, before, added, total = 0, lost = 0
    for i in range(count):
        a = (<const float*> loss)[i] if typenum == cnp.NPY_FLOAT32 else (<const double*> loss)[i]
        before = total
        total = before + a
        added = total - before
        lost += (before - (total - added)) + (a - added)
    if lost == lost:  # else one is infinite, or the sum
        total += lost
    leave(state)
    return total if total == total else NAN


def reduced(cnp.ndarray losses not None, double weight):
    """The sum of losses, contiguous and of the type that is computed in, over their weight; 0 where that is 0"""
    return quotient(loss_total(data_of(losses), cnp.PyArray_SIZE(losses), cnp.PyArray_TYPE(losses)), weight)


def before_fork():
    """Count on no workers: they are put away."""
    fs_forget_team()


def after_fork():
    """Forget the calls that ran in the parent's other threads, and its late workers: they are not here."""
    active.store(0)
    crowded_until.store(0)
