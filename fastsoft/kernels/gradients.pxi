# Derivatives and losses: rows, contiguous and in their work type. A pass goes once over the rows of a group, by blocks,
# all in one call; what is horizontal, or done once a row, is done for the group together, as in rows.pxi.

cdef enum What:
    WEIGH  # y = e = exp(x - max); sums of e, and of e (v scale - middle), e before it is rounded
    PRODUCT  # sum of x v
    DOT  # sum of x (v scale - middle)
    EXP  # y = e; sums of the Others
    EXP_SUM  # sums of the Others
    TOTAL  # sum of v scale
    TARGET  # sums of v, and of v (z_max - z)
    LOG_TARGET  # sum of v log x
    LOG_TURN_OUTPUT  # y = v - e^x mean, or v + e^x factor minus; sum of e^x, as it comes, to see whether all are finite
    TURN  # y = x (v scale - mean) factor
    TURN_OUTPUT  # y = x (v - mean)
    CENTRE  # y = v - mean
    LOG_TURN  # y = v middle + x factor minus
    SLOPE  # y = x factor - v middle
    SCALE  # y = y factor
    TIMES  # y = x scale
    DIAGONAL_OF  # y = sigma (1 - sigma) middle, sigma = x factor
    TARGET_SLOPE  # y = -v / x


cdef inline void block_weigh(
    const Pass[floating]* p, Py_ssize_t start, Py_ssize_t stop, How how, Sums[floating]* sums, Sums[floating]* dots
) noexcept nogil:
    """WEIGH"""
    cdef floating zero = 0, scale, middle
    cdef Exact exact
    cdef Py_ssize_t i, end, lanes = REGISTER // sizeof(floating), step = exp_vecs * lanes
    cdef Py_ssize_t ahead = (p.last - p.first) * p.n  # the next group, as in block_sum
    cdef int r
    cdef const floating* x
    cdef const floating* v
    cdef floating* y
    cdef Shared[floating] s
    cdef Sums[floating] a, d
    cdef pair[floating] run
    cdef Begun[floating] terms, next_terms
    if How is Plain:
        if are_few(p.n, zero):
            few_weighed(p[0], how, sums, dots)
            return
    for r in range(p.first, p.last):
        x, v, y, scale, middle = p.x[r], p.v[r], p.y[r], p.scale[r], p.middle[r]
        s = of_row(p.shared[0], r)
        begin(a, p.n, exact)
        begin_runs(d)
        begin_terms(next_terms, x + start, stop - start, s, how, exact)
        i = start
        while i < stop:
            end = min(stop, i + weighed_run * lanes)
            begin_run(run)
            i = weigh_steps(a, run, next_terms, x, v, y, i, end, stop, s, how, scale, middle, ahead)
            while i < end:
                terms = next_terms
                begin_terms(next_terms, x + i + step, stop - i - step, s, how, exact)
                weigh_last(a, run, terms, x + i, v + i, y + i, stop - i, s, how, scale, middle)
                i += step
            end_run(d, run)
        finish(a, p.n, exact, stop - start == BLOCK)
        sums[r] = a
        dots[r] = d


cdef inline void block_total(
    const Pass[floating]* p, Py_ssize_t start, Py_ssize_t stop, Sums[floating]* dots
) noexcept nogil:
    """TOTAL: nothing bounds v, so that each is added without loss"""
    cdef Py_ssize_t i, step = together * REGISTER // sizeof(floating), ahead = (p.last - p.first) * p.n
    cdef int r
    cdef floating zero = 0, scale
    cdef const floating* v
    cdef Sums[floating] a
    for r in range(p.first, p.last):
        v, scale = p.v[r], p.scale[r]
        begin_runs(a)
        i = start
        while i + step <= stop:
            prefetch(v + i + ahead, together)
            add_exactly(a, multiplied(load_bunch(v + i, step, zero), scale))
            i += step
        if i < stop:
            add_exactly(a, multiplied(load_bunch(v + i, stop - i, zero), scale))
        dots[r] = a


