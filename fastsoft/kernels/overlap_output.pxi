# VJPs from a kept output, of contiguous rows of any type, each by itself and its sum in registers (output.hpp); rows
# that are out of the ordinary go as others do. Of softmax, z_i = y_i (v_i - y.v) of float32 and float64, here: while
# the products of one row are summed, z of the one before is written, so that memory is read and written all the time;
# but where rows are long, so that they would have to come from a farther cache twice, z of each right after its sum.

cdef enum:
    LINES = 1536  # bytes of a row from which memory is read by whole lines
    OVERLAP = 6144  # bytes of a row of which five, four that are read and one written, stay in the nearest cache
    PHASES = 6291456  # bytes of z for each thread from which, of rows longer than OVERLAP, no y and v are read while z
    # is written: from beyond the caches they would come later


cdef inline bint goes_overlapped_output(const Batch* b, element* unused) noexcept nogil:
    if b.op.kind != VJP_FROM_OUTPUT and b.op.kind != LOG_VJP_FROM_OUTPUT or by_tiles(b, sizeof(element)):
        return False
    return b.x_step == sizeof(element) and b.v_step == sizeof(element) and b.out_step == sizeof(element)


cdef inline OutputRow[element] output_row(const Batch* b, Py_ssize_t i, element* unused) noexcept nogil:
    """Row i"""
    cdef OutputRow[element] row
    cdef Py_ssize_t last = b.ndim - 1
    row.y = <const element*> (b.x + offset(b, b.x_stride, i))
    row.v = <const element*> (b.v + offset(b, b.v_stride, i))
    row.z = <element*> (b.out + offset(b, b.out_stride, i))
    row.y_apart, row.v_apart, row.z_apart = 0, 0, 0
    if last >= 0:
        row.y_apart, row.v_apart, row.z_apart = b.x_stride[last], b.v_stride[last], b.out_stride[last]
    return row


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
    const OutputRow[floating]& row, const pair[floating]& dot, Py_ssize_t n, Way way, Seam[floating]* seam
) noexcept nogil:
    """z of one row"""
    cdef const floating* y = row.y
    cdef const floating* v = row.v
    cdef floating* z = row.z
    cdef pair[floating] mean = dot  # in registers: for the compiler a store to z might change it
    cdef Py_ssize_t i = to_lines(y, z, n, way), step = product_vecs * REGISTER // <Py_ssize_t> sizeof(floating)
    if i > 0:
        turn_some(y, v, z, i, mean, way, seam)
    while i + step <= n:
        turn_some(y + i, v + i, z + i, step, mean, way, seam)
        i += step
    if i < n:
        turn_some(y + i, v + i, z + i, n - i, mean, way, seam)


cdef inline void overlap_outputs(
    const OutputRow[floating]& row, const pair[floating]& dot, const OutputRow[floating]& next, Py_ssize_t n,
    int between, Way way, Seam[floating]* seam, Sums[floating]* next_dot
) noexcept nogil:
    """turn_output_row of one row, and add_output of the next"""
    cdef Py_ssize_t near = NEAR // sizeof(floating)
    cdef Py_ssize_t start, stop, skip = to_lines(row.y, row.z, n, way)
    cdef const floating* y = row.y + skip
    cdef const floating* v = row.v + skip
    cdef floating* z = row.z + skip
    cdef const floating* next_y = next.y
    cdef const floating* next_v = next.v
    cdef pair[floating] mean = dot  # as above
    cdef Sums[floating] a
    cdef Py_ssize_t size = BLOCK if Way is Past else n  # by way of the caches only rows up to OVERLAP bytes go here
    if skip > 0:
        turn_some(row.y, row.v, row.z, skip, mean, way, seam)
    for start from 0 <= start < n by size:
        stop = min(n, start + size)
        begin_runs(a)
        overlap_steps(a, next_y, next_v, start, stop, between, near, y, v, z, n - skip, mean, way, seam)
        if start == 0:
            next_dot[0] = a
        else:
            merge(next_dot[0], a)


