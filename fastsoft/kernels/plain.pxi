# The short ways: plain arrays, contiguous and of float32 or float64, with default arguments, in a few checks. Each
# function gives None where an array is anything else, or, with threads = 0, large enough for several threads.

from fastsoft._memory import lines as _lines

cdef extern from *:
    object PyDataMem_SetHandler(object handler)

LAST = -1

cdef enum:
    ALIGNED = 65536  # bytes from which a result begins at a line of the cache


cdef bint is_plain(object x) noexcept:
    """Whether x is a contiguous array of float32 or float64 with something in it"""
    cdef int typenum
    if type(x) is not cnp.ndarray:
        return False
    typenum = cnp.PyArray_TYPE(<cnp.ndarray> x)
    return (
        cnp.PyArray_NDIM(<cnp.ndarray> x) > 0 and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> x)
        and (typenum == cnp.NPY_FLOAT32 or typenum == cnp.NPY_FLOAT64) and cnp.PyArray_SIZE(<cnp.ndarray> x) > 0
    )


cdef bint is_large(cnp.ndarray a, int threads) noexcept:
    """Too large for the short way: it might pay to use threads, or has memory of its own"""
    return cnp.PyArray_NBYTES(a) >= (STREAM if threads > 0 else SERIAL)


cdef void set_rows(Batch* b, cnp.ndarray a) noexcept:
    """Contiguous rows; out has as many numbers as x, or is still to be set"""
    b.n = cnp.PyArray_DIM(a, cnp.PyArray_NDIM(a) - 1)
    b.rows = cnp.PyArray_SIZE(a) // b.n
    b.ndim = 1
    b.stream = False
    b.x = <char*> cnp.PyArray_DATA(a)
    b.v = b.where = b.out = NULL
    b.x_step = b.v_step = b.out_step = cnp.PyArray_ITEMSIZE(a)
    b.x_stride[0] = b.v_stride[0] = b.out_stride[0] = b.n * b.x_step
    b.shape[0] = b.rows


cdef inline bint is_last(object axis, cnp.ndarray a):
    return axis is LAST or (type(axis) is int and axis == cnp.PyArray_NDIM(a) - 1)


cdef bint is_plain_and_small(object x, object axis, int threads):
    """Whether x is a plain array with its classes along the last axis, and not too large"""
    return is_plain(x) and is_last(axis, x) and not is_large(x, threads)


cdef bint is_like(object v, cnp.ndarray a):
    """Whether v is a plain array of a's shape and type"""
    return is_plain(v) and cnp.PyArray_TYPE(<cnp.ndarray> v) == cnp.PyArray_TYPE(a) and cnp.PyArray_SAMESHAPE(v, a)


cdef cnp.ndarray new(int ndim, const cnp.npy_intp* shape, cnp.ndarray like):
    """An array of this shape and of `like`'s type, not yet filled"""
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(like)
    cdef int d
    for d in range(ndim):
        size *= shape[d]
    previous = PyDataMem_SetHandler(_lines) if size >= ALIGNED else None
    try:
        return cnp.PyArray_EMPTY(ndim, <cnp.npy_intp*> shape, cnp.PyArray_TYPE(like), 0)
    finally:
        if previous is not None:
            PyDataMem_SetHandler(previous)


cdef bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    return data_of(a) < data_of(b) + cnp.PyArray_NBYTES(b) and data_of(b) < data_of(a) + cnp.PyArray_NBYTES(a)


cdef cnp.ndarray result(object out, int ndim, const cnp.npy_intp* shape, cnp.ndarray a, cnp.ndarray w):
    """A new array of a's type; or `out`, if it is a plain one that fits and may be written while a, unless it is in
    place of that, and w, which may be None, are read; else None"""
    cdef cnp.ndarray y
    cdef int d
    if out is None:
        return new(ndim, shape, a)
    if not is_plain(out) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray> out):
        return None
    y = out
    if cnp.PyArray_TYPE(y) != cnp.PyArray_TYPE(a) or cnp.PyArray_NDIM(y) != ndim:
        return None
    for d in range(ndim):
        if cnp.PyArray_DIM(y, d) != shape[d]:
            return None
    if overlap(y, a) and (data_of(y) != data_of(a) or ndim != cnp.PyArray_NDIM(a)):
        return None
    return None if w is not None and overlap(y, w) else y


