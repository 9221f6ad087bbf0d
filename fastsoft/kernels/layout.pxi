# Where the rows lie in memory, and how those of any type and any strides come into the work type and back.

cdef struct Batch:
    Operation op
    Py_ssize_t n  # classes
    Py_ssize_t rows
    char* x
    char* v  # the second argument, or NULL
    char* out  # or NULL
    char* where  # booleans, or NULL
    bint stream  # write past the caches
    Py_ssize_t x_step  # bytes from class to class
    Py_ssize_t v_step
    Py_ssize_t out_step
    Py_ssize_t where_step
    int ndim  # batch axes, neighbours merged where they can be
    Py_ssize_t[MAX_NDIM] shape
    Py_ssize_t[MAX_NDIM] x_stride
    Py_ssize_t[MAX_NDIM] v_stride
    Py_ssize_t[MAX_NDIM] out_stride
    Py_ssize_t[MAX_NDIM] where_stride


cdef inline Py_ssize_t offset(const Batch* b, const Py_ssize_t* stride, Py_ssize_t i) noexcept nogil:
    """Where row i starts, in bytes"""
    return row_offset(b.ndim, b.shape, stride, i)


cdef inline bint evenly(const Batch* b, Py_ssize_t i, Py_ssize_t count) noexcept nogil:
    """Whether rows i .. i + count of each array lie evenly apart"""
    cdef int last = b.ndim - 1
    return last == 0 or (last > 0 and i % b.shape[last] + count <= b.shape[last])


cdef inline Py_ssize_t evenly_from(const Batch* b, Py_ssize_t i, Py_ssize_t stop) noexcept nogil:
    """How many of the rows from i to stop lie evenly apart, where there are batch axes"""
    cdef Py_ssize_t last = b.shape[b.ndim - 1]
    return min(stop - i, last - i % last)


# In the functions below `unused` only says which element type is meant. float16 and bfloat16 go with float;
# combinations that do not occur are compiled all the same, hence the conditions on types.

cdef inline Py_ssize_t lanes_of_work(element* unused) noexcept nogil:
    """Lanes of a register of the work type"""
    return REGISTER // <Py_ssize_t> max(sizeof(element), sizeof(float))


cdef inline void gather(
    const char* x, Py_ssize_t step, Py_ssize_t n, floating* y, Py_ssize_t y_step, element* unused
) noexcept nogil:
    """y_j = x_j"""
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef floating zero = 0
    if not (floating is double and element is not double) and not (floating is float and element is double):
        if step == sizeof(element) and y_step == 1:
            for j from 0 <= j < n by lanes:
                store(y + j, load(<const element*> x + j, n - j, zero), n - j)
            return
    for j in range(n):
        y[j * y_step] = to_work((<const element*> (x + j * step))[0])


cdef inline void scatter(
    const floating* y, Py_ssize_t y_step, Py_ssize_t n, char* out, Py_ssize_t step, element* unused
) noexcept nogil:
    """out_j = y_j, rounded once"""
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef floating zero = 0
    if not (floating is double and element is not double) and not (floating is float and element is double):
        if step == sizeof(element) and y_step == 1:
            for j from 0 <= j < n by lanes:
                store(<element*> out + j, load(y + j, n - j, zero), n - j)
            return
        for j in range(n):
            from_work(y[j * y_step], <element*> (out + j * step))


cdef inline void hide_in_row(const char* where, Py_ssize_t step, Py_ssize_t n, floating* y) noexcept nogil:
    """y_j = -inf where `where` is false"""
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef floating zero = 0
    if step == 1:
        for j from 0 <= j < n by lanes:
            store(y + j, shown(load(y + j, n - j, zero), where + j, n - j), n - j)
        return
    for j in range(n):
        y[j] = y[j] if where[j * step] != 0 else -INFINITY


cdef inline void rows_to_tile(
    const Batch* b, const char* x, const Py_ssize_t* stride, Py_ssize_t i, int count, floating* tile, element* unused
) noexcept nogil:
    """Rows i .. i + count of x, whose classes are contiguous, into the lanes of a tile"""
    cdef int c, lanes = REGISTER // sizeof(floating)
    cdef element[TURNED] zeros  # in unused lanes: something harmless
    cdef element* at[16]
    cdef Even[element] rows
    if not (floating is double and element is not double) and not (floating is float and element is double):
        if count == lanes and evenly(b, i, count):
            rows.first, rows.apart = <char*> x + offset(b, stride, i), stride[b.ndim - 1]
            to_tile(rows, b.n, tile)
            return
        if count < lanes:
            memset(zeros, 0, sizeof(zeros))
        for c in range(lanes):
            at[c] = <element*> (x + offset(b, stride, i + c)) if c < count else zeros
        to_tile(&at[0], b.n, tile)


