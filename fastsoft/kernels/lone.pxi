# A few short rows, each by itself, as calls with one row ask for it.

cdef enum:
    LONE = 7  # rows up to which that is faster than to take them as a group,
    LONE_LOGS = 3  # where a logarithm is taken, for all of a group at once


cdef inline bint lone_row(const Batch* b, const element* x, element* y) noexcept nogil:
    """x to y; false, and nothing is done, where that is out of the ordinary"""
    if element is float or element is double:
        if b.op.kind == SOFTMAX:
            return lone_softmax(x, y, b.n)
        if b.op.kind == LOG_SOFTMAX:
            return lone_log_softmax(x, y, b.n)
        if b.op.kind == LOGSUMEXP:
            return lone_logsumexp(x, y, b.n)
        if b.op.kind == JACOBIAN:
            return lone_jacobian(x, y, b.n, <element> b.op.scale)
    return False


cdef inline Py_ssize_t run_lone(const Batch* b, Py_ssize_t start, Py_ssize_t stop, element* unused) noexcept nogil:
    """Rows start .. stop up to the first that is long, or out of the ordinary, or not simply numbers in a row; which
    that is"""
    cdef control state
    cdef const char* x
    cdef char* y
    cdef Kind kind = b.op.kind
    cdef Py_ssize_t most = LONE_LOGS if kind == LOG_SOFTMAX or kind == LOGSUMEXP else LONE
    if stop - start > most or b.n > few_classes or (kind > LOGSUMEXP and kind != JACOBIAN):
        return start
    if b.op.how != PLAIN or not are_contiguous(b, unused):
        return start
    state = enter()
    while start < stop:
        x, y = b.x + offset(b, b.x_stride, start), b.out + offset(b, b.out_stride, start)
        if not lone_row(b, <const element*> x, <element*> y):
            break
        start += 1
    leave(state)
    return start
