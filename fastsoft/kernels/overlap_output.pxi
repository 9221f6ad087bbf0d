# VJP from a kept output y, z_i = y_i (v_i - y.v), of contiguous rows, to be written past the caches: while the products
# of one group of rows are summed, z of the last one is written, so that memory is read and written all the time. The
# bits are those of gradients.pxi, which does the groups that are out of the ordinary.

cdef inline bint goes_overlapped_output(const Batch* b, element* unused) noexcept nogil:
    if b.op.kind != VJP_FROM_OUTPUT or not b.stream or by_tiles(b, sizeof(element)):
        return False
    return are_contiguous(b, unused) and b.v_step == sizeof(element)


cdef inline void take_outputs(const Batch* b, Py_ssize_t i, Py_ssize_t stop, OutputStage[floating]* s) noexcept nogil:
    """The next group from row i on, if there is one"""
    cdef Py_ssize_t r
    s.first = i
    s.count = <int> max(0, min(rows_in_group(b, REGISTER // sizeof(floating)), stop - i))
    for r in range(s.count):
        s.y[r] = <const floating*> (b.x + offset(b, b.x_stride, i + r))
        s.v[r] = <const floating*> (b.v + offset(b, b.v_stride, i + r))
        s.z[r] = <floating*> (b.out + offset(b, b.out_stride, i + r))


cdef inline void overlap_outputs(
    OutputStage[floating]* last, OutputStage[floating]* next, int r, Py_ssize_t n
) noexcept nogil:
    """Row r of two groups, where they have one: z of the last one, the sums of products of the next"""
    cdef bint writes = r < last.count, adds = r < next.count
    cdef Py_ssize_t step = run_length * REGISTER // <Py_ssize_t> sizeof(floating), near = NEAR // sizeof(floating)
    cdef Py_ssize_t i, start, skip = to_line(last.z[r], n) if writes else 0
    cdef const floating* y = last.y[r] if writes else <floating*> NULL
    cdef const floating* v = last.v[r] if writes else <floating*> NULL
    cdef floating* z = last.z[r] if writes else <floating*> NULL
    cdef const floating* next_y = next.y[r] if adds else <floating*> NULL
    cdef const floating* next_v = next.v[r] if adds else <floating*> NULL
    cdef pair[floating] mean = of_row(last.mean, r)
    cdef Sums[floating] a
    if writes:
        turn_past(y, v, z, skip, mean)
    for start from 0 <= start < n by BLOCK:
        begin_runs(a)
        for i from start <= i < min(n, start + BLOCK) by step:
            if adds:
                prefetch(next_y + i + near, run_length)
                prefetch(next_v + i + near, run_length)
                if i + step <= n:
                    add_run(a, next_y + i, next_v + i, step)
                else:
                    add_run(a, next_y + i, next_v + i, n - i)
            if writes and skip + i + step <= n:
                turn_past(y + skip + i, v + skip + i, z + skip + i, step, mean)
            elif writes:
                turn_past(y + skip + i, v + skip + i, z + skip + i, n - skip - i, mean)
        if adds and start == 0:
            next.dots[r] = a
        elif adds:
            merge(next.dots[r], a)


cdef inline void settle_outputs(OutputStage[floating]* s) noexcept nogil:
    """What follows from the sums"""
    cdef int r
    cdef All all_terms
    s.ordinary = True
    for r in range(s.count):
        s.ordinary &= all_moderate(s.dots[r].hi)
    fold(s.dots, s.count, all_terms)
    s.mean.hi, s.mean.lo = s.dots[0].hi, s.dots[0].lo
    s.ordinary &= all_finite(s.mean.hi + s.mean.lo)


cdef inline void run_overlapped_output(
    const Batch* b, Py_ssize_t start, Py_ssize_t stop, floating* unused
) noexcept nogil:
    """Rows start .. stop"""
    cdef OutputStage[floating] stages[2]
    cdef OutputStage[floating]* last = &stages[0]
    cdef OutputStage[floating]* next = &stages[1]
    cdef Py_ssize_t i = start
    cdef int r
    last.count = 0
    while i < stop or last.count > 0:
        take_outputs(b, i, stop, next)
        i += next.count
        if last.count > 0 and not last.ordinary:
            group_or_rows(last.y, last.v, last.z, last.count, b.n, &b.op, last.first, NULL)
            last.count = 0
        for r in range(max(last.count, next.count)):
            overlap_outputs(last, next, r, b.n)
        if next.count > 0:
            settle_outputs(next)
        last, next = next, last