cdef inline void block_log_turn_output(
    const Pass[floating]* p, Py_ssize_t start, Py_ssize_t stop, Sums[floating]* sums
) noexcept nogil:
    """LOG_TURN_OUTPUT"""
    cdef Sums[floating] a
    cdef Py_ssize_t left, i, step = together * REGISTER // sizeof(floating), near = NEAR // sizeof(floating)
    cdef int r
    cdef Plain plain
    cdef Others others
    cdef const floating* x
    cdef const floating* v
    cdef floating* y
    cdef floating low = -INFINITY, zero = 0, one = 1
    cdef Shared[floating] s = of_row(p.shared[0], 0)
    cdef pair[floating] factor, minus
    cdef LogTurning[floating] turning
    cdef bunch[floating] e, w
    cdef bint ordinary
    for r in range(p.first, p.last):
        x, v, y = p.x[r], p.v[r], p.y[r]
        factor, minus, turning = of_row(p.factor, r), of_row(p.minus, r), log_turning(of_row(p.mean, r))
        ordinary = p.scale[r] == 1 and not any(too_small(of_row(p.mean, r)))
        begin_runs(a)
        i = start
        while i < stop:
            left = stop - i if i + step > stop else step
            if i + near < stop:
                prefetch_to_write(y + i + near, together)
            e = value(shifted_term(load_bunch(x + i, left, low), s, plain, others))
            add_terms(a.hi, e)
            w = load_bunch(v + i, left, zero)
            if ordinary:
                w = log_turned(e, w, turning)
            else:
                w = log_turned(e, w, factor, minus, one)
            store(y + i, w, left)
            i += step
        sums[r] = a


cdef inline void add_to_run(
    const floating* x, const floating* v, Runs what, Py_ssize_t left, floating scale, floating middle,
    vec[floating]* run
) noexcept nogil:
    """A bunch, of which `left` lanes are there"""
    cdef floating zero = 0, one = 1
    cdef bunch[floating] w = load_bunch(v, left, zero)
    if Runs is Product:
        add_products(run[0], load_bunch(x, left, zero), w)
    elif Runs is Dot:
        add_products(run[0], load_bunch(x, left, zero), weighed(w, scale, middle))
    else:
        add_terms(run[0], target_log(load_bunch(x, left, one), w))


cdef inline void block_runs(
    const Pass[floating]* p, Runs what, Py_ssize_t start, Py_ssize_t stop, Sums[floating]* dots
) noexcept nogil:
    """The other passes that give sums, but for those of exp"""
    cdef Py_ssize_t i, k, lanes = REGISTER // sizeof(floating), step = together * lanes, near = NEAR // sizeof(floating)
    cdef int r
    cdef const floating* x
    cdef const floating* v
    cdef floating zero = 0, scale, middle
    cdef Sums[floating] d
    cdef vec[floating] run
    for r in range(p.first, p.last):
        x, v, scale, middle = p.x[r], p.v[r], p.scale[r], p.middle[r]
        begin_runs(d)
        for i from start <= i < stop by run_length * lanes:
            run = fill(zero)
            if i + run_length * lanes <= stop:
                if Runs is Product:  # little else to do meanwhile
                    prefetch(x + i + near, run_length)
                    prefetch(v + i + near, run_length)
                for k from i <= k < i + run_length * lanes by step:
                    add_to_run(x + k, v + k, what, step, scale, middle, &run)
            else:
                for k from i <= k < stop by step:
                    add_to_run(x + k, v + k, what, stop - k, scale, middle, &run)
            end_run(d, run)
        dots[r] = d


cdef inline void block_map(const Pass[floating]* p, Map what, Py_ssize_t start, Py_ssize_t stop) noexcept nogil:
    """The passes that give y"""
    cdef floating zero = 0
    if Map is Turn:
        if are_few(p.n, zero):
            few_mapped(p[0], what)
            return
    map_rows(p[0], what, start, stop)


