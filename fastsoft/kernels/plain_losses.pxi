# The short ways of the losses, as in plain.pxi.

cdef int work_type(cnp.ndarray a) noexcept:
    """The type that is computed in"""
    return cnp.NPY_FLOAT64 if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT64 else cnp.NPY_FLOAT32


cdef cnp.ndarray rounded(cnp.ndarray losses, cnp.ndarray like):
    """Losses of the work type in the type of `like`"""
    cdef cnp.ndarray found
    if cnp.PyArray_TYPE(losses) == cnp.PyArray_TYPE(like):
        return losses
    found = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(losses), cnp.PyArray_DIMS(losses), cnp.PyArray_TYPE(like), 0)
    round_to(losses, found)
    return found


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


cdef bint are_labels(object t, cnp.ndarray a, int axis):
    """Whether t is an array of integers with an entry for each row of a along an axis"""
    cdef cnp.npy_intp[MAX_NDIM] shape
    cdef int d, typenum, ndim = without(a, axis, axis, False, &shape[0])
    if type(t) is not cnp.ndarray or cnp.PyArray_NDIM(<cnp.ndarray> t) != ndim:
        return False
    for d in range(ndim):
        if cnp.PyArray_DIM(<cnp.ndarray> t, d) != shape[d]:
            return False
    typenum = cnp.PyArray_TYPE(<cnp.ndarray> t)
    return cnp.PyTypeNum_ISINTEGER(typenum) and typenum != cnp.NPY_ULONG and typenum != cnp.NPY_ULONGLONG


cdef Py_ssize_t counted(
    const int64_t* labels, Py_ssize_t rows, Py_ssize_t n, bint ignores, int64_t apart
) noexcept nogil:
    """How many labels are from 0 to n - 1 and not the one that is ignored, if any is; -1 where another one is not.
    Without branches, so that it is vectorized."""
    cdef Py_ssize_t i, ignored = 0, wrong = 0
    cdef bint hidden
    for i in range(rows):
        hidden = ignores & (labels[i] == apart)
        ignored += hidden
        wrong += (not hidden) & (<uint64_t> labels[i] >= <uint64_t> n)
    return rows - ignored if wrong == 0 else -1


cdef cnp.ndarray labels_of(object t, Py_ssize_t n, object ignore_index, Py_ssize_t* count):
    """Of `are_labels` int64, contiguous, negative where they are ignored, and how many are not; None where one is out
    of range, or ignore_index neither None nor an int that is not large"""
    cdef cnp.ndarray a = t
    cdef Py_ssize_t i, rows = cnp.PyArray_SIZE(a)
    cdef int64_t* labels
    cdef int64_t apart = -1
    cdef int overflow = 0
    cdef bint ignores = ignore_index is not None
    if ignores:
        if type(ignore_index) is not int:
            return None
        apart = PyLong_AsLongAndOverflow(ignore_index, &overflow)
        if overflow != 0:
            return None
    if apart >= 0 or cnp.PyArray_TYPE(a) != cnp.NPY_INT64 or not cnp.PyArray_ISCARRAY_RO(a):
        a = cnp.PyArray_Cast(a, cnp.NPY_INT64)  # our own
    labels = <int64_t*> cnp.PyArray_DATA(a)
    if rows <= HELD:
        count[0] = counted(labels, rows, n, ignores, apart)
    else:
        with nogil:
            count[0] = counted(labels, rows, n, ignores, apart)
    for i in range(rows if apart >= 0 and 0 <= count[0] < rows else 0):
        if labels[i] == apart:
            labels[i] = -1
    return a if count[0] >= 0 else None


cdef cnp.ndarray class_weights_of(object weight, Py_ssize_t n):
    """A plain array of n weights as float64; None for anything else"""
    cdef cnp.ndarray w, found
    cdef cnp.npy_intp[1] shape = [n]
    cdef control state
    cdef Py_ssize_t j
    if not is_plain(weight) or cnp.PyArray_NDIM(<cnp.ndarray> weight) != 1:
        return None
    w = weight
    if cnp.PyArray_DIM(w, 0) != n:
        return None
    if cnp.PyArray_TYPE(w) == cnp.NPY_FLOAT64:
        return w
    found = cnp.PyArray_EMPTY(1, shape, cnp.NPY_FLOAT64, 0)
    state = enter()
    for j in range(n):
        (<double*> cnp.PyArray_DATA(found))[j] = (<const float*> cnp.PyArray_DATA(w))[j]
    leave(state)
    return found


