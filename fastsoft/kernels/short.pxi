# Derivatives and losses of short rows, by tiles: a row in each lane, as in tiles.pxi. These give what gradients.pxi
# gives, bit for bit, and only where nothing is out of the ordinary; else they give up, and gradients.pxi does the rows.
# As in apply_tiles, the tiles are `size` numbers apart and go step by step.

cdef enum:
    FEW_LABELS = 16  # classes up to which looking at all of them is faster than picking numbers


cdef inline bint goes_short(Kind kind) noexcept nogil:
    if kind == LABELS or kind == TARGETS:
        return True
    return kind == VJP or kind == LOG_VJP or kind == VJP_FROM_OUTPUT or kind == LOG_VJP_FROM_OUTPUT


cdef inline vec[floating] class_of(
    const floating* x, vec[floating] label, Py_ssize_t n
) noexcept nogil:
    """x at each row's label, at class 0 where that is none"""
    cdef Py_ssize_t j, r, lanes = REGISTER // sizeof(floating)
    cdef floating zero = 0, one = 1
    cdef floating[16] number
    cdef vec[floating] here = fill(zero), found = load(x, lanes, zero)
    if n > FEW_LABELS:
        store(number, label, lanes)
        for r in range(lanes):
            number[r] = x[<Py_ssize_t> max(number[r], 0) * lanes + r]
        return load(number, lanes, zero)
    for j in range(1, n):
        here = here + fill(one)
        found = choose(equal(label, here), load(x + j * lanes, lanes, zero), found)
    return found


cdef inline bint vjp_of_output_tiles(
    floating* y, const floating* v, Py_ssize_t n, Py_ssize_t size, int count
) noexcept nogil:
    """As apply_to_output, in place of y"""
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef int t
    cdef floating zero = 0
    cdef vec[floating] w, most = fill(zero), largest
    cdef Sums[floating] dots
    cdef pair[floating] mean[TILES]
    for t in range(count):
        sum_of_products(<const floating*> y + t * size, v + t * size, n, dots, largest)
        mean[t].hi, mean[t].lo = dots.hi, finite_part(dots.lo)
        most = larger(largest, most)
        if not all_moderate(most) or not all_finite(dots.hi):
            return False
    for t in range(count):
        for j from t * size <= j < t * size + n * lanes by lanes:
            w = turned_output(load(y + j, lanes, zero), load(v + j, lanes, zero), mean[t])
            store(y + j, w, lanes)
    return True


cdef inline bint log_vjp_of_output_tiles(
    floating* y, const floating* v, Py_ssize_t n, Py_ssize_t size, int count
) noexcept nogil:
    """As apply_to_output for logarithms, in place of y"""
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef int t
    cdef floating zero = 0
    cdef Shared[floating] shared = unshifted(zero)
    cdef vec[floating] e, w, largest, seen = fill(zero)
    cdef Sums[floating] total[TILES]
    cdef pair[floating] mean[TILES]
    cdef LogTurning[floating] turning
    for t in range(count):
        sum_of_runs(v + t * size, n, 1, total[t], largest)
        mean[t].hi, mean[t].lo = total[t].hi, finite_part(total[t].lo)
        if not all_moderate(largest) or not all_finite(total[t].hi) or any(too_small(mean[t])):
            return False
    for t in range(count):
        turning = log_turning(mean[t])
        for j from t * size <= j < t * size + n * lanes by lanes:
            e = exp_unshifted(load(y + j, lanes, zero), shared)
            w = log_turned(e, load(v + j, lanes, zero), turning)
            seen = seen + e
            store(y + j, w, lanes)
    return all_finite(seen)


cdef inline void find_dominant(
    const floating* x, const floating* v, Py_ssize_t n, vec[floating] top, vec[floating]* first,
    vec[floating]* middle, vec[floating]* largest
) noexcept nogil:
    """The first class of each row's maximum, v there, and max |v|"""
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef floating zero = 0, one = 1
    cdef vec[floating] here = fill(<floating> n), at = fill(zero), w = at, most = at, u
    for j in range(n - 1, -1, -1):
        u = load(v + j * lanes, lanes, zero)
        here = here - fill(one)
        w = choose(equal(load(x + j * lanes, lanes, zero), top), u, w)
        at = choose(equal(load(x + j * lanes, lanes, zero), top), here, at)
        most = larger(absolute(u), most)
    first[0], middle[0], largest[0] = at, w, most


