# A run of rows on one thread: by groups (rows.pxi) or by tiles (batch_tiles.pxi).

cdef enum:
    GROUP = 32768  # bytes of a group of rows
    STREAM = 16777216  # bytes of result from which it is written past the caches
    PANEL = 262144  # bytes of the tiles that are read side by side
    NEARBY = 1048576  # bytes of an array up to which long runs of it need not be read
    FORESEEN = 4194304  # bytes of an array up to which the hardware fetches ahead well enough
    FARTHER = 16777216  # bytes that may be in a third-level cache
    NARROW = 64  # classes up to which a panel has few tiles, so that the next one is fetched as a whole
    FEW_STREAMS = 16  # classes that can be gone through at once, each of them in several lines of memory
    PAGE = 4096
    COLUMNS = 16  # from which they are not turned into rows, unless these are short
    FEW_COLUMNS = 3  # the same where the tile, most of it empty, stays in the caches
    FEW_CLASSES = 4096
    LONG = 262144  # classes beyond which many rows would be too much scratch


cdef inline Py_ssize_t fetched_ahead(Py_ssize_t bytes) noexcept nogil:
    """By how many bytes logits are, of arrays as large as this"""
    return BEYOND if bytes >= STREAM else NEAR


cdef inline bint of_whole_vecs(const Batch* b, Py_ssize_t itemsize, Py_ssize_t lanes) noexcept nogil:
    """Whether rows that are not very short need neither turning nor a part of a vec"""
    if itemsize < <Py_ssize_t> sizeof(float) or b.x_step != itemsize or b.out_step != itemsize:
        return False
    return b.n > SHORT and b.n % lanes == 0


