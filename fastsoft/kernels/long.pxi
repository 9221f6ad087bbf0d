# Long rows, contiguous and in their work type: each block as if it were a row (overlap.pxi), with the maximum of the
# next block and the last step of the same block of the row before. So memory is gone through twice, not three times:
# once for maxima and sums, and once for the last step; softmax in place asks for the maximum beforehand, for then there
# is no way back to the logits. Tiles have the same bits (tiles.pxi).

cdef inline bint is_long(const Operation* op, Py_ssize_t n) noexcept nogil:
    return n > LONG_ROW and op.kind <= LOGSUMEXP and op.how != WIDE


cdef inline bint is_ordinary(vec[floating] top, const Operation* op) noexcept nogil:
    """Whether rows with these maxima have one, and that within reach"""
    cdef floating high = INFINITY
    return not any(equal(absolute(top), fill(high))) and not any(beyond_reach(top, <floating> op.factor.hi))


cdef inline vec[floating] folded_max(const floating* x, Py_ssize_t n) noexcept nogil:
    cdef vec[floating] top = block_max(x, n, False)
    fold(&top, 1)
    return top


cdef inline void begin_stage(Stage[floating]* s, const LongRow[floating]* row, Seam[floating]* seam) noexcept nogil:
    s.count, s.waits, s.ahead = 1, False, row.ahead
    s.seam = seam if row.past else <Seam[floating]*> NULL


cdef inline void set_stage(
    Stage[floating]* s, const LongRow[floating]* row, Py_ssize_t n, Py_ssize_t k, const Operation* op
) noexcept nogil:
    """Block k of a row. Where that waits for its last step, once: it may change e."""
    cdef Py_ssize_t start = k * BLOCK
    s.x[0], s.e[0], s.y[0], s.waits = row.x + start, row.e + start, row.y + start, row.waits
    if row.waits and op.kind == SOFTMAX:
        s.factor = lowered_factor(row.factor, s.e[0], min(n - start, BLOCK), row.blocks[k], row.shared)
    elif row.waits:
        s.shared, s.log = row.shared, row.log


cdef void long_sums(
    const LongRow[floating]* last, const LongRow[floating]* row, Py_ssize_t n, Py_ssize_t first, Py_ssize_t stop,
    const Operation* op
) noexcept nogil:
    """Blocks first .. stop of a row; with them the last step of the same ones of `last`, if it waits"""
    cdef control state = enter()
    cdef Seam[floating] seam
    cdef Stage[floating] before, now, next
    cdef Py_ssize_t k, end = first * BLOCK
    seam.at = NULL
    begin_stage(&before, row, &seam)
    begin_stage(&now, row, &seam)
    begin_stage(&next, row, &seam)
    next.count = 0
    for k in range(first, stop):
        if next.count == 1:  # its maximum has been taken beside the sums of the block before
            fold(&next.tops[0], 1)
            now.tops[0] = next.tops[0]
        else:
            now.tops[0] = folded_max(row.x + end, min(n - end, BLOCK))
        end = min(n, end + BLOCK)
        if last.waits:
            set_stage(&before, last, n, k, op)
        set_stage(&now, row, n, k, op)
        next.x[0], next.count = row.x + end, 1 if k + 1 < stop and end + BLOCK <= n else 0
        apply_overlapped_as(&before, &now, &next, end - k * BLOCK, op, &row.blocks[k])
    end_seam(seam)
    leave(state)


cdef void long_ends(
    const LongRow[floating]* row, Py_ssize_t n, Py_ssize_t first, Py_ssize_t stop, const Operation* op
) noexcept nogil:
    """The last step of blocks first .. stop"""
    cdef control state = enter()
    cdef Seam[floating] seam
    cdef Stage[floating] now
    cdef Py_ssize_t k
    seam.at = NULL
    begin_stage(&now, row, &seam)
    for k in range(first, stop):
        set_stage(&now, row, n, k, op)
        end_all(&now, min(n - k * BLOCK, BLOCK), op)
    end_seam(seam)
    leave(state)


