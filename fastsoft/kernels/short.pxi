# Derivatives and losses of short rows, by tiles: a row in each lane, as in tiles.pxi. These give what gradients.pxi
# gives, bit for bit, and only where nothing is out of the ordinary; else they give up, and gradients.pxi does the rows.

cdef inline bint goes_short(Kind kind) noexcept nogil:
    return kind == VJP or kind == LABELS or kind == VJP_FROM_OUTPUT


cdef inline bint tile_products(
    const floating* y, const floating* v, Py_ssize_t n, Sums[floating]* total
) noexcept nogil:
    """Sum of y v, in runs as in a row by itself; false where it asks for a scale"""
    cdef Py_ssize_t i, j, start, lanes = REGISTER // sizeof(floating), parts = min(n, lanes), step = run_length * lanes
    cdef floating zero = 0
    cdef vec[floating] run, w
    cdef Sums[floating] part[16]
    cdef All all_terms
    for i in range(parts):
        begin_runs(part[i])
        for start from i <= start < n by step:
            run = fill(zero)
            for j from start <= j < min(n, start + step) by lanes:
                w = load(v + j * lanes, lanes, zero)
                if not has_fma and not all_moderate(w):
                    return False
                add_products(run, load(y + j * lanes, lanes, zero), w)
            end_run(part[i], run)
        if not all_moderate(part[i].hi):
            return False
    fold_parts(part, parts, all_terms)
    total[0] = part[0]
    return True


cdef inline void tile_weighed(
    const floating* terms, const floating* v, Py_ssize_t n, vec[floating] scale, vec[floating] middle,
    Sums[floating]* total
) noexcept nogil:
    """Sum of e (v scale - middle); one run holds all that a lane of a row by itself has"""
    cdef Py_ssize_t i, j, lanes = REGISTER // sizeof(floating), parts = min(n, lanes)
    cdef floating zero = 0
    cdef pair[floating] run
    cdef Sums[floating] part[16]
    cdef All all_terms
    cdef Exact exact
    for i in range(parts):
        begin_run(run)
        for j from i <= j < n by lanes:
            add_weighed(run, load_term(terms, j, n, exact), weighed(load(v + j * lanes, lanes, zero), scale, middle))
        begin_runs(part[i])
        end_run(part[i], run)
    fold_parts(part, parts, all_terms)
    total[0] = part[0]


cdef inline bint tile_vjp(
    floating* x, const floating* v, Py_ssize_t n, const Shift[floating]* s, vec[floating] top, const Operation* op
) noexcept nogil:
    """As apply_vjp, in place of x"""
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef floating zero = 0, one = 1
    cdef vec[floating] buffer[3 * SHORT]
    cdef floating* terms = <floating*> buffer
    cdef vec[floating] u, w, first = fill(zero), middle = first, size = first
    cdef Plain plain
    cdef Exact exact
    cdef Sums[floating] sums, dots
    cdef Vjp[floating] a
    for j in range(n - 1, -1, -1):
        w, u = load(x + j * lanes, lanes, zero), load(v + j * lanes, lanes, zero)
        middle = choose(equal(w, top), u, middle)
        first = choose(equal(w, top), fill(<floating> j), first)
        size = larger(absolute(u), size)
    if any(equal(product_scale(size), fill(small_scale(one)))):
        return False
    u = unit_scale(size)
    middle = middle * u
    tile_terms(x, terms, n, &s.each, plain, exact, NULL)
    tile_weighed(terms, v, n, u, middle, &dots)
    sum_of_tile(<const floating*> terms, <const floating*> x, x, n, s.each, exact, sums)
    u = fill(one) / u
    set_vjp(a, sums, scaled_by(dots, u), s[0], fill(one), middle * u, op.factor)
    if not all_finite(a.mean.hi + a.factor.hi):
        return False
    for j in range(n):
        w = turned(load(x + j * lanes, lanes, zero), load(v + j * lanes, lanes, zero), one, a.mean, a.factor)
        store(x + j * lanes, choose(equal(first, fill(<floating> j)), a.dominant, w), lanes)
    return True


cdef inline bint tile_vjp_from_output(floating* y, const floating* v, Py_ssize_t n) noexcept nogil:
    """As apply_to_output, in place of y"""
    cdef Py_ssize_t j, lanes = REGISTER // sizeof(floating)
    cdef floating zero = 0
    cdef vec[floating] w
    cdef Sums[floating] dots
    cdef pair[floating] mean
    if not tile_products(y, v, n, &dots) or not all_finite(dots.hi):
        return False
    mean.hi, mean.lo = dots.hi, finite_part(dots.lo)
    for j in range(n):
        w = turned_output(load(y + j * lanes, lanes, zero), load(v + j * lanes, lanes, zero), mean)
        store(y + j * lanes, w, lanes)
    return True


cdef inline bint tile_loss(
    floating* x, Py_ssize_t n, int count, const Shift[floating]* s, const Operation* op, Py_ssize_t first
) noexcept nogil:
    """As apply_loss, with labels: the losses of rows first .. first + count, and the gradient in place of x"""
    cdef Py_ssize_t j, label_at, lanes = REGISTER // sizeof(floating)
    cdef floating zero = 0
    cdef int r
    cdef Plain plain
    cdef Others others
    cdef Sums[floating] sums
    cdef Loss[floating] a
    cdef Label[floating] label
    cdef floating[16] logit, e, weight
    cdef floating* loss = <floating*> op.loss
    for r in range(lanes):
        j = max(label_of(op, first + r, n), 0) if r < count else 0
        logit[r] = x[j * lanes + r]
        weight[r] = <floating> op.row_weights[first + r] if r < count and op.row_weights != NULL else 1
    tile_sum(x, True, n, &s.each, plain, others, NULL, &sums)
    for r in range(lanes):
        j = max(label_of(op, first + r, n), 0) if r < count else 0
        e[r] = x[j * lanes + r]
    label.x, label.e, label.weight = load(logit, lanes, zero), load(e, lanes, zero), load(weight, lanes, zero)
    set_label_loss(a, sums, s[0], label, op.scale, op.z_loss, op.factor, plain)
    if not all_finite(a.loss + a.factor.hi):
        return False
    for j in range(n):
        store(x + j * lanes, scaled(load(x + j * lanes, lanes, zero), a.factor), lanes)
    for r in range(count):
        label_at = label_of(op, first + r, n)
        if label_at < 0:  # ignored
            loss[first + r] = 0
            for j in range(n):
                x[j * lanes + r] = 0
        else:
            loss[first + r] = in_lane(a.loss, r)
            x[label_at * lanes + r] = in_lane(a.special, r)
    return True


cdef inline bint short_tile(
    floating* x, const floating* v, Py_ssize_t n, int count, const Operation* op, Py_ssize_t first
) noexcept nogil:
    """Rows first .. first + count in a tile, in place of x; false, and x is lost, where gradients.pxi has to do them"""
    cdef Plain plain
    cdef Shift[floating] s
    cdef floating zero = 0
    cdef vec[floating] top
    if op.kind == VJP_FROM_OUTPUT:
        return tile_vjp_from_output(x, v, n)
    top = tile_max(x, n)
    if not all_finite(top) or any(beyond_reach(top, <floating> op.factor.hi)):
        return False
    set_shift(s, top, fill(zero), op.factor, plain)
    set_largest(s, plain)
    if op.kind == VJP:
        return tile_vjp(x, v, n, &s, top, op)
    return tile_loss(x, n, count, &s, op, first)
