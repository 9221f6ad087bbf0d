# Rows, contiguous and in their work type: e = exp(x - max) by blocks, and what follows from their sum.
# What is horizontal, and what is done once a row, is done for a group of rows together, a row in each lane.

cdef inline bint are_few(Py_ssize_t n, floating unused) noexcept nogil:
    """Whether rows are of so few vecs that they are unrolled"""
    return few_vecs > 0 and SHORT < n <= few_vecs * REGISTER // <Py_ssize_t> sizeof(floating)


cdef inline bint are_unrolled(Py_ssize_t n, floating unused) noexcept nogil:
    """Whether rows are unrolled, at least their ends, where their exponentials are summed"""
    return SHORT < n <= BLOCK if begins_next else are_few(n, unused)


cdef inline vec[floating] load_for_max(const floating* x, Py_ssize_t left, bint size) noexcept nogil:
    """x, or |x|; less than any where nothing is left"""
    cdef floating zero = 0
    return absolute(load(x, left, zero)) if size else load(x, left, <floating> -INFINITY)


cdef inline vec[floating] block_max(const floating* x, Py_ssize_t n, bint size) noexcept nogil:
    """max x, or of `size` max |x|, NaN apart, lane by lane"""
    cdef Py_ssize_t i = 0, lanes = REGISTER // sizeof(floating)
    cdef floating low = 0 if size else -INFINITY
    cdef vec[floating] a = fill(low), b = a, c = a, d = a
    while i + 4 * lanes <= n:  # four chains: one would wait for itself
        a = larger(load_for_max(x + i, lanes, size), a)
        b = larger(load_for_max(x + i + lanes, lanes, size), b)
        c = larger(load_for_max(x + i + 2 * lanes, lanes, size), c)
        d = larger(load_for_max(x + i + 3 * lanes, lanes, size), d)
        i += 4 * lanes
    while i < n:
        a = larger(load_for_max(x + i, n - i, size), a)
        i += lanes
    return larger(larger(a, b), larger(c, d))


cdef inline floating row_nan(const floating* x, Py_ssize_t n) noexcept nogil:
    """NaN if one is in x, else 0"""
    cdef Py_ssize_t i
    for i in range(n):
        if x[i] != x[i]:
            return x[i]
    return 0


cdef inline void block_sum(
    const floating** x, floating** e, Py_ssize_t start, Py_ssize_t n, const Shared[floating]* shared, int row,
    int count, bint keep, How how, Which which, Sums[floating]* total
) noexcept nogil:
    """Sums of exp(x_i - max) lane by lane, of the block that begins with class `start` of `count` rows of n classes, of
    which the first is row `row` of its group; the terms go to e if they are kept, else e, unless NULL, is asked for.
    All rows in one call: the constants stay in registers."""
    cdef int r, vecs = exp_vecs
    cdef Py_ssize_t i, step = vecs * REGISTER // <Py_ssize_t> sizeof(floating), classes = min(n - start, BLOCK)
    cdef Py_ssize_t ahead = FAR // sizeof(floating)
    cdef bint many = classes >= many_vecs * REGISTER // <Py_ssize_t> sizeof(floating)
    cdef const floating* from_x
    cdef floating* to
    cdef Shared[floating] s
    cdef Sums[floating] a
    cdef Begun[floating] now, next
    if count * n * <Py_ssize_t> sizeof(floating) <= FOLLOWING:
        ahead = count * n  # as a rule the next group, which is read at once then, for its maxima
    for r in range(count):
        from_x = x[r] + start
        to = e[r] + start if e != NULL else <floating*> NULL
        s = of_row(shared[0], row + r)
        begin(a, n, which)
        begin_terms(next, from_x, classes, s, how, which)
        i = sum_alone(a, next, from_x, to, keep, 0, classes, s, how, which, many, ahead)
        while i < classes:
            now = next
            begin_terms(next, from_x + i + step, classes - i - step, s, how, which)
            collect_last(a, now, from_x + i, to + i, keep, classes - i, s, how, which, many)
            i += step
        finish(a, n, which, classes == BLOCK)
        total[r] = a


cdef inline void block_mend(floating* y, Py_ssize_t n, vec[floating] like) noexcept nogil:
    """One and the same NaN in the lanes that are NaN in `like`"""
    cdef Py_ssize_t i, lanes = REGISTER // sizeof(floating)
    cdef floating zero = 0
    for i from 0 <= i < n by lanes:
        store(y + i, one_nan(load(y + i, n - i, zero), like), n - i)


