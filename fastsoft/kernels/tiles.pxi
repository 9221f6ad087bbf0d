# A tile: as many rows as a register has lanes, one in each lane; class j lies at tile + j * lanes.
# What a row gives here has the same bits as in rows.pxi, or long.pxi: the sums below keep the same order.

cdef inline vec[floating] tile_max(const floating* x, Py_ssize_t n) noexcept nogil:
    """max_j x_j, NaN apart"""
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef floating low = -INFINITY
    cdef vec[floating] a = fill(low)
    for j in range(n):
        a = larger(load(x + j * lanes, lanes, low), a)
    return a


cdef inline vec[floating] tile_nan(const floating* x, Py_ssize_t n) noexcept nogil:
    """NaN if one is among the x_j, else 0"""
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef floating zero = 0
    cdef vec[floating] a = fill(zero)
    for j in range(n):
        a = a + nan_of(load(x + j * lanes, lanes, zero))
    return a


cdef inline const Ahead* of_tile(const Ahead* ahead, int t) noexcept nogil:
    return ahead + t if ahead != NULL else ahead


cdef inline void tile_all(
    floating* x, Py_ssize_t n, const Shared[floating]* shared, How how, const Ahead* ahead, Sums[floating]* total
) noexcept nogil:
    """exp(x_j - max) in place of x, and their sum"""
    cdef Py_ssize_t j = 0
    cdef Shared[floating] s = shared[0]
    cdef TileSums[floating] a
    cdef vec[floating] sum
    begin_tile(a, sum, n)
    while j < n:
        if ahead != NULL:
            fetch(ahead[0], j, exp_together)
        j += tile_exp_some(a, sum, x, j, n, s, how)
    total[0] = end_tile(a, sum, n)


cdef inline void tile_others(
    floating* x, bint keep, Py_ssize_t n, const Shared[floating]* shared, How how, const Ahead* ahead,
    Sums[floating]* total
) noexcept nogil:
    """Sum of exp(x_j - max) of the Others; with `keep` all take the place of x"""
    cdef Py_ssize_t j = 0
    cdef vec[floating] buffer[TURNED]
    cdef floating* terms = <floating*> buffer
    cdef Shared[floating] s = shared[0]
    cdef Others others
    while j < n:
        if ahead != NULL:
            fetch(ahead[0], j, exp_together)
        j += tile_terms_some(<const floating*> x, terms, j, n, s, how, others)
    sum_of_others(<const floating*> terms, <const floating*> x, x if keep else <floating*> NULL, n, s, total[0])


cdef inline void tile_lanes(
    floating* x, bint keep, Py_ssize_t n, const Shared[floating]* shared, const Operation* op, How how, Which which,
    const Ahead* ahead, Sums[floating]* lane
) noexcept nogil:
    """Sum of exp(x_j - max), class j into lane j mod lanes, by blocks; with `keep` the terms take the place of x"""
    cdef Py_ssize_t i, j, start, stop, size = n, lanes = REGISTER // sizeof(floating)
    cdef bint apart = How is not Wide and is_long(op, n)  # the bits of long.pxi
    cdef Shared[floating] s = shared[0]
    cdef Sums[floating] block[16]
    cdef Block[floating] own
    for start from 0 <= start < n by BLOCK:
        stop = min(n, start + BLOCK)
        if apart:
            size = stop - start
            s = block_shift(own, tile_max(x + start * lanes, size), op.factor, how)
        for i in range(lanes):
            begin(block[i], size, which)
        for j from start <= j < stop by exp_together:
            if ahead != NULL:
                fetch(ahead[0], j, exp_together)
            tile_lanes_some(block, x, keep, j, n, s, how, which)
        for i in range(lanes):
            finish(block[i], size, which, stop - start == BLOCK)
            if apart:
                own.sums = block[i]
                if start == 0:
                    begin_runs(lane[i])
                add_block(lane[i], own, shared[0], Which is Others)
            elif start == 0:
                lane[i] = block[i]
            else:
                merge(lane[i], block[i])
        if apart and keep:
            lower(x + start * lanes, size * lanes, shift_of(own, shared[0]))


cdef inline void tile_sum(
    floating* x, bint keep, Py_ssize_t n, const Shared[floating]* shared, const Operation* op, How how, Which which,
    const Ahead* ahead, Sums[floating]* total
) noexcept nogil:
    """Sum of exp(x_j - max), with `keep` in place of x_j"""
    cdef Sums[floating] lane[16]
    if Which is All:
        if n <= few_classes:
            tile_all(x, n, shared, how, ahead, total)
            return
    elif n <= TURNED:
        tile_others(x, keep, n, shared, how, ahead, total)
        return
    tile_lanes(x, keep, n, shared, op, how, which, ahead, lane)
    fold_lanes(&lane[0], n, which)
    total[0] = lane[0]


cdef inline void tile_slopes(
    floating* e, floating* slopes, Py_ssize_t n, const Rest[floating]* q, const Shift[floating]* s, floating c
) noexcept nogil:
    """sigma in place of e, and c sigma (1 - sigma), which may take its place"""
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef floating zero = 0
    cdef vec[floating] v, y
    for j in range(n):
        v = load(e + j * lanes, lanes, zero)
        y = scaled(v, q.factor)
        store(e + j * lanes, one_nan(y, y), lanes)
        store(slopes + j * lanes, own_or_largest_slope(v, y, q[0], s[0]) * fill(c), lanes)