cdef inline bint by_tiles(const Batch* b, Py_ssize_t itemsize) noexcept nogil:
    """Short rows, where there are enough, and rows that lie next to their neighbours, class by class"""
    cdef Py_ssize_t last = b.x_stride[b.ndim - 1] if b.ndim > 0 else 0
    cdef Py_ssize_t lanes = REGISTER // max(itemsize, <Py_ssize_t> sizeof(float))
    cdef bint enough = b.rows >= (lanes if b.n > lanes else lanes // 2)
    cdef bint are_short = b.n <= (TURNED if turns and itemsize == sizeof(float) else SHORT)
    cdef bint turning = b.x_step == itemsize and b.op.kind < VJP_FROM_OUTPUT
    cdef bint of_any_length = b.op.kind <= LOGSUMEXP or (b.op.kind == LABELS and b.n <= LONG)
    if goes_short(b.op.kind):
        if b.op.how == WIDE:
            return False
        if enough and (b.n <= SHORT or (are_short and turning and b.n % lanes != 0)):
            return True
    elif b.op.kind > LOGSUMEXP and b.op.kind != JACOBIAN and (b.op.kind != DIAGONAL or b.op.how == WIDE):
        return False
    elif enough and are_short:
        return b.op.kind != SOFTMAX or not of_whole_vecs(b, itemsize, lanes)
    if not of_any_length or last != itemsize or b.x_step == itemsize:
        return False
    return b.shape[b.ndim - 1] >= (FEW_COLUMNS if b.n <= FEW_CLASSES else COLUMNS)


cdef inline int rows_in_group(const Batch* b, Py_ssize_t lanes) noexcept nogil:
    """As many as a register has lanes, but no more than stay in the first-level cache, which matters most to what
    computes least, or has several groups there at once"""
    cdef Py_ssize_t bytes = GROUP
    if b.op.kind >= VJP_FROM_OUTPUT:
        bytes = GROUP // 4
    elif b.op.kind == SOFTMAX or b.op.kind == LOG_SOFTMAX:
        bytes = GROUP // 2
    return <int> max(1, min(lanes, bytes * lanes // (REGISTER * max(b.n, 1))))


cdef inline bint has_second(const Batch* b) noexcept nogil:
    """Whether there is a second number for each class, given or made"""
    return b.v != NULL or b.op.kind == TARGETS


cdef inline bint is_nearby(const Batch* b, element* unused) noexcept nogil:
    """Whether all of x may be in the second-level cache"""
    return b.rows * b.n * <Py_ssize_t> sizeof(element) <= NEARBY


cdef inline int tiles_together(const Batch* b, element* unused) noexcept nogil:
    """Tiles that are read, and written, side by side: long runs of memory, but no more than the caches hold; few where
    the next panel is fetched, for which there is no room where classes lie whole pages apart"""
    cdef Py_ssize_t narrow = NARROW if b.x_step % PAGE != 0 else FEW_STREAMS
    cdef bint few = b.n <= narrow or has_second(b) or is_nearby(b, unused)
    return <int> max(1, min(TILES if few else PANEL_TILES, PANEL // (max(b.n, 1) * REGISTER)))


cdef inline Py_ssize_t tile_apart(Py_ssize_t n) noexcept nogil:
    """Vecs from one tile of a panel to the next: odd, or the cache would hold few tiles side by side"""
    return n | 1


cdef inline int tiles_at_once(Py_ssize_t n) noexcept nogil:
    return TILES if n <= TURNED else 1


cdef inline bint are_columns(const Batch* b) noexcept nogil:
    """Whether rows share lines of memory, so that many of them are read and written together"""
    cdef Py_ssize_t apart = b.x_stride[b.ndim - 1] if b.ndim > 0 else 0
    return b.n <= LONG and 0 < max(apart, -apart) < b.x_step and b.shape[b.ndim - 1] > 1


cdef inline bint are_logit_columns(const Batch* b, element* unused) noexcept nogil:
    """Whether scratch has room for columns of logits as columns.hpp takes them: at least as many vecs as logit_vecs"""
    if logit_vecs == 0 or (b.op.kind != VJP and b.op.kind != LOG_VJP) or b.n >= BLOCK:
        return False
    return are_columns(b) and not by_tiles(b, sizeof(element))


cdef inline Py_ssize_t rows_at_once(const Batch* b, element* unused) noexcept nogil:
    """Rows that are computed, or read and written, together"""
    cdef Py_ssize_t lanes = lanes_of_work(unused)
    if not by_tiles(b, sizeof(element)):
        if are_logit_columns(b, unused):
            return lanes * max(logit_vecs, tiles_together(b, unused))
        return lanes * tiles_together(b, unused) if are_columns(b) else rows_in_group(b, lanes)
    return lanes * (tiles_together(b, unused) if b.x_step != sizeof(element) else tiles_at_once(b.n))


cdef inline Py_ssize_t results_of(const Batch* b) noexcept nogil:
    """How many numbers a row gives in out"""
    if b.out == NULL:
        return 0
    return 1 if b.op.kind == LOGSUMEXP else 2 * b.n if b.op.kind == JACOBIAN else b.n


cdef inline bint is_ended(const Operation* op) noexcept nogil:
    """Whether tiles are ended on their way out"""
    return op.kind == SOFTMAX or op.kind == LOG_SOFTMAX


cdef inline bint makes_targets(const Batch* b) noexcept nogil:
    """Whether the targets are not simply those given"""
    return b.op.kind == TARGETS and (b.v == NULL or b.op.class_weights != NULL or b.op.on != 1 or b.op.off != 0)


cdef inline bint are_contiguous(const Batch* b, element* unused) noexcept nogil:
    """Whether the rows of x and out are used where they are, unless they are written past the caches"""
    if element is half or element is bfloat or b.where != NULL:
        return False
    return b.x_step == sizeof(element) and (b.out == NULL or b.out_step == sizeof(element))


cdef inline bint as_they_lie(const Batch* b, element* unused) noexcept nogil:
    """Whether all arrays are used where they are, without scratch"""
    if b.stream or not are_contiguous(b, unused):
        return False
    if b.op.kind != TARGETS and b.v == NULL:
        return True
    return b.v_step == sizeof(element) and not makes_targets(b)


cdef inline bint keeps_apart(const Batch* b) noexcept nogil:
    """Whether exponentials are kept in scratch, to be written past the caches once they are scaled"""
    return b.stream and b.op.kind == SOFTMAX


cdef inline bint goes_long(const Batch* b, element* unused) noexcept nogil:
    return is_long(&b.op, b.n) and not by_tiles(b, sizeof(element))


cdef inline Py_ssize_t long_size(const Batch* b) noexcept nogil:
    """Bytes of what the blocks of a long row give"""
    return blocks_in(b.n) * sizeof(Block[float])


cdef inline Py_ssize_t long_parts(const Batch* b, element* unused) noexcept nogil:
    """Where that begins in scratch: after the exponentials of a row, if they are kept apart, or the rows that are read
    together, where they do not lie simply"""
    cdef Py_ssize_t rows = rows_at_once(b, unused), worksize = sizeof(double) if element is double else sizeof(float)
    if are_contiguous(b, unused):
        rows = 1 if keeps_apart(b) else 0
    return (rows * b.n * worksize + REGISTER - 1) // REGISTER * REGISTER


cdef inline Py_ssize_t scratch_size(const Batch* b, Py_ssize_t worksize, element* unused) noexcept nogil:
    """Bytes that each thread needs"""
    cdef int tiles
    if by_tiles(b, sizeof(element)):
        tiles = tiles_together(b, unused)  # short rows may have a second number for each class, or two arguments
        return tile_apart(b.n) * REGISTER * (max(2 * TILES, tiles) if b.n <= TURNED else tiles)
    if goes_long(b, unused):  # one row waits while the next one is on its way
        return (2 if are_contiguous(b, unused) else 1) * (long_parts(b, unused) + long_size(b)) + REGISTER
    if goes_overlapped(b, unused):
        return REGISTER + buffers(b, unused) * b.n * worksize * rows_at_once(b, unused)
    if as_they_lie(b, unused):
        return REGISTER
    if goes_overlapped_output(b, unused):
        return REGISTER + (0 if sizeof(element) == worksize else 2 * b.n * worksize)
    return b.n * worksize * rows_at_once(b, unused) * (2 if has_second(b) else 1) + REGISTER


cdef inline void make_target(const Batch* b, Py_ssize_t i, floating* t, element* unused) noexcept nogil:
    """The targets of row i: smoothed, and times their classes' weights; from labels, or those given"""
    cdef Py_ssize_t j, label
    cdef floating on = <floating> b.op.on, off = <floating> b.op.off
    if b.v != NULL:
        gather(b.v + offset(b, b.v_stride, i), b.v_step, b.n, t, 1, unused)
        for j in range(b.n):
            t[j] = t[j] * on + off
    else:
        label = label_of(&b.op, i, b.n)
        for j in range(b.n):
            t[j] = off if label >= 0 else 0
        if label >= 0:
            t[label] += on
    if b.op.class_weights != NULL:
        for j in range(b.n):
            t[j] *= <floating> b.op.class_weights[j]


cdef inline void some_rows(
    const Batch* b, Py_ssize_t i, Py_ssize_t count, floating* scratch, element* unused, const Team* team
) noexcept nogil:
    """Rows i .. i + count from x to out, by groups: as they lie where they can be used so, else by way of scratch"""
    cdef Py_ssize_t results = results_of(b), r, row, start, few = rows_in_group(b, REGISTER // sizeof(floating))
    cdef floating* second = scratch + count * b.n
    cdef const floating* x[16]
    cdef const floating* v[16]
    cdef floating* y[16]
    cdef int some
    cdef bint same = (floating is float and element is float) or (floating is double and element is double)
    cdef bint as_it_lies = same and b.x_step == sizeof(element) and b.where == NULL
    cdef bint targets = makes_targets(b)
    cdef bint v_as_it_lies = same and b.v != NULL and b.v_step == sizeof(element) and not targets
    cdef bint alone = team == NULL or team.threads == 1
    cdef bint streams = b.stream and same and b.out_step == sizeof(element) and results > 1 and alone
    cdef bint out_as_it_lies = same and b.out_step == sizeof(element) and not streams
    if not as_it_lies:
        gather_rows(b, b.x, b.x_stride, b.x_step, i, count, scratch, unused)
    if b.v != NULL and not v_as_it_lies and not targets:
        gather_rows(b, b.v, b.v_stride, b.v_step, i, count, second, unused)
    for r in range(count if b.where != NULL else 0):
        hide_in_row(b.where + offset(b, b.where_stride, i + r), b.where_step, b.n, scratch + r * b.n)
    for r in range(count if targets else 0):
        make_target(b, i + r, second + r * b.n, unused)
    for start from 0 <= start < count by few:
        some = <int> min(few, count - start)
        for r in range(some):
            row = start + r
            x[r] = <const floating*> (b.x + offset(b, b.x_stride, i + row)) if as_it_lies else scratch + row * b.n
            v[r] = <const floating*> (b.v + offset(b, b.v_stride, i + row)) if v_as_it_lies else second + row * b.n
            y[r] = <floating*> (b.out + offset(b, b.out_stride, i + row)) if out_as_it_lies else scratch + row * b.n
            if results == 0:
                y[r] = NULL
        group_or_rows(x, v, y, some, b.n, &b.op, i + start, team)
    if streams:
        for r in range(count):
            block_stream(scratch + r * b.n, <floating*> (b.out + offset(b, b.out_stride, i + r)), b.n)
    elif not out_as_it_lies and results > 0:
        scatter_rows(b, scratch, i, count, results, unused)


cdef void run(const Batch* b, Py_ssize_t start, Py_ssize_t stop, char* scratch, element* unused) noexcept nogil:
    """Rows start .. stop, under the default floating-point state"""
    cdef control state = enter()
    cdef Py_ssize_t i = start
    cdef bint tiled = by_tiles(b, sizeof(element)), columns = are_columns(b)
    cdef Py_ssize_t count = stop - start if as_they_lie(b, unused) else rows_at_once(b, unused), some
    cdef Team one
    cdef Team* team = NULL
    if goes_overlapped(b, unused):
        if element is double:
            run_overlapped[double, element](b, start, stop, <double*> scratch, unused)
        else:
            run_overlapped[float, element](b, start, stop, <float*> scratch, unused)
        i = stop
    elif goes_overlapped_output(b, unused):
        if element is double:
            run_overlapped_output[double, element](b, start, stop, <double*> scratch, unused)
        else:
            run_overlapped_output[float, element](b, start, stop, <float*> scratch, unused)
        i = stop
    elif goes_long(b, unused):
        one.threads, one.parts = 1, scratch + long_parts(b, unused)
        team = &one
        if are_contiguous(b, unused):
            if element is double:
                run_long[double](b, start, stop, scratch, 0)
            else:
                run_long[float](b, start, stop, scratch, 0)
            i = stop
    while i < stop:
        some = direct_columns(b, i, stop, <element*> scratch)
        if some > 0:
            i += some
            continue
        if tiled:
            if element is double:
                some = next_tiles[double, element](b, i, stop, <double*> scratch, unused)
            else:
                some = next_tiles[float, element](b, i, stop, <float*> scratch, unused)
        else:
            some = min(count, evenly_from(b, i, stop) if columns else stop - i)
            if element is double:
                some_rows[double, element](b, i, some, <double*> scratch, unused, team)
            else:
                some_rows[float, element](b, i, some, <float*> scratch, unused, team)
        i += some
    if b.stream:
        fence()
    leave(state)
