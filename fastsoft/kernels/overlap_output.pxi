# VJP from a kept output y, z_i = y_i (v_i - y.v), of contiguous rows: while the products of one group of rows are
# summed, z of the last one is written, so that memory is read and written all the time; but where rows are long, so
# that they would have to come from a farther cache twice, z of each right after its sums. The bits are those of
# gradients.pxi, which does the groups that are out of the ordinary.

cdef enum:
    LINES = 1536  # bytes of a row from which memory is read by whole lines
    OVERLAP = 6144  # bytes of a row of which five, four that are read and one written, stay in the nearest cache


cdef inline bint goes_overlapped_output(const Batch* b, element* unused) noexcept nogil:
    if b.op.kind != VJP_FROM_OUTPUT or by_tiles(b, sizeof(element)):
        return False
    return are_contiguous(b, unused) and b.v_step == sizeof(element)


cdef inline void take_outputs(
    const Batch* b, Py_ssize_t i, Py_ssize_t stop, Py_ssize_t few, OutputStage[floating]* s
) noexcept nogil:
    """The next group from row i on, at most `few` rows, if there is one"""
    cdef Py_ssize_t r, last = b.ndim - 1
    cdef const char* y
    cdef const char* v
    cdef char* z
    s.first = i
    s.count = <int> max(0, min(few, stop - i))
    if s.count > 0 and evenly(b, i, s.count):
        y, v = b.x + offset(b, b.x_stride, i), b.v + offset(b, b.v_stride, i)
        z = b.out + offset(b, b.out_stride, i)
        for r in range(s.count):
            s.y[r], s.v[r] = <const floating*> (y + r * b.x_stride[last]), <const floating*> (v + r * b.v_stride[last])
            s.z[r] = <floating*> (z + r * b.out_stride[last])
        return
    for r in range(s.count):
        s.y[r] = <const floating*> (b.x + offset(b, b.x_stride, i + r))
        s.v[r] = <const floating*> (b.v + offset(b, b.v_stride, i + r))
        s.z[r] = <floating*> (b.out + offset(b, b.out_stride, i + r))


cdef inline void add_output(
    const floating* y, const floating* v, Py_ssize_t n, int between, Sums[floating]* dot
) noexcept nogil:
    """The sum of a row's products"""
    cdef Py_ssize_t i, start, stop, step = product_vecs * REGISTER // <Py_ssize_t> sizeof(floating)
    cdef Sums[floating] a
    for start from 0 <= start < n by BLOCK:
        stop = min(n, start + BLOCK)
        begin_runs(a)
        i = add_steps(a, y, v, start, stop, between)
        while i < stop:
            add_runs(a, y + i, v + i, stop - i)
            i += step
        if start == 0:
            dot[0] = a
        else:
            merge(dot[0], a)


cdef inline int lie_between_lines(const Batch* b, element* unused) noexcept nogil:
    """`between` of add_steps: of the first row, as of most; of short rows it does not matter"""
    if b.n * <Py_ssize_t> sizeof(element) < LINES or <uintptr_t> b.v % REGISTER == 0:
        return 0
    return 1 if <uintptr_t> b.x % REGISTER == 0 else 2


cdef inline Py_ssize_t to_lines(const floating* y, const floating* z, Py_ssize_t n, Way way) noexcept nogil:
    """How many numbers of a row go first, so that for the others lines are read whole, or where they must be, written:
    y and v, which as a rule lie alike, take more than z"""
    if Way is Past or n * <Py_ssize_t> sizeof(floating) < LINES:
        return to_line(z, n, Way is Past)
    return to_line(y, n, False)


cdef inline void turn_output_row(
    const floating* y, const floating* v, floating* z, const pair[floating]* means, int r, Py_ssize_t n, Way way,
    Seam[floating]* seam
) noexcept nogil:
    """z of one row"""
    cdef Py_ssize_t i = to_lines(y, z, n, way), step = product_vecs * REGISTER // <Py_ssize_t> sizeof(floating)
    cdef pair[floating] mean = of_row(means[0], r)
    if i > 0:
        turn_some(y, v, z, i, mean, way, seam)
    while i + step <= n:
        turn_some(y + i, v + i, z + i, step, mean, way, seam)
        i += step
    if i < n:
        turn_some(y + i, v + i, z + i, n - i, mean, way, seam)