cdef inline void end_by_factor(
    floating* tile, Py_ssize_t size, const pair[floating]* factor, Ending[floating]* end
) noexcept nogil:
    """Of a tile in which a factor is NaN nothing is left to be multiplied"""
    if has_nan(factor.hi):
        block_scale(&tile, 1, 0, size, factor, True)
        set_ended(end[0], False)
    else:
        end_with(end[0], factor[0])


cdef inline void end_by_log(
    floating* tile, Py_ssize_t size, const Shift[floating]* s, const Log[floating]* log, How how, Ending[floating]* end
) noexcept nogil:
    """Nor where a logarithm is NaN, or logits are not taken as they came"""
    if How is Plain:
        if not has_nan(log.hi):
            end_with(end[0], log[0], s.each)
            return
    block_log(<const floating**> &tile, &tile, 1, 0, size, &s.each, log, how, True)
    set_ended(end[0], True)


cdef inline void apply_tiles(
    floating* x, Py_ssize_t n, Py_ssize_t size, int count, const vec[floating]* top, Ending[floating]* end,
    const Operation* op, How how, const Ahead* ahead
) noexcept nogil:
    """Tiles, `size` numbers apart, in place (logsumexp: into their class 0; softmax and log_softmax: still to be ended;
    Jacobian: sigma, and the diagonal TILES tiles further; the diagonal alone), step by step: what each waits for, the
    others fill"""
    cdef Py_ssize_t lanes = REGISTER // sizeof(floating)
    cdef Shift[floating] s[TILES]
    cdef Sums[floating] sums[TILES]
    cdef pair[floating] log[TILES]
    cdef pair[floating] factor
    cdef Log[floating] own
    cdef Rest[floating] q
    cdef All all_terms
    cdef Others others
    cdef floating low = -INFINITY, zero = 0
    cdef vec[floating] nan
    cdef floating* tile
    cdef int t
    for t in range(count):
        nan = fill(zero)
        if any(equal(top[t], fill(low))) or any(equal(top[t], fill(-low))):
            nan = tile_nan(x + t * size, n)
        set_shift(s[t], top[t], nan, op.factor, how)
        if op.kind != SOFTMAX:
            set_largest(s[t], how)
    if op.kind == SOFTMAX:
        for t in range(count):
            tile_sum(x + t * size, True, n, &s[t].each, op, how, all_terms, of_tile(ahead, t), &sums[t])
        for t in range(count):
            factor = reciprocal(sums[t], s[t], <floating> op.empty)
            if How is not Wide:
                if is_long(op, n):
                    round_factor(factor)
            end_by_factor(x + t * size, n * lanes, &factor, end + t)
        return
    for t in range(count):
        tile_sum(x + t * size, op.kind >= JACOBIAN, n, &s[t].each, op, how, others, of_tile(ahead, t), &sums[t])
    if op.kind >= JACOBIAN:
        for t in range(count):
            q = rest(sums[t], s[t])
            tile = x + (t if op.kind == DIAGONAL else TILES + t) * size
            tile_slopes(x + t * size, tile, n, &q, &s[t], <floating> op.scale)
        return
    log_of_sums(&sums[0], &s[0], count, &log[0])
    for t in range(count):
        tile = x + t * size
        if op.kind == LOG_SOFTMAX:
            own = log_shift(log[t], s[t], <floating> op.empty)
            end_by_log(tile, n * lanes, &s[t], &own, how, end + t)
        else:
            store(tile, log_sum_exp(log[t], s[t], top[t]), lanes)


cdef inline void near_tiles(
    floating* x, Py_ssize_t n, Py_ssize_t size, int count, const vec[floating]* top, Ending[floating]* end,
    const Operation* op, const Ahead* ahead
) noexcept nogil:
    """apply_tiles where all rows are within reach"""
    cdef Plain plain
    cdef Scaled scaled
    if op.how == SCALED:
        apply_tiles(x, n, size, count, top, end, op, scaled, ahead)
    else:
        apply_tiles(x, n, size, count, top, end, op, plain, ahead)


cdef inline bint tiles(
    floating* x, Py_ssize_t n, int rows, const Operation* op, const Ahead* ahead, Ending[floating]* end
) noexcept nogil:
    """`rows` rows, in at most TILES tiles, in place as apply_tiles does; false, and nothing done, where they do not all
    ask for the same way"""
    cdef Wide wide
    cdef Py_ssize_t lanes = REGISTER // sizeof(floating), size = n * lanes
    cdef vec[floating] top[TILES]
    cdef int t, beyond = 0, count = <int> ((rows + lanes - 1) // lanes)
    for t in range(count):
        top[t] = tile_max(x + t * size, n)
    for t in range(count):
        beyond += lanes_of(beyond_reach(top[t], <floating> op.factor.hi))
    if op.how == WIDE or beyond == rows:
        apply_tiles(x, n, size, count, top, end, op, wide, NULL)
    elif beyond > 0:
        return False
    else:
        near_tiles(x, n, size, count, top, end, op, ahead)
    return True
