# Rows in parts: what is known of each, its Tally, from any part of its entries, and then what a part gives. A part is
# computed by blocks of a row, or of some rows that lie side by side; how a row is cut does not change a bit.

cdef enum Part:
    SEEN  # into the tally
    SHARE  # softmax
    LOG_SHARE
    MISSING  # 1 - softmax

cdef enum:
    PART = 4096  # entries of a block
    ABREAST = 16  # rows of a block where they lie side by side
    PART_SCRATCH = 12 * PART + ABREAST * REGISTER  # bytes for each thread: entries twice, and tallies


# ---- one row: contiguous, of float64 ----

cdef inline double any_nan(const double* x, Py_ssize_t n, double otherwise) noexcept nogil:
    """NaN where x holds one"""
    cdef double nan = row_nan(x, n)
    return nan if nan != nan else otherwise


cdef inline void rank(const double* x, Py_ssize_t n, double top, double* second, int64_t* ties) noexcept nogil:
    """The largest of x below `top`, and how many are `top`"""
    cdef Py_ssize_t i, step = exp_together * REGISTER // <Py_ssize_t> sizeof(double)
    cdef double low = -INFINITY, zero = 0
    cdef Rank a
    cdef int k
    a.second, a.ties = fill(low), fill(zero)
    for i from 0 <= i < n by step:
        rank_some(a, x + i, n - i, fill(top))
    fold(&a.second, 1)
    second[0] = in_lane(a.second, 0)
    ties[0] = 0
    for k in range(REGISTER // sizeof(double)):
        ties[0] += <int64_t> in_lane(a.ties, k)


cdef inline void sum_others(
    const double* x, Py_ssize_t n, const Operation* op, const Window* w, Tally* tally
) noexcept nogil:
    """The exponentials of all that is below the maximum"""
    cdef Py_ssize_t i, lanes = REGISTER // sizeof(double), step = exp_together * lanes
    cdef double zero = 0
    cdef Bins a
    cdef Plain plain
    cdef Scaled scaled
    for i in range(tally_bins):
        a.sum[i] = fill(zero)
    if not w.all_near:
        for i from 0 <= i < n by lanes:
            tally_far(a, x + i, n - i, w[0], op.factor)
    elif op.how == PLAIN:
        for i from 0 <= i < n by step:
            tally_some(a, x + i, n - i, w[0], plain)
    else:
        for i from 0 <= i < n by step:
            tally_some(a, x + i, n - i, w[0], scaled)
    add_lanes(tally[0], a, w[0])


cdef void add_entries(const double* x, Py_ssize_t n, const Operation* op, Tally* tally) noexcept nogil:
    """Entries x, at most PART, into the tally of their row"""
    cdef vec[double] tops = block_max(x, n, False)
    cdef double top, second
    cdef Tally own
    cdef Window w
    fold(&tops, 1)
    top = in_lane(tops, 0)
    own.max, own.ties, own.top = top + 0.0, 0, no_bin  # not -0
    memset(&own.bin[0], 0, sizeof(int64_t) * tally_bins)
    if top == INFINITY or top == -INFINITY:
        own.max = any_nan(x, n, top)
    else:
        rank(x, n, top, &second, &own.ties)
        if second != -INFINITY and set_window(w, top, second, op.factor):
            sum_others(x, n, op, &w, &own)
        else:
            own.max = any_nan(x, n, own.max)
    add_tally(tally[0], own, op.factor)


cdef inline Argument sums_of(
    const Tally* tally, const Operation* op, Shift[double]* s, Sums[double]* sums
) noexcept nogil:
    """Shift and sums of a row with a finite maximum; how its entries enter exp"""
    cdef Plain plain
    cdef Scaled scaled
    cdef Wide wide
    if op.how == WIDE or any(beyond_reach(fill(tally.max), op.factor.hi)):
        set_known(s[0], sums[0], tally[0], op.factor, wide)
        return WIDE
    if op.how == SCALED:
        set_known(s[0], sums[0], tally[0], op.factor, scaled)
    else:
        set_known(s[0], sums[0], tally[0], op.factor, plain)
    return op.how


cdef struct Known:  # what the entries of a row need
    bint special  # all of them give `value`
    double value
    Argument how
    Shared[double] shared
    Rest[double] rest
    Log[double] log


cdef inline void know_row(const Tally* tally, const Operation* op, int part, Known* known) noexcept nogil:
    """What a row needs whose tally is complete"""
    cdef Shift[double] s
    cdef Sums[double] sums
    known.special = not is_finite(tally.max)
    if known.special:
        known.value = NAN
        if tally.max == -INFINITY and part != MISSING:
            known.value = op.empty if part == SHARE or op.empty != op.empty else -INFINITY
        return
    known.how = sums_of(tally, op, &s, &sums)
    known.shared = s.each
    if part == LOG_SHARE:
        known.log = log_shift(log_of_sum(sums, s), s, <double> NAN)
    else:
        known.rest = rest(sums, s)


cdef inline void results_in_one_way(
    const double* x, double* y, Py_ssize_t n, const Known* known, int part, How how
) noexcept nogil:
    """y of entries x of a row"""
    cdef Py_ssize_t i, step = exp_together * REGISTER // <Py_ssize_t> sizeof(double)
    cdef Shared[double] s = known.shared
    cdef Rest[double] rest
    cdef Log[double] log
    if part == LOG_SHARE:
        log = known.log
        for i from 0 <= i < n by step:
            log_share_some(x + i, y + i, n - i, s, log, how)
        return
    rest = known.rest
    if part == SHARE:
        for i from 0 <= i < n by step:
            share_some(x + i, y + i, n - i, s, rest, how)
    else:
        for i from 0 <= i < n by step:
            missing_some(x + i, y + i, n - i, s, rest, how)


cdef void results_of_entries(const double* x, double* y, Py_ssize_t n, const Known* known, int part) noexcept nogil:
    """The same in any way"""
    cdef Plain plain
    cdef Scaled scaled
    cdef Wide wide
    cdef Py_ssize_t i
    if known.special:
        for i in range(n):
            y[i] = known.value
    elif known.how == PLAIN:
        results_in_one_way(x, y, n, known, part, plain)
    elif known.how == SCALED:
        results_in_one_way(x, y, n, known, part, scaled)
    else:
        results_in_one_way(x, y, n, known, part, wide)


# ---- blocks, wherever they lie ----

cdef inline Py_ssize_t abreast(const Batch* b) noexcept nogil:
    """Rows of a block"""
    cdef int last = b.ndim - 1
    return min(ABREAST, b.shape[last]) if last >= 0 and b.x_step > b.x_stride[last] else 1


cdef inline Py_ssize_t blocks_of(const Batch* b) noexcept nogil:
    """Blocks of so many rows"""
    cdef Py_ssize_t classes = PART // abreast(b)
    return (b.n + classes - 1) // classes


cdef inline Py_ssize_t all_blocks(const Batch* b, Py_ssize_t rows) noexcept nogil:
    return (rows + abreast(b) - 1) // abreast(b) * blocks_of(b)


cdef inline void widen(const floating* x, double* y, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(n):
        y[i] = x[i]


cdef inline const double* block_in(
    const Batch* b, Py_ssize_t i, Py_ssize_t count, double* wide, floating* scratch, element* unused
) noexcept nogil:
    """Entries of rows i .. i + count, one row after the other, as float64: where they lie, or in scratch"""
    cdef Py_ssize_t r
    cdef bint contiguous = count == 1 and b.x_step == sizeof(element)
    if floating is double and element is double:
        if contiguous and b.where == NULL:
            return <const double*> (b.x + offset(b, b.x_stride, i))
        gather_rows(b, b.x, b.x_stride, b.x_step, i, count, wide, unused)
    elif floating is float and element is float:
        if contiguous:
            widen(<const float*> (b.x + offset(b, b.x_stride, i)), wide, b.n)
        else:
            gather_rows(b, b.x, b.x_stride, b.x_step, i, count, scratch, unused)
            widen(scratch, wide, count * b.n)
    else:
        gather_rows(b, b.x, b.x_stride, b.x_step, i, count, scratch, unused)
        widen(scratch, wide, count * b.n)
    for r in range(count if b.where != NULL else 0):
        hide_in_row(b.where + offset(b, b.where_stride, i + r), b.where_step, b.n, wide + r * b.n)
    return wide


cdef inline void block_out(
    const Batch* b, Py_ssize_t i, Py_ssize_t count, const double* y, floating* scratch, element* unused
) noexcept nogil:
    """The way back, of results rounded once"""
    cdef Py_ssize_t j
    if floating is double:
        scatter_rows(b, y, i, count, b.n, unused)
    else:
        for j in range(count * b.n):
            scratch[j] = <float> y[j]
        scatter_rows(b, scratch, i, count, b.n, unused)


cdef inline void compute_blocks(
    const Batch* b, Tally* tallies, Tally* edge, int part, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t first,
    Py_ssize_t last, double* wide, floating* scratch, element* unused
) noexcept nogil:
    """Of rows start .. stop blocks first .. last, the rows' blocks one after the other. The tallies of the first rows,
    of which others may have blocks, go to `edge`."""
    cdef Batch own = b[0]
    cdef Py_ssize_t k, r, i, count, begin, before = -1, rows = abreast(b), each = blocks_of(b)
    cdef Py_ssize_t classes = PART // rows, size = sizeof(element)
    cdef const double* x
    cdef double* y
    cdef Tally* to
    cdef Known known[ABREAST]
    for k in range(first, last):
        i = start + k // each * rows
        begin = k % each * classes
        count = min(rows, stop - i)
        own.n = min(classes, b.n - begin)
        own.x = b.x + begin * b.x_step
        if b.where != NULL:
            own.where = b.where + begin * b.where_step
        x = block_in(&own, i, count, wide, scratch, unused)
        if part == SEEN:
            to = edge if k // each == first // each else tallies + i
            for r in range(count):
                add_entries(x + r * own.n, own.n, &b.op, to + r)
            continue
        own.out = b.out + begin * b.out_step
        if i != before:
            for r in range(count):
                know_row(tallies + i + r, &b.op, part, &known[r])
            before = i
        y = wide
        if element is double:
            if count == 1 and b.out_step == size:
                y = <double*> (own.out + offset(b, b.out_stride, i))
        for r in range(count):
            results_of_entries(x + r * own.n, y + r * own.n, own.n, &known[r], part)
        if y == wide:
            block_out(&own, i, count, y, scratch, unused)


cdef inline Tally* edge_in(char* scratch) noexcept nogil:
    return <Tally*> (scratch + PART_SCRATCH - ABREAST * REGISTER)


cdef void some_blocks(
    const Batch* b, Tally* tallies, int part, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t first, Py_ssize_t last,
    char* scratch, element* unused
) noexcept nogil:
    """The same under the default floating-point state"""
    cdef control state = enter()
    cdef Tally* edge = edge_in(scratch)
    cdef double* wide = <double*> scratch
    if element is double:
        compute_blocks[double, element](b, tallies, edge, part, start, stop, first, last, wide, wide, unused)
    else:
        compute_blocks[float, element](
            b, tallies, edge, part, start, stop, first, last, wide, <float*> (wide + PART), unused
        )
    leave(state)


cdef void merge_tallies(Tally* to, const Tally* other, Py_ssize_t rows, const Factor* factor) noexcept nogil:
    cdef control state = enter()
    cdef Py_ssize_t i
    for i in range(rows):
        add_tally(to[i], other[i], factor[0])
    leave(state)


cdef int run_part(
    const Batch* b, Tally* tallies, int part, Py_ssize_t start, Py_ssize_t stop, int threads, element* unused
) noexcept nogil:
    """Rows start .. stop on at most `threads` threads; -1 where there is no memory for it"""
    cdef Py_ssize_t work = (stop - start) * b.n * <Py_ssize_t> sizeof(double), total = all_blocks(b, stop - start)
    cdef Py_ssize_t size = PART_SCRATCH
    cdef Py_ssize_t first, r
    cdef char* memory
    cdef char* scratch
    cdef Tally* edge
    cdef int t
    cdef int64_t begun
    cdef int allowed = threads, region = 1
    threads = <int> min(threads_worth(work, threads), max(total, 1))
    memory = <char*> malloc(size * threads + REGISTER)
    if memory == NULL:
        return -1
    scratch = memory + (-<uintptr_t> memory) % REGISTER
    if threads > 1:
        region = fs_region(threads, allowed)
        threads = min(threads, region)
    for t in range(threads):
        edge = edge_in(scratch + t * size)
        for r in range(ABREAST):
            edge[r].max = -INFINITY
    if threads > 1:
        begun = now()
        with parallel(num_threads=region):
            for t from fs_thread() <= t < threads by fs_threads():
                some_blocks(
                    b, tallies, part, start, stop, total * t // threads, total * (t + 1) // threads,
                    scratch + t * size, unused
                )
        note_time(begun, work)
    else:
        some_blocks(b, tallies, part, start, stop, 0, total, scratch, unused)
    for t in range(threads if part == SEEN else 0):
        edge = edge_in(scratch + t * size)
        first = start + total * t // threads // blocks_of(b) * abreast(b)
        merge_tallies(tallies + first, edge, min(abreast(b), stop - first), &b.op.factor)
    free(memory)
    return 0


cdef int run_part_typed(
    const Batch* b, Tally* tallies, int part, Py_ssize_t start, Py_ssize_t stop, int threads, int typenum
) noexcept nogil:
    if typenum == cnp.NPY_FLOAT32:
        return run_part[float](b, tallies, part, start, stop, threads, NULL)
    if typenum == cnp.NPY_FLOAT64:
        return run_part[double](b, tallies, part, start, stop, threads, NULL)
    if typenum == cnp.NPY_FLOAT16:
        return run_part[half](b, tallies, part, start, stop, threads, NULL)
    return run_part[bfloat](b, tallies, part, start, stop, threads, NULL)


cdef inline double log_sum(const Tally* tally, const Operation* op) noexcept nogil:
    """log of the sum of all exponentials; a maximum that is infinite or NaN stays what it is"""
    cdef Shift[double] s
    cdef Sums[double] sums
    if not is_finite(tally.max):
        return tally.max if tally.max == tally.max else <double> NAN
    sums_of(tally, op, &s, &sums)
    return log_of_all(sums, s, tally[0], op.factor)


# ---- what Python sees ----

def state_new(cnp.ndarray tallies not None):
    """Empty tallies, of which each row is one; contiguous int64 as in all functions here."""
    cdef Tally* to = <Tally*> cnp.PyArray_DATA(tallies)
    cdef Py_ssize_t i
    for i in range(cnp.PyArray_NBYTES(tallies) // <Py_ssize_t> sizeof(Tally)):
        memset(to + i, 0, sizeof(Tally))
        to[i].max, to[i].top = -INFINITY, no_bin


def state_part(
    int part, cnp.ndarray tallies not None, cnp.ndarray x not None, cnp.ndarray out, cnp.ndarray where, int axis,
    int how, tuple factor not None, double empty, int threads, Py_ssize_t start, Py_ssize_t stop
):
    """Entries x of rows start .. stop, into their tallies or, of what these know, to out, an array like x."""
    cdef Batch b
    cdef int status, typenum = cnp.PyArray_TYPE(x)
    cdef Tally* to = <Tally*> cnp.PyArray_DATA(tallies)
    set_plain(&b.op, SOFTMAX)
    set_factor(&b.op, how, factor)
    b.op.empty = empty
    set_axes(&b, x, None, out, where, axis)
    stop = min(stop, b.rows)
    with nogil:
        status = run_part_typed(&b, to, part, start, stop, claim(threads), typenum)
        give_back(threads)
    if status < 0:
        raise MemoryError(f"no memory for the scratch of {threads} threads")


def state_merge(cnp.ndarray tallies not None, cnp.ndarray other not None, tuple factor not None):
    """All that `other` has seen as well; `factor` that of both"""
    cdef Tally* to = <Tally*> cnp.PyArray_DATA(tallies)
    cdef const Tally* from_other = <const Tally*> cnp.PyArray_DATA(other)
    cdef Py_ssize_t rows = cnp.PyArray_NBYTES(tallies) // <Py_ssize_t> sizeof(Tally)
    cdef Operation op
    set_factor(&op, PLAIN, factor)
    with nogil:
        merge_tallies(to, from_other, rows, &op.factor)


def state_result(cnp.ndarray tallies not None, cnp.ndarray out not None, int how, tuple factor not None):
    """log sum_j exp(x_j / T) of each row to out, contiguous float64"""
    cdef const Tally* rows = <const Tally*> cnp.PyArray_DATA(tallies)
    cdef double* y = <double*> cnp.PyArray_DATA(out)
    cdef Py_ssize_t i, count = cnp.PyArray_SIZE(out)
    cdef Operation op
    cdef control state
    set_plain(&op, LOGSUMEXP)
    set_factor(&op, how, factor)
    with nogil:
        state = enter()
        for i in range(count):
            y[i] = log_sum(rows + i, &op)
        leave(state)