cdef object quick(Kind kind, object x, object axis, object to, int threads):
    """The whole operation for a plain array with default arguments, into `to` unless that is None; or None where it
    is not one or, with threads = 0, large enough for several threads"""
    cdef Batch b
    cdef cnp.ndarray a, out
    cdef int ndim, typenum
    if not is_plain_and_small(x, axis, threads):
        return None
    a = x
    ndim = cnp.PyArray_NDIM(a)
    typenum = cnp.PyArray_TYPE(a)
    set_plain(&b.op, kind)
    set_rows(&b, a)
    if kind == LOGSUMEXP:
        ndim -= 1
        b.out_stride[0] = b.x_step
    out = result(to, ndim, cnp.PyArray_DIMS(a), a, None)
    if out is None:
        return None
    b.out = data_of(out)
    execute(&b, 0, b.rows, threads, typenum)
    return out


def plain_pair(int kind, x, v, axis, to, int threads=0):
    """An operation on two plain arrays of the same shape and dtype with default arguments, as `quick`"""
    cdef Batch b
    cdef cnp.ndarray a, w, out
    if not is_plain_and_small(x, axis, threads) or not is_like(v, x):
        return None
    a, w = x, v
    set_plain(&b.op, <Kind> kind)
    set_rows(&b, a)
    out = result(to, cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), a, w)
    if out is None:
        return None
    b.v, b.out = data_of(w), data_of(out)
    execute(&b, 0, b.rows, threads, cnp.PyArray_TYPE(a))
    return out


cdef Py_ssize_t counted(const int64_t* labels, Py_ssize_t rows, Py_ssize_t n, object ignore_index) except -2:
    """How many labels are not `ignore_index`, an int below 0 or None; -1 if that is anything else, or one out of range
    """
    cdef Py_ssize_t i, ignored = 0
    cdef int64_t apart = 0
    if ignore_index is not None:
        if type(ignore_index) is not int or not -(1 << 62) < ignore_index < 0:
            return -1
        apart = ignore_index
    for i in range(rows):
        if not 0 <= labels[i] < n:
            if apart == 0 or labels[i] != apart:
                return -1
            ignored += 1
    return rows - ignored


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


cdef double quotient(double a, double b) noexcept:
    """a / b, and 0 for b = 0; in the floating-point state of the kernels"""
    cdef control state = enter()
    cdef double q = a / b if b != 0 else 0.0
    leave(state)
    return q if q == q else NAN


def reduced(cnp.ndarray losses not None, double weight):
    """The sum of losses, contiguous and of the type that is computed in, over their weight; 0 where that is 0"""
    return quotient(loss_total(data_of(losses), cnp.PyArray_SIZE(losses), cnp.PyArray_TYPE(losses)), weight)


cdef cnp.ndarray scalar(double value, int typenum):
    """An array without axes, of float32 or float64"""
    cdef cnp.ndarray a = cnp.PyArray_EMPTY(0, NULL, typenum, 0)
    cdef control state = enter()
    if typenum == cnp.NPY_FLOAT32:
        (<float*> cnp.PyArray_DATA(a))[0] = <float> value
    else:
        (<double*> cnp.PyArray_DATA(a))[0] = value
    leave(state)
    return a


cdef bint are_labels(object t, cnp.ndarray a):
    """Whether t is a contiguous array of int64 with an entry for each row of a"""
    cdef int d, ndim = cnp.PyArray_NDIM(a) - 1
    if type(t) is not cnp.ndarray or cnp.PyArray_NDIM(<cnp.ndarray> t) != ndim:
        return False
    for d in range(ndim):
        if cnp.PyArray_DIM(<cnp.ndarray> t, d) != cnp.PyArray_DIM(a, d):
            return False
    return cnp.PyArray_TYPE(<cnp.ndarray> t) == cnp.NPY_INT64 and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> t)


def plain_loss(x, labels, axis, ignore_index, reduction, bint gradient, out=None, int threads=0):
    """(loss, gradient or None) of plain logits and int64 labels, the other arguments default, or None as in `quick`,
    or where a label is out of range or none counts"""
    cdef Batch b
    cdef cnp.ndarray a, t, loss, y = None
    cdef Py_ssize_t rows
    cdef int ndim, typenum
    cdef bint mean, each
    if not is_plain_and_small(x, axis, threads) or not are_labels(labels, x) or type(reduction) is not str:
        return None
    a, t = x, labels
    mean, each = reduction == "mean", reduction == "none"
    ndim = cnp.PyArray_NDIM(a) - 1
    typenum = cnp.PyArray_TYPE(a)
    set_plain(&b.op, LABELS)
    set_rows(&b, a)
    b.op.labels = <const int64_t*> cnp.PyArray_DATA(t)
    rows = counted(b.op.labels, b.rows, b.n, ignore_index)
    if rows <= 0 or not (mean or each or reduction == "sum"):
        return None
    b.op.scale = quotient(1, rows) if mean else 1.0
    if gradient:
        y = result(out, ndim + 1, cnp.PyArray_DIMS(a), a, t)
        if y is None:
            return None
        b.out = data_of(y)
    loss = cnp.PyArray_EMPTY(ndim, cnp.PyArray_DIMS(a), typenum, 0)
    b.op.loss = data_of(loss)
    execute(&b, 0, b.rows, threads, typenum)
    return loss if each else scalar(reduced(loss, rows if mean else 1), typenum), y