cdef inline void tile_to_rows(
    const Batch* b, char* out, Py_ssize_t i, int count, const floating* tile, const Ending[floating]* end,
    element* unused
) noexcept nogil:
    """The way back, to rows that begin with `out`, with what ends the tile unless that is NULL"""
    cdef int c, lanes = REGISTER // sizeof(floating)
    cdef element* at[16]
    cdef Even[element] rows
    if not (floating is double and element is not double) and not (floating is float and element is double):
        if count == lanes and evenly(b, i, count):
            rows.first, rows.apart = out + offset(b, b.out_stride, i), b.out_stride[b.ndim - 1]
            from_tile(tile, b.n, rows, count, end)
            return
        for c in range(count):
            at[c] = <element*> (out + offset(b, b.out_stride, i + c))
        from_tile(tile, b.n, &at[0], count, end)


# Rows one after the other at y, row r at y + r n, of a group that is not contiguous in memory. Where the rows are
# neighbours, as columns are, they come and go by squares: long runs of memory, which no CPU foresees.

cdef enum:
    AHEAD = 32  # classes


cdef inline bint neighbours(
    const Batch* b, const Py_ssize_t* stride, Py_ssize_t i, Py_ssize_t count, Py_ssize_t itemsize
) noexcept nogil:
    """Whether rows i .. i + count lie next to each other"""
    return evenly(b, i, count) and stride[b.ndim - 1] == itemsize


cdef inline void gather_rows(
    const Batch* b, const char* x, const Py_ssize_t* stride, Py_ssize_t step, Py_ssize_t i, Py_ssize_t count,
    floating* y, element* unused
) noexcept nogil:
    """Rows i .. i + count of x"""
    cdef Py_ssize_t j, k, r, row, some, lanes = REGISTER // sizeof(floating)
    cdef const char* start = x + offset(b, stride, i)
    cdef floating zero = 0
    cdef element[16] zeros
    cdef element* classes[16]
    cdef floating square[256]
    if not (floating is double and element is not double) and not (floating is float and element is double):
        if count > 1 and neighbours(b, stride, i, count, sizeof(element)):
            memset(zeros, 0, sizeof(zeros))
            for j from 0 <= j < b.n by lanes:
                for row from 0 <= row < count by lanes:
                    for k in range(lanes):
                        classes[k] = <element*> (start + (j + k) * step) + row if j + k < b.n else zeros
                        prefetch(<const element*> (<const char*> classes[k] + AHEAD * step))
                    some = min(lanes, count - row)
                    rows_to_square(&classes[0], some, &square[0])
                    for r in range(some):
                        store(y + (row + r) * b.n + j, load(&square[0] + r * lanes, lanes, zero), b.n - j)
            return
    for r in range(count):
        gather(x + offset(b, stride, i + r), step, b.n, y + r * b.n, 1, unused)


cdef inline void scatter_rows(
    const Batch* b, const floating* y, Py_ssize_t i, Py_ssize_t count, Py_ssize_t results, element* unused
) noexcept nogil:
    """Rows i .. i + count of out, of n results each, or one"""
    cdef Py_ssize_t j, k, r, row, some, lanes = REGISTER // sizeof(floating)
    cdef char* start = b.out + offset(b, b.out_stride, i)
    cdef floating zero = 0
    cdef element* classes[16]
    cdef floating square[256]
    if not (floating is double and element is not double) and not (floating is float and element is double):
        if count > 1 and results == b.n and neighbours(b, b.out_stride, i, count, sizeof(element)):
            for j from 0 <= j < b.n by lanes:
                for row from 0 <= row < count by lanes:
                    for k in range(lanes):
                        classes[k] = <element*> (start + (j + k) * b.out_step) + row
                        prefetch(<const element*> (<const char*> classes[k] + AHEAD * b.out_step))
                    some = min(lanes, count - row)
                    for r in range(some):
                        store(&square[0] + r * lanes, load(y + (row + r) * b.n + j, b.n - j, zero), lanes)
                    square_to_rows(&square[0], some, &classes[0], <int> min(lanes, b.n - j))
            return
    for r in range(count):
        scatter(y + r * b.n, 1, results, b.out + offset(b, b.out_stride, i + r), b.out_step, unused)
