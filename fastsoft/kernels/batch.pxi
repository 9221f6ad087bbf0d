# The batch: where the rows lie in memory, how they come into rows.pxi and tiles.pxi, and who takes which.
cdef struct Batch:
    Operation op
    Py_ssize_t n  # classes
    Py_ssize_t rows
    char* x
    char* out
    char* where  # booleans, or NULL
    bint stream  # write past the caches
    Py_ssize_t x_step  # bytes from class to class
    Py_ssize_t out_step
    Py_ssize_t where_step
    int ndim  # batch axes, neighbours merged where they can be
    Py_ssize_t[MAX_NDIM] shape
    Py_ssize_t[MAX_NDIM] x_stride
    Py_ssize_t[MAX_NDIM] out_stride
    Py_ssize_t[MAX_NDIM] where_stride


cdef enum:
    SERIAL = 131072  # bytes of classes, in their work type, below which one thread is faster
    GRAIN = 65536  # the least for each thread
    QUICK = 268435456  # bytes from which a call is made in pieces, so that Python sees to signals
    SHARES = 8  # for each thread, so that one that comes late finds less to do
    GROUP = 4096  # classes in a group of rows
    STREAM = 16777216  # bytes of result from which it is written past the caches
    PANEL = 262144  # bytes of the tiles that are read side by side
    SHORT = 32  # classes up to which rows go side by side, in a tile


cdef inline Py_ssize_t offset(const Batch* b, const Py_ssize_t* stride, Py_ssize_t i) noexcept nogil:
    """Where row i starts, in bytes"""
    cdef Py_ssize_t at = 0
    cdef int d
    for d in range(b.ndim - 1, 0, -1):
        at += i % b.shape[d] * stride[d]
        i //= b.shape[d]
    return at + i * stride[0] if b.ndim > 0 else 0


cdef inline bint by_tiles(const Batch* b, Py_ssize_t itemsize) noexcept nogil:
    """Short rows, and rows that lie next to their neighbours, class by class"""
    cdef Py_ssize_t last = b.x_stride[b.ndim - 1] if b.ndim > 0 else 0
    if b.n <= SHORT:
        return True
    return last == itemsize and b.x_step != itemsize and b.shape[b.ndim - 1] >= 4