cdef cnp.ndarray at_labels(cnp.ndarray a, const int64_t* labels, Py_ssize_t rows):
    """Of each row of a the number at its label, which is valid"""
    cdef Py_ssize_t i, k, size = cnp.PyArray_ITEMSIZE(a), n = cnp.PyArray_DIM(a, cnp.PyArray_NDIM(a) - 1)
    cdef cnp.npy_intp[2] shape = [rows, 1]
    cdef cnp.ndarray found = cnp.PyArray_EMPTY(2, shape, cnp.PyArray_TYPE(a), 0)
    for i in range(rows):
        k = min(labels[i], n - 1)  # another thread may have changed it after the check
        memcpy(data_of(found) + i * size, data_of(a) + (i * n + max(k, 0)) * size, size)
    return found


def plain_cross_entropy(z, t, axis, to, int threads=0):
    """Cross-entropy of plain probabilities with targets of the same shape and dtype, or int64 labels; or None as in
    `quick`, or where a label is out of range"""
    cdef Batch b
    cdef cnp.ndarray a, w, loss
    cdef bint of_labels
    cdef double one = 1
    cdef float small_one = 1  # the target of the one class that a label leaves
    if not is_plain_and_small(z, axis, threads):
        return None
    a = z
    of_labels = are_labels(t, a)
    if not of_labels and not is_like(t, a):
        return None
    w = t
    set_plain(&b.op, CROSS_ENTROPY)
    set_rows(&b, a)
    if of_labels and counted(<const int64_t*> cnp.PyArray_DATA(w), b.rows, b.n, None) != b.rows:
        return None
    loss = result(to, cnp.PyArray_NDIM(a) - 1, cnp.PyArray_DIMS(a), a, w)
    if loss is None:
        return None
    b.v = data_of(w)
    if of_labels:
        a = at_labels(a, <const int64_t*> cnp.PyArray_DATA(w), b.rows)
        set_rows(&b, a)
        b.v, b.v_stride[0] = <char*> &one if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT64 else <char*> &small_one, 0
    b.op.loss = data_of(loss)
    execute(&b, 0, b.rows, threads, cnp.PyArray_TYPE(a))
    return loss


def plain_jacobian(x, axis, out, int threads=0):
    """The Jacobians of a plain array, into `out` unless that is None, or None as in `quick`"""
    cdef Batch b
    cdef cnp.ndarray a, y
    cdef cnp.npy_intp[65] shape  # MAX_NDIM + 1
    cdef int d, ndim
    cdef Py_ssize_t size
    if not is_plain_and_small(x, axis, threads) or cnp.PyArray_NDIM(<cnp.ndarray> x) == MAX_NDIM:
        return None
    a = x
    ndim = cnp.PyArray_NDIM(a)
    set_plain(&b.op, JACOBIAN)
    set_rows(&b, a)
    size = cnp.PyArray_NBYTES(a) * b.n
    if size >= (STREAM if threads > 0 else 4 * SERIAL):
        return None
    for d in range(ndim):
        shape[d] = cnp.PyArray_DIM(a, d)
    shape[ndim] = b.n
    y = result(out, ndim + 1, shape, a, None)
    if y is None:
        return None
    jacobian_run(&b, 0, b.rows, 1.0, threads, cnp.PyArray_TYPE(a), cnp.PyArray_TYPE(y), data_of(y))
    return y


def jacobian_diagonal(x, axis, out, int threads=0):
    """The diagonals of the Jacobians of a plain array, small unless `threads` are given, or None"""
    return quick(DIAGONAL, x, axis, out, threads)


def softmax(x, axis, out, int threads=0):
    """softmax(x) of a plain array, small unless `threads` are given, or None"""
    return quick(SOFTMAX, x, axis, out, threads)


def log_softmax(x, axis, out, int threads=0):
    """log_softmax(x) of a plain array, small unless `threads` are given, or None"""
    return quick(LOG_SOFTMAX, x, axis, out, threads)


def logsumexp(x, axis, out, int threads=0):
    """logsumexp(x) of a plain array, small unless `threads` are given, or None"""
    return quick(LOGSUMEXP, x, axis, out, threads)