cdef void tile_weighed(
    floating* x, const floating* v, Py_ssize_t n, const Shared[floating]* shared, Within how, vec[floating] scale,
    vec[floating] middle, const Ahead* ahead, Sums[floating]* total, Sums[floating]* dot
) noexcept nogil:
    """e = exp(x_j - max) in place of x; sums of e, and of e (v scale - middle), e before it is rounded"""
    cdef Py_ssize_t j = 0
    cdef Shared[floating] s = shared[0]
    cdef TileSums[floating] sums, dots
    cdef vec[floating] sum_hi, dot_hi
    begin_tile(sums, sum_hi, n)
    begin_tile(dots, dot_hi, n)
    while j < n:
        if ahead != NULL:
            fetch(ahead[0], j, exp_together)
        j += weigh_some_classes(sums, dots, sum_hi, dot_hi, x, v, j, n, s, how, scale, middle)
    total[0] = end_tile(sums, sum_hi, n)
    dot[0] = end_tile(dots, dot_hi, n)


cdef inline void others_of_tile(
    floating* x, bint keep, Py_ssize_t n, const Shared[floating]* shared, const Operation* op, const Ahead* ahead,
    Sums[floating]* total
) noexcept nogil:
    """tile_sum of the Others, as op.how asks for it"""
    cdef Plain plain
    cdef Scaled scaled
    cdef Others others
    if op.how == SCALED:
        tile_sum(x, keep, n, shared, op, scaled, others, ahead, total)
    else:
        tile_sum(x, keep, n, shared, op, plain, others, ahead, total)


cdef inline bint vjp_tiles(
    floating* x, const floating* v, Py_ssize_t n, Py_ssize_t size, int count, const Shift[floating]* s,
    const vec[floating]* top, const Operation* op, const Ahead* ahead
) noexcept nogil:
    """As apply_vjp, in place of x"""
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef int t
    cdef floating zero = 0, one = 1
    cdef Plain plain
    cdef Scaled scaled
    cdef vec[floating] unit, up, here, largest, beyond, w
    cdef vec[floating] first[TILES]
    cdef vec[floating] middle[TILES]
    cdef Sums[floating] sums[TILES]
    cdef Sums[floating] dots[TILES]
    cdef Vjp[floating] a[TILES]
    cdef floating* its_x
    cdef const floating* its_v
    cdef const Ahead* next_x
    for t in range(count):
        find_dominant(x + t * size, v + t * size, n, top[t], &first[t], &middle[t], &largest)
        if any(equal(product_scale(largest), fill(small_scale(one)))):
            return False
        unit = unit_scale(largest)
        up = power_of_two(fill(zero) - exponent(unit))
        middle[t] = middle[t] * unit
        its_x, its_v, next_x = x + t * size, v + t * size, of_tile(ahead, t)
        if op.how == SCALED:
            tile_weighed(its_x, its_v, n, &s[t].each, scaled, unit, middle[t], next_x, &sums[t], &dots[t])
        else:
            tile_weighed(its_x, its_v, n, &s[t].each, plain, unit, middle[t], next_x, &sums[t], &dots[t])
        dots[t] = scaled_by(dots[t], up)
        middle[t] = middle[t] * up  # as in apply_vjp what it had below the smallest number is lost
    beyond = fill(zero)
    for t in range(count):
        set_vjp(a[t], sums[t], dots[t], s[t], fill(one), middle[t], op.factor)
        beyond = beyond + (a[t].mean.hi + a[t].factor.hi)
    if not all_finite(beyond):
        return False
    for t in range(count):
        here = fill(zero)
        for j from t * size <= j < t * size + n * lanes by lanes:
            w = turned(load(x + j, lanes, zero), load(v + j, lanes, zero), one, a[t].mean, a[t].factor)
            store(x + j, choose(equal(first[t], here), a[t].dominant, w), lanes)
            here = here + fill(one)
    return True


