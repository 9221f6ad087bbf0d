# Groups of contiguous rows in a row: while the exponentials of one are summed, which keeps the arithmetic busy, the
# maximum of the next is taken and the last one's softmax is scaled, which keep the memory busy. The bits are those of
# rows.pxi: a maximum and a scaling do not ask for an order.

cdef inline bint goes_overlapped(const Batch* b, element* unused) noexcept nogil:
    """Whether rows lie so that they need no scratch, but for what is written past the caches"""
    if b.op.kind > LOGSUMEXP or b.op.how == WIDE or by_tiles(b, sizeof(element)):
        return False
    return are_contiguous(b, unused) and (b.op.kind == SOFTMAX or not b.stream)


cdef inline void take_rows(
    const Batch* b, Py_ssize_t i, Py_ssize_t stop, floating* scratch, Stage[floating]* s
) noexcept nogil:
    """The next group from row i on, if there is one; its exponentials go to scratch, unless that is NULL"""
    cdef Py_ssize_t r
    s.count = <int> max(0, min(rows_in_group(b, REGISTER // sizeof(floating)), stop - i))
    s.waits = False
    for r in range(s.count):
        s.x[r] = <const floating*> (b.x + offset(b, b.x_stride, i + r))
        s.y[r] = <floating*> (b.out + offset(b, b.out_stride, i + r))
        s.e[r] = scratch + r * b.n if scratch != NULL else s.y[r]


cdef inline void take_maxima(Stage[floating]* s, Py_ssize_t n) noexcept nogil:
    cdef int r
    for r in range(s.count):
        s.tops[r] = block_max(s.x[r], n)


cdef inline void scale_rows(Stage[floating]* s, Py_ssize_t n) noexcept nogil:
    """What waits to be scaled"""
    cdef int r
    if not s.waits:
        return
    s.waits = False
    if s.e[0] == s.y[0]:
        block_scale(s.y, s.count, 0, n, &s.factor, False)
        return
    for r in range(s.count):
        scale_past(s.e[r], s.y[r], n, of_row(s.factor, r))


cdef inline void sum_overlapped(
    Stage[floating]* last, const Stage[floating]* now, Stage[floating]* next, Py_ssize_t n,
    const Shared[floating]* shared, How how, Which which, Sums[floating]* total
) noexcept nogil:
    """As rows_sum; and with it the maxima of `next`, which has as many rows, and the scaling of `last`, if it waits"""
    cdef floating zero = 0, low = -INFINITY
    cdef int r, vecs = exp_vecs(zero, which)
    cdef Py_ssize_t i, start, stop, skip, room, step = vecs * REGISTER // <Py_ssize_t> sizeof(floating)
    cdef Py_ssize_t near = NEAR // sizeof(floating)
    cdef bint many = n >= many_vecs * REGISTER // <Py_ssize_t> sizeof(floating), scales = last.waits
    cdef bint keeps = Which is All, past = scales and last.e[0] != last.y[0]
    cdef const floating* x
    cdef const floating* following
    cdef floating* e
    cdef floating* before
    cdef floating* y
    cdef Shared[floating] s
    cdef pair[floating] factor
    cdef Sums[floating] a
    cdef vec[floating] top
    for r in range(now.count):
        x, e, following, before, y = now.x[r], now.e[r], next.x[r], last.e[r], last.y[r]
        s = of_row(shared[0], r)
        factor = of_row(last.factor, r)
        top = fill(low)
        skip = to_line(y, n) if past else 0
        room = n - skip
        for start from 0 <= start < n by BLOCK:
            stop = min(n, start + BLOCK)
            begin(a)
            i = start
            while i + step <= stop:
                prefetch(following + i + near, vecs)
                if keeps:
                    prefetch_to_write(e + i + near, vecs)
                collect_some(a, x + i, e + i if keeps else <floating*> NULL, step, s, how, which, many)
                max_some(top, following + i, step, vecs)
                if scales and i + step <= room:
                    scale_some(before + skip + i, y + skip + i, step, vecs, factor, past)
                i += step
            if i < stop:
                collect_some(a, x + i, e + i if keeps else <floating*> NULL, stop - i, s, how, which, many)
                max_some(top, following + i, stop - i, vecs)
            finish(a)
            if start == 0:
                total[r] = a
            else:
                merge(total[r], a)
        next.tops[r] = top
        if scales:
            scale_some(before, y, skip, 1, factor, False)
            for i from skip + room // step * step <= i < n by step:
                scale_some(before + i, y + i, n - i, vecs, factor, past)
            if has_nan(factor.hi):
                block_mend(y, n, factor.hi)
    last.waits = False


cdef inline void apply_overlapped(
    Stage[floating]* last, Stage[floating]* now, Stage[floating]* next, Py_ssize_t n, const Operation* op, How how
) noexcept nogil:
    """The sums of `now`, and what they give, of softmax but for the scaling; all maxima of `next`"""
    cdef Shift[floating] s
    cdef Sums[floating] sums[16]
    cdef All all_terms
    cdef Others others
    cdef bint beside = next.count == now.count and (not last.waits or last.count == now.count)
    if not beside:
        scale_rows(last, n)
        take_maxima(next, n)
        if op.kind != SOFTMAX:
            apply_group(now.x, now.y, now.count, n, now.tops[0], op, how, NULL)
            return
    group_shift(now.x, now.count, n, now.tops[0], op, how, &s)
    if op.kind == SOFTMAX:
        if beside:
            sum_overlapped(last, now, next, n, &s.each, how, all_terms, &sums[0])
        else:
            rows_sum(now.x, now.e, now.count, n, &s.each, how, all_terms, NULL, &sums[0])
        fold(&sums[0], now.count, all_terms)
        now.factor = reciprocal(sums[0], s, <floating> op.empty)
        now.waits = True
    else:
        sum_overlapped(last, now, next, n, &s.each, how, others, &sums[0])
        fold(&sums[0], now.count, others)
        log_results(now.x, now.y, now.count, n, now.tops[0], &sums[0], &s, op, how, NULL)


cdef inline void run_overlapped(
    const Batch* b, Py_ssize_t start, Py_ssize_t stop, floating* scratch
) noexcept nogil:
    """Rows start .. stop"""
    cdef Stage[floating] stages[3]
    cdef Stage[floating]* last = &stages[0]
    cdef Stage[floating]* now = &stages[1]
    cdef Stage[floating]* next = &stages[2]
    cdef Stage[floating]* spare
    cdef Plain plain
    cdef Scaled scaled
    cdef Py_ssize_t i = start, g = 0, size = b.n * rows_in_group(b, REGISTER // sizeof(floating))
    last.waits = False
    take_rows(b, i, stop, scratch if b.stream else <floating*> NULL, now)
    take_maxima(now, b.n)
    while i < stop:
        g += 1
        take_rows(b, i + now.count, stop, scratch + g % 2 * size if b.stream else <floating*> NULL, next)
        fold(&now.tops[0], now.count)
        if any(beyond_reach(now.tops[0], <floating> b.op.factor.hi)):
            scale_rows(last, b.n)
            group_or_rows(now.x, NULL, now.y, now.count, b.n, &b.op, i, NULL)
            take_maxima(next, b.n)
        elif b.op.how == SCALED:
            apply_overlapped(last, now, next, b.n, &b.op, scaled)
        else:
            apply_overlapped(last, now, next, b.n, &b.op, plain)
        i += now.count
        spare = last
        last, now, next = now, next, spare
    scale_rows(last, b.n)