cdef inline void block_scale(
    floating** y, int count, Py_ssize_t start, Py_ssize_t n, const pair[floating]* r, bint tile
) noexcept nogil:
    """y_i = e_i r, r in two parts, for classes start .. start + n of `count` rows, row k having its r in lane k; or for
    the n numbers of a tile"""
    cdef int k
    cdef floating* to
    cdef Plain plain
    cdef All all_terms
    cdef pair[floating] own
    cdef Log[floating] log
    cdef Shared[floating] shared
    cdef Seam[floating]* seam = NULL
    for k in range(count):
        to = y[k] + start
        own = r[0] if tile else of_row(r[0], k)
        end_terms(to, to, to_line(to, n, False), n, own, log, shared, plain, all_terms, seam)
        if has_nan(own.hi):
            block_mend(to, n, own.hi)


cdef inline void block_log(
    const floating** x, floating** y, int count, Py_ssize_t start, Py_ssize_t n, const Shared[floating]* shared,
    const Log[floating]* log, How how, bint tile
) noexcept nogil:
    """y_i = x_i - log sum_j exp x_j, as block_scale"""
    cdef int k
    cdef floating* to
    cdef Others others
    cdef pair[floating] factor
    cdef Log[floating] own
    cdef Shared[floating] s
    cdef Seam[floating]* seam = NULL
    for k in range(count):
        to = y[k] + start
        s = shared[0] if tile else of_row(shared[0], k)
        own = log[0] if tile else of_row(log[0], k)
        end_terms(x[k] + start, to, to_line(to, n, False), n, factor, own, s, how, others, seam)
        if has_nan(own.hi):
            block_mend(to, n, own.hi)


cdef inline void block_stream(const floating* y, floating* out, Py_ssize_t n) noexcept nogil:
    """out_i = y_i past the caches, which an array larger than them would only empty"""
    cdef Py_ssize_t i = 0, lanes = REGISTER // sizeof(floating)
    cdef floating zero = 0
    while i < n and <uintptr_t> (out + i) % REGISTER:
        out[i] = y[i]
        i += 1
    while i + lanes <= n:
        stream(out + i, load(y + i, lanes, zero))
        i += lanes
    while i < n:
        out[i] = y[i]
        i += 1


# ---- a row as a whole: its blocks in order on this thread, or shared out; the same bits either way ----

cdef void team_max(const floating* x, Py_ssize_t n, bint size, const Team* team, vec[floating]* top) noexcept nogil:
    cdef Py_ssize_t k
    cdef vec[floating]* tops = <vec[floating]*> team.parts
    with parallel(num_threads=team.threads):
        for k in range(of_thread(team.blocks, 0), of_thread(team.blocks, 1)):
            team_block_max(x + k * BLOCK, min(n - k * BLOCK, BLOCK), size, tops + k)
    top[0] = tops[0]
    for k in range(1, team.blocks):
        top[0] = larger(top[0], tops[k])


cdef void team_block_max(const floating* x, Py_ssize_t n, bint size, vec[floating]* top) noexcept nogil:
    top[0] = block_max(x, n, True) if size else block_max(x, n, False)


cdef void team_sum(
    const floating** x, floating** e, Py_ssize_t n, const Shared[floating]* s, How how, Which which, const Team* team
) noexcept nogil:
    cdef Py_ssize_t k
    with parallel(num_threads=team.threads):
        for k in range(of_thread(team.blocks, 0), of_thread(team.blocks, 1)):
            team_block_sum(x, e, n, k, s, how, which, <Sums[floating]*> team.parts + k)


cdef void team_block_sum(
    const floating** x, floating** e, Py_ssize_t n, Py_ssize_t k, const Shared[floating]* s, How how, Which which,
    Sums[floating]* part
) noexcept nogil:
    cdef control state = enter()
    block_sum(x, e, k * BLOCK, n, s, 0, 1, Which is All, how, which, part)
    leave(state)


cdef void team_scale(floating** y, Py_ssize_t n, const pair[floating]* r, const Team* team) noexcept nogil:
    cdef Py_ssize_t k
    with parallel(num_threads=team.threads):
        for k in range(of_thread(team.blocks, 0), of_thread(team.blocks, 1)):
            team_block_scale(y, k * BLOCK, min(n - k * BLOCK, BLOCK), r)


cdef void team_block_scale(
    floating** y, Py_ssize_t start, Py_ssize_t n, const pair[floating]* r
) noexcept nogil:
    cdef control state = enter()
    block_scale(y, 1, start, n, r, False)
    leave(state)


cdef void team_log(
    const floating** x, floating** y, Py_ssize_t n, const Shared[floating]* s, const Log[floating]* log, How how,
    const Team* team
) noexcept nogil:
    cdef Py_ssize_t k
    with parallel(num_threads=team.threads):
        for k in range(of_thread(team.blocks, 0), of_thread(team.blocks, 1)):
            team_block_log(x, y, k * BLOCK, min(n - k * BLOCK, BLOCK), s, log, how)


