# The short ways: NumPy's own arrays, not too large, and options that are numbers or names, in a few checks. Each
# function gives None where an argument is anything else, or wrong. Losses are in plain_losses.pxi; what calls all of
# these is in entry.pxi.

from libc.float cimport DBL_MAX
from libc.math cimport fma
from cpython.float cimport PyFloat_AS_DOUBLE
from numpy import float64 as _float64
from fastsoft._entry import general as _general
from fastsoft._memory import lines as _lines

cdef extern from *:
    object PyDataMem_SetHandler(object handler)
    long PyLong_AsLongAndOverflow(object, int* overflow)

cdef enum:
    ALIGNED = 65536  # bytes from which a result begins at a line of the cache

cdef dict general = _general  # the functions in Python, by name
cdef object ONE = 1.0  # the defaults, compared by identity
cdef object ZERO = 0.0
cdef object NAN_NAME = "nan"
cdef object FLOAT64 = _float64  # a float, too


cdef bint as_number(object value, double low, double high, double* number) noexcept:
    """Whether value is a float, or an int that is not large, from low to high; and which"""
    cdef int overflow = 0
    if type(value) is float or type(value) is FLOAT64:
        number[0] = PyFloat_AS_DOUBLE(value)
    elif type(value) is int:
        number[0] = <double> PyLong_AsLongAndOverflow(value, &overflow)
    else:
        return False
    return overflow == 0 and low <= number[0] <= high


cdef bint set_operation(Operation* op, Kind kind, object temperature) noexcept:
    """An operation at a temperature; false where that is not a number from 2^-60 to 2^60, which is as far as SCALED
    goes in _validate.factor"""
    cdef control state
    cdef double t, far = 1152921504606846976.0
    set_plain(op, kind)
    if temperature is ONE:
        return True
    if not as_number(temperature, 1 / far, far, &t):
        return False
    if t != 1:  # hi + lo, as _validate.factor has them: the remainder of a quotient is a number, hence exact
        op.how = SCALED
        state = enter()
        op.factor.hi = 1 / t
        op.factor.lo = fma(-op.factor.hi, t, 1.0) / t
        leave(state)
    return True


cdef bint set_empty(Operation* op, object empty) noexcept:
    """What an empty row gives; false for what is not a name of that, and for an error"""
    if empty is NAN_NAME:
        return True
    if type(empty) is not str:
        return False
    if empty == "zero":
        op.empty = 0
        return True
    return empty == "nan"


cdef bint is_bfloat(cnp.ndarray a) noexcept:
    """Whether a is of bfloat16, which has no number of its own"""
    return cnp.PyTypeNum_ISUSERDEF(cnp.PyArray_TYPE(a)) and a.dtype.type.__name__ == "bfloat16"


cdef bint is_float_array(object x) noexcept:
    """Whether x is an array, of any strides, of a type that the kernels take, with something in it but not so much that
    its result has memory of its own"""
    cdef cnp.ndarray a
    cdef int typenum
    if type(x) is not cnp.ndarray:
        return False
    a = x
    typenum = cnp.PyArray_TYPE(a)
    if typenum != cnp.NPY_FLOAT32 and typenum != cnp.NPY_FLOAT64 and typenum != cnp.NPY_FLOAT16 and not is_bfloat(a):
        return False
    return cnp.PyArray_NDIM(a) > 0 and cnp.PyArray_ISBEHAVED_RO(a) and 0 < cnp.PyArray_NBYTES(a) < STREAM


cdef bint is_plain(object x) noexcept:
    """The same for contiguous arrays of float32 and float64 alone"""
    if not is_float_array(x) or cnp.PyArray_ITEMSIZE(<cnp.ndarray> x) < <int> sizeof(float):
        return False
    return cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> x)


cdef int threads_for(cnp.ndarray a, Py_ssize_t serial, object num_threads) except -1:
    """How many threads a call may use; one, without asking what is set, for up to `serial` bytes of the work type"""
    cdef Py_ssize_t bytes = cnp.PyArray_NBYTES(a) * (2 if cnp.PyArray_ITEMSIZE(a) < <int> sizeof(float) else 1)
    return 1 if num_threads is None and bytes < serial else general["allowed"](num_threads)


cdef void set_rows(Batch* b, cnp.ndarray a, int first_axis, int last_axis) noexcept:
    """The rows of a contiguous array along axes that follow each other; out, still to be set, is like x, or has one
    number for each row"""
    cdef Py_ssize_t apart = 1, size = cnp.PyArray_ITEMSIZE(a)
    cdef int d, last = 0
    for d in range(last_axis + 1, cnp.PyArray_NDIM(a)):
        apart *= cnp.PyArray_DIM(a, d)
    b.n = cnp.PyArray_DIM(a, first_axis)
    for d in range(first_axis + 1, last_axis + 1):
        b.n *= cnp.PyArray_DIM(a, d)
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


