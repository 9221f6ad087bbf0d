# The Jacobian: sigma and the diagonal of some rows (gradients.pxi), and then what is nothing but a fill.

cdef enum:
    FILL = 16384  # bytes that are made in one go, in the first-level cache
    FILL_AHEAD = 1024  # bytes by which memory is fetched before it is written
    FILL_STREAM = 33554432  # bytes of result from which it is written past the caches
    FILL_SHARES = 8  # for each thread, so that of one that comes late the others can take over
    MOST_SHARES = 512
    ROWS_AT_ONCE = 1048576  # numbers that are kept of sigma and the diagonal


cdef inline vec[floating] entry(vec[floating] own, vec[floating] other, vec[floating] c, How how) noexcept nogil:
    """-sigma_i sigma_j c"""
    if How is Plain:
        return minus_product(own, other)
    return times(minus_product(own, other), c)


cdef inline void fill_rows(
    const floating* rows, Py_ssize_t n, Py_ssize_t start, Py_ssize_t stop, floating c, element* out, How how,
    Py_ssize_t ahead
) noexcept nogil:
    """Rows start .. stop of all matrices, one below the other, to out: -sigma_i sigma_j, and the diagonal; times c. All
    stores but the first of a row begin with a line, or half of one: those across two take twice as long."""
    cdef Py_ssize_t lanes = REGISTER // sizeof(floating), bytes = lanes * <Py_ssize_t> sizeof(element)
    cdef Py_ssize_t i = start % n, end, j, left = (stop - start) * n
    cdef const floating* y = rows + start // n * 2 * n  # sigma and then the diagonal
    cdef floating zero = 0
    cdef bint long_rows = n >= 4 * lanes
    cdef vec[floating] own, factor = fill(c)
    if not (floating is double and element is not double) and not (floating is float and element is double):
        if n <= matrix_vecs * lanes:
            few_entries(rows, n, start, stop, c, out, ahead)
            return
        while left > 0:
            end = min(n, i + left // n)
            while i < end:
                own = fill(y[i])
                j = 0
                if n >= lanes:
                    store(out, entry(own, load(y, lanes, zero), factor, how), lanes)
                    j = lanes - <Py_ssize_t> (<uintptr_t> out % bytes) // <Py_ssize_t> sizeof(element)
                    while long_rows and j + 2 * lanes <= n:
                        prefetch_to_write(<char*> (out + j) + ahead, 2)
                        store(out + j, entry(own, load(y + j, lanes, zero), factor, how), lanes)
                        store(out + j + lanes, entry(own, load(y + j + lanes, lanes, zero), factor, how), lanes)
                        j += 2 * lanes
                    while j + lanes <= n:
                        store(out + j, entry(own, load(y + j, lanes, zero), factor, how), lanes)
                        j += lanes
                if j < n:  # what is written past the end of a row, the next one writes again
                    store(out + j, entry(own, load(y + j, n - j, zero), factor, how), left - j)
                from_work(y[n + i] * c, out + i)
                out += n
                left -= n
                i += 1
            i = 0
            y += 2 * n


cdef inline void fill_part(
    const floating* rows, Py_ssize_t n, Py_ssize_t start, Py_ssize_t stop, floating c, element* out, bint stream_it
) noexcept nogil:
    """The same, in pieces that go past the caches if wanted; out is where row 0 goes"""
    cdef char[16448] memory  # FILL + REGISTER
    cdef floating* piece = <floating*> (memory + (-<uintptr_t> memory) % REGISTER)
    cdef Py_ssize_t q, end, step = FILL // (n * <Py_ssize_t> sizeof(floating))
    cdef Plain plain
    cdef Scaled scaled
    cdef control state = enter()
    cdef bint same = (floating is float and element is float) or (floating is double and element is double)
    if not same or not stream_it or step == 0:
        if c == 1:
            fill_rows(rows, n, start, stop, c, out + start * n, plain, FILL_AHEAD)
        else:
            fill_rows(rows, n, start, stop, c, out + start * n, scaled, FILL_AHEAD)
        leave(state)
        return
    for q from start <= q < stop by step:
        end = min(q + step, stop)
        if c == 1:
            fill_rows(rows, n, q, end, c, piece, plain, 0)
        else:
            fill_rows(rows, n, q, end, c, piece, scaled, 0)
        block_stream(piece, <floating*> (out + q * n), (end - q) * n)
    fence()
    leave(state)


cdef void fill_shares(
    const floating* rows, Py_ssize_t n, Py_ssize_t total, Py_ssize_t shares, atomic[int64_t]* taken, int thread,
    int threads, floating c, element* out, bint stream_it
) noexcept nogil:
    """What a thread gets of the shares: its own first, which its core's cache may hold, then what others have not
    begun"""
    cdef Py_ssize_t k = shares * thread // threads, i
    for i in range(shares):
        if taken[k].load() == 0 and taken[k].fetch_add(1) == 0:
            fill_part(rows, n, total * k // shares, total * (k + 1) // shares, c, out, stream_it)
        k = k + 1 if k + 1 < shares else 0


cdef void fill_all(
    const floating* rows, Py_ssize_t n, Py_ssize_t count, floating c, element* out, bint stream_it, int threads
) noexcept nogil:
    """`count` matrices"""
    cdef Py_ssize_t total = count * n, shares, k
    cdef int allowed = threads
    cdef atomic[int64_t] taken[MOST_SHARES]
    threads = threads_worth(total * n * <Py_ssize_t> sizeof(element) // 4, threads)  # stores, and no exponentials
    if threads > 1:
        threads = fs_region(threads, allowed)
    if threads == 1:
        fill_part(rows, n, 0, total, c, out, stream_it)
        return
    shares = min(total, min(FILL_SHARES * threads, MOST_SHARES))
    for k in range(shares):
        taken[k].store(0, memory_order_relaxed)
    with parallel(num_threads=threads):
        fill_shares(rows, n, total, shares, &taken[0], fs_thread(), fs_threads(), c, out, stream_it)


cdef int run_jacobian(
    Batch* b, Py_ssize_t start, Py_ssize_t stop, double c, int threads, floating* unused, element* out
) noexcept nogil:
    """Matrices start .. stop of the batch; -1 where there is no memory for it"""
    cdef floating[512] small
    cdef floating* rows = small
    cdef Py_ssize_t n = b.n, i, count, step = max(1, ROWS_AT_ONCE // (2 * n))
    cdef bint stream_it = (stop - start) * n * n * <Py_ssize_t> sizeof(element) >= FILL_STREAM
    cdef int status = 0
    step = min(step, stop - start)
    if step * 2 * n > 512:
        rows = <floating*> malloc(step * 2 * n * sizeof(floating))
        if rows == NULL:
            return -1
    b.out_stride[0] = 2 * n * sizeof(floating)
    for i from start <= i < stop by step:
        count = min(step, stop - i)
        b.out = <char*> rows - i * b.out_stride[0]
        status = run_all[floating](b, i, i + count, threads, NULL)
        if status < 0:
            break
        fill_all(rows, n, count, <floating> c, out + i * n * n, stream_it, threads)
    if rows != small:
        free(rows)
    return status
