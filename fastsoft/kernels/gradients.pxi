# Derivatives and losses: rows, contiguous and in their work type. A pass goes over a row once, by blocks; what is
# horizontal, or done once a row, is done for a group of rows together, as in rows.pxi.

cdef enum What:
    WEIGH  # y = e = exp(x - max); sums of e, and of e (v scale - middle)
    PRODUCT  # sum of x v
    DOT  # sum of x (v scale - middle)
    EXP  # y = e; sums of the Others
    EXP_SUM  # sums of the Others
    TOTAL  # sum of v scale
    TARGET  # sums of v, and of v (z_max - z)
    LOG_TARGET  # sum of v log x
    TURN  # y = x (v scale - mean) factor
    TURN_OUTPUT  # y = x (v - mean)
    CENTRE  # y = v - mean
    LOG_TURN  # y = v middle + x factor minus
    SLOPE  # y = x factor - v middle
    SCALE  # y = x factor
    TIMES  # y = x scale
    DIAGONAL_OF  # y = sigma (1 - sigma) middle, sigma = x factor
    TARGET_SLOPE  # y = -v / x


cdef inline void block_weigh(
    const Pass[floating]* p, Py_ssize_t start, Py_ssize_t stop, How how, Sums[floating]* sums, Sums[floating]* dots
) noexcept nogil:
    """WEIGH"""
    cdef Py_ssize_t i = start, end, lanes = REGISTER // sizeof(floating), step = together * lanes
    cdef floating low = -INFINITY, zero = 0, scale = p.scale, middle = p.middle
    cdef Shared[floating] s = of_row(p.shared[0], p.row)
    cdef All all_terms
    cdef Sums[floating] a, d
    cdef vec[floating] run
    cdef bunch[floating] v, e
    begin(a)
    begin_runs(d)
    while i < stop:
        end = min(stop, i + run_length * lanes)
        run = fill(zero)
        while i < end:
            v = load_bunch(p.x + i, stop - i, low)
            e = shifted_exp(v, s, how)
            prefetch_bunch_ahead(p.x + i + GROUP)
            prefetch_bunch_ahead(p.v + i + GROUP)
            store(p.y + i, e, stop - i)
            collect_in_turn(a, e, v, s, all_terms)
            add_products(run, e, weighed(load_bunch(p.v + i, stop - i, zero), scale, middle))
            i += step
        end_run(d, run)
    finish(a)
    sums[0] = a
    dots[0] = d


cdef inline void add_to_run(
    const Pass[floating]* p, Runs what, Py_ssize_t i, Py_ssize_t left, How how, vec[floating]* run,
    vec[floating]* weights, Sums[floating]* exact
) noexcept nogil:
    """A bunch, of which `left` lanes are there"""
    cdef floating zero = 0, one = 1
    cdef bunch[floating] v = load_bunch(p.v + i, left, zero)
    if Runs is Product:
        add_products(run[0], load_bunch(p.x + i, left, zero), v)
    elif Runs is Dot:
        add_products(run[0], load_bunch(p.x + i, left, zero), weighed(v, p.scale, p.middle))
    elif Runs is Total:
        add_exactly(exact[0], multiplied(v, p.scale))  # nothing bounds it
    elif Runs is Target:
        add_terms(weights[0], v)
        add_terms(run[0], shortfall(load_bunch(p.x + i, left, zero), v, p.shift[0], how))
    else:
        add_terms(run[0], target_log(load_bunch(p.x + i, left, one), v))