cdef inline void overlap_output_rows(
    const Batch* b, Py_ssize_t i, Py_ssize_t count, Way way, Seam[floating]* seam, floating unused
) noexcept nogil:
    """Rows i .. i + count, which lie evenly apart"""
    cdef OutputRow[floating] row, next = output_row(b, i, &unused)
    cdef Py_ssize_t r, n = b.n
    cdef bint in_turn = n * <Py_ssize_t> sizeof(floating) > OVERLAP and not b.stream
    cdef bint apart = in_turn and b.rows * n * <Py_ssize_t> sizeof(floating) >= PHASES * fs_threads()
    cdef int between = 0 if b.stream else lie_between_lines(b, &unused)
    cdef Sums[floating] dot
    cdef pair[floating] mean
    cdef bint ordinary
    add_output(next.y, next.v, n, between, &dot)
    for r in range(count):
        row, next = next, next_row(next)
        ordinary = all_moderate(dot.hi)
        mean = folded(dot)
        if ordinary and r + 1 < count and not in_turn:
            overlap_outputs(row, mean, next, n, between, way, seam, &dot)
            continue
        if apart:
            end_loads()
        if ordinary:
            turn_output_row(row, mean, n, way, seam)
        else:
            group(&row.y, &row.v, &row.z, 1, n, &b.op, i + r, NULL)
        if apart:
            end_loads()
        if r + 1 < count:
            add_output(next.y, next.v, n, between, &dot)


cdef inline void other_output(const Batch* b, Py_ssize_t i, floating* scratch, element* unused) noexcept nogil:
    """Row i, whatever it holds"""
    cdef Batch own = b[0]
    own.stream = False
    some_rows(&own, i, 1, scratch, unused, NULL)


cdef inline Py_ssize_t some_outputs(
    const Batch* b, Py_ssize_t i, Py_ssize_t count, FromOutput what, Seam[floating]* seam, element* unused
) noexcept nogil:
    """Rows i .. i + count, which lie evenly apart, as far as they are in order; how many"""
    cdef floating zero = 0
    cdef Near near
    cdef Past past
    cdef bint in_turn = FromOutput is TurnOutput and b.n * <Py_ssize_t> sizeof(element) > OVERLAP
    if (floating is float and element is float) or (floating is double and element is double):
        if not b.stream and are_few(b.n, zero):
            return few_outputs(output_row(b, i, unused), b.n, count, what)
        if FromOutput is TurnOutput:
            if b.stream:
                overlap_output_rows(b, i, count, past, seam, zero)
            else:
                overlap_output_rows(b, i, count, near, <Seam[floating]*> NULL, zero)
            return count
        elif b.stream:
            return turn_outputs(output_row(b, i, unused), b.n, count, in_turn, what, past, seam)
        else:
            return turn_outputs(output_row(b, i, unused), b.n, count, in_turn, what, near, seam)
    elif floating is float and element is not double:
        if are_few(b.n, zero):
            return few_outputs(output_row(b, i, unused), b.n, count, what)
        return turn_outputs(output_row(b, i, unused), b.n, count, in_turn, what, near, seam)
    return 0


cdef inline void run_output(
    const Batch* b, Py_ssize_t start, Py_ssize_t stop, FromOutput what, floating* scratch, element* unused
) noexcept nogil:
    """Rows start .. stop"""
    cdef Py_ssize_t i = start, count, done
    cdef Seam[floating] seam
    seam.at = NULL
    while i < stop:
        count = evenly_from(b, i, stop) if b.ndim > 0 else 1
        done = some_outputs(b, i, count, what, &seam, unused)
        i += done
        if done < count:
            other_output(b, i, scratch, unused)
            i += 1
    end_seam(seam)


cdef inline void run_overlapped_output(
    const Batch* b, Py_ssize_t start, Py_ssize_t stop, floating* scratch, element* unused
) noexcept nogil:
    cdef TurnOutput turn_output
    cdef LogTurnOutput log_turn_output
    if b.op.kind == VJP_FROM_OUTPUT:
        run_output(b, start, stop, turn_output, scratch, unused)
    else:
        run_output(b, start, stop, log_turn_output, scratch, unused)