cdef cnp.ndarray row_weights_of(cnp.ndarray labels, cnp.ndarray weight):
    """Of each row the weight of its class; 0 where its label is ignored"""
    cdef cnp.npy_intp[1] shape = [cnp.PyArray_SIZE(labels)]
    cdef cnp.ndarray found = cnp.PyArray_EMPTY(1, shape, cnp.NPY_FLOAT64, 0)
    cdef Py_ssize_t i, n = cnp.PyArray_SIZE(weight)
    cdef int64_t label
    for i in range(shape[0]):
        label = min((<const int64_t*> cnp.PyArray_DATA(labels))[i], n - 1)  # another thread may have changed it
        (<double*> cnp.PyArray_DATA(found))[i] = (<const double*> cnp.PyArray_DATA(weight))[label] if label >= 0 else 0
    return found


cdef void set_smoothing(Operation* op, double smoothing, Py_ssize_t n) noexcept:
    """A share of the targets goes to all n classes"""
    cdef control state
    if smoothing != 0:
        state = enter()
        op.kind, op.on, op.off = TARGETS, 1 - smoothing, smoothing / n
        leave(state)


cdef cnp.ndarray set_targets(
    Batch* b, cnp.ndarray a, int axis, object t, object ignore_index, double smoothing, Py_ssize_t* count
):
    """Labels, or targets of a's type, of a loss, and how many rows count; None where they are neither, or none does"""
    cdef cnp.ndarray targets = None
    count[0] = b.rows
    if are_labels(t, a, axis):
        b.op.kind = LABELS
        targets = labels_of(t, b.n, ignore_index, count)
        b.op.labels = <const int64_t*> data_of(targets)
    elif ignore_index is None and is_plain_like(t, a):
        b.op.kind = TARGETS
        targets = t
        b.v = data_of(targets)
    set_smoothing(&b.op, smoothing, b.n)
    return targets if count[0] > 0 else None


cdef cnp.ndarray set_weights(Batch* b, object weight, cnp.ndarray targets, double* total):
    """The weights of a loss, of its classes or rows; of labels their sum, too. None where they are not plain"""
    cdef cnp.ndarray of_rows, of_classes = class_weights_of(weight, b.n)
    if of_classes is None:
        return None
    if b.op.labels != NULL:
        of_rows = row_weights_of(targets, of_classes)
        total[0] = loss_total(data_of(of_rows), b.rows, cnp.NPY_FLOAT64)
        if b.op.kind == LABELS:
            b.op.row_weights = <const double*> data_of(of_rows)
            return of_rows
    b.op.class_weights = <const double*> data_of(of_classes)
    return of_classes


cdef object quick_loss(
    Batch* b, object x, object t, object axis, object weight, object ignore_index, double smoothing,
    object reduction, bint gradient, object out, object num_threads
):
    """The loss of contiguous logits, with its gradient if that is wanted"""
    cdef cnp.ndarray a, loss, targets, weights = None, y = None
    cdef cnp.npy_intp[MAX_NDIM] shape
    cdef Py_ssize_t count
    cdef double total
    cdef int k, ndim
    cdef bint mean, each
    if not is_float_array(x) or not cnp.PyArray_ISCARRAY_RO(<cnp.ndarray> x) or type(reduction) is not str:
        return None
    a = x
    k = axis_of(axis, a)
    mean, each = reduction == "mean", reduction == "none"
    if k < 0 or not (mean or each or reduction == "sum"):
        return None
    set_rows(b, a, k, k)
    targets = set_targets(b, a, k, t, ignore_index, smoothing, &count)
    if targets is None:
        return None
    total = count
    if weight is not None:
        weights = set_weights(b, weight, targets, &total)
        if weights is None:
            return None
    b.op.scale = quotient(1, total) if mean else 1.0
    if gradient:
        y = result(out, cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), a, targets)
        b.out = data_of(y)
    if b.op.scale == 0 or (gradient and (y is None or (weights is not None and overlap(y, weights)))):
        return None
    ndim = without(a, k, k, False, &shape[0])
    loss = cnp.PyArray_EMPTY(ndim, shape, work_type(a), 0)
    b.op.loss = data_of(loss)
    execute(b, 0, b.rows, threads_for(a, SERIAL, num_threads), cnp.PyArray_TYPE(a))
    if not each:
        loss = scalar(reduced(loss, total if mean else 1), work_type(a))
    loss = rounded(loss, a)
    return (loss, y) if gradient else loss


