# The short ways: plain arrays, contiguous and of float32 or float64, with default arguments, in a few checks. Each
# function gives None where an array is anything else, or, with threads = 0, large enough for several threads. What
# calls them is in entry.pxi.

from fastsoft._memory import lines as _lines

cdef extern from *:
    object PyDataMem_SetHandler(object handler)
    long PyLong_AsLongAndOverflow(object, int* overflow)

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


cdef void set_rows(Batch* b, cnp.ndarray a, int axis) noexcept:
    """The rows of a contiguous array along an axis; out, still to be set, is like x, or has one number for each row"""
    cdef Py_ssize_t apart = 1, size = cnp.PyArray_ITEMSIZE(a)
    cdef int d, last = 0
    for d in range(axis + 1, cnp.PyArray_NDIM(a)):
        apart *= cnp.PyArray_DIM(a, d)
    b.n = cnp.PyArray_DIM(a, axis)
    b.rows = cnp.PyArray_SIZE(a) // b.n
    b.stream = False
    b.x = <char*> cnp.PyArray_DATA(a)
    b.v = b.where = b.out = NULL
    b.x_step = b.v_step = b.out_step = apart * size
    b.shape[0] = b.rows // apart
    b.x_stride[0] = b.v_stride[0] = b.out_stride[0] = b.n * apart * size
    if b.op.kind == LOGSUMEXP:
        b.out_stride[0] = apart * size
    if apart > 1:
        last = 1 if b.shape[0] > 1 else 0
        b.shape[last] = apart
        b.x_stride[last] = b.v_stride[last] = b.out_stride[last] = size
    b.ndim = last + 1


cdef int axis_of(object axis, cnp.ndarray a) noexcept:
    """Which axis of a it is; -1 if none, or not an int"""
    cdef int overflow = 0, ndim = cnp.PyArray_NDIM(a)
    cdef long k
    if type(axis) is not int:
        return -1
    k = PyLong_AsLongAndOverflow(axis, &overflow)
    k += ndim if k < 0 else 0
    return <int> k if overflow == 0 and 0 <= k < ndim else -1


cdef bint is_plain_and_small(object x, int threads):
    """Whether x is a plain array, and not too large"""
    return is_plain(x) and not is_large(x, threads)


cdef bint has_plain_rows(object x, object axis, int threads):
    """The same with its classes along the last axis"""
    return is_plain_and_small(x, threads) and axis_of(axis, x) == cnp.PyArray_NDIM(<cnp.ndarray> x) - 1


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
    cdef cnp.npy_intp* shape
    cdef cnp.npy_intp[MAX_NDIM] others
    cdef int d, k, ndim
    if not is_plain_and_small(x, threads):
        return None
    a = x
    ndim, shape = cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a)
    k = axis_of(axis, a)
    if k < 0:
        return None
    set_plain(&b.op, kind)
    set_rows(&b, a, k)
    if kind == LOGSUMEXP:
        ndim -= 1
        for d in range(ndim):
            others[d] = shape[d if d < k else d + 1]
        shape = others
    out = result(to, ndim, shape, a, None)
    if out is None:
        return None
    b.out = data_of(out)
    execute(&b, 0, b.rows, threads, cnp.PyArray_TYPE(a))
    return out


cdef object quick_pair(Kind kind, object x, object v, object axis, object to, int threads):
    """An operation on two plain arrays of the same shape and dtype with default arguments, as `quick`"""
    cdef Batch b
    cdef cnp.ndarray a, w, out
    cdef int k
    if not is_plain_and_small(x, threads) or not is_like(v, x):
        return None
    a, w = x, v
    k = axis_of(axis, a)
    if k < 0:
        return None
    set_plain(&b.op, kind)
    set_rows(&b, a, k)
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


cdef object quick_loss(
    object x, object labels, object axis, object ignore_index, object reduction, bint gradient, object out, int threads
):
    """(loss, gradient or None) of plain logits and int64 labels, the other arguments default, or None as in `quick`,
    or where a label is out of range or none counts"""
    cdef Batch b
    cdef cnp.ndarray a, t, loss, y = None
    cdef Py_ssize_t rows
    cdef int ndim, typenum
    cdef bint mean, each
    if not has_plain_rows(x, axis, threads) or not are_labels(labels, x) or type(reduction) is not str:
        return None
    a, t = x, labels
    mean, each = reduction == "mean", reduction == "none"
    ndim = cnp.PyArray_NDIM(a) - 1
    typenum = cnp.PyArray_TYPE(a)
    set_plain(&b.op, LABELS)
    set_rows(&b, a, cnp.PyArray_NDIM(a) - 1)
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


cdef object quick_cross_entropy(object z, object t, object axis, object to, int threads):
    """Cross-entropy of plain probabilities with targets of the same shape and dtype, or int64 labels; or None as in
    `quick`, or where a label is out of range"""
    cdef Batch b
    cdef cnp.ndarray a, w, loss
    cdef bint of_labels
    cdef double one = 1
    cdef float small_one = 1  # the target of the one class that a label leaves
    if not has_plain_rows(z, axis, threads):
        return None
    a = z
    of_labels = are_labels(t, a)
    if not of_labels and not is_like(t, a):
        return None
    w = t
    set_plain(&b.op, CROSS_ENTROPY)
    set_rows(&b, a, cnp.PyArray_NDIM(a) - 1)
    if of_labels and counted(<const int64_t*> cnp.PyArray_DATA(w), b.rows, b.n, None) != b.rows:
        return None
    loss = result(to, cnp.PyArray_NDIM(a) - 1, cnp.PyArray_DIMS(a), a, w)
    if loss is None:
        return None
    b.v = data_of(w)
    if of_labels:
        a = at_labels(a, <const int64_t*> cnp.PyArray_DATA(w), b.rows)
        set_rows(&b, a, cnp.PyArray_NDIM(a) - 1)
        b.v, b.v_stride[0] = <char*> &one if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT64 else <char*> &small_one, 0
    b.op.loss = data_of(loss)
    execute(&b, 0, b.rows, threads, cnp.PyArray_TYPE(a))
    return loss


cdef object quick_jacobian(object x, object axis, object out, int threads):
    """The Jacobians of a plain array, into `out` unless that is None, or None as in `quick`"""
    cdef Batch b
    cdef cnp.ndarray a, y
    cdef cnp.npy_intp[65] shape  # MAX_NDIM + 1
    cdef int d, ndim
    cdef Py_ssize_t size
    if not has_plain_rows(x, axis, threads) or cnp.PyArray_NDIM(<cnp.ndarray> x) == MAX_NDIM:
        return None
    a = x
    ndim = cnp.PyArray_NDIM(a)
    set_plain(&b.op, JACOBIAN)
    set_rows(&b, a, cnp.PyArray_NDIM(a) - 1)
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