cdef inline void block_pass(
    const Pass[floating]* p, Py_ssize_t k, How how, Sums[floating]* sums, Sums[floating]* dots
) noexcept nogil:
    """Block k of each row"""
    cdef Py_ssize_t start = k * BLOCK, stop = min(p.n, start + BLOCK), n = stop - start
    cdef int first = p.first, count = p.last - p.first
    cdef Others others
    cdef Product product
    cdef Dot dot
    cdef LogTarget log_target
    cdef Turn turn
    cdef TurnOutput turn_output
    cdef Centre centre
    cdef LogTurn log_turn
    cdef Slope slope
    cdef Times times
    cdef DiagonalOf diagonal_of
    cdef TargetSlope target_slope
    if p.what == WEIGH:
        block_weigh(p, start, stop, how, sums, dots)
    elif p.what == EXP:
        block_sum(p.x + first, p.y + first, start, p.n, p.shared, first, count, True, how, others, sums + first)
    elif p.what == EXP_SUM:
        block_sum(p.x + first, NULL, start, p.n, p.shared, first, count, False, how, others, sums + first)
    elif p.what == PRODUCT:
        block_runs(p, product, start, stop, dots)
    elif p.what == DOT:
        block_runs(p, dot, start, stop, dots)
    elif p.what == TOTAL:
        block_total(p, start, stop, dots)
    elif p.what == TARGET:
        target_sums(p[0], how, start, stop, sums, dots)
    elif p.what == LOG_TARGET:
        block_runs(p, log_target, start, stop, dots)
    elif p.what == LOG_TURN_OUTPUT:
        block_log_turn_output(p, start, stop, sums)
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
        block_scale(p.y, p.last, start, n, &p.factor, False)
    elif p.what == TIMES:
        block_map(p, times, start, stop)
    elif p.what == DIAGONAL_OF:
        block_map(p, diagonal_of, start, stop)
    else:
        block_map(p, target_slope, start, stop)


cdef void team_pass(const Pass[floating]* p, How how, const Team* team) noexcept nogil:
    cdef Py_ssize_t k
    with parallel(num_threads=team.threads):
        for k in range(of_thread(team.blocks, 0), of_thread(team.blocks, 1)):
            team_block_pass(p, k, how, <Sums[floating]*> team.parts)


cdef void team_block_pass(const Pass[floating]* p, Py_ssize_t k, How how, Sums[floating]* parts) noexcept nogil:
    cdef control state = enter()
    block_pass(p, k, how, parts + 2 * k, parts + 2 * k + 1)
    leave(state)


cdef inline void rows_pass(Pass[floating]* p, int what, How how, const Team* team) noexcept nogil:
    """Rows p.first .. p.last of a group: their blocks in order on this thread, or, of the one row, shared out; the same
    bits either way"""
    cdef Py_ssize_t k
    cdef int r
    cdef Sums[floating] sums[16]
    cdef Sums[floating] dots[16]
    cdef Sums[floating]* parts
    p.what = what
    if team != NULL:
        team_pass(p, how, team)
        parts = <Sums[floating]*> team.parts
        if what < TURN:
            p.sums[0] = parts[0]
            p.dots[0] = parts[1]
            for k in range(1, team.blocks):
                merge(p.sums[0], parts[2 * k])
                merge(p.dots[0], parts[2 * k + 1])
        return
    block_pass(p, 0, how, p.sums, p.dots)
    for k in range(1, blocks_in(p.n)):
        block_pass(p, k, how, sums, dots)
        for r in range(p.first, p.last if what < TURN else p.first):
            merge(p.sums[r], sums[r])
            merge(p.dots[r], dots[r])


# ---- a group of rows ----

cdef inline Py_ssize_t row_find(const floating* x, Py_ssize_t n, floating top) noexcept nogil:
    """The first class of the maximum; 0 where there is none for NaN"""
    cdef Py_ssize_t i, lanes = REGISTER // sizeof(floating)
    cdef mask[floating] found
    for i from 0 <= i < n by lanes:
        found = equal(load(x + i, n - i, top - top), fill(top))  # where the row ends, 0 comes after all classes
        if any(found):
            return i + first_lane(found)
    return 0


cdef inline void begin_pass(
    Pass[floating]* p, const floating** x, const floating** v, floating** y, int count, Py_ssize_t n,
    const Shift[floating]* s
) noexcept nogil:
    """Passes over all rows of a group, each v taken as it is"""
    cdef int r
    p.x, p.v, p.y, p.first, p.last, p.n = x, v, y, 0, count, n
    p.shift = s
    if s != NULL:
        p.shared = &s.each
    for r in range(16):
        p.scale[r] = 1
        p.middle[r] = 0


cdef inline void row_pass(Pass[floating]* p, int r, int what, How how, const Team* team) noexcept nogil:
    """Of a group row r alone"""
    cdef int count = p.last
    p.first, p.last = r, r + 1
    rows_pass(p, what, how, team)
    p.first, p.last = 0, count