cdef inline bint long_known(LongRow[floating]* row, Py_ssize_t count, const Operation* op) noexcept nogil:
    """What all blocks of a row give: it waits for its last step then (logsumexp: it is done); false where it is out of
    the ordinary"""
    cdef floating zero = 0
    cdef vec[floating] top = row.blocks[0].top
    cdef Plain plain
    cdef Scaled scaled
    cdef Others others
    cdef Shift[floating] s
    cdef Sums[floating] total
    cdef pair[floating] log
    cdef Py_ssize_t k
    for k in range(1, count):
        top = larger(row.blocks[k].top, top)
    if not is_ordinary(top, op):
        return False
    s = row_shift(top, op.factor, scaled) if op.how == SCALED else row_shift(top, op.factor, plain)
    begin_runs(total)
    for k in range(count):
        add_block(total, row.blocks[k], s.each, op.kind != SOFTMAX)
    fold(&total, 1, others)
    row.waits, row.shared = op.kind != LOGSUMEXP, s.each
    if op.kind == SOFTMAX:
        row.factor = reciprocal(total, s, zero)
        round_factor(row.factor)
        return True
    log = log_of_sum(total, s)
    row.log = log_shift(log, s, zero)
    if op.kind == LOGSUMEXP:
        row.y[0] = in_lane(log_sum_exp(log, s, top), 0)
    return True


cdef bint next_long(
    LongRow[floating]* last, LongRow[floating]* row, Py_ssize_t n, const Operation* op, const Team* team
) noexcept nogil:
    """A row but for its last step, and that of `last`, which waits on one thread only; false, and e is of no use, where
    it is out of the ordinary"""
    cdef Py_ssize_t blocks = blocks_in(n)
    row.waits = False
    if op.kind == SOFTMAX and row.x == row.e and not is_ordinary(folded_max(row.x, n), op):
        return False  # while x is there
    if team == NULL:
        long_sums(last, row, n, 0, blocks, op)
        last.waits = False
    else:
        with parallel(num_threads=team.threads):
            long_sums(last, row, n, of_thread(blocks, 0), of_thread(blocks, 1), op)
    return long_known(row, blocks, op)


cdef void finish_long(
    LongRow[floating]* row, Py_ssize_t n, const Operation* op, const Team* team
) noexcept nogil:
    """The last step, if a row waits for it"""
    cdef Py_ssize_t blocks = blocks_in(n)
    if not row.waits:
        return
    if team == NULL:
        long_ends(row, n, 0, blocks, op)
    else:
        with parallel(num_threads=team.threads):
            long_ends(row, n, of_thread(blocks, 0), of_thread(blocks, 1), op)
    row.waits = False


cdef inline bint long_row(
    const floating* x, floating* y, Py_ssize_t n, const Operation* op, const Team* team
) noexcept nogil:
    """A row by itself; false, and y is of no use, where it is out of the ordinary"""
    cdef LongRow[floating] none, row
    cdef const Team* several = team if team.threads > 1 else NULL
    none.waits = False
    row.x, row.e, row.y, row.blocks = x, y, y, <Block[floating]*> team.parts
    row.past, row.ahead = False, fetched_ahead(n * <Py_ssize_t> sizeof(floating))
    if not next_long(&none, &row, n, op, several):
        return False
    finish_long(&row, n, op, several)
    return True


cdef inline void run_long(
    const Batch* b, Py_ssize_t start, Py_ssize_t stop, char* scratch, floating unused
) noexcept nogil:
    """Rows start .. stop, which lie simply in memory, on this thread"""
    cdef LongRow[floating] rows[2]
    cdef LongRow[floating]* last = &rows[0]
    cdef LongRow[floating]* row = &rows[1]
    cdef LongRow[floating]* spare
    cdef Py_ssize_t i, apart = long_parts(b, <floating*> NULL), size = apart + long_size(b)
    cdef Py_ssize_t bytes = b.rows * b.n * <Py_ssize_t> sizeof(floating)
    last.waits = False
    last.past = row.past = b.stream
    last.ahead = row.ahead = fetched_ahead(bytes)
    for i in range(start, stop):
        row.x = <const floating*> (b.x + offset(b, b.x_stride, i))
        row.y = <floating*> (b.out + offset(b, b.out_stride, i))
        row.e, row.blocks = row.y, <Block[floating]*> (scratch + i % 2 * size + apart)
        if keeps_apart(b):
            row.e = <floating*> (scratch + i % 2 * size)
        if not next_long(last, row, b.n, &b.op, NULL):
            finish_long(last, b.n, &b.op, NULL)
            group_or_rows(&row.x, NULL, &row.y, 1, b.n, &b.op, i, NULL)
        elif bytes >= STREAM and not b.stream:  # so long that it waits in no cache
            finish_long(row, b.n, &b.op, NULL)
        spare = last
        last, row = row, spare
    finish_long(last, b.n, &b.op, NULL)
