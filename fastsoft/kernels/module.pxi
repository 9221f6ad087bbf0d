# What Python sees of one instruction set. Arguments are taken as valid: _validate.py has looked at them.
from libc.math cimport NAN
cimport numpy as cnp

cnp.import_array()

cdef atomic[int] active  # calls that are running now, in all Python threads


cdef void set_axes(Batch* b, cnp.ndarray x, cnp.ndarray out, cnp.ndarray where, int axis) noexcept:
    """The class axis and the batch axes, those merged that lie as one; `out` has x's axes, or 1 as its class axis"""
    cdef Py_ssize_t[MAX_NDIM] shape, xs, os, ws
    cdef int d, n = 0, ndim = cnp.PyArray_NDIM(x)
    cdef Py_ssize_t size, last, xi, oi, wi
    b.x = <char*> cnp.PyArray_DATA(x)
    b.out = <char*> cnp.PyArray_DATA(out)
    b.where = <char*> cnp.PyArray_DATA(where) if where is not None else NULL
    b.n = cnp.PyArray_DIM(x, axis)
    b.x_step = cnp.PyArray_STRIDE(x, axis)
    b.out_step = cnp.PyArray_STRIDE(out, axis)
    b.where_step = cnp.PyArray_STRIDE(where, axis) if where is not None else 0
    b.rows = 1
    b.ndim = 0
    for d in range(ndim - 1, -1, -1):  # innermost first, turned round below
        size = cnp.PyArray_DIM(x, d)
        if d == axis or size == 1:
            continue
        b.rows *= size
        xi = cnp.PyArray_STRIDE(x, d)
        oi = cnp.PyArray_STRIDE(out, d)
        wi = cnp.PyArray_STRIDE(where, d) if where is not None else 0
        last = shape[n - 1] if n > 0 else 0
        if n > 0 and xi == xs[n - 1] * last and oi == os[n - 1] * last and wi == ws[n - 1] * last:
            shape[n - 1] *= size
            continue
        shape[n], xs[n], os[n], ws[n] = size, xi, oi, wi
        n += 1
    b.ndim = n
    for d in range(n):
        b.shape[d], b.x_stride[d], b.out_stride[d], b.where_stride[d] = (
            shape[n - 1 - d], xs[n - 1 - d], os[n - 1 - d], ws[n - 1 - d]
        )


cdef int run_typed(const Batch* b, Py_ssize_t start, Py_ssize_t stop, int threads, int typenum) noexcept nogil:
    if typenum == cnp.NPY_FLOAT32:
        return run_all[float](b, start, stop, threads, NULL)
    if typenum == cnp.NPY_FLOAT64:
        return run_all[double](b, start, stop, threads, NULL)
    if typenum == cnp.NPY_FLOAT16:
        return run_all[half](b, start, stop, threads, NULL)
    return run_all[bfloat](b, start, stop, threads, NULL)  # ml_dtypes registers it; it has no number of its own


cdef int execute(const Batch* b, Py_ssize_t start, Py_ssize_t stop, int threads, int typenum) except -1:
    """Rows start .. stop, without the GIL; while other Python threads use several threads, on this one alone"""
    cdef int status
    with nogil:
        if threads > 1:
            if active.fetch_add(1) > 0:
                status = run_typed(b, start, stop, 1, typenum)
            else:
                status = run_typed(b, start, stop, threads, typenum)
            active.fetch_sub(1)
        else:
            status = run_typed(b, start, stop, 1, typenum)
    if status < 0:
        raise MemoryError(f"no memory for the scratch rows of {b.n} classes on {threads} threads")
    return 0


def apply(
    int kind, cnp.ndarray x not None, cnp.ndarray out not None, cnp.ndarray where, int axis, int how,
    tuple factor not None, double empty, int threads, Py_ssize_t start, Py_ssize_t stop
):
    """Compute rows start .. stop of x into out. Both have the same dtype (float16, bfloat16, float32, float64),
    aligned and in native byte order, and the same axes; for logsumexp the class axis of out has length 1.
    where: None, or booleans of x's shape. factor: (hi, lo, g) with 1/temperature = g (hi + lo)."""
    cdef Batch b
    b.op.kind = <Kind> kind
    b.op.how = <Argument> how
    b.op.factor.hi, b.op.factor.lo, b.op.factor.g = factor
    b.op.empty = empty
    set_axes(&b, x, out, where, axis)
    b.stream = cnp.PyArray_NBYTES(out) >= STREAM and b.n * REGISTER < STREAM
    execute(&b, start, min(stop, b.rows), threads, cnp.PyArray_TYPE(x))


cdef object quick(Kind kind, object x, int threads):
    """The whole operation for a plain array with default arguments, or None where it is not one or, with
    threads = 0, large enough for several threads"""
    cdef Batch b
    cdef cnp.ndarray a, out
    cdef int ndim, typenum
    if type(x) is not cnp.ndarray:
        return None
    a = x
    ndim = cnp.PyArray_NDIM(a)
    typenum = cnp.PyArray_TYPE(a)
    if ndim == 0 or not cnp.PyArray_ISCARRAY_RO(a) or not (typenum == cnp.NPY_FLOAT32 or typenum == cnp.NPY_FLOAT64):
        return None
    if cnp.PyArray_NBYTES(a) >= (STREAM if threads > 0 else SERIAL) or cnp.PyArray_SIZE(a) == 0:
        return None
    b.op.kind = kind
    b.op.how = PLAIN
    b.op.factor.hi, b.op.factor.lo, b.op.factor.g = 1.0, 0.0, 1.0
    b.op.empty = NAN
    b.n = cnp.PyArray_DIM(a, ndim - 1)
    b.rows = cnp.PyArray_SIZE(a) // b.n
    b.ndim = 1
    b.where = NULL
    b.x_step = b.out_step = cnp.PyArray_ITEMSIZE(a)
    b.x_stride[0] = b.out_stride[0] = b.n * b.x_step
    b.shape[0] = b.rows
    if kind == LOGSUMEXP:
        ndim -= 1
        b.out_stride[0] = b.x_step
    out = cnp.PyArray_EMPTY(ndim, cnp.PyArray_DIMS(a), typenum, 0)
    b.x = <char*> cnp.PyArray_DATA(a)
    b.out = <char*> cnp.PyArray_DATA(out)
    b.stream = False
    execute(&b, 0, b.rows, threads, typenum)
    return out


def softmax(x, int threads=0):
    """softmax(x) of a plain array, small unless `threads` are given, or None"""
    return quick(SOFTMAX, x, threads)


def log_softmax(x, int threads=0):
    """log_softmax(x) of a plain array, small unless `threads` are given, or None"""
    return quick(LOG_SOFTMAX, x, threads)


def logsumexp(x, int threads=0):
    """logsumexp(x) of a plain array, small unless `threads` are given, or None"""
    return quick(LOGSUMEXP, x, threads)


def after_fork():
    """Forget the calls that ran in the parent's other threads: they do not run here."""
    active.store(0)
