# A group of rows, at most as many as a register has lanes: how x enters exp, and the operation.

cdef inline void apply_kind(
    const floating** x, const floating** v, floating** y, int count, Py_ssize_t n, vec[floating] top,
    const Operation* op, Py_ssize_t first, How how, const Team* team
) noexcept nogil:
    if op.kind >= VJP:
        apply_gradients(x, v, y, count, n, top, op, first, how, team)
    else:
        apply_group(x, y, count, n, top, op, how, team)


cdef inline bint group(
    const floating** x, const floating** v, floating** y, int count, Py_ssize_t n, const Operation* op,
    Py_ssize_t first, const Team* team
) noexcept nogil:
    """Rows first .. first + count of the batch, the one row by a team unless that is NULL; false, and nothing done,
    where the rows do not all ask for the same way"""
    cdef Plain plain
    cdef Scaled scaled
    cdef Wide wide
    cdef vec[floating] tops[16]
    cdef int beyond
    if team != NULL:
        if is_long(op, n):
            if long_row(x[0], y[0], n, op, team):
                return True
            if team.threads == 1:
                team = NULL
    if op.kind >= VJP_FROM_OUTPUT:
        apply_to_output(x, v, y, count, n, op, first, team)
        return True
    rows_max(x, count, n, False, team, &tops[0])
    fold(&tops[0], count)
    beyond = lanes_of(beyond_reach(tops[0], <floating> op.factor.hi))
    if op.how == WIDE or beyond == <int> (REGISTER // sizeof(floating)):  # lanes beyond `count` repeat a row
        apply_kind(x, v, y, count, n, tops[0], op, first, wide, team)
    elif beyond > 0:
        return False
    elif op.how == SCALED:
        apply_kind(x, v, y, count, n, tops[0], op, first, scaled, team)
    else:
        apply_kind(x, v, y, count, n, tops[0], op, first, plain, team)
    return True


cdef inline void group_or_rows(
    const floating** x, const floating** v, floating** y, int count, Py_ssize_t n, const Operation* op,
    Py_ssize_t first, const Team* team
) noexcept nogil:
    """The same, and each row in its own way where they do not ask for the same"""
    cdef int r
    if not group(x, v, y, count, n, op, first, team):
        for r in range(count):
            group(x + r, v + r, y + r, 1, n, op, first + r, team)