cdef bint axes_of(object axis, cnp.ndarray a, int* first, int* last):
    """The first and the last of the axes of a that are named: an int; or None, for all, or a tuple of such as follow
    each other. False for anything else."""
    cdef int d
    if axis is None:
        first[0], last[0] = 0, cnp.PyArray_NDIM(a) - 1
        return True
    if type(axis) is not tuple:
        first[0] = last[0] = axis_of(axis, a)
        return first[0] >= 0
    if not axis:
        return False
    first[0] = axis_of(axis[0], a)
    for d in range(1, <int> len(axis)):
        if axis_of(axis[d], a) != first[0] + d:
            return False
    last[0] = first[0] + <int> len(axis) - 1
    return first[0] >= 0


cdef bint has_plain_rows(object x, object axis):
    """Whether x is plain, with its classes along the last axis"""
    return is_plain(x) and axis_of(axis, x) == cnp.PyArray_NDIM(<cnp.ndarray> x) - 1


cdef bint is_like(object v, cnp.ndarray a):
    """Whether v is an array of a's shape and type"""
    if type(v) is not cnp.ndarray or cnp.PyArray_TYPE(<cnp.ndarray> v) != cnp.PyArray_TYPE(a):
        return False
    return cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray> v) and cnp.PyArray_SAMESHAPE(v, a)


cdef bint is_plain_like(object v, cnp.ndarray a):
    """The same, and contiguous"""
    return is_like(v, a) and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> v)


cdef cnp.ndarray mask_of(object where, cnp.ndarray a):
    """An array of booleans as one of a's shape, to which it is broadcast; None for anything else"""
    cdef cnp.npy_intp[MAX_NDIM] strides
    cdef cnp.ndarray w
    cdef int d, k, ndim = cnp.PyArray_NDIM(a)
    if type(where) is not cnp.ndarray or cnp.PyArray_TYPE(<cnp.ndarray> where) != cnp.NPY_BOOL:
        return None
    w = where
    if cnp.PyArray_SAMESHAPE(w, a):
        return w
    for d in range(ndim):
        k = d - ndim + cnp.PyArray_NDIM(w)
        strides[d] = 0
        if k >= 0 and cnp.PyArray_DIM(w, k) != 1:
            if cnp.PyArray_DIM(w, k) != cnp.PyArray_DIM(a, d):
                return None
            strides[d] = cnp.PyArray_STRIDE(w, k)
    if cnp.PyArray_NDIM(w) > ndim:
        return None
    return cnp.PyArray_New(cnp.ndarray, ndim, cnp.PyArray_DIMS(a), cnp.NPY_BOOL, strides, data_of(w), 0, 0, None)


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


cdef inline Py_ssize_t reach(cnp.ndarray a, bint forward) noexcept:
    """How many bytes from its first element on an array with something in it has others, in one direction"""
    cdef Py_ssize_t step, found = 0
    cdef int d
    for d in range(cnp.PyArray_NDIM(a)):
        step = (cnp.PyArray_DIM(a, d) - 1) * cnp.PyArray_STRIDE(a, d)
        found += step if (step > 0) == forward else 0
    return found


cdef inline bint ends_before(cnp.ndarray a, cnp.ndarray b) noexcept:
    return data_of(a) + reach(a, True) + cnp.PyArray_ITEMSIZE(a) <= data_of(b) + reach(b, False)