cdef void team_block_log(
    const floating** x, floating** y, Py_ssize_t start, Py_ssize_t n, const Shared[floating]* s,
    const Log[floating]* log, How how
) noexcept nogil:
    cdef control state = enter()
    block_log(x, y, 1, start, n, s, log, how, False)
    leave(state)


cdef inline void rows_max(
    const floating** x, int count, Py_ssize_t n, bint size, const Team* team, vec[floating]* tops
) noexcept nogil:
    """Of each row of a group the maximum, of `size` that of |x|, NaN apart, lane by lane"""
    cdef int r
    cdef floating zero = 0
    if team != NULL:
        team_max(x[0], n, size, team, tops)
    elif are_few(n, zero):
        few_maxima(x, count, n, size, tops)
    else:
        for r in range(count):
            tops[r] = block_max(x[r], n, size)


cdef inline void rows_sum(
    const floating** x, floating** e, int count, Py_ssize_t n, const Shared[floating]* s, How how, Which which,
    const Team* team, Sums[floating]* total
) noexcept nogil:
    """Of each row of a group the sums of its blocks, added in their order"""
    cdef Py_ssize_t k, start
    cdef int r
    cdef Sums[floating] part[16]
    cdef Sums[floating]* parts
    if team != NULL:
        team_sum(x, e, n, s, how, which, team)
        parts = <Sums[floating]*> team.parts
        total[0] = parts[0]
        for k in range(1, team.blocks):
            merge(total[0], parts[k])
        return
    block_sum(x, e, 0, n, s, 0, count, Which is All, how, which, total)
    for start from BLOCK <= start < n by BLOCK:
        block_sum(x, e, start, n, s, 0, count, Which is All, how, which, &part[0])
        for r in range(count):
            merge(total[r], part[r])


# ---- a group of rows: at most as many as a register has lanes ----

cdef inline void group_shift(
    const floating** x, int count, Py_ssize_t n, vec[floating] top, const Operation* op, How how, Shift[floating]* s
) noexcept nogil:
    """How the rows are shifted; their NaNs are looked for where the maximum is infinite"""
    cdef int r
    cdef floating low = -INFINITY
    cdef floating some[16]
    for r in range(16):
        some[r] = 0
    if any(equal(top, fill(low))) or any(equal(top, fill(-low))):
        for r in range(count):
            some[r] = row_nan(x[r], n)
    set_shift(s[0], top, load(some, REGISTER // sizeof(floating), low), op.factor, how)
    if op.kind != SOFTMAX:
        set_largest(s[0], how)


cdef inline void log_results(
    const floating** x, floating** y, int count, Py_ssize_t n, vec[floating] top, const Sums[floating]* sums,
    const Shift[floating]* s, const Operation* op, How how, const Team* team
) noexcept nogil:
    """log_softmax, or logsumexp to y[0], of the sums of Others"""
    cdef int r
    cdef Log[floating] log
    cdef vec[floating] values
    cdef floating some[16]
    if op.kind == LOGSUMEXP:
        values = log_sum_exp(log_of_sum(sums[0], s[0]), s[0], top)
        store(some, values, REGISTER // sizeof(floating))
        for r in range(count):
            y[r][0] = some[r]
        return
    log = log_shift(log_of_sum(sums[0], s[0]), s[0], <floating> op.empty)
    if team != NULL:
        team_log(x, y, n, &s.each, &log, how, team)
    else:
        block_log(x, y, count, 0, n, &s.each, &log, how, False)


cdef inline void apply_group(
    const floating** x, floating** y, int count, Py_ssize_t n, vec[floating] top, const Operation* op, How how,
    const Team* team
) noexcept nogil:
    """Rows from x to y (logsumexp: to y[0]); row r has its maximum in lane r of top"""
    cdef Shift[floating] s
    cdef Sums[floating] sums[16]
    cdef All all_terms
    cdef Others others
    cdef pair[floating] factor
    group_shift(x, count, n, top, op, how, &s)
    if op.kind != SOFTMAX:
        rows_sum(x, y if op.kind == LOG_SOFTMAX else <floating**> NULL, count, n, &s.each, how, others, team, &sums[0])
        fold(&sums[0], count, others)
        log_results(x, y, count, n, top, &sums[0], &s, op, how, team)
        return
    rows_sum(x, y, count, n, &s.each, how, all_terms, team, &sums[0])
    fold_sums(&sums[0], count, n, all_terms)
    factor = reciprocal(sums[0], s, <floating> op.empty)
    if team != NULL:
        team_scale(y, n, &factor, team)
    else:
        block_scale(y, count, 0, n, &factor, False)
