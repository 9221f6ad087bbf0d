# Groups of rows in a row, in scratch unless they are used as they lie: while the exponentials of one are summed, which
# keeps the arithmetic busy, the maximum of the next is taken and the last one goes its last step, to softmax or
# log_softmax, which keep the memory busy. A loss without its gradient is like logsumexp, but for what is made of the
# sums. The bits are those of rows.pxi: a maximum and the last step do not ask for an order.

cdef inline bint goes_overlapped(const Batch* b, element* unused) noexcept nogil:
    """Whether rows of softmax and its like, or of losses without a gradient, go neither by tiles nor block by block;
    by way of scratch if they are not very long and do not share lines of memory"""
    if b.op.kind > LOGSUMEXP and (b.op.kind != LABELS or b.out != NULL):
        return False
    if b.op.how == WIDE or is_long(&b.op, b.n) or by_tiles(b, sizeof(element)):
        return False
    return are_contiguous(b, unused) or (b.n <= LONG_ROW and not are_columns(b))


cdef inline int buffers(const Batch* b, element* unused) noexcept nogil:
    """For how many groups of rows there is scratch: for exponentials that are kept apart; or for all three, where rows
    are not used as they lie"""
    if not are_contiguous(b, unused):
        return 3
    return 2 if keeps_apart(b) else 0


cdef inline uintptr_t row_of_out(const Batch* b, Py_ssize_t i) noexcept nogil:
    """Where row i of the result begins, if there is one"""
    return <uintptr_t> (b.out + offset(b, b.out_stride, i)) if b.out != NULL else 0


cdef inline bint fetches(const Batch* b, element* unused) noexcept nogil:
    """Whether rows that are not used as they lie are fetched while those before them are computed, as many bytes as
    they have in the work type"""
    if are_contiguous(b, unused) or b.x_step != sizeof(element):
        return False
    return b.rows * b.n * <Py_ssize_t> sizeof(element) > FORESEEN


cdef inline void read_rows(
    const Batch* b, floating* scratch, Stage[floating]* s, element* unused
) noexcept nogil:
    """A group of rows that are not used as they lie: from scratch, and back to it unless they may be written at once"""
    cdef Py_ssize_t r, i
    cdef bint direct = (floating is float and element is float) or (floating is double and element is double)
    s.holds = b.out != NULL and not (direct and b.out_step == sizeof(element))
    s.ahead = 0  # it is in the cache already
    if s.holds:
        s.seam = NULL
    gather_rows(b, b.x, b.x_stride, b.x_step, s.first, s.count, scratch, unused)
    for r in range(s.count):
        i = s.first + r
        s.e[r] = scratch + r * b.n
        s.x[r], s.y[r] = <const floating*> s.e[r], s.e[r] if s.holds else <floating*> row_of_out(b, i)
        if b.where != NULL:
            hide_in_row(b.where + offset(b, b.where_stride, i), b.where_step, b.n, s.e[r])


cdef inline void write_rows(const Batch* b, Stage[floating]* s, element* unused) noexcept nogil:
    """What read_rows left in scratch, once it has gone its last step"""
    if s.holds and not s.waits:
        scatter_rows(b, <const floating*> s.y[0], s.first, s.count, results_of(b), unused)
        s.holds = False