cdef inline void rows_total(Pass[floating]* p, int what, const Team* team) noexcept nogil:
    """PRODUCT or TOTAL of each row as it is; where that asks for a scale, again with one"""
    cdef int r
    cdef Plain plain
    rows_pass(p, what, plain, team)
    for r in range(p.last):
        if not all_moderate(p.dots[r].hi):
            p.scale[r] = small_scale(p.scale[r])
            row_pass(p, r, DOT if what == PRODUCT else what, plain, team)


cdef inline void rows_tidy(Pass[floating]* p, vec[floating] finite) noexcept nogil:
    """NaN, in rows where `finite` is not"""
    cdef int r
    if not all_finite(finite):
        for r in range(p.last):
            if not is_finite(in_lane(finite, r)):
                tidy(p.y[r], p.n)


cdef inline void rows_finish(
    Pass[floating]* p, const Operation* op, How how, const Team* team, vec[floating] finite
) noexcept nogil:
    """What is left of 1/T; and rows_tidy"""
    cdef int r
    if op.factor.g != 1:
        p.x = <const floating**> p.y
        for r in range(p.last):
            p.scale[r] = <floating> op.factor.g
        rows_pass(p, TIMES, how, team)
    rows_tidy(p, finite)


cdef inline void apply_vjp(
    const floating** x, const floating** v, floating** y, int count, Py_ssize_t n, vec[floating] top,
    const Shift[floating]* s, const Operation* op, How how, const Team* team
) noexcept nogil:
    """z_i = sigma_i (v_i - v.sigma) / T, or v_i - v.sigma"""
    cdef All all_terms
    cdef int r
    cdef Pass[floating] p
    cdef Vjp[floating] a
    cdef vec[floating] unit, scale, down
    cdef vec[floating] sizes[16]
    cdef floating zero = 0, one = 1
    cdef Py_ssize_t at[16]
    begin_pass(&p, x, v, y, count, n, s)
    rows_max(v, count, n, True, team, &sizes[0])
    fold(&sizes[0], count)
    unit = unit_scale(sizes[0])
    store(p.scale, unit, REGISTER // sizeof(floating))
    for r in range(count):
        at[r] = row_find(x[r], n, in_lane(top, r))
        p.middle[r] = v[r][at[r]] * p.scale[r]
    rows_pass(&p, WEIGH, how, team)
    fold_sums(p.sums, count, n, all_terms)
    fold(p.dots, count, all_terms)
    scale = product_scale(sizes[0])
    down = scale / unit
    set_vjp(
        a, p.sums[0], scaled_by(p.dots[0], down), s[0], fill(one) / scale, load(p.middle, 16, zero) * down, op.factor
    )
    store(p.scale, scale, REGISTER // sizeof(floating))
    p.x = <const floating**> y
    p.mean, p.factor = a.mean, a.factor
    if op.kind == VJP_GAP:
        for r in range(count):
            p.middle[r] = 1 / p.scale[r]
    rows_pass(&p, TURN if op.kind == VJP else CENTRE, how, team)
    for r in range(count):
        y[r][at[r]] = in_lane(a.dominant if op.kind == VJP else a.gap, r)
    rows_finish(&p, op, how, team, a.mean.hi + a.factor.hi)


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
    cdef Sums[floating] totals[16]
    cdef Py_ssize_t at[16]
    begin_pass(&p, x, v, y, count, n, s)
    rows_total(&p, TOTAL, team)
    for r in range(count):
        totals[r] = p.dots[r]
        at[r] = row_find(x[r], n, in_lane(top, r))
        p.middle[r] = v[r][at[r]]
    rows_pass(&p, EXP, how, team)
    fold(p.sums, count, others)
    fold(&totals[0], count, all_terms)
    set_log_vjp(a, p.sums[0], totals[0], s[0], load(p.middle, 16, p.scale[0]), load(p.scale, 16, p.scale[0]), op.factor)
    p.x, p.factor, p.minus = <const floating**> y, a.factor, a.minus
    store(p.middle, a.up, REGISTER // sizeof(floating))
    rows_pass(&p, LOG_TURN, how, team)
    for r in range(count):
        y[r][at[r]] = in_lane(a.dominant, r)
    rows_finish(&p, op, how, team, a.factor.hi + a.minus.hi)


cdef inline void apply_jacobian(
    const floating** x, floating** y, int count, Py_ssize_t n, vec[floating] top, const Shift[floating]* s,
    const Operation* op, How how, const Team* team
) noexcept nogil:
    """sigma and then the diagonal, sigma_i (1 - sigma_i); or the diagonal alone, over T"""
    cdef Others others
    cdef int r
    cdef Pass[floating] p
    cdef Rest[floating] q
    cdef Py_ssize_t at[16]
    cdef floating* diagonal[16]
    begin_pass(&p, x, x, y, count, n, s)
    for r in range(count):
        at[r] = row_find(x[r], n, in_lane(top, r))
    rows_pass(&p, EXP, how, team)
    fold(p.sums, count, others)
    q = rest(p.sums[0], s[0])
    for r in range(count):
        p.middle[r] = <floating> op.scale
        diagonal[r] = y[r] + (n if op.kind == JACOBIAN else 0)
    p.x, p.y, p.factor = <const floating**> y, diagonal, q.factor
    rows_pass(&p, DIAGONAL_OF, how, team)
    for r in range(count):
        if in_lane(q.others.hi, r) < 0.5:  # one class has more than half: 1 - sigma cancels there, its others do not
            diagonal[r][at[r]] = in_lane(slope_of_largest(q, s[0]), r) * p.middle[r]
    if op.kind == DIAGONAL:
        rows_finish(&p, op, how, team, q.factor.hi)
        return
    p.y, p.n = y, n
    rows_pass(&p, SCALE, how, team)
    p.n = 2 * n
    rows_tidy(&p, q.factor.hi)


cdef void labels_of_group(
    const floating** x, int count, Py_ssize_t n, const Operation* op, Py_ssize_t first, Py_ssize_t* at,
    Label[floating]* label
) noexcept nogil:
    """The rows' classes, their logits and weights"""
    cdef int r
    cdef floating[16] logit, weight
    for r in range(16):
        logit[r], weight[r] = 0, 1
    for r in range(count):
        at[r] = max(label_of(op, first + r, n), 0)
        logit[r] = x[r][at[r]]
        if op.row_weights != NULL:
            weight[r] = <floating> op.row_weights[first + r]
    label.x, label.e, label.weight = load(logit, 16, logit[0]), fill(<floating> 0), load(weight, 16, weight[0])


cdef void store_losses(vec[floating] losses, int count, const Operation* op, Py_ssize_t first) noexcept nogil:
    cdef int r
    cdef floating* loss = <floating*> op.loss
    losses = one_nan(losses, losses)
    for r in range(count):
        loss[first + r] = 0 if ignored(op, first + r) else in_lane(losses, r)


cdef inline void apply_loss(
    const floating** x, const floating** v, floating** y, int count, Py_ssize_t n, vec[floating] top,
    const Shift[floating]* s, const Operation* op, Py_ssize_t first, How how, const Team* team
) noexcept nogil:
    """Cross-entropy of softmax with labels, or with targets v; and its gradient unless y[0] is NULL"""
    cdef All all_terms
    cdef Others others
    cdef int r
    cdef Pass[floating] p
    cdef pair[floating] log
    cdef Loss[floating] a
    cdef Label[floating] label
    cdef Sums[floating] weights[16]
    cdef Sums[floating] shortfalls[16]
    cdef Py_ssize_t at[16]
    cdef floating[16] e, weight
    cdef bint gradient = y[0] != NULL, dense = op.kind == TARGETS
    begin_pass(&p, x, v, y, count, n, s)
    for r in range(16):
        e[r], weight[r] = 0, 1
    if dense:
        for r in range(count if gradient else 0):
            at[r] = row_find(x[r], n, in_lane(top, r))
            weight[r] = v[r][at[r]]
        rows_pass(&p, TARGET, how, team)
        for r in range(count):
            weights[r], shortfalls[r] = p.sums[r], p.dots[r]
        fold(&weights[0], count, all_terms)
        fold(&shortfalls[0], count, all_terms)
    else:  # before exponentials take the place of logits
        labels_of_group(x, count, n, op, first, at, &label)
    rows_pass(&p, EXP if gradient else EXP_SUM, how, team)
    fold(p.sums, count, others)
    log = log_of_sum(p.sums[0], s[0])
    if dense:
        set_target_loss(
            a, p.sums[0], log, weights[0], shortfalls[0], s[0], load(weight, 16, weight[0]), op.scale, op.z_loss,
            op.factor
        )
    else:
        if gradient:
            for r in range(count):
                e[r] = y[r][at[r]]
            label.e = load(e, 16, e[0])
        set_label_loss(a, p.sums[0], log, s[0], label, op.scale, op.z_loss, op.factor, gradient, how)
    store_losses(a.loss, count, op, first)
    if gradient:
        p.x, p.factor = <const floating**> y, a.factor
        store(p.middle, a.down, REGISTER // sizeof(floating))
        rows_pass(&p, SLOPE if dense else SCALE, how, team)
        for r in range(count):
            y[r][at[r]] = in_lane(a.special, r)
        rows_finish(&p, op, how, team, a.factor.hi)
        for r in range(count):
            if ignored(op, first + r):
                memset(y[r], 0, n * sizeof(floating))


cdef inline Py_ssize_t label_of(const Operation* op, Py_ssize_t row, Py_ssize_t n) noexcept nogil:
    """A label, negative where it is ignored; never beyond its row, if another thread changes it after the check"""
    return min(op.labels[row], n - 1)


cdef inline bint ignored(const Operation* op, Py_ssize_t row) noexcept nogil:
    return op.labels != NULL and op.labels[row] < 0


# ---- what takes probabilities, or their logarithms, and no exp of anything else ----

cdef inline void turn_output(Pass[floating]* p, const Team* team) noexcept nogil:
    """z = y (v - mean)"""
    cdef int r
    cdef Plain plain
    cdef floating zero = 0, one = 1
    cdef floating up[16]
    cdef vec[floating] scale = load(p.scale, 16, one)
    if not any(equal(scale, fill(small_scale(one)))):
        rows_pass(p, TURN_OUTPUT, plain, team)
        return
    for r in range(16):
        up[r] = 1 / p.scale[r]
    p.factor.hi, p.factor.lo = load(up, 16, one), fill(zero)
    for r in range(p.last):
        row_pass(p, r, TURN_OUTPUT if p.scale[r] == 1 else TURN, plain, team)


cdef inline void turn_log_output(Pass[floating]* p, const Team* team) noexcept nogil:
    """z = v - e^y sum v"""
    cdef int r
    cdef Plain plain
    cdef floating zero = 0, one = 1
    cdef Shared[floating] shared = unshifted(zero)
    p.shared = &shared
    p.factor = unshifted_unit(zero)
    p.minus.hi, p.minus.lo = fill(zero) - p.mean.hi, fill(zero) - p.mean.lo
    balance(p.factor, p.minus, load(p.scale, 16, one))
    rows_pass(p, LOG_TURN_OUTPUT, plain, team)
    for r in range(p.last):
        if not all_finite(p.sums[r].hi):
            tidy(p.y[r], p.n)


cdef inline void apply_to_output(
    const floating** x, const floating** v, floating** y, int count, Py_ssize_t n, const Operation* op,
    Py_ssize_t first, const Team* team
) noexcept nogil:
    cdef All all_terms
    cdef int r
    cdef Plain plain
    cdef Pass[floating] p
    begin_pass(&p, x, v, y, count, n, <const Shift[floating]*> NULL)
    if op.kind == CROSS_ENTROPY_GRAD:
        rows_pass(&p, TARGET_SLOPE, plain, team)
        for r in range(count):
            tidy(y[r], n)
        return
    if op.kind == CROSS_ENTROPY:
        rows_pass(&p, LOG_TARGET, plain, team)
    else:
        rows_total(&p, PRODUCT if op.kind == VJP_FROM_OUTPUT else TOTAL, team)
    fold(p.dots, count, all_terms)
    p.mean.hi, p.mean.lo = p.dots[0].hi, finite_part(p.dots[0].lo)
    if op.kind == CROSS_ENTROPY:
        for r in range(count):
            (<floating*> op.loss)[first + r] = loss_of(in_lane(p.mean.hi, r), in_lane(p.mean.lo, r))
        return
    if op.kind == VJP_FROM_OUTPUT:
        turn_output(&p, team)
    else:
        turn_log_output(&p, team)
    rows_tidy(&p, p.mean.hi)


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