cdef cnp.ndarray at_labels(cnp.ndarray a, const int64_t* labels, Py_ssize_t rows):
    """Of each row of a the number at its label, which is valid"""
    cdef Py_ssize_t i, k, size = cnp.PyArray_ITEMSIZE(a), n = cnp.PyArray_DIM(a, cnp.PyArray_NDIM(a) - 1)
    cdef cnp.npy_intp[2] shape = [rows, 1]
    cdef cnp.ndarray found = cnp.PyArray_EMPTY(2, shape, cnp.PyArray_TYPE(a), 0)
    for i in range(rows):
        k = min(labels[i], n - 1)  # another thread may have changed it after the check
        memcpy(data_of(found) + i * size, data_of(a) + (i * n + max(k, 0)) * size, size)
    return found


cdef object quick_cross_entropy(object z, object t, object axis, object to, object num_threads):
    """Cross-entropy of plain probabilities with targets of the same shape and dtype, or labels"""
    cdef Batch b
    cdef cnp.ndarray a, loss, w = None
    cdef Py_ssize_t count = 0
    cdef int last
    cdef bint of_labels
    cdef double one = 1
    cdef float small_one = 1  # the target of the one class that a label leaves
    if not has_plain_rows(z, axis):
        return None
    a = z
    last = cnp.PyArray_NDIM(a) - 1
    of_labels = are_labels(t, a, last)
    if of_labels:
        w = labels_of(t, cnp.PyArray_DIM(a, last), None, &count)
    elif is_plain_like(t, a):
        w = t
    if w is None:
        return None
    set_plain(&b.op, CROSS_ENTROPY)
    set_rows(&b, a, last, last)
    loss = result(to, last, cnp.PyArray_DIMS(a), a, w)
    if loss is None:
        return None
    b.v = data_of(w)
    if of_labels:
        a = at_labels(a, <const int64_t*> cnp.PyArray_DATA(w), b.rows)
        set_rows(&b, a, 1, 1)
        b.v, b.v_stride[0] = <char*> &one if cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT64 else <char*> &small_one, 0
    b.op.loss = data_of(loss)
    execute(&b, 0, b.rows, threads_for(z, SERIAL, num_threads), cnp.PyArray_TYPE(a))
    return loss


cdef bint holds_zero(const floating* x, Py_ssize_t count) noexcept nogil:
    cdef control state = enter()
    cdef Py_ssize_t i, zeros = 0
    for i in range(count):
        zeros += x[i] == 0
    leave(state)
    return zeros > 0


cdef bint has_pole(cnp.ndarray a) noexcept:
    """Whether a plain array holds a 0"""
    cdef Py_ssize_t count = cnp.PyArray_SIZE(a)
    cdef const char* data = data_of(a)
    cdef bint found, single = cnp.PyArray_TYPE(a) == cnp.NPY_FLOAT32
    with nogil:
        found = holds_zero(<const float*> data, count) if single else holds_zero(<const double*> data, count)
    return found


cdef object quick_cross_entropy_grad(object z, object t, object axis, object to, object num_threads):
    """-t / z of plain probabilities, none of them 0, and targets of the same shape and dtype"""
    cdef Batch b
    if not is_plain(z) or not is_like(t, z) or axis_of(axis, z) < 0 or has_pole(z):
        return None
    set_plain(&b.op, CROSS_ENTROPY_GRAD)
    return quick_pair(&b, z, t, -1, to, num_threads)  # entry by entry, whatever the axis