cdef inline bint log_vjp_tiles(
    floating* x, const floating* v, Py_ssize_t n, Py_ssize_t size, int count, const Shift[floating]* s,
    const vec[floating]* top, const Operation* op, const Ahead* ahead
) noexcept nogil:
    """As apply_log_vjp, in place of x"""
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef int t
    cdef floating zero = 0, one = 1, up
    cdef vec[floating] here, largest, w, beyond = fill(zero)
    cdef vec[floating] first[TILES]
    cdef vec[floating] middle[TILES]
    cdef Sums[floating] sums[TILES]
    cdef Sums[floating] total[TILES]
    cdef LogVjp[floating] a[TILES]
    for t in range(count):
        find_dominant(x + t * size, v + t * size, n, top[t], &first[t], &middle[t], &largest)
        sum_of_runs(v + t * size, n, 1, total[t], largest)
        if not all_moderate(largest):
            return False
    for t in range(count):
        others_of_tile(x + t * size, True, n, &s[t].each, op, of_tile(ahead, t), &sums[t])
    for t in range(count):
        set_log_vjp(a[t], sums[t], total[t], s[t], middle[t], fill(one), op.factor)
        beyond = beyond + (a[t].factor.hi + a[t].minus.hi)
    if not all_finite(beyond):
        return False
    up = in_lane(a[0].up, 0)  # 1/T, of all rows
    for t in range(count):
        here = fill(zero)
        for j from t * size <= j < t * size + n * lanes by lanes:
            w = log_turned(load(x + j, lanes, zero), load(v + j, lanes, zero), a[t].factor, a[t].minus, up)
            store(x + j, choose(equal(first[t], here), a[t].dominant, w), lanes)
            here = here + fill(one)
    return True


cdef inline bint loss_tiles(
    floating* x, Py_ssize_t n, Py_ssize_t size, int rows, int count, const Shift[floating]* s, const Operation* op,
    Py_ssize_t row, bint gradient, const Ahead* ahead
) noexcept nogil:
    """As apply_loss, with labels: the losses of rows row .. row + rows, and the gradient, if wanted, in place of x"""
    cdef const double* weights = op.row_weights
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef int t
    cdef floating zero = 0, one = 1
    cdef Plain plain
    cdef Scaled by_factor
    cdef Sums[floating] sums[TILES]
    cdef pair[floating] log[TILES]
    cdef Loss[floating] a[TILES]
    cdef Label[floating] own[TILES]
    cdef vec[floating] label[TILES]
    cdef vec[floating] here, w, beyond = fill(zero), ignored = fill(-one)
    cdef pair[floating] factor
    for t in range(count):
        if weights != NULL:
            weights = op.row_weights + row + t * lanes
        take_labels(op.labels + row + t * lanes, weights, rows - t * lanes, n, label[t], own[t].weight)
        own[t].x = class_of(<const floating*> x + t * size, label[t], n)
    for t in range(count):
        others_of_tile(x + t * size, gradient, n, &s[t].each, op, of_tile(ahead, t), &sums[t])
    log_of_sums(&sums[0], s, count, &log[0])
    for t in range(count):
        own[t].e = class_of(<const floating*> x + t * size, label[t], n)
        if op.how == SCALED:
            set_label_loss(a[t], sums[t], log[t], s[t], own[t], op.scale, op.z_loss, op.factor, gradient, by_factor)
        else:
            set_label_loss(a[t], sums[t], log[t], s[t], own[t], op.scale, op.z_loss, op.factor, gradient, plain)
        beyond = beyond + (a[t].loss + a[t].factor.hi)
    if not all_finite(beyond):
        return False
    for t in range(count):
        w = choose(equal(label[t], ignored), fill(zero), a[t].loss)
        store(<floating*> op.loss + row + t * lanes, w, rows - t * lanes)
    for t in range(count if gradient else 0):
        here = fill(zero)
        factor.hi = drop(equal(label[t], ignored), a[t].factor.hi)
        factor.lo = drop(equal(label[t], ignored), a[t].factor.lo)
        for j from t * size <= j < t * size + n * lanes by lanes:
            w = scaled(load(x + j, lanes, zero), factor)
            store(x + j, choose(equal(label[t], here), a[t].special, w), lanes)
            here = here + fill(one)
    return True