cdef bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether they may share memory"""
    return not ends_before(a, b) and not ends_before(b, a)


cdef cnp.ndarray result(object out, int ndim, const cnp.npy_intp* shape, cnp.ndarray a, cnp.ndarray w):
    """A new array of a's type; or `out`, if it is contiguous, fits, and may be written while a, unless it is in place
    of that, and w, which may be None, are read; else None"""
    cdef bint in_place
    cdef cnp.ndarray y
    cdef int d
    if out is None:
        return new(ndim, shape, a)
    if type(out) is not cnp.ndarray or not cnp.PyArray_ISCARRAY(<cnp.ndarray> out):
        return None
    y = out
    if cnp.PyArray_TYPE(y) != cnp.PyArray_TYPE(a) or cnp.PyArray_NDIM(y) != ndim:
        return None
    for d in range(ndim):
        if cnp.PyArray_DIM(y, d) != shape[d]:
            return None
    in_place = data_of(y) == data_of(a) and cnp.PyArray_SAMESHAPE(y, a) and cnp.PyArray_ISCARRAY_RO(a)
    if overlap(y, a) and not in_place:
        return None
    return None if w is not None and overlap(y, w) else y


cdef int without(cnp.ndarray a, int first, int last, bint keepdims, cnp.npy_intp* shape) noexcept:
    """The shape of a without axes that follow each other, or with 1 in their place, and of how many axes it is"""
    cdef int d, ndim = 0
    for d in range(cnp.PyArray_NDIM(a)):
        if keepdims or not first <= d <= last:
            shape[ndim] = 1 if first <= d <= last else cnp.PyArray_DIM(a, d)
            ndim += 1
    return ndim


cdef object quick(
    Batch* b, object x, object axis, object where, bint keepdims, object to, object num_threads
):
    """The whole operation, b.op, into `to` unless that is None; of contiguous arrays along several axes, too. keepdims:
    of logsumexp alone."""
    cdef cnp.ndarray a, out, kept, mask = None
    cdef cnp.PyArray_Dims all_axes
    cdef cnp.npy_intp* shape
    cdef cnp.npy_intp[MAX_NDIM] others
    cdef int first, last, d, ndim
    cdef bint contiguous
    if not is_float_array(x):
        return None
    a = x
    if where is not None:
        mask = mask_of(where, a)
        if mask is None:
            return None
    contiguous = cnp.PyArray_ISCARRAY_RO(a) and (mask is None or cnp.PyArray_ISCARRAY_RO(mask))
    if not axes_of(axis, a, &first, &last) or (type(axis) is not int and not (contiguous and b.op.kind <= LOGSUMEXP)):
        return None
    ndim, shape = cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a)
    if b.op.kind == LOGSUMEXP:
        ndim, shape = without(a, first, last, keepdims, &others[0]), others
    out = result(to, ndim, shape, a, mask)
    if out is None:
        return None
    if contiguous:
        set_rows(b, a, first, last)
        b.out, b.where = data_of(out), data_of(mask)
        for d in range(b.ndim if mask is not None else 0):
            b.where_stride[d] = b.x_stride[d] // cnp.PyArray_ITEMSIZE(a)
        b.where_step = b.x_step // cnp.PyArray_ITEMSIZE(a) if mask is not None else 0
    else:
        kept = out
        if b.op.kind == LOGSUMEXP:  # with as many axes as a
            all_axes.len, all_axes.ptr = without(a, first, last, True, &others[0]), &others[0]
            kept = cnp.PyArray_Newshape(out, &all_axes, cnp.NPY_CORDER)
        b.stream = False
        set_axes(b, a, None, kept, mask, first)
    execute(b, 0, b.rows, threads_for(a, SERIAL, num_threads), cnp.PyArray_TYPE(a))
    return out


cdef object quick_pair(Batch* b, object x, object v, object axis, object to, object num_threads):
    """An operation on two arrays of the same shape and dtype, as `quick`"""
    cdef cnp.ndarray a, w, out
    cdef int k
    if not is_float_array(x) or not is_like(v, x):
        return None
    a, w = x, v
    k = axis_of(axis, a)
    if k < 0:
        return None
    out = result(to, cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), a, w)
    if out is None:
        return None
    if cnp.PyArray_ISCARRAY_RO(a) and cnp.PyArray_ISCARRAY_RO(w):
        set_rows(b, a, k, k)
        b.v, b.out = data_of(w), data_of(out)
    else:
        b.stream = False
        set_axes(b, a, w, out, None, k)
    execute(b, 0, b.rows, threads_for(a, SERIAL, num_threads), cnp.PyArray_TYPE(a))
    return out


cdef object quick_jacobian(Batch* b, object x, object axis, object out, object num_threads):
    """The Jacobians of a plain array, into `out` unless that is None, or None as in `quick`"""
    cdef cnp.ndarray a, y
    cdef cnp.npy_intp[65] shape  # MAX_NDIM + 1
    cdef int d, ndim, threads
    cdef Py_ssize_t size
    if not has_plain_rows(x, axis) or cnp.PyArray_NDIM(<cnp.ndarray> x) == MAX_NDIM:
        return None
    a = x
    ndim = cnp.PyArray_NDIM(a)
    set_rows(b, a, ndim - 1, ndim - 1)
    size = cnp.PyArray_NBYTES(a) * b.n
    if size >= STREAM:
        return None
    for d in range(ndim):
        shape[d] = cnp.PyArray_DIM(a, d)
    shape[ndim] = b.n
    y = result(out, ndim + 1, shape, a, None)
    if y is None:
        return None
    threads = threads_for(y, 4 * SERIAL, num_threads)
    jacobian_run(b, 0, b.rows, b.op.factor.hi, threads, cnp.PyArray_TYPE(a), cnp.PyArray_TYPE(y), data_of(y))
    return y
