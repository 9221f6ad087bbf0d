# A run of rows on one thread: by groups (rows.pxi) or by tiles (tiles.pxi).

cdef enum:
    GROUP = 4096  # classes in a group of rows
    STREAM = 16777216  # bytes of result from which it is written past the caches
    PANEL = 262144  # bytes of the tiles that are read side by side
    PANEL_TILES = 16  # and how many they may be
    PAGE = 4096
    FOLLOW = 32  # tiles that must follow for some columns to go before a line
    COLUMNS = 16  # from which they are not turned into rows, unless these are short
    LONG = 262144  # classes beyond which many rows would be too much scratch


cdef inline bint of_whole_vecs(const Batch* b, Py_ssize_t itemsize, Py_ssize_t lanes) noexcept nogil:
    """Whether rows that are not very short need neither turning nor a part of a vec"""
    if itemsize < <Py_ssize_t> sizeof(float) or b.x_step != itemsize or b.out_step != itemsize:
        return False
    return b.n >= SHORT and b.n % lanes == 0


cdef inline bint by_tiles(const Batch* b, Py_ssize_t itemsize) noexcept nogil:
    """Short rows, where there are enough, and rows that lie next to their neighbours, class by class"""
    cdef Py_ssize_t last = b.x_stride[b.ndim - 1] if b.ndim > 0 else 0
    cdef Py_ssize_t lanes = REGISTER // max(itemsize, <Py_ssize_t> sizeof(float))
    cdef bint enough = b.rows >= (lanes if b.n > lanes else lanes // 2)
    if b.n <= SHORT and enough and goes_short(b.op.kind):
        return b.op.how == PLAIN
    if b.op.kind > LOGSUMEXP and b.op.kind != JACOBIAN:
        return False
    if enough and b.n <= (TURNED if turns and itemsize == sizeof(float) else SHORT):
        return b.op.kind != SOFTMAX or not of_whole_vecs(b, itemsize, lanes)
    return b.op.kind <= LOGSUMEXP and last == itemsize and b.x_step != itemsize and b.shape[b.ndim - 1] >= COLUMNS


cdef inline int rows_in_group(const Batch* b, Py_ssize_t lanes) noexcept nogil:
    """As many as a register has lanes, but no more than stay in the first-level cache, which matters most to what
    computes least, or has several groups there at once"""
    cdef Py_ssize_t classes = GROUP
    if b.op.kind == VJP_FROM_OUTPUT:
        classes = GROUP * lanes // 64
    elif b.op.kind > VJP_FROM_OUTPUT:
        classes = GROUP * lanes // 32
    elif b.v != NULL or b.op.kind == SOFTMAX or b.op.kind == LOG_SOFTMAX:
        classes = GROUP // 2
    return <int> max(1, min(lanes, classes // max(b.n, 1)))


cdef inline int tiles_together(Py_ssize_t n) noexcept nogil:
    """Tiles that are read, and written, side by side: long runs of memory, but no more than the caches hold"""
    return <int> max(1, min(PANEL_TILES, PANEL // (max(n, 1) * REGISTER)))


cdef inline Py_ssize_t tile_apart(Py_ssize_t n) noexcept nogil:
    """Vecs from one tile of a panel to the next: odd, or the cache would hold few tiles side by side"""
    return n | 1


cdef inline int tiles_at_once(Py_ssize_t n) noexcept nogil:
    return TILES if n <= TURNED else 1


cdef inline bint are_columns(const Batch* b) noexcept nogil:
    """Whether rows share lines of memory, so that many of them are read and written together"""
    return b.n <= LONG and b.ndim > 0 and b.x_step > b.x_stride[b.ndim - 1] and b.shape[b.ndim - 1] > 1


cdef inline Py_ssize_t rows_at_once(const Batch* b, element* unused) noexcept nogil:
    """Rows that are computed, or read and written, together"""
    cdef Py_ssize_t lanes = REGISTER // (sizeof(double) if element is double else sizeof(float))
    if not by_tiles(b, sizeof(element)):
        return lanes * tiles_together(b.n) if are_columns(b) else rows_in_group(b, lanes)
    return lanes * (tiles_together(b.n) if b.x_step != sizeof(element) else tiles_at_once(b.n))


cdef inline Py_ssize_t results_of(const Batch* b) noexcept nogil:
    """How many numbers a row gives in out"""
    if b.out == NULL:
        return 0
    return 1 if b.op.kind == LOGSUMEXP else 2 * b.n if b.op.kind == JACOBIAN else b.n


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


cdef inline Py_ssize_t scratch_size(const Batch* b, Py_ssize_t worksize, element* unused) noexcept nogil:
    """Bytes that each thread needs"""
    cdef bint second = b.op.kind == TARGETS or b.v != NULL
    if by_tiles(b, sizeof(element)):
        return tile_apart(b.n) * REGISTER * tiles_together(b.n)
    if goes_overlapped(b, unused):
        return REGISTER + (2 * b.n * worksize * rows_at_once(b, unused) if keeps_apart(b) else 0)
    if as_they_lie(b, unused) or goes_overlapped_output(b, unused):
        return REGISTER
    return b.n * worksize * rows_at_once(b, unused) * (2 if second else 1) + REGISTER


cdef inline void make_target(const Batch* b, Py_ssize_t i, floating* t, element* unused) noexcept nogil:
    """The targets of row i: smoothed, and times their classes' weights; from labels, or those given"""
    cdef Py_ssize_t j, label
    cdef floating on = <floating> b.op.on, off = <floating> b.op.off
    if b.v != NULL:
        gather(b.v + offset(b, b.v_stride, i), b.v_step, b.n, t, 1, unused)
        for j in range(b.n):
            t[j] = t[j] * on + off
    else:
        label = b.op.labels[i]
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
    cdef bint streams = b.stream and same and b.out_step == sizeof(element) and results > 1 and team == NULL
    cdef bint out_as_it_lies = same and b.out_step == sizeof(element) and not streams
    if not as_it_lies:
        gather_rows(b, b.x, b.x_stride, b.x_step, i, count, scratch, unused)
    if b.v != NULL and not v_as_it_lies and not targets:
        gather_rows(b, b.v, b.v_stride, b.v_step, i, count, second, unused)
    for r in range(count if b.where != NULL else 0):
        hide(b.where + offset(b, b.where_stride, i + r), b.where_step, b.n, scratch + r * b.n, 1)
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


cdef inline const Ahead* look_ahead(
    const Batch* b, Py_ssize_t i, Py_ssize_t stop, Ahead* ahead, element* unused
) noexcept nogil:
    """Of each tile from row i on the one TILES further, where rows follow each other without a gap; else NULL"""
    cdef Py_ssize_t lanes = REGISTER // max(sizeof(element), sizeof(float)), size = b.n * <Py_ssize_t> sizeof(element)
    cdef int t
    if i + TILES * lanes >= stop or b.x_step != sizeof(element) or b.out_step != sizeof(element) or b.ndim != 1:
        return NULL
    if b.x_stride[0] != size or b.out_stride[0] != size or results_of(b) != b.n:
        return NULL
    for t in range(TILES):
        ahead[t].x = b.x + (i + (t + TILES) * lanes) * size
        ahead[t].out = b.out + (i + (t + TILES) * lanes) * size
        ahead[t].x_step = ahead[t].out_step = lanes * <Py_ssize_t> sizeof(element)
        ahead[t].far = False
    return ahead


cdef inline void tile_in(
    const Batch* b, const char* x, const Py_ssize_t* stride, Py_ssize_t step, Py_ssize_t i, int count, floating* tile,
    bint foreseen, element* unused
) noexcept nogil:
    """Rows i .. i + count of x side by side into the lanes of a tile; `foreseen`: what comes next is fetched already"""
    cdef Py_ssize_t lanes = REGISTER // sizeof(floating), j, c
    cdef const char* start
    cdef const char* row
    cdef floating zero = 0
    if step == sizeof(element):
        if not foreseen and evenly(b, i, count):
            start = x + offset(b, stride, i + TILES * lanes)
            for c in range(count):
                prefetch(start + c * stride[b.ndim - 1], 1)
        rows_to_tile(b, x, stride, i, count, tile, unused)
        return
    if neighbours(b, stride, i, count, sizeof(element)):
        start = x + offset(b, stride, i)
        if not (floating is double and element is not double) and not (floating is float and element is double):
            for j in range(b.n):
                row = start + j * step
                prefetch(<const element*> row + TILES * lanes)
                store(tile + j * lanes, load(<const element*> row, count, zero), lanes)
        return
    for c in range(lanes):
        if c < count:
            gather(x + offset(b, stride, i + c), step, b.n, tile + c, lanes, unused)
        else:  # unused lanes compute something harmless
            for j in range(b.n):
                tile[j * lanes + c] = zero


cdef inline void tile_out(
    const Batch* b, Py_ssize_t i, int count, floating* tile, bint foreseen, const pair[floating]* factor,
    element* unused
) noexcept nogil:
    """The lanes of a tile, times the factor unless that is NULL, to rows i .. i + count"""
    cdef Py_ssize_t lanes = REGISTER // sizeof(floating), j, c
    cdef Py_ssize_t results = results_of(b), size = sizeof(element)
    cdef char* start
    cdef char* row
    if b.out_step == size and results > 1:
        if not foreseen and evenly(b, i, count):
            start = b.out + offset(b, b.out_stride, i + TILES * lanes)
            for c in range(count):
                prefetch_to_write(start + c * b.out_stride[b.ndim - 1], 1)
        tile_to_rows(b, b.out, i, count, tile, factor, unused)
        if b.op.kind == JACOBIAN:
            tile_to_rows(b, b.out + b.n * size, i, count, tile + TILES * b.n * lanes, NULL, unused)
        return
    if factor != NULL:
        block_scale(&tile, 1, 0, b.n * lanes, factor, True)
    if neighbours(b, b.out_stride, i, count, size):
        start = b.out + offset(b, b.out_stride, i)
        for j in range(results):
            row = start + j * b.out_step
            prefetch(<const element*> row + TILES * lanes)
            scatter(tile + j * lanes, 1, count, row, size, unused)
    else:
        for c in range(count):
            scatter(tile + c, lanes, results, b.out + offset(b, b.out_stride, i + c), b.out_step, unused)


cdef inline void some_tiles(
    const Batch* b, Py_ssize_t i, int count, Py_ssize_t stop, floating* scratch, element* unused
) noexcept nogil:
    """Rows i .. i + count, in at most TILES tiles; from there to `stop` others follow"""
    cdef int c, some, step, lanes = REGISTER // sizeof(floating)
    cdef pair[floating] factor[TILES]
    cdef Ahead[TILES] room
    cdef const Ahead* ahead = look_ahead(b, i, stop, room, unused)
    cdef bint foreseen = ahead != NULL or i + count >= stop
    for c from 0 <= c < count by lanes:
        some = min(lanes, count - c)
        tile_in(b, b.x, b.x_stride, b.x_step, i + c, some, scratch + c * b.n, foreseen, unused)
    if b.where != NULL:
        for c in range(count):
            hide(
                b.where + offset(b, b.where_stride, i + c), b.where_step, b.n,
                scratch + c // lanes * lanes * b.n + c % lanes, lanes
            )
    if tiles(scratch, b.n, count, &b.op, ahead, &factor[0]):
        for c from 0 <= c < count by lanes:
            tile_out(
                b, i + c, min(lanes, count - c), scratch + c * b.n, foreseen,
                &factor[c // lanes] if b.op.kind == SOFTMAX else NULL, unused
            )
        return
    step = lanes if count > lanes else 1  # tile by tile, then row by row
    for c from 0 <= c < count by step:
        some_tiles(b, i + c, min(step, count - c), i, scratch, unused)


cdef inline void short_tiles(
    const Batch* b, Py_ssize_t i, int count, floating* scratch, element* unused
) noexcept nogil:
    """Rows i .. i + count of a derivative or a loss, tile by tile"""
    cdef int c, some, lanes = REGISTER // sizeof(floating)
    cdef floating* second = scratch + b.n * lanes
    for c from 0 <= c < count by lanes:
        some = min(lanes, count - c)
        tile_in(b, b.x, b.x_stride, b.x_step, i + c, some, scratch, False, unused)
        if b.v != NULL:
            tile_in(b, b.v, b.v_stride, b.v_step, i + c, some, second, False, unused)
        if not short_tile(scratch, second, b.n, some, &b.op, i + c):
            some_rows(b, i + c, some, scratch, unused, NULL)
        elif b.out != NULL:
            tile_out(b, i + c, some, scratch, False, NULL, unused)


cdef inline int columns_to_line(const Batch* b, Py_ssize_t i, Py_ssize_t stop, element* unused) noexcept nogil:
    """Of columns side by side how many come from row i on before a line of out begins, where stores should begin with
    one, all classes of out lie alike, and many columns follow"""
    cdef Py_ssize_t last = b.ndim - 1, size = sizeof(element)
    cdef bint wanted = whole_lines or b.stream
    if not wanted or last < 0 or b.out_stride[last] != size or b.out_step % REGISTER or results_of(b) != b.n:
        return 0
    if min(stop - i, b.shape[last] - i % b.shape[last]) < FOLLOW * REGISTER // size:
        return 0
    return <int> ((-<uintptr_t> (b.out + offset(b, b.out_stride, i))) % REGISTER) // <int> size


cdef inline Py_ssize_t side_by_side(const Batch* b, Py_ssize_t i, Py_ssize_t stop, element* unused) noexcept nogil:
    """Of the rows from i to stop how many should go into tiles together: of columns, no more than lie side by side,
    unless their tiles would be almost empty, and small, so that gathering others costs less"""
    cdef Py_ssize_t last = b.ndim - 1, lanes = REGISTER // max(sizeof(element), sizeof(float)), columns
    if last < 0 or b.x_step == sizeof(element) or b.x_stride[last] != sizeof(element):
        return stop - i
    columns = b.shape[last]
    if b.n <= TURNED and 5 * columns < 3 * ((columns + lanes - 1) // lanes * lanes):
        return stop - i
    return min(stop - i, columns - i % columns)


cdef inline int panel(
    const Batch* b, Py_ssize_t i, Py_ssize_t stop, floating* scratch, element* unused
) noexcept nogil:
    """Whole tiles from row i on whose rows lie next to each other, read and written side by side, class by class;
    how many rows that were, 0 if some_tiles is due"""
    cdef Py_ssize_t lanes = REGISTER // sizeof(floating), t, j, count, apart = tile_apart(b.n) * lanes
    cdef Py_ssize_t results = 1 if b.op.kind == LOGSUMEXP else b.n
    cdef Py_ssize_t size = sizeof(element)
    cdef floating zero = 0, low = -INFINITY
    cdef const element* x
    cdef element* out
    cdef vec[floating] v
    cdef vec[floating] top[PANEL_TILES]
    cdef pair[floating] factor[PANEL_TILES]
    cdef Ahead[PANEL_TILES] ahead
    cdef const Ahead* far = NULL
    cdef int last = b.ndim - 1
    cdef bint beyond = False, scale_last = b.op.kind == SOFTMAX, past
    if goes_short(b.op.kind) or last < 0 or b.x_step == size or b.where != NULL:
        return 0
    if b.x_stride[last] != size or b.out_stride[last] != size:
        return 0
    count = min(tiles_together(b.n), min(stop - i, b.shape[last] - i % b.shape[last]) // lanes)
    if not (floating is double and element is not double) and not (floating is float and element is double):
        for t in range(count):
            top[t] = fill(low)
        x = <const element*> (b.x + offset(b, b.x_stride, i))
        for j in range(b.n):
            for t in range(count):
                prefetch(<const element*> (<const char*> x + 8 * b.x_step) + t * lanes)
                v = load(x + t * lanes, lanes, zero)
                top[t] = larger(v, top[t])
                store(scratch + t * apart + j * lanes, v, lanes)
            x = <const element*> (<const char*> x + b.x_step)
        for t in range(count):
            beyond |= any(beyond_reach(top[t], <floating> b.op.factor.hi))
        if b.op.how == WIDE or beyond:
            return 0
        x = <const element*> (b.x + offset(b, b.x_stride, i + count * lanes))  # of the next panel; may lie beyond
        out = <element*> (b.out + offset(b, b.out_stride, i))
        past = b.stream and results > 1 and b.out_step % REGISTER == 0 and <uintptr_t> out % REGISTER == 0
        # Long runs of memory the CPU foresees itself; of what the caches do not hold it is too much.
        if large_caches and count < PANEL_TILES and results > 1 and not b.stream and b.x_step % PAGE:
            for t in range(count):
                ahead[t].x, ahead[t].x_step = <const char*> (x + t * lanes), b.x_step
                ahead[t].out, ahead[t].out_step = <char*> (out + t * lanes), b.out_step
                ahead[t].far = True
            far = ahead
        for t from 0 <= t < count by TILES:
            near_tiles(
                scratch + t * apart, b.n, apart, <int> min(TILES, count - t), &top[t], &factor[t], &b.op,
                of_tile(far, <int> t)
            )
        for j in range(results):
            for t in range(count):
                v = load(scratch + t * apart + j * lanes, lanes, zero)
                if scale_last:
                    v = scaled(v, factor[t])
                if past and element is floating:
                    stream(<floating*> (out + t * lanes), v)
                else:
                    prefetch_to_write(<char*> (out + t * lanes) + 8 * b.out_step, 1)
                    store(out + t * lanes, v, lanes)
            out = <element*> (<char*> out + b.out_step)
    return <int> (count * lanes)


cdef inline int next_tiles(
    const Batch* b, Py_ssize_t i, Py_ssize_t stop, floating* scratch, element* unused
) noexcept nogil:
    """Some rows from row i on; how many"""
    cdef int few = columns_to_line(b, i, stop, unused), count = panel(b, i, stop, scratch, unused) if few == 0 else 0
    if count == 0:
        count = <int> min(REGISTER // sizeof(floating) * tiles_at_once(b.n), side_by_side(b, i, stop, unused))
        if few > 0:
            count = min(count, few)
        if goes_short(b.op.kind):
            short_tiles(b, i, count, scratch, unused)
        else:
            some_tiles(b, i, count, stop, scratch, unused)
    return count


cdef void run(const Batch* b, Py_ssize_t start, Py_ssize_t stop, char* scratch, element* unused) noexcept nogil:
    """Rows start .. stop, under the default floating-point state"""
    cdef control state = enter()
    cdef Py_ssize_t i = start
    cdef bint tiled = by_tiles(b, sizeof(element)), columns = are_columns(b)
    cdef Py_ssize_t count = stop - start if as_they_lie(b, unused) else rows_at_once(b, unused), some
    if goes_overlapped(b, unused):
        if element is double:
            run_overlapped[double](b, start, stop, <double*> scratch)
        else:
            run_overlapped[float](b, start, stop, <float*> scratch)
        i = stop
    elif goes_overlapped_output(b, unused):
        if element is double:
            run_overlapped_output[double](b, start, stop, <double*> scratch)
        else:
            run_overlapped_output[float](b, start, stop, <float*> scratch)
        i = stop
    while i < stop:
        if tiled:
            if element is double:
                some = next_tiles[double, element](b, i, stop, <double*> scratch, unused)
            else:
                some = next_tiles[float, element](b, i, stop, <float*> scratch, unused)
        else:
            some = min(count, stop - i)
            if columns:
                some = min(some, b.shape[b.ndim - 1] - i % b.shape[b.ndim - 1])
            if element is double:
                some_rows[double, element](b, i, some, <double*> scratch, unused, NULL)
            else:
                some_rows[float, element](b, i, some, <float*> scratch, unused, NULL)
        i += some
    if b.stream:
        fence()
    leave(state)
