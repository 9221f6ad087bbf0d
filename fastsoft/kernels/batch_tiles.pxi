# Rows that are computed by tiles (tiles.pxi): how they come and go. A panel is as many tiles of columns, side by side,
# as are read and written in long runs of memory.

cdef enum:
    FEW_OUTPUTS = 100  # classes of a kept output up to which columns go vec by vec
    WAYS = 8  # lines of memory, of each argument, that lie whole pages apart
    FOLLOW = 32  # tiles that must follow for some columns to go before a line


cdef inline const Ahead* look_ahead(
    const Batch* b, Py_ssize_t i, Py_ssize_t stop, Ahead* ahead, element* unused
) noexcept nogil:
    """Of each tile from row i on the one TILES further, where rows follow each other without a gap; else NULL"""
    cdef Py_ssize_t lanes = lanes_of_work(unused), size = b.n * <Py_ssize_t> sizeof(element)
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
            fetch_rows(
                x + offset(b, stride, i + TILES * lanes), stride[b.ndim - 1], count, b.n * <Py_ssize_t> sizeof(element)
            )
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
    const Batch* b, Py_ssize_t i, int count, floating* tile, bint foreseen, const Ending[floating]* end,
    element* unused
) noexcept nogil:
    """The lanes of a tile, with what ends it unless that is NULL, to rows i .. i + count"""
    cdef Py_ssize_t lanes = REGISTER // sizeof(floating), j, c
    cdef Py_ssize_t results = results_of(b), size = sizeof(element)
    cdef char* start
    cdef char* row
    if b.out_step == size and results > 1:
        if not foreseen and evenly(b, i, count):
            fetch_rows_to_write(
                b.out + offset(b, b.out_stride, i + TILES * lanes), b.out_stride[b.ndim - 1], count, b.n * size
            )
        tile_to_rows(b, b.out, i, count, tile, end, unused)
        if b.op.kind == JACOBIAN:
            tile_to_rows(b, b.out + b.n * size, i, count, tile + TILES * b.n * lanes, NULL, unused)
        return
    if end != NULL:
        end_in_place(tile, b.n, end)
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
    cdef Ending[floating] end[TILES]
    cdef Ahead[TILES] room
    cdef const Ahead* ahead = look_ahead(b, i, stop, room, unused)
    cdef bint foreseen = ahead != NULL or i + count >= stop
    for c from 0 <= c < count by lanes:
        some = min(lanes, count - c)
        tile_in(b, b.x, b.x_stride, b.x_step, i + c, some, scratch + c * b.n, foreseen, unused)
    if b.where != NULL:
        hide_in_tiles(scratch, b.n, count, b.where, b.where_step, b.ndim, b.shape, b.where_stride, i)
    if tiles(scratch, b.n, count, &b.op, ahead, &end[0]):
        for c from 0 <= c < count by lanes:
            tile_out(
                b, i + c, min(lanes, count - c), scratch + c * b.n, foreseen,
                &end[c // lanes] if is_ended(&b.op) else NULL, unused
            )
        return
    step = lanes if count > lanes else 1  # tile by tile, then row by row
    for c from 0 <= c < count by step:
        some_tiles(b, i + c, min(step, count - c), i, scratch, unused)


cdef inline void targets_in_tile(const Batch* b, Py_ssize_t i, int count, floating* t) noexcept nogil:
    """The targets of rows i .. i + count as make_target makes them; those given, if they are, are in the tile"""
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef floating zero = 0, one = 1
    cdef vec[floating] here = fill(zero), on = fill(<floating> b.op.on), off = fill(<floating> b.op.off)
    cdef vec[floating] label, weight, w
    if b.v == NULL:
        take_labels(b.op.labels + i, NULL, count, b.n, label, weight)
    for j in range(b.n):
        if b.v == NULL:
            w = drop(equal(label, fill(-one)), choose(equal(label, here), off + on, off))
            here = here + fill(one)
        else:
            w = load(t + j * lanes, lanes, zero) * on + off
        if b.op.class_weights != NULL:
            w = w * fill(<floating> b.op.class_weights[j])
        store(t + j * lanes, w, lanes)


cdef inline void short_tiles(
    const Batch* b, Py_ssize_t i, int count, Py_ssize_t stop, floating* scratch, element* unused
) noexcept nogil:
    """Rows i .. i + count of a derivative or a loss, in at most TILES tiles; from there to `stop` others follow"""
    cdef int c, lanes = REGISTER // sizeof(floating)
    cdef bint foreseen = i + count >= stop or b.rows * b.n * <Py_ssize_t> sizeof(element) <= FORESEEN
    cdef floating* second = scratch + TILES * b.n * lanes
    cdef vec[floating] top[TILES]
    for c from 0 <= c < count by lanes:
        tile_in(b, b.x, b.x_stride, b.x_step, i + c, min(lanes, count - c), scratch + c * b.n, foreseen, unused)
        if b.v != NULL:
            tile_in(b, b.v, b.v_stride, b.v_step, i + c, min(lanes, count - c), second + c * b.n, foreseen, unused)
        if makes_targets(b):
            targets_in_tile(b, i + c, min(lanes, count - c), second + c * b.n)
    for c from 0 <= c < (count if b.op.kind < VJP_FROM_OUTPUT else 0) by lanes:  # an output asks for no maximum
        top[c // lanes] = tile_max(<const floating*> scratch + c * b.n, b.n)
    if apply_short_tiles(scratch, second, b.n, b.n * lanes, count, &top[0], &b.op, i, b.out != NULL, NULL):
        for c from 0 <= c < (count if b.out != NULL else 0) by lanes:
            tile_out(b, i + c, min(lanes, count - c), scratch + c * b.n, foreseen, NULL, unused)
    elif count <= lanes:
        some_rows(b, i, count, scratch, unused, NULL)
    else:  # tile by tile
        for c from 0 <= c < count by lanes:
            short_tiles(b, i + c, min(lanes, count - c), stop, scratch, unused)


cdef inline int columns_to_line(const Batch* b, Py_ssize_t i, Py_ssize_t stop, element* unused) noexcept nogil:
    """Of columns side by side how many come from row i on before a line of out begins, where stores should begin with
    one, all classes of out lie alike, and many columns follow"""
    cdef Py_ssize_t last = b.ndim - 1, size = sizeof(element)
    cdef bint wanted = whole_lines or b.stream
    if not wanted or last < 0 or b.out_stride[last] != size or b.out_step % REGISTER or results_of(b) != b.n:
        return 0
    if evenly_from(b, i, stop) < FOLLOW * REGISTER // size:
        return 0
    return <int> ((-<uintptr_t> (b.out + offset(b, b.out_stride, i))) % REGISTER) // <int> size


cdef inline Py_ssize_t side_by_side(const Batch* b, Py_ssize_t i, Py_ssize_t stop, element* unused) noexcept nogil:
    """Of the rows from i to stop how many should go into tiles together: of columns, no more than lie side by side,
    unless their tiles would be almost empty, and small, so that gathering others costs less"""
    cdef Py_ssize_t last = b.ndim - 1, lanes = lanes_of_work(unused), columns
    if last < 0 or b.x_step == sizeof(element) or b.x_stride[last] != sizeof(element):
        return stop - i
    columns = b.shape[last]
    if b.n <= TURNED and 5 * columns < 3 * ((columns + lanes - 1) // lanes * lanes):
        return stop - i
    return evenly_from(b, i, stop)


cdef inline const Ahead* next_panel(
    const Batch* b, Py_ssize_t i, int count, Ahead* ahead, element* unused
) noexcept nogil:
    """What lies after the `count` tiles from row i on, to be fetched; NULL for long runs of memory, which the CPU
    foresees itself, for what the caches hold already, or do not hold, and where all of it would fall into a few of
    their sets; also where few classes are only read, which read_panel fetches well enough"""
    cdef Py_ssize_t width = lanes_of_work(unused) * sizeof(element), t
    cdef bint writes = results_of(b) == b.n and (not b.stream or b.out_step % REGISTER != 0)
    if not large_caches or count == PANEL_TILES or b.x_step % PAGE == 0 or is_nearby(b, unused):
        return NULL
    if b.n < FEW_STREAMS and not writes:
        return NULL
    for t in range(count):  # it may lie beyond
        ahead[t].x, ahead[t].x_step = b.x + offset(b, b.x_stride, i) + (count + t) * width, b.x_step
        ahead[t].v, ahead[t].v_step = ahead[t].x, b.x_step  # what is not there is not fetched, but x once more
        ahead[t].out, ahead[t].out_step = <char*> ahead[t].x, b.x_step
        if b.v != NULL:
            ahead[t].v, ahead[t].v_step = b.v + offset(b, b.v_stride, i) + (count + t) * width, b.v_step
        if writes:
            ahead[t].out, ahead[t].out_step = b.out + offset(b, b.out_stride, i) + t * width, b.out_step
        ahead[t].far = True
    return ahead


cdef inline bint in_columns(const Batch* b, element* unused) noexcept nogil:
    """Whether rows lie next to each other, class by class, in all arrays; out may be none"""
    cdef Py_ssize_t last = b.ndim - 1, size = sizeof(element)
    if last < 0 or b.x_step == size or b.x_stride[last] != size or b.where != NULL:
        return False
    return (b.out == NULL or b.out_stride[last] == size) and (b.v == NULL or b.v_stride[last] == size)


cdef inline bint apply_panel(
    const Batch* b, Py_ssize_t i, Py_ssize_t rows, floating* x, const floating* v, const vec[floating]* top,
    Ending[floating]* end, const Ahead* ahead
) noexcept nogil:
    """The tiles of rows i .. i + rows in place as apply_tiles does; false, and they are lost, where some_tiles or
    short_tiles has to do them"""
    cdef Py_ssize_t lanes = REGISTER // sizeof(floating), apart = tile_apart(b.n) * lanes, some
    cdef int t, count = <int> ((rows + lanes - 1) // lanes)
    for t in range(0 if goes_short(b.op.kind) else count):  # apply_short_tiles looks at its own
        if any(beyond_reach(top[t], <floating> b.op.factor.hi)):
            return False
    for t from 0 <= t < count by TILES:
        some = min(TILES * lanes, rows - t * lanes)
        if not goes_short(b.op.kind):
            near_tiles(
                x + t * apart, b.n, apart, <int> min(TILES, count - t), top + t, end + t, &b.op, of_tile(ahead, t)
            )
        elif not apply_short_tiles(
            x + t * apart, v + t * apart, b.n, apart, <int> some, top + t, &b.op, i + t * lanes, b.out != NULL,
            of_tile(ahead, t)
        ):
            return False
    return True


cdef inline int panel(
    const Batch* b, Py_ssize_t i, Py_ssize_t stop, floating* scratch, element* unused
) noexcept nogil:
    """Tiles from row i on whose rows lie next to each other, read and written side by side, class by class, the last
    one in part if nothing else would fill it; how many rows that were, 0 if some_tiles or short_tiles is due"""
    cdef Py_ssize_t rows, left, lanes = REGISTER // sizeof(floating), apart = tile_apart(b.n) * lanes
    cdef Py_ssize_t results = results_of(b)
    cdef vec[floating] top[PANEL_TILES]
    cdef vec[floating] v_top[PANEL_TILES]  # of no use
    cdef Ending[floating] end[PANEL_TILES]
    cdef Ahead[PANEL_TILES] room
    cdef floating* second = scratch + TILES * apart
    cdef const Ending[floating]* by = NULL
    cdef int t, count
    cdef bint past, near  # so that the next panel is fetched, and not only its next classes
    cdef element* out
    if b.op.how == WIDE or not in_columns(b, unused):
        return 0
    rows = min(tiles_together(b, unused) * lanes, side_by_side(b, i, stop, unused))
    if rows > evenly_from(b, i, stop):
        rows = evenly_from(b, i, stop) // lanes * lanes
    if rows == 0:
        return 0
    count = <int> ((rows + lanes - 1) // lanes)
    left = rows - (count - 1) * lanes
    near = count * b.n <= TILES * (SHORT if is_nearby(b, unused) else NARROW)
    if not (floating is double and element is not double) and not (floating is float and element is double):
        read_panel(
            <const element*> (b.x + offset(b, b.x_stride, i)), b.x_step, b.n, count, left, scratch, apart, top, near
        )
        if b.v != NULL:
            read_panel(
                <const element*> (b.v + offset(b, b.v_stride, i)), b.v_step, b.n, count, left, second, apart, v_top,
                near
            )
        for t in range(count if makes_targets(b) else 0):
            targets_in_tile(b, i + t * lanes, <int> min(lanes, rows - t * lanes), second + t * apart)
        if not apply_panel(b, i, rows, scratch, second, top, end, next_panel(b, i, count, room, unused)):
            return 0
        if is_ended(&b.op):
            by = end
        if results > 0:
            out = <element*> (b.out + offset(b, b.out_stride, i))
            past = b.stream and results > 1 and b.out_step % REGISTER == 0 and <uintptr_t> out % REGISTER == 0
            write_panel(<const floating*> scratch, apart, results, count, left, by, out, b.out_step, past, near)
    return <int> rows


cdef inline int next_tiles(
    const Batch* b, Py_ssize_t i, Py_ssize_t stop, floating* scratch, element* unused
) noexcept nogil:
    """Some rows from row i on; how many"""
    cdef int count = columns_to_line(b, i, stop, unused)
    if count == 0:
        count = panel(b, i, stop, scratch, unused)
        if count > 0:
            return count
        count = <int> min(REGISTER // sizeof(floating) * tiles_at_once(b.n), side_by_side(b, i, stop, unused))
    if goes_short(b.op.kind):
        short_tiles(b, i, count, stop, scratch, unused)
    else:
        some_tiles(b, i, count, stop, scratch, unused)
    return count


# ---- columns straight from and to memory ----

cdef inline bint set_columns(
    const Batch* b, Py_ssize_t i, Columns[element]* x, Columns[element]* v, Columns[element]* out
) noexcept nogil:
    """Columns from row i on, where they lie side by side in all arrays; out may be none"""
    if b.op.how != PLAIN or not in_columns(b, <element*> NULL):
        return False
    x.first, x.step = b.x + offset(b, b.x_stride, i), b.x_step
    out.first, out.step = b.out + offset(b, b.out_stride, i) if b.out != NULL else b.out, b.out_step
    if b.v != NULL:
        v.first, v.step = b.v + offset(b, b.v_stride, i), b.v_step
    return True


cdef inline bint goes_by_few(const Batch* b, element* unused) noexcept nogil:
    """Whether columns of a kept output are of so few classes that they go vec by vec: the nearest cache holds fewer
    lines that lie a large power of two apart"""
    cdef Py_ssize_t apart = max(1, min(b.x_step & -b.x_step, PAGE))
    cdef Py_ssize_t most = min(FEW_OUTPUTS, WAYS * PAGE // apart - 1)
    if not is_nearby(b, unused):
        most = max(most, FEW_STREAMS)
    return narrow_classes > 0 and 1 < b.n <= most


cdef inline bint in_long_runs(const Batch* b, Py_ssize_t count, element* unused) noexcept nogil:
    """Whether `count` columns of a kept output go so: of few classes; and without exp, where the second-level cache may
    hold all that is read, or not even a few columns of that, but the third-level cache all; not in parts, which threads
    take"""
    cdef Py_ssize_t lanes = lanes_of_work(unused), size = sizeof(element)
    cdef Py_ssize_t read = 2 * b.rows * b.n * size, few = 2 * b.n * column_vecs * lanes * size
    if b.op.kind != VJP_FROM_OUTPUT:
        return b.n <= (classes_in_lane - 1) * lanes
    if b.n <= classes_in_lane * lanes:
        return True
    if size < <Py_ssize_t> sizeof(float) or count < b.shape[b.ndim - 1]:
        return False
    return read <= NEARBY or NEARBY < few <= read // 2 <= FARTHER // 2


cdef inline Py_ssize_t columns_at_once(
    const Batch* b, Py_ssize_t count, bint long_runs, element* unused
) noexcept nogil:
    """Of `count` columns how many at most go side by side, or vec by vec, in one call"""
    if b.op.kind < VJP_FROM_OUTPUT:
        return logit_vecs * lanes_of_work(unused)
    if goes_by_few(b, unused):  # as gradient_columns asks
        return count
    return (long_column_vecs if long_runs else column_vecs) * lanes_of_work(unused)


cdef inline Py_ssize_t gradient_columns(
    const Batch* b, Columns[element] x, Columns[element] v, Columns[element] out, Py_ssize_t first, Py_ssize_t columns,
    bint past, bint long_runs, element* scratch
) noexcept nogil:
    """Of some columns from `first` on as many as are in order; how many"""
    cdef bint far = 2 * b.rows * b.n * <Py_ssize_t> sizeof(element) > FARTHER
    if element is float or element is double:
        if b.op.kind == VJP:
            return vjp_of_columns(x, v, out, b.n, first, columns, past, scratch)
        if b.op.kind == LOG_VJP:
            return log_vjp_of_columns(x, v, out, b.n, first, columns, past, scratch)
    if goes_by_few(b, scratch):
        if b.op.kind == VJP_FROM_OUTPUT:
            return vjp_of_few_outputs(x, v, out, b.n, first, columns, past)
        return log_vjp_of_few_outputs(x, v, out, b.n, first, columns, past)
    if b.op.kind == VJP_FROM_OUTPUT:
        return columns if vjp_of_output_columns(x, v, out, b.n, first, columns, past, long_runs, far) else 0
    return columns if log_vjp_of_output_columns(x, v, out, b.n, first, columns, past, long_runs, far) else 0


cdef inline Py_ssize_t all_columns(
    const Batch* b, Py_ssize_t count, Columns[element] x, Columns[element] v, Columns[element] out, element* scratch
) noexcept nogil:
    """A derivative of the next `count` columns, as far as they are in order; how many"""
    cdef bint past = b.stream and b.out_step % REGISTER == 0 and sizeof(element) >= sizeof(float)
    cdef bint long_runs = in_long_runs(b, count, scratch)
    cdef Py_ssize_t few = column_vecs * lanes_of_work(scratch)
    cdef Py_ssize_t done = 0, most = columns_at_once(b, count, long_runs, scratch), some = most, gone
    if past:
        some = to_line(<const element*> out.first, most, past)
    if some == 0:
        some = most
    while done < count:
        some = min(some, count - done)
        gone = gradient_columns(b, x, v, out, done, some, past, long_runs, scratch)
        done += gone
        if gone < some:
            if some <= few:
                break
            most = few  # of which fewer are left to what goes column by column
        some = most
    return done


cdef inline Py_ssize_t narrow_columns(
    const Batch* b, Py_ssize_t i, Py_ssize_t count, Columns[element] x, Columns[element] v, Columns[element] out
) noexcept nogil:
    """The next `count` columns, of few classes, likewise; the first is row i"""
    cdef Labels[element] labels
    if element is float or element is double:
        if b.op.kind == LABELS:
            labels.label, labels.loss = b.op.labels + i, <element*> b.op.loss + i
            labels.weight = b.op.row_weights + i if b.op.row_weights != NULL else b.op.row_weights
            labels.scale, labels.z_loss = b.op.scale, b.op.z_loss
            return narrow_losses(x, out, b.n, count, labels)
        if b.op.kind == SOFTMAX:
            return narrow_softmax(x, out, b.n, count)
        if b.op.kind == LOG_SOFTMAX:
            return narrow_log_softmax(x, out, b.n, count)
        if b.op.kind == LOGSUMEXP:
            return narrow_logsumexp(x, out, b.n, count)
        return narrow_vjp(x, v, out, b.n, count)
    return 0


cdef inline Py_ssize_t direct_columns(
    const Batch* b, Py_ssize_t i, Py_ssize_t stop, element* scratch
) noexcept nogil:
    """Columns from row i on, of what goes faster without tiles, as far as they are in order; how many"""
    cdef Columns[element] x, v, out
    cdef Py_ssize_t count
    cdef bint wide = sizeof(element) >= sizeof(float)  # of what is not only kept outputs go so
    cdef bint narrow = wide and 1 < b.n <= narrow_classes and (b.op.kind <= VJP or b.op.kind == LABELS)
    cdef bint from_output = b.op.kind == VJP_FROM_OUTPUT or b.op.kind == LOG_VJP_FROM_OUTPUT
    if not narrow and not (wide and are_logit_columns(b, scratch)) and (not from_output or b.n > BLOCK):
        return 0
    if not set_columns(b, i, &x, &v, &out):
        return 0
    count = evenly_from(b, i, stop)
    return narrow_columns(b, i, count, x, v, out) if narrow else all_columns(b, count, x, v, out, scratch)