cdef inline void take_rows(
    const Batch* b, Py_ssize_t i, Py_ssize_t stop, floating* scratch, Seam[floating]* seam, Stage[floating]* s,
    element* unused
) noexcept nogil:
    """The next group from row i on, if there is one; its exponentials go to scratch, unless that is NULL, and so do
    its rows if they are not used as they lie"""
    cdef Py_ssize_t r, last = b.ndim - 1, x_stride = 0, out_stride = 0
    cdef uintptr_t x, out
    s.first = i
    s.count = <int> max(0, min(rows_in_group(b, REGISTER // sizeof(floating)), stop - i))
    s.waits = s.holds = False
    s.seam = seam if b.stream else <Seam[floating]*> NULL
    s.ahead = fetched_ahead(b.rows * b.n * <Py_ssize_t> sizeof(element))
    if s.count == 0:
        return
    if not are_contiguous(b, unused):
        read_rows(b, scratch, s, unused)
        return
    if last >= 0:
        x_stride, out_stride = b.x_stride[last], b.out_stride[last] if b.out != NULL else 0
    x, out = <uintptr_t> (b.x + offset(b, b.x_stride, i)), row_of_out(b, i)
    for r in range(REGISTER // <Py_ssize_t> sizeof(floating)):  # all there may be, so that it takes few instructions
        s.x[r], s.y[r] = <const floating*> (x + r * x_stride), <floating*> (out + r * out_stride)
    if not evenly(b, i, s.count):
        for r in range(s.count):
            s.x[r] = <const floating*> (b.x + offset(b, b.x_stride, i + r))
            s.y[r] = <floating*> row_of_out(b, i + r)
    for r in range(REGISTER // <Py_ssize_t> sizeof(floating)):
        s.e[r] = <floating*> (<uintptr_t> scratch + r * b.n * sizeof(floating)) if scratch != NULL else s.y[r]


cdef inline void end_row(
    Stage[floating]* s, int r, Py_ssize_t n, Py_ssize_t done, How how, Which which
) noexcept nogil:
    """The last step of row r from class `done` on"""
    cdef const floating* x = s.x[r]
    cdef floating* y
    cdef pair[floating] factor = of_row(s.factor, r)
    cdef Log[floating] log = of_row(s.log, r)
    cdef Shared[floating] shared = of_row(s.shared, r)
    if Which is All:
        x = s.e[r]
    x, y = x + done, s.y[r] + done
    end_terms(x, y, to_line(y, n - done, s.seam != NULL), n - done, factor, log, shared, how, which, s.seam)
    if Which is All:
        log.hi = factor.hi
    if has_nan(log.hi):
        if s.seam != NULL:
            end_seam(s.seam[0])
        block_mend(s.y[r], n, log.hi)


cdef inline void end_rows(Stage[floating]* s, Py_ssize_t n, How how, Which which) noexcept nogil:
    """What waits for its last step"""
    cdef int r
    for r in range(s.count if s.waits else 0):
        end_row(s, r, n, 0, how, which)
    s.waits = False


cdef void end_all(Stage[floating]* s, Py_ssize_t n, const Operation* op) noexcept nogil:
    cdef Plain plain
    cdef Scaled scaled
    cdef All all_terms
    cdef Others others
    if op.kind == SOFTMAX:
        end_rows(s, n, plain, all_terms)
    elif op.how == SCALED:
        end_rows(s, n, scaled, others)
    else:
        end_rows(s, n, plain, others)


cdef inline void sum_overlapped(
    Stage[floating]* last, const Stage[floating]* now, Stage[floating]* next, Py_ssize_t n,
    const Shared[floating]* shared, How how, Which which, Sums[floating]* total
) noexcept nogil:
    """As rows_sum; with it the maxima of `next`, which has as many rows, and the last step of `last`, if it waits"""
    cdef floating low = -INFINITY
    cdef int r
    cdef Py_ssize_t start, skip, step = exp_vecs * REGISTER // <int> sizeof(floating)
    cdef Shared[floating] s
    cdef Sums[floating] a
    cdef Beside[floating] b
    b.ahead, b.seam = now.ahead, last.seam
    for r in range(now.count):
        b.following, b.top, b.y = next.x[r], fill(low), last.y[r]
        s = of_row(shared[0], r)
        if Which is All:
            b.from_, b.factor = last.e[r], of_row(last.factor, r)
        else:
            b.from_, b.log, b.shared = last.x[r], of_row(last.log, r), of_row(last.shared, r)
        skip, b.room = 0, 0
        if last.waits:
            skip = to_line(b.y, n, last.seam != NULL)
            end_part(b.from_, b.y, skip, b.factor, b.log, b.shared, how, which, last.seam)
            b.from_ += skip
            b.y += skip
            b.room = n - skip
        for start from 0 <= start < n by BLOCK:
            sum_block(a, now.x[r], now.e[r], start, min(n, start + BLOCK), n, s, how, which, b)
            finish(a, n, which, n - start >= BLOCK)
            if start == 0:
                total[r] = a
            else:
                merge(total[r], a)
        next.tops[r] = b.top
        if last.waits:
            end_row(last, r, n, skip + b.room // step * step, how, which)
    last.waits = False


cdef inline void end_few(Stage[floating]* s, Py_ssize_t n, Which which) noexcept nogil:
    """What few_overlapped leaves of the last step"""
    cdef int r
    cdef vec[floating] factor
    if Which is All:
        factor = s.factor.hi
    else:
        factor = s.log.hi
    if s.waits and has_nan(factor):
        for r in range(s.count):
            block_mend(s.y[r], n, fill(in_lane(factor, r)))
    s.waits = False


cdef void label_losses(
    const floating** x, int count, Py_ssize_t n, const Sums[floating]* sums, const Shift[floating]* s,
    const Operation* op, Py_ssize_t first, How how
) noexcept nogil:
    """apply_loss, of the sums, for labels and without a gradient"""
    cdef Loss[floating] a
    cdef Label[floating] label
    cdef Py_ssize_t at[16]
    labels_of_group(x, count, n, op, first, at, &label)
    set_label_loss(
        a, sums[0], log_of_sum(sums[0], s[0]), s[0], label, op.scale, op.z_loss, op.factor, False, how
    )
    store_losses(a.loss, count, op, first)


cdef void apply_overlapped(
    Stage[floating]* last, Stage[floating]* now, Stage[floating]* next, Py_ssize_t n, const Operation* op, Within how,
    Which which, Block[floating]* block
) noexcept nogil:
    """The sums of `now`, and what they give, but for the last step; all maxima of `next`. Of a block of a long row no
    more than its sums."""
    cdef Shift[floating] s
    cdef Sums[floating] sums[16]
    cdef floating zero = 0
    cdef int r
    cdef bint spare = together > 1 or floating is double or Which is All  # registers, to end log_softmax beside them
    cdef bint few = are_unrolled(n, zero) and now.seam == NULL and (spare or not last.waits)
    if block != NULL:
        s.each = block_shift(block[0], now.tops[0], op.factor, how)
    else:
        group_shift(now.x, now.count, n, now.tops[0], op, how, &s)
    if next.count == 0 and last.waits:
        for r in range(now.count):
            next.x[r] = now.x[r]  # for their maxima, of which nothing is made
    if (next.count == now.count or next.count == 0 and last.waits) and (not last.waits or last.count == now.count):
        if few:
            few_overlapped(last[0], now[0], next[0], n, n == BLOCK, s.each, how, which, &sums[0])
            end_few(last, n, which)
        else:
            sum_overlapped(last, now, next, n, &s.each, how, which, &sums[0])
    else:
        end_rows(last, n, how, which)
        rows_max(next.x, next.count, n, False, NULL, next.tops)
        rows_sum(
            now.x, now.e if Which is All else <floating**> NULL, now.count, n, &s.each, how, which, NULL, &sums[0]
        )
    if block != NULL:
        block.sums = sums[0]
        return
    fold_sums(&sums[0], now.count, n, which)
    if Which is All:
        now.factor = reciprocal(sums[0], s, <floating> op.empty)
        now.waits = True
    elif op.kind == LOG_SOFTMAX:
        now.shared, now.log = s.each, log_shift(log_of_sum(sums[0], s), s, <floating> op.empty)
        now.waits = True
    elif op.kind == LABELS:
        label_losses(now.x, now.count, n, &sums[0], &s, op, now.first, how)
    else:
        log_results(now.x, now.y, now.count, n, now.tops[0], &sums[0], &s, op, how, NULL)


cdef void apply_overlapped_as(
    Stage[floating]* last, Stage[floating]* now, Stage[floating]* next, Py_ssize_t n, const Operation* op,
    Block[floating]* block
) noexcept nogil:
    """apply_overlapped as the operation asks for it"""
    cdef Plain plain
    cdef Scaled scaled
    cdef All all_terms
    cdef Others others
    if op.kind == SOFTMAX:
        if op.how == SCALED:
            apply_overlapped(last, now, next, n, op, scaled, all_terms, block)
        else:
            apply_overlapped(last, now, next, n, op, plain, all_terms, block)
    elif op.how == SCALED:
        apply_overlapped(last, now, next, n, op, scaled, others, block)
    else:
        apply_overlapped(last, now, next, n, op, plain, others, block)


cdef inline void run_overlapped(
    const Batch* b, Py_ssize_t start, Py_ssize_t stop, floating* scratch, element* unused
) noexcept nogil:
    """Rows start .. stop"""
    cdef Stage[floating] stages[3]
    cdef Stage[floating]* last = &stages[0]
    cdef Stage[floating]* now = &stages[1]
    cdef Stage[floating]* next = &stages[2]
    cdef Stage[floating]* spare
    cdef Seam[floating] seam
    cdef Py_ssize_t i = start, g = 0, size = b.n * rows_in_group(b, REGISTER // sizeof(floating))
    cdef int slots = buffers(b, unused)
    last.waits = last.holds = False
    seam.at = NULL
    if slots == 0:
        scratch, size, slots = <floating*> NULL, 0, 1
    take_rows(b, i, stop, scratch, &seam, now, unused)
    rows_max(now.x, now.count, b.n, False, NULL, now.tops)
    while i < stop:
        g += 1
        take_rows(b, i + now.count, stop, scratch + g % slots * size, &seam, next, unused)
        if next.count > 0 and fetches(b, unused):
            now.ahead = b.x + offset(b, b.x_stride, next.first + next.count) - <const char*> next.x[0]
        fold(&now.tops[0], now.count)
        if any(beyond_reach(now.tops[0], <floating> b.op.factor.hi)):
            end_all(last, b.n, &b.op)
            group_or_rows(now.x, NULL, now.y, now.count, b.n, &b.op, i, NULL)
            rows_max(next.x, next.count, b.n, False, NULL, next.tops)
        else:
            apply_overlapped_as(last, now, next, b.n, &b.op, <Block[floating]*> NULL)
        i += now.count
        write_rows(b, last, unused)
        write_rows(b, now, unused)
        spare = last
        last, now, next = now, next, spare
    end_all(last, b.n, &b.op)
    write_rows(b, last, unused)
    end_seam(seam)