cdef inline bint target_tiles(
    floating* x, const floating* v, Py_ssize_t n, Py_ssize_t size, int rows, int count, const Shift[floating]* s,
    const vec[floating]* top, const Operation* op, Py_ssize_t row, bint gradient, const Ahead* ahead
) noexcept nogil:
    """As apply_loss, with targets: the losses of rows row .. row + rows, and the gradient, if wanted, in place of x"""
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef int t
    cdef floating zero = 0, one = 1
    cdef Plain plain
    cdef Scaled scaled
    cdef Sums[floating] sums[TILES]
    cdef pair[floating] log[TILES]
    cdef Sums[floating] weights[TILES]
    cdef Sums[floating] shortfalls[TILES]
    cdef Loss[floating] a[TILES]
    cdef vec[floating] first[TILES]
    cdef vec[floating] middle[TILES]
    cdef vec[floating] here, label, w, largest, beyond = fill(zero)
    for t in range(count):
        first[t] = middle[t] = fill(zero)
        if gradient:
            find_dominant(x + t * size, v + t * size, n, top[t], &first[t], &middle[t], &largest)
        sum_of_runs(v + t * size, n, run_length, weights[t], largest)
        if op.how == SCALED:
            sum_of_shortfalls(<const floating*> x + t * size, v + t * size, n, s[t], scaled, shortfalls[t])
        else:
            sum_of_shortfalls(<const floating*> x + t * size, v + t * size, n, s[t], plain, shortfalls[t])
    for t in range(count):
        others_of_tile(x + t * size, True, n, &s[t].each, op, of_tile(ahead, t), &sums[t])
    log_of_sums(&sums[0], s, count, &log[0])
    for t in range(count):
        set_target_loss(
            a[t], sums[t], log[t], weights[t], shortfalls[t], s[t], middle[t], op.scale, op.z_loss, op.factor
        )
        beyond = beyond + (a[t].loss + a[t].factor.hi)
    if not all_finite(beyond):
        return False
    for t in range(count):
        here, label = fill(zero), fill(zero)
        if op.labels != NULL:
            take_labels(op.labels + row + t * lanes, NULL, rows - t * lanes, n, label, w)
        w = drop(equal(label, fill(-one)), a[t].loss)
        store(<floating*> op.loss + row + t * lanes, w, rows - t * lanes)
        for j from t * size <= j < (t * size + n * lanes if gradient else 0) by lanes:
            w = less_target(load(x + j, lanes, zero), load(v + j, lanes, zero), a[t].factor, in_lane(a[t].down, 0))
            w = choose(equal(first[t], here), a[t].special, w)
            store(x + j, drop(equal(label, fill(-one)), w), lanes)
            here = here + fill(one)
    return True


cdef inline bint apply_short_tiles(
    floating* x, const floating* v, Py_ssize_t n, Py_ssize_t size, int rows, const vec[floating]* top,
    const Operation* op, Py_ssize_t row, bint gradient, const Ahead* ahead
) noexcept nogil:
    """Rows row .. row + rows in at most TILES tiles, with maxima `top`, in place of x; false, and x is lost, where
    gradients.pxi has to do them"""
    cdef Plain plain
    cdef Scaled scaled
    cdef Shift[floating] s[TILES]
    cdef floating zero = 0
    cdef Py_ssize_t lanes = REGISTER // sizeof(floating)
    cdef int t, count = <int> ((rows + lanes - 1) // lanes)
    if op.kind == VJP_FROM_OUTPUT:
        return vjp_of_output_tiles(x, v, n, size, count)
    if op.kind == LOG_VJP_FROM_OUTPUT:
        return log_vjp_of_output_tiles(x, v, n, size, count)
    for t in range(count):
        if not all_finite(top[t]) or any(beyond_reach(top[t], <floating> op.factor.hi)):
            return False
    for t in range(count):
        if op.how == SCALED:
            set_shift(s[t], top[t], fill(zero), op.factor, scaled)
            set_largest(s[t], scaled)
        else:
            set_shift(s[t], top[t], fill(zero), op.factor, plain)
            set_largest(s[t], plain)
    if op.kind == VJP:
        return vjp_tiles(x, v, n, size, count, s, top, op, ahead)
    if op.kind == LOG_VJP:
        return log_vjp_tiles(x, v, n, size, count, s, top, op, ahead)
    if op.kind == TARGETS:
        return target_tiles(x, v, n, size, rows, count, s, top, op, row, gradient, ahead)
    return loss_tiles(x, n, size, rows, count, s, op, row, gradient, ahead)
