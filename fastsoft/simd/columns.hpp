// Derivatives of columns, a row in each lane, straight from and to memory, class by class for some vecs of columns side by
// side. The bits are those of kernels/gradients.pxi. Each function gives false, and has written nothing, where that has to
// do them.
#pragma once
#include "narrow.hpp"

namespace fastsoft { namespace {

const int column_vecs = 16;  // side by side, at most

// Calls each(t, i, left) for the vecs of `columns` columns from column `first` on: as Together does, but the last one, of
// which a part may be there, apart. What each class asks for is little here, and so faster by an eighth.
template <class T, class Each> INLINE void each_column_vec(ptrdiff_t first, ptrdiff_t columns, Each each) {
    const ptrdiff_t lanes = vec<T>::lanes;
    ptrdiff_t t = 0;
    for (; (t + 1) * lanes <= columns; t++) each(t, first + t * lanes, lanes);
    if (t * lanes < columns) each(t, first + t * lanes, columns - t * lanes);
}
// Sums over n classes of some columns, as a row by itself has them: class j in lane j mod lanes, and then as `fold` does.
template <class T> struct ColumnSums {
    ptrdiff_t n, first, columns;
    pair<T> lane[vec<T>::lanes][column_vecs];
    pair<T> sum[column_vecs];  // of which only hi may be infinite, or NaN

    INLINE ColumnSums(ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns) : n(n), first(first), columns(columns) {}
    // Adds runs of `length` classes of a lane, one or two: term(j, i, left, run) adds class j of the columns from i on to one.
    template <int length, class Term> INLINE void add(Term term) {
        const ptrdiff_t lanes = vec<T>::lanes;
        for (ptrdiff_t start = 0; start < n; start += length * lanes)
            for (ptrdiff_t k = 0; k < lanes && start + k < n; k++) {
                const ptrdiff_t j = start + k;
                const bool two = length > 1 && j + lanes < n;
                each_column_vec<T>(first, columns, [&](ptrdiff_t t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
                    vec<T> run = term(j, i, left, fill(T(0)));
                    if (two) run = term(j + lanes, i, left, run);
                    const pair<T> all = start ? two_sum(lane[k][t].hi, run) : pair<T>{run, fill(T(0))};
                    lane[k][t] = {all.hi, start ? lane[k][t].lo + all.lo : all.lo};
                });
            }
    }
    // The sums; false where one of them, or a part, is too large for what follows.
    INLINE bool fold() {
        const ptrdiff_t lanes = vec<T>::lanes;
        vec<T> most = fill(T(0));
        each_column_vec<T>(first, columns, [&](ptrdiff_t t, ptrdiff_t, ptrdiff_t) INLINE_LAMBDA {
            for (ptrdiff_t k = 0; k < lanes && k < n; k++) most = larger(absolute(lane[k][t].hi), most);
            for (ptrdiff_t step = lanes / 2; step > 0; step /= 2)
                for (ptrdiff_t k = 0; k < step && k + step < n; k++) merge_values(lane[k][t], lane[k + step][t]);
            sum[t] = {lane[0][t].hi, finite_part(lane[0][t].lo)};
            most = most + (sum[t].hi - sum[t].hi);
        });
        return all_moderate(most);
    }
    // z = value(j, t, i, left), past the caches where a whole vec, which then begins with a line, is written.
    template <class Value> INLINE void put(const Columns<T>& z, bool past, Value value) const {
        for (ptrdiff_t j = 0; j < n; j++)
            each_column_vec<T>(first, columns, [&](ptrdiff_t t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
                const vec<T> own = value(j, t, i, left);
                if (past && left == vec<T>::lanes) stream(z.at(j, i), own);
                else store(z.at(j, i), own, left);
            });
    }
};

// As apply_to_output, of columns first .. first + columns, at most column_vecs.
template <class T>
APART bool vjp_of_output_columns(Columns<T> y, Columns<T> v, Columns<T> z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool past) {
    ColumnSums<T> a(n, first, columns);
    vec<T> most = fill(T(0));
    a.template add<run_length>([&](ptrdiff_t j, ptrdiff_t i, ptrdiff_t left, vec<T> run) INLINE_LAMBDA {
        const vec<T> w = load(v.at(j, i), left, T(0));
        if (!has_fma) most = larger(absolute(w), most);
        return mul_add(load(y.at(j, i), left, T(0)), w, run);
    });
    if (!a.fold() || !all_moderate(most)) return false;
    a.put(z, past, [&](ptrdiff_t j, ptrdiff_t t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
        return turned_output(load(y.at(j, i), left, T(0)), load(v.at(j, i), left, T(0)), a.sum[t]);
    });
    return true;
}
template <class T>
APART bool log_vjp_of_output_columns(Columns<T> y, Columns<T> v, Columns<T> z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool past) {
    const T most = 64;  // of y, which is below 0 in all that is of use
    const Shared<T> shared = unshifted(T(0));
    ColumnSums<T> a(n, first, columns);
    vec<T> beyond = fill(T(0));  // how many y
    pair<T> factor[column_vecs], minus[column_vecs];
    a.template add<1>([&](ptrdiff_t j, ptrdiff_t i, ptrdiff_t left, vec<T> run) INLINE_LAMBDA {
        beyond = beyond + keep(not_below(load(y.at(j, i), left, T(0)), fill(most)), fill(T(1)));
        return run + load(v.at(j, i), left, T(0));
    });
    if (!a.fold() || any(not_below(beyond, fill(T(1))))) return false;
    each_column_vec<T>(first, columns, [&](ptrdiff_t t, ptrdiff_t, ptrdiff_t) INLINE_LAMBDA {
        factor[t] = unshifted_unit(T(0));
        minus[t] = {fill(T(0)) - a.sum[t].hi, fill(T(0)) - a.sum[t].lo};
        balance(factor[t], minus[t], fill(T(1)));
    });
    a.put(z, past, [&](ptrdiff_t j, ptrdiff_t t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
        const vec<T> e = exp_unshifted(load(y.at(j, i), left, T(0)), shared);
        return log_turned(e, load(v.at(j, i), left, T(0)), factor[t], minus[t], T(1));
    });
    return true;
}

}}  // namespace