cdef inline int rows_in_group(Py_ssize_t n, Py_ssize_t lanes) noexcept nogil:
    """As many as a register has lanes, but no more than stay in the first-level cache"""
    return <int> max(1, min(lanes, GROUP // max(n, 1)))


cdef inline int tiles_together(Py_ssize_t n) noexcept nogil:
    """Tiles that are read, and written, side by side: long runs of memory, but no more than the caches hold"""
    return <int> max(1, min(8, PANEL // (n * REGISTER)))


cdef inline Py_ssize_t scratch_size(const Batch* b, Py_ssize_t itemsize, Py_ssize_t worksize) noexcept nogil:
    """Bytes that each thread needs"""
    if by_tiles(b, itemsize):
        return b.n * REGISTER * tiles_together(b.n)
    if b.x_step == itemsize and b.out_step == itemsize and worksize == itemsize and b.where == NULL and not b.stream:
        return REGISTER
    return b.n * worksize * rows_in_group(b.n, REGISTER // worksize) + REGISTER


# ---- strided memory of any type to a contiguous row of the work type, and back ----

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


cdef inline void hide(
    const char* where, Py_ssize_t step, Py_ssize_t n, floating* y, Py_ssize_t y_step
) noexcept nogil:
    """y_j = -inf where `where` is false"""
    cdef Py_ssize_t j
    for j in range(n):
        if where[j * step] == 0:
            y[j * y_step] = -INFINITY


# ---- a run of rows, on one thread ----

cdef inline void one_group(
    const Batch* b, Py_ssize_t i, int count, floating* scratch, element* unused, const Team* team
) noexcept nogil:
    """Rows i .. i + count from x to out: as they lie where they can be used so, else by way of scratch"""
    cdef Py_ssize_t results = 1 if b.op.kind == LOGSUMEXP else b.n
    cdef const floating* x[16]
    cdef floating* y[16]
    cdef int r
    cdef bint same = (floating is float and element is float) or (floating is double and element is double)
    cdef bint as_it_lies = same and b.x_step == sizeof(element) and b.where == NULL
    cdef bint streams = b.stream and same and b.out_step == sizeof(element) and results > 1 and team == NULL
    cdef bint out_as_it_lies = same and b.out_step == sizeof(element) and not streams
    for r in range(count):
        if as_it_lies:
            x[r] = <const floating*> (b.x + offset(b, b.x_stride, i + r))
        else:
            x[r] = scratch + r * b.n
            gather(b.x + offset(b, b.x_stride, i + r), b.x_step, b.n, scratch + r * b.n, 1, unused)
            if b.where != NULL:
                hide(b.where + offset(b, b.where_stride, i + r), b.where_step, b.n, scratch + r * b.n, 1)
        if out_as_it_lies:
            y[r] = <floating*> (b.out + offset(b, b.out_stride, i + r))
        else:
            y[r] = scratch + r * b.n
    if not group(x, y, count, b.n, &b.op, team):
        for r in range(count):
            one_group(b, i + r, 1, scratch, unused, team)
        return
    if streams:
        for r in range(count):
            block_stream(y[r], <floating*> (b.out + offset(b, b.out_stride, i + r)), b.n)
    elif not out_as_it_lies:
        for r in range(count):
            scatter(y[r], 1, results, b.out + offset(b, b.out_stride, i + r), b.out_step, unused)


cdef inline bint locate(
    const Batch* b, const Py_ssize_t* stride, Py_ssize_t i, int count, Py_ssize_t itemsize, Py_ssize_t* at
) noexcept nogil:
    """Where rows i .. i + count start, in bytes; whether they lie next to each other"""
    cdef int c, last = b.ndim - 1
    at[0] = offset(b, stride, i)
    if b.ndim == 1 or (b.ndim > 1 and i % b.shape[last] + count <= b.shape[last]):
        for c in range(1, count):
            at[c] = at[c - 1] + stride[last]
        return stride[last] == itemsize
    for c in range(1, count):
        at[c] = offset(b, stride, i + c)
    return False


cdef inline void rows_to_tile(
    const Batch* b, const Py_ssize_t* at, int count, floating* tile, element* unused
) noexcept nogil:
    """Rows whose classes are contiguous into the lanes of a tile, a square at a time"""
    cdef Py_ssize_t j, k, lanes = REGISTER // sizeof(floating)
    cdef int c
    cdef floating zero = 0
    cdef vec[floating] square[16]
    if not (floating is double and element is not double) and not (floating is float and element is double):
        for j from 0 <= j < b.n by lanes:
            for c in range(count):
                square[c] = load(<const element*> (b.x + at[c]) + j, b.n - j, zero)
            for c in range(count, lanes):
                square[c] = fill(zero)
            transpose(&square[0])
            for k in range(min(lanes, b.n - j)):
                store(tile + (j + k) * lanes, square[k], lanes)


cdef inline void tile_to_rows(
    const Batch* b, const Py_ssize_t* at, int count, const floating* tile, element* unused
) noexcept nogil:
    """The way back of rows_to_tile"""
    cdef Py_ssize_t j, k, lanes = REGISTER // sizeof(floating)
    cdef int c
    cdef floating zero = 0
    cdef vec[floating] square[16]
    if not (floating is double and element is not double) and not (floating is float and element is double):
        for j from 0 <= j < b.n by lanes:
            for k in range(min(lanes, b.n - j)):
                square[k] = load(tile + (j + k) * lanes, lanes, zero)
            for k in range(b.n - j, lanes):
                square[k] = fill(zero)
            transpose(&square[0])
            for c in range(count):
                store(<element*> (b.out + at[c]) + j, square[c], b.n - j)


cdef inline void one_tile(
    const Batch* b, Py_ssize_t i, int count, floating* scratch, element* unused
) noexcept nogil:
    """Rows i .. i + count side by side in the lanes of a tile"""
    cdef Py_ssize_t lanes = REGISTER // sizeof(floating), j, c
    cdef Py_ssize_t results = 1 if b.op.kind == LOGSUMEXP else b.n
    cdef Py_ssize_t x[16]
    cdef Py_ssize_t out[16]
    cdef floating zero = 0
    cdef bint beside = locate(b, b.x_stride, i, count, sizeof(element), x)
    cdef bint out_beside = locate(b, b.out_stride, i, count, sizeof(element), out)
    if b.x_step == sizeof(element):
        rows_to_tile(b, x, count, scratch, unused)
    elif beside:
        for j in range(b.n):
            gather(b.x + x[0] + j * b.x_step, sizeof(element), count, scratch + j * lanes, 1, unused)
            for c in range(count, lanes):  # unused lanes compute something harmless
                scratch[j * lanes + c] = zero
    else:
        for c in range(count):
            gather(b.x + x[c], b.x_step, b.n, scratch + c, lanes, unused)
        for c in range(count, lanes):
            for j in range(b.n):
                scratch[j * lanes + c] = zero
    if b.where != NULL:
        for c in range(count):
            hide(b.where + offset(b, b.where_stride, i + c), b.where_step, b.n, scratch + c, lanes)
    if not tile(scratch, b.n, count, &b.op):
        for c in range(count):
            one_tile(b, i + c, 1, scratch, unused)
        return
    if out_beside and (b.out_step != sizeof(element) or results == 1):
        for j in range(results):
            scatter(scratch + j * lanes, 1, count, b.out + out[0] + j * b.out_step, sizeof(element), unused)
    elif b.out_step == sizeof(element) and results > 1:
        tile_to_rows(b, out, count, scratch, unused)
    else:
        for c in range(count):
            scatter(scratch + c, lanes, results, b.out + out[c], b.out_step, unused)


cdef inline int full_tiles(
    const Batch* b, Py_ssize_t i, Py_ssize_t stop, floating* scratch, element* unused
) noexcept nogil:
    """Whole tiles from row i on whose rows lie next to each other; how many rows that were, 0 if one_tile is due"""
    cdef Py_ssize_t lanes = REGISTER // sizeof(floating), t, j, tiles
    cdef Py_ssize_t results = 1 if b.op.kind == LOGSUMEXP else b.n
    cdef Py_ssize_t size = sizeof(element)
    cdef floating zero = 0
    cdef char* x
    cdef char* out
    cdef int last = b.ndim - 1
    if last < 0 or b.x_step == size or b.where != NULL or b.x_stride[last] != size or b.out_stride[last] != size:
        return 0
    tiles = min(tiles_together(b.n), min(stop - i, b.shape[last] - i % b.shape[last]) // lanes)
    x = b.x + offset(b, b.x_stride, i)
    out = b.out + offset(b, b.out_stride, i)
    if not (floating is double and element is not double) and not (floating is float and element is double):
        for j in range(b.n):
            for t in range(tiles):
                prefetch(<const element*> (x + (j + 8) * b.x_step) + t * lanes)
                store(
                    scratch + (t * b.n + j) * lanes,
                    load(<const element*> (x + j * b.x_step) + t * lanes, lanes, zero), lanes
                )
        for t in range(tiles):
            if not tile(scratch + t * b.n * lanes, b.n, <int> lanes, &b.op):
                return 0
        for j in range(results):
            for t in range(tiles):
                store(
                    <element*> (out + j * b.out_step) + t * lanes,
                    load(scratch + (t * b.n + j) * lanes, lanes, zero), lanes
                )
    return <int> (tiles * lanes)


cdef void run(const Batch* b, Py_ssize_t start, Py_ssize_t stop, char* scratch, element* unused) noexcept nogil:
    """Rows start .. stop, under the default floating-point state"""
    cdef control state = enter()
    cdef Py_ssize_t i = start, lanes = REGISTER // (sizeof(double) if element is double else sizeof(float))
    cdef int count
    if by_tiles(b, sizeof(element)):
        while i < stop:
            if element is double:
                count = full_tiles[double, element](b, i, stop, <double*> scratch, unused)
                if count == 0:
                    count = <int> min(lanes, stop - i)
                    one_tile[double, element](b, i, count, <double*> scratch, unused)
            else:
                count = full_tiles[float, element](b, i, stop, <float*> scratch, unused)
                if count == 0:
                    count = <int> min(lanes, stop - i)
                    one_tile[float, element](b, i, count, <float*> scratch, unused)
            i += count
    else:
        count = rows_in_group(b.n, lanes)
        while i < stop:
            if element is double:
                one_group[double, element](b, i, <int> min(count, stop - i), <double*> scratch, unused, NULL)
            else:
                one_group[float, element](b, i, <int> min(count, stop - i), <float*> scratch, unused, NULL)
            i += count
    if b.stream:
        fence()
    leave(state)


# ---- threads ----

# A worker whose core is taken by another process comes when the scheduler lets it, milliseconds late, and OpenMP
# waits for it. A region that took far too long therefore keeps the calls of the next while on one thread.
cdef atomic[int64_t] crowded_until

cdef enum:
    LATE = 500000  # nanoseconds that a region may take beyond 1 for each 2 bytes
    WHILE = 100000000  # nanoseconds


cdef inline bint crowded() noexcept nogil:
    return now() < crowded_until.load()


cdef inline void note_time(int64_t start, Py_ssize_t work) noexcept nogil:
    cdef int64_t stop = now()
    if stop - start > LATE + work // 2:
        crowded_until.store(stop + WHILE)


cdef void run_shared(
    const Batch* b, Py_ssize_t start, Py_ssize_t stop, int threads, char* scratch, Py_ssize_t size, element* unused
) noexcept nogil:
    """Rows start .. stop in equal shares, taken by the threads as they come"""
    cdef Py_ssize_t k, rows = stop - start, shares = min(rows, SHARES * threads)
    for k in prange(shares, schedule="dynamic", chunksize=1, num_threads=threads):
        run(b, start + rows * k // shares, start + rows * (k + 1) // shares, scratch + threadid() * size, unused)


cdef void run_split(
    const Batch* b, Py_ssize_t start, Py_ssize_t stop, char* scratch, const Team* team, element* unused
) noexcept nogil:
    """Rows start .. stop one after the other, each shared among the team"""
    cdef control state = enter()
    cdef Py_ssize_t i
    for i in range(start, stop):
        if element is double:
            one_group[double, element](b, i, 1, <double*> scratch, unused, team)
        else:
            one_group[float, element](b, i, 1, <float*> scratch, unused, team)
    leave(state)


cdef int run_all(
    const Batch* b, Py_ssize_t start, Py_ssize_t stop, int threads, element* unused
) noexcept nogil:
    """Rows start .. stop on at most `threads` threads; -1 where there is no memory for it"""
    cdef Py_ssize_t worksize = sizeof(double) if element is double else sizeof(float)
    cdef Py_ssize_t rows = stop - start, work = rows * b.n * worksize
    cdef Py_ssize_t size = scratch_size(b, sizeof(element), worksize)
    cdef Team team
    cdef char[4096 + REGISTER] small
    cdef char* memory = small
    cdef char* scratch
    cdef bint split
    cdef int64_t begun
    if work < SERIAL or (threads > 1 and crowded()):
        threads = 1
    threads = <int> min(threads, work // GRAIN) if threads > 1 else 1
    split = threads > 1 and rows < threads and not by_tiles(b, sizeof(element))
    if threads > rows and not split:
        threads = <int> rows
    size = (size + REGISTER - 1) // REGISTER * REGISTER
    team.threads = threads
    team.blocks = (b.n + BLOCK - 1) // BLOCK
    if split:  # a block gives three vecs at most
        size += 3 * REGISTER * team.blocks
    elif threads > 1:
        size += REGISTER  # no two threads in one line
    if size * (1 if split else threads) > 4096:
        memory = <char*> malloc(size * (1 if split else threads) + REGISTER)
        if memory == NULL:
            return -1
    scratch = memory + (-<uintptr_t> memory) % REGISTER
    begun = now() if threads > 1 else 0
    if split:
        team.parts = scratch + size - 3 * REGISTER * team.blocks
        run_split(b, start, stop, scratch, &team, unused)
    elif threads > 1:
        run_shared(b, start, stop, threads, scratch, size, unused)
    else:
        run(b, start, stop, scratch, unused)
    if threads > 1:
        note_time(begun, work)
    if memory != small:
        free(memory)
    return 0
