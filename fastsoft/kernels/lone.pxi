# One short row by itself, as calls with one row ask for it.

cdef inline bint run_lone(const Batch* b, Py_ssize_t i, element* unused) noexcept nogil:
    """Row i, in one go; false, and nothing is done, where it is long, or not simply numbers in a row"""
    cdef const element* x
    cdef element* y
    cdef bint done = False
    cdef control state
    if element is float or element is double:
        if b.n > few_classes or b.op.how != PLAIN or b.v != NULL or not are_contiguous(b, unused):
            return False
        state = enter()
        x, y = <const element*> (b.x + offset(b, b.x_stride, i)), <element*> (b.out + offset(b, b.out_stride, i))
        if b.op.kind == SOFTMAX:
            done = lone_softmax(x, y, b.n)
        elif b.op.kind == LOG_SOFTMAX:
            done = lone_log_softmax(x, y, b.n)
        elif b.op.kind == LOGSUMEXP:
            done = lone_logsumexp(x, y, b.n)
        elif b.op.kind == JACOBIAN:
            done = lone_jacobian(x, y, b.n, <element> b.op.scale)
        leave(state)
    return done