cdef inline void overlap_outputs(
    const floating* y, const floating* v, floating* z, const pair[floating]* means, int r, const floating* next_y,
    const floating* next_v, Py_ssize_t n, int between, Way way, Seam[floating]* seam, Sums[floating]* dot
) noexcept nogil:
    """turn_output_row of one row, and add_output of another"""
    cdef Py_ssize_t step = product_vecs * REGISTER // <Py_ssize_t> sizeof(floating), near = NEAR // sizeof(floating)
    cdef Py_ssize_t i, start, stop, skip = to_lines(y, z, n, way)
    cdef pair[floating] mean = of_row(means[0], r)  # in registers: for the compiler a store to z might change it
    cdef Sums[floating] a
    if skip > 0:
        turn_some(y, v, z, skip, mean, way, seam)
    y, v, z = y + skip, v + skip, z + skip
    for start from 0 <= start < n by BLOCK:
        stop = min(n, start + BLOCK)
        begin_runs(a)
        i = overlap_steps(a, next_y, next_v, start, stop - skip, between, near, y, v, z, mean, way, seam)
        while i < stop:
            add_runs(a, next_y + i, next_v + i, stop - i)
            turn_some(y + i, v + i, z + i, n - skip - i, mean, way, seam)
            i += step
        if start == 0:
            dot[0] = a
        else:
            merge(dot[0], a)


cdef inline void settle_outputs(OutputStage[floating]* s) noexcept nogil:
    """What follows from the sums"""
    cdef int r
    cdef All all_terms
    cdef vec[floating] size = absolute(s.dots[0].hi)
    for r in range(1, s.count):
        size = larger(absolute(s.dots[r].hi), size)
    fold(s.dots, s.count, all_terms)
    s.mean.hi, s.mean.lo = s.dots[0].hi, s.dots[0].lo
    s.ordinary = all_moderate(size) and all_finite(s.mean.hi + s.mean.lo)  # the second where one was NaN


cdef inline void overlap_groups(
    OutputStage[floating]* last, OutputStage[floating]* next, Py_ssize_t n, int between, Way way, Seam[floating]* seam
) noexcept nogil:
    """z of the last group, and the sums of the next, of which either may be smaller, or none"""
    cdef int r
    for r in range(max(last.count, next.count)):
        if r >= last.count:
            add_output(next.y[r], next.v[r], n, between, &next.dots[r])
        elif r < next.count:
            overlap_outputs(
                last.y[r], last.v[r], last.z[r], &last.mean, r, next.y[r], next.v[r], n, between, way, seam,
                &next.dots[r]
            )
        else:
            turn_output_row(last.y[r], last.v[r], last.z[r], &last.mean, r, n, way, seam)


cdef inline void run_few_outputs(const Batch* b, Py_ssize_t start, Py_ssize_t stop, floating* unused) noexcept nogil:
    """Rows start .. stop, of few vecs: group by group, in steps that are short enough to overlap by themselves"""
    cdef OutputStage[floating] s
    cdef Py_ssize_t i = start
    while i < stop:
        take_outputs(b, i, stop, REGISTER // sizeof(floating), &s)
        few_dots(s, b.n)
        settle_outputs(&s)
        if s.ordinary:
            few_turned(s, b.n)
        else:
            group_or_rows(s.y, s.v, s.z, s.count, b.n, &b.op, s.first, NULL)
        i += s.count


cdef inline void run_overlapped_output(
    const Batch* b, Py_ssize_t start, Py_ssize_t stop, floating* unused
) noexcept nogil:
    """Rows start .. stop"""
    cdef OutputStage[floating] stages[2]
    cdef OutputStage[floating]* last = &stages[0]
    cdef OutputStage[floating]* next = &stages[1]
    cdef Py_ssize_t i = start, few = rows_in_group(b, REGISTER // sizeof(floating))
    cdef bint in_turn = b.n * <Py_ssize_t> sizeof(floating) > OVERLAP and not b.stream
    cdef int between = lie_between_lines(b, unused)
    cdef floating zero = 0
    cdef Seam[floating] seam
    cdef Near near
    cdef Past past
    if are_few(b.n, zero) and not b.stream:
        run_few_outputs(b, start, stop, unused)
        return
    last.count = 0
    seam.at = NULL
    while i < stop or last.count > 0:
        take_outputs(b, i, i if in_turn and last.count > 0 else stop, few, next)
        i += next.count
        if last.count > 0 and not last.ordinary:
            group_or_rows(last.y, last.v, last.z, last.count, b.n, &b.op, last.first, NULL)
            last.count = 0
        if b.stream:
            overlap_groups(last, next, b.n, 0, past, &seam)
        else:
            overlap_groups(last, next, b.n, between, near, NULL)
        if next.count > 0:
            settle_outputs(next)
        last, next = next, last
    end_seam(seam)