cdef inline void block_runs(
    const Pass[floating]* p, Runs what, Py_ssize_t start, Py_ssize_t stop, How how, Sums[floating]* sums,
    Sums[floating]* dots
) noexcept nogil:
    """The passes that give sums, but for those of exp"""
    cdef Py_ssize_t i = start, k, lanes = REGISTER // sizeof(floating), step = together * lanes
    cdef floating zero = 0
    cdef Sums[floating] a, d
    cdef vec[floating] run, weights
    begin_runs(a)
    begin_runs(d)
    while i < stop:
        run = fill(zero)
        weights = run
        if i + run_length * lanes <= stop:
            for k in range(run_length // together):
                add_to_run(p, what, i + k * step, step, how, &run, &weights, &d)
        else:
            for k from i <= k < stop by step:
                add_to_run(p, what, k, stop - k, how, &run, &weights, &d)
        i += run_length * lanes
        if Runs is not Total:
            end_run(d, run)
        if Runs is Target:
            end_run(a, weights)
    sums[0] = a
    dots[0] = d


cdef inline void block_map(
    const Pass[floating]* p, Map what, Py_ssize_t start, Py_ssize_t stop
) noexcept nogil:
    """The passes that give y"""
    cdef Py_ssize_t i, step = together * REGISTER // sizeof(floating)
    cdef const floating* from_x = p.x  # all of p by value: for the compiler a store to y might change it
    cdef const floating* from_v = p.v
    cdef floating* y = p.y
    cdef floating zero = 0, scale = p.scale, middle = p.middle
    cdef pair[floating] factor = in_all(p.factor), mean = in_all(p.mean), minus = in_all(p.minus)
    cdef bunch[floating] x
    for i from start <= i < stop by step:
        x = load_bunch(from_x + i, stop - i, zero)
        if Map is Turn:
            x = turned(x, load_bunch(from_v + i, stop - i, zero), scale, mean, factor)
        elif Map is TurnOutput:
            x = turned_output(x, load_bunch(from_v + i, stop - i, zero), mean)
        elif Map is Centre:
            x = centred(load_bunch(from_v + i, stop - i, zero), scale, middle, mean)
        elif Map is LogTurn:
            x = log_turned(x, load_bunch(from_v + i, stop - i, zero), factor, minus, middle)
        elif Map is Slope:
            x = less_target(x, load_bunch(from_v + i, stop - i, zero), factor, middle)
        elif Map is Scale:
            x = scaled(x, factor)
        elif Map is Times:
            x = multiplied(x, scale)
        elif Map is DiagonalOf:
            x = own_slope(scaled(x, factor), middle)
        else:
            x = target_slope(x, load_bunch(from_v + i, stop - i, zero))
        store(y + i, x, stop - i)


cdef inline void block_pass(
    const Pass[floating]* p, Py_ssize_t k, How how, Sums[floating]* sums, Sums[floating]* dots
) noexcept nogil:
    """Block k of a row"""
    cdef Py_ssize_t start = k * BLOCK, stop = min(p.n, start + BLOCK)
    cdef const floating* x = p.x
    cdef floating* y = p.y
    cdef Others others
    cdef Product product
    cdef Dot dot
    cdef Total total
    cdef Target target
    cdef LogTarget log_target
    cdef Turn turn
    cdef TurnOutput turn_output
    cdef Centre centre
    cdef LogTurn log_turn
    cdef Slope slope
    cdef Scale scale
    cdef Times times
    cdef DiagonalOf diagonal_of
    cdef TargetSlope target_slope
    if p.what == WEIGH:
        block_weigh(p, start, stop, how, sums, dots)
    elif p.what == EXP:
        block_sum(&x, &y, start, stop - start, p.shared, p.row, 1, True, how, others, sums)
    elif p.what == EXP_SUM:
        block_sum(&x, <floating**> NULL, start, stop - start, p.shared, p.row, 1, False, how, others, sums)
    elif p.what == PRODUCT:
        block_runs(p, product, start, stop, how, sums, dots)
    elif p.what == DOT:
        block_runs(p, dot, start, stop, how, sums, dots)
    elif p.what == TOTAL:
        block_runs(p, total, start, stop, how, sums, dots)
    elif p.what == TARGET:
        block_runs(p, target, start, stop, how, sums, dots)
    elif p.what == LOG_TARGET:
        block_runs(p, log_target, start, stop, how, sums, dots)
    elif p.what == TURN:
        block_map(p, turn, start, stop)
    elif p.what == TURN_OUTPUT:
        block_map(p, turn_output, start, stop)
    elif p.what == CENTRE:
        block_map(p, centre, start, stop)
    elif p.what == LOG_TURN:
        block_map(p, log_turn, start, stop)
    elif p.what == SLOPE:
        block_map(p, slope, start, stop)
    elif p.what == SCALE:
        block_map(p, scale, start, stop)
    elif p.what == TIMES:
        block_map(p, times, start, stop)
    elif p.what == DIAGONAL_OF:
        block_map(p, diagonal_of, start, stop)
    else:
        block_map(p, target_slope, start, stop)


cdef void team_pass(const Pass[floating]* p, How how, const Team* team) noexcept nogil:
    cdef Py_ssize_t k
    for k in prange(team.blocks, schedule="static", num_threads=team.threads):
        team_block_pass(p, k, how, <Sums[floating]*> team.parts)


cdef void team_block_pass(const Pass[floating]* p, Py_ssize_t k, How how, Sums[floating]* parts) noexcept nogil:
    cdef control state = enter()
    block_pass(p, k, how, parts + 2 * k, parts + 2 * k + 1)
    leave(state)


cdef inline void row_pass(Pass[floating]* p, int what, How how, const Team* team) noexcept nogil:
    """A whole row: its blocks in order on this thread, or shared out; the same bits either way"""
    cdef Py_ssize_t k
    cdef Sums[floating] sums, dots
    cdef Sums[floating]* parts
    p.what = what
    if team != NULL:
        team_pass(p, how, team)
        parts = <Sums[floating]*> team.parts
        if what < TURN:
            p.sums = parts[0]
            p.dots = parts[1]
            for k in range(1, team.blocks):
                merge(p.sums, parts[2 * k])
                merge(p.dots, parts[2 * k + 1])
        return
    block_pass(p, 0, how, &p.sums, &p.dots)
    for k in range(1, (p.n + BLOCK - 1) // BLOCK):
        block_pass(p, k, how, &sums, &dots)
        if what < TURN:
            merge(p.sums, sums)
            merge(p.dots, dots)


# ---- a group of rows ----

cdef inline Py_ssize_t row_find(const floating* x, Py_ssize_t n, floating top) noexcept nogil:
    """The first class of the maximum; 0 where there is none for NaN"""
    cdef Py_ssize_t i = 0, j, lanes = REGISTER // sizeof(floating)
    cdef vec[floating] wanted = fill(top)
    while i < n and not any(equal(load(x + i, n - i, top - top), wanted)):
        i += lanes
    for j in range(i, min(i + lanes, n)):
        if x[j] == top:
            return j
    return 0


cdef inline bint row_moderate(const floating* v, Py_ssize_t n) noexcept nogil:
    """Whether products of all v_i can be taken in two parts"""
    cdef Py_ssize_t i, lanes = REGISTER // sizeof(floating)
    cdef floating zero = 0
    for i from 0 <= i < n by lanes:
        if not all_moderate(load(v + i, n - i, zero)):
            return False
    return True


cdef inline void row_tidy(floating* y, Py_ssize_t n) noexcept nogil:
    """One and the same NaN for all: sign and payload would depend on the instruction set"""
    cdef Py_ssize_t i, lanes = REGISTER // sizeof(floating)
    cdef floating zero = 0
    cdef vec[floating] v
    for i from 0 <= i < n by lanes:
        v = load(y + i, n - i, zero)
        store(y + i, one_nan(v, v), n - i)


cdef inline void row_finish(
    Pass[floating]* p, const Operation* op, How how, const Team* team, bint tidy
) noexcept nogil:
    """What is left of 1/T; NaN"""
    if op.factor.g != 1:
        p.x, p.scale = p.y, <floating> op.factor.g
        row_pass(p, TIMES, how, team)
    if tidy:
        row_tidy(p.y, p.n)


cdef inline void apply_vjp(
    const floating** x, const floating** v, floating** y, int count, Py_ssize_t n, vec[floating] top,
    const Shift[floating]* s, const Operation* op, How how, const Team* team
) noexcept nogil:
    """z_i = sigma_i (v_i - v.sigma) / T, or v_i - v.sigma"""
    cdef All all_terms
    cdef int r
    cdef Pass[floating] p
    cdef Vjp[floating] a
    cdef Sums[floating] sums[16]
    cdef Sums[floating] dots[16]
    cdef Py_ssize_t at[16]
    cdef floating scale[16]
    cdef floating middle[16]
    for r in range(16):
        scale[r] = 1
        middle[r] = 0
    p.n = n
    for r in range(count):
        p.x, p.v, p.y = x[r], v[r], y[r]
        p.shared, p.row = &s.each, r
        at[r] = row_find(x[r], n, in_lane(top, r))
        middle[r] = v[r][at[r]]
        p.scale, p.middle = 1, middle[r]
        row_pass(&p, WEIGH, how, team)
        sums[r] = p.sums
        if not all_moderate(p.dots.hi) or not (has_fma or row_moderate(v[r], n)):
            scale[r] = small_scale(scale[r])
            middle[r] *= scale[r]
            p.x, p.scale, p.middle = y[r], scale[r], middle[r]
            row_pass(&p, DOT, how, team)
        dots[r] = p.dots
    fold(&sums[0], count, all_terms)
    fold(&dots[0], count, all_terms)
    set_vjp(a, sums[0], dots[0], s[0], load(scale, 16, scale[0]), load(middle, 16, scale[0]), op.factor)
    for r in range(count):
        p.x, p.v, p.y, p.scale = y[r], v[r], y[r], scale[r]
        p.mean, p.factor = in_lane(a.mean, r), in_lane(a.factor, r)
        if op.kind == VJP:
            row_pass(&p, TURN, how, team)
            y[r][at[r]] = in_lane(a.dominant, r)
        else:
            p.middle = 1 / scale[r]
            row_pass(&p, CENTRE, how, team)
            y[r][at[r]] = in_lane(a.gap, r)
        row_finish(&p, op, how, team, not is_finite(p.mean.hi + p.factor.hi))


cdef inline void apply_log_vjp(
    const floating** x, const floating** v, floating** y, int count, Py_ssize_t n, vec[floating] top,
    const Shift[floating]* s, const Operation* op, How how, const Team* team
) noexcept nogil:
    """z_i = (g_i - sigma_i sum g) / T"""
    cdef All all_terms
    cdef Others others
    cdef int r
    cdef Pass[floating] p
    cdef LogVjp[floating] a
    cdef Sums[floating] sums[16]
    cdef Sums[floating] totals[16]
    cdef Py_ssize_t at[16]
    cdef floating at_max[16]
    cdef floating scale[16]
    for r in range(16):
        at_max[r] = 0
        scale[r] = 1
    p.n = n
    for r in range(count):
        p.x, p.v, p.y = x[r], v[r], y[r]
        p.shared, p.row = &s.each, r
        at[r] = row_find(x[r], n, in_lane(top, r))
        at_max[r] = v[r][at[r]]
        p.scale = 1
        row_pass(&p, TOTAL, how, team)
        if not all_moderate(p.dots.hi):
            p.scale = scale[r] = small_scale(scale[r])
            row_pass(&p, TOTAL, how, team)
        totals[r] = p.dots
        row_pass(&p, EXP, how, team)
        sums[r] = p.sums
    fold(&sums[0], count, others)
    fold(&totals[0], count, all_terms)
    set_log_vjp(a, sums[0], totals[0], s[0], load(at_max, 16, at_max[0]), load(scale, 16, scale[0]), op.factor)
    for r in range(count):
        p.x, p.v, p.y, p.middle = y[r], v[r], y[r], in_lane(a.up, r)
        p.factor, p.minus = in_lane(a.factor, r), in_lane(a.minus, r)
        row_pass(&p, LOG_TURN, how, team)
        y[r][at[r]] = in_lane(a.dominant, r)
        row_finish(&p, op, how, team, not is_finite(p.factor.hi + p.minus.hi))


cdef inline void apply_jacobian(
    const floating** x, floating** y, int count, Py_ssize_t n, vec[floating] top, const Shift[floating]* s,
    const Operation* op, How how, const Team* team
) noexcept nogil:
    """sigma and then the diagonal, sigma_i (1 - sigma_i); or the diagonal alone, over T"""
    cdef Others others
    cdef int r
    cdef Pass[floating] p
    cdef Rest[floating] q
    cdef Sums[floating] sums[16]
    cdef Py_ssize_t at[16]
    cdef floating* diagonal
    p.n = n
    for r in range(count):
        at[r] = row_find(x[r], n, in_lane(top, r))
        p.x, p.y, p.shared, p.row = x[r], y[r], &s.each, r
        row_pass(&p, EXP, how, team)
        sums[r] = p.sums
    fold(&sums[0], count, others)
    q = rest(sums[0], s[0])
    for r in range(count):
        p.x, p.factor, p.middle = y[r], in_lane(q.factor, r), <floating> op.scale
        p.y = y[r] + (n if op.kind == JACOBIAN else 0)
        diagonal = p.y
        row_pass(&p, DIAGONAL_OF, how, team)
        if in_lane(q.others.hi, r) < 0.5:  # one class has more than half: 1 - sigma cancels there, its others do not
            diagonal[at[r]] = in_lane(slope_of_largest(q, s[0]), r) * p.middle
        if op.kind == DIAGONAL:
            row_finish(&p, op, how, team, not is_finite(p.factor.hi))
            continue
        p.y = y[r]
        row_pass(&p, SCALE, how, team)
        if not is_finite(p.factor.hi):
            row_tidy(y[r], 2 * n)


cdef inline void apply_loss(
    const floating** x, const floating** v, floating** y, int count, Py_ssize_t n, vec[floating] top,
    const Shift[floating]* s, const Operation* op, Py_ssize_t first, How how, const Team* team
) noexcept nogil:
    """Cross-entropy of softmax with labels, or with targets v; and its gradient unless y[0] is NULL"""
    cdef All all_terms
    cdef Others others
    cdef int r
    cdef Py_ssize_t i
    cdef Pass[floating] p
    cdef Loss[floating] a
    cdef Label[floating] label
    cdef Sums[floating] sums[16]
    cdef Sums[floating] weights[16]
    cdef Sums[floating] shortfalls[16]
    cdef Py_ssize_t at[16]
    cdef floating[16] logit, e, weight
    cdef floating* loss = <floating*> op.loss
    cdef bint gradient = y[0] != NULL, dense = op.kind == TARGETS
    cdef Shift[floating] own
    for r in range(16):
        logit[r] = e[r] = 0
        weight[r] = 1
    p.n = n
    for r in range(count):
        p.x, p.y, p.shared, p.row = x[r], y[r], &s.each, r
        if dense:
            own = of_row(s[0], r)
            p.v, p.shift = v[r], &own
            row_pass(&p, TARGET, how, team)
            weights[r], shortfalls[r] = p.sums, p.dots
            at[r] = row_find(x[r], n, in_lane(top, r))
            weight[r] = v[r][at[r]]
        else:
            at[r] = max(op.labels[first + r], 0)
            logit[r] = x[r][at[r]]
            if op.row_weights != NULL:
                weight[r] = <floating> op.row_weights[first + r]
        row_pass(&p, EXP if gradient else EXP_SUM, how, team)
        sums[r] = p.sums
        e[r] = y[r][at[r]] if gradient else 0
    fold(&sums[0], count, others)
    if dense:
        fold(&weights[0], count, all_terms)
        fold(&shortfalls[0], count, all_terms)
        set_target_loss(
            a, sums[0], weights[0], shortfalls[0], s[0], load(weight, 16, weight[0]), op.scale, op.z_loss, op.factor
        )
    else:
        label.x, label.e, label.weight = (
            load(logit, 16, logit[0]), load(e, 16, logit[0]), load(weight, 16, logit[0])
        )
        set_label_loss(a, sums[0], s[0], label, op.scale, op.z_loss, op.factor, how)
    a.loss = one_nan(a.loss, a.loss)
    for r in range(count):
        if op.labels != NULL and op.labels[first + r] < 0:  # ignored
            loss[first + r] = 0
            if gradient:
                for i in range(n):
                    y[r][i] = 0
            continue
        loss[first + r] = in_lane(a.loss, r)
        if gradient:
            p.x, p.v, p.y, p.middle = y[r], v[r], y[r], in_lane(a.down, r)
            p.factor = in_lane(a.factor, r)
            row_pass(&p, SLOPE if dense else SCALE, how, team)
            y[r][at[r]] = in_lane(a.special, r)
            row_finish(&p, op, how, team, not is_finite(p.factor.hi))


cdef inline void output_sums(
    Pass[floating]* p, const floating** x, const floating** v, int count, const Operation* op, const Team* team,
    Means[floating]* a
) noexcept nogil:
    """The sums of the rows, and of v what keeps them from overflow"""
    cdef All all_terms
    cdef int r, what = PRODUCT if op.kind == VJP_FROM_OUTPUT else LOG_TARGET if op.kind == CROSS_ENTROPY else TOTAL
    cdef Plain plain
    cdef Sums[floating] sums[16]
    for r in range(count):
        p.x, p.v, p.scale, p.middle = x[r], v[r], 1, 0
        row_pass(p, what, plain, team)
        if op.kind != CROSS_ENTROPY and not all_moderate(p.dots.hi):
            p.scale = small_scale(p.scale)
            row_pass(p, DOT if what == PRODUCT else TOTAL, plain, team)
        a.scale[r] = p.scale
        sums[r] = p.dots
    fold(&sums[0], count, all_terms)
    for r in range(count):
        a.hi[r], a.lo[r] = in_lane(sums[0].hi, r), in_lane(finite_part(sums[0].lo), r)


cdef inline void output_row(
    Pass[floating]* p, const Operation* op, const Team* team, floating hi, floating lo
) noexcept nogil:
    """y of a row whose sum is hi + lo"""
    cdef Plain plain
    cdef floating zero = 0, one = 1
    cdef floating* y = p.y
    cdef Shared[floating] shared
    cdef pair[floating] factor, minus
    p.mean.hi, p.mean.lo = hi, lo
    if op.kind == VJP_FROM_OUTPUT and p.scale == 1:
        row_pass(p, TURN_OUTPUT, plain, team)
    elif op.kind == VJP_FROM_OUTPUT:
        p.factor.hi, p.factor.lo = one / p.scale, zero
        row_pass(p, TURN, plain, team)
    else:
        shared = unshifted(zero)
        p.shared, p.row = &shared, 0
        row_pass(p, EXP, plain, team)
        p.x = y
        factor.hi, factor.lo = fill(unshifted_unit(zero)), fill(zero)
        minus.hi, minus.lo = fill(-hi), fill(-lo)
        balance(factor, minus, fill(p.scale))
        p.factor, p.minus = in_lane(factor, 0), in_lane(minus, 0)
        p.middle = 1
        row_pass(p, LOG_TURN, plain, team)
    if hi - hi != 0 or (op.kind == LOG_VJP_FROM_OUTPUT and has_nan(p.sums.hi)):
        row_tidy(y, p.n)


cdef inline void apply_to_output(
    const floating** x, const floating** v, floating** y, int count, Py_ssize_t n, const Operation* op,
    Py_ssize_t first, const Team* team
) noexcept nogil:
    """What takes probabilities, or their logarithms, and no exp of anything else"""
    cdef int r
    cdef Plain plain
    cdef Pass[floating] p
    cdef Means[floating] a
    p.n = n
    if op.kind == CROSS_ENTROPY_GRAD:
        for r in range(count):
            p.x, p.v, p.y = x[r], v[r], y[r]
            row_pass(&p, TARGET_SLOPE, plain, team)
            row_tidy(y[r], n)
        return
    output_sums(&p, x, v, count, op, team, &a)
    for r in range(count):
        if op.kind == CROSS_ENTROPY:
            (<floating*> op.loss)[first + r] = loss_of(a.hi[r], a.lo[r])
            continue
        p.x, p.v, p.y, p.scale = x[r], v[r], y[r], a.scale[r]
        output_row(&p, op, team, a.hi[r], a.lo[r])


cdef inline void apply_gradients(
    const floating** x, const floating** v, floating** y, int count, Py_ssize_t n, vec[floating] top,
    const Operation* op, Py_ssize_t first, How how, const Team* team
) noexcept nogil:
    """Rows from x and v to y; row r, number first + r of the batch, has its maximum in lane r of top"""
    cdef Shift[floating] s
    group_shift(x, count, n, top, op, how, &s)
    if op.kind == VJP or op.kind == VJP_GAP:
        apply_vjp(x, v, y, count, n, top, &s, op, how, team)
    elif op.kind == LOG_VJP:
        apply_log_vjp(x, v, y, count, n, top, &s, op, how, team)
    elif op.kind == JACOBIAN or op.kind == DIAGONAL:
        apply_jacobian(x, y, count, n, top, &s, op, how, team)
    else:
        apply_loss(x, v, y, count, n, top, &s, op, first, how, team)
