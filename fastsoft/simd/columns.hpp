// Derivatives of columns, a row in each lane, straight from and to memory, class by class for some vecs of columns side by
// side. The bits are those of kernels/gradients.pxi. Each function gives false, and has written nothing, where that has to
// do them.
#pragma once
#include "narrow.hpp"

namespace fastsoft { namespace {

const int column_vecs = 16;  // side by side, at most

// Calls each(t, i, left) for the vecs of `columns` columns from column `first` on.
template <class T, class Each> INLINE void each_column_vec(ptrdiff_t first, ptrdiff_t columns, Each each) {
    const ptrdiff_t lanes = vec<T>::lanes;
    ptrdiff_t t = 0;
    for (; (t + 1) * lanes <= columns; t++) each(t, first + t * lanes, lanes);
    if (t * lanes < columns) each(t, first + t * lanes, columns - t * lanes);
}
// Sums over classes as a row by itself has them: class j in lane j mod lanes, and then as `fold` does.
template <class T> struct LaneSums {
    pair<T> lane[vec<T>::lanes][column_vecs];
    INLINE pair<T> folded(ptrdiff_t t, ptrdiff_t n) {
        for (ptrdiff_t step = vec<T>::lanes / 2; step > 0; step /= 2)
            for (ptrdiff_t k = 0; k < step && k + step < n; k++) merge_values(lane[k][t], lane[k + step][t]);
        return lane[0][t];
    }
};
template <class T> INLINE void end_run(pair<T>& a, vec<T> run) {
    const pair<T> p = two_sum(a.hi, run);
    a = {p.hi, a.lo + p.lo};
}

// As apply_to_output: the products of a class and of that a register further on are a run. Columns first .. first + columns,
// at most column_vecs; `past` the caches where a whole vec, which then begins with a line, is written.
template <class T>
APART bool vjp_of_output_columns(Columns<T> y, Columns<T> v, Columns<T> z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool past) {
    const ptrdiff_t lanes = vec<T>::lanes;
    LaneSums<T> sums;
    pair<T> mean[column_vecs];
    vec<T> most = fill(T(0));
    const auto product = [&](ptrdiff_t j, ptrdiff_t i, ptrdiff_t left, vec<T> run) INLINE_LAMBDA {
        const vec<T> w = load(v.at(j, i), left, T(0));
        if (!has_fma) most = larger(absolute(w), most);
        return mul_add(load(y.at(j, i), left, T(0)), w, run);
    };
    for (ptrdiff_t j = 0; j < n; j += run_length * lanes)
        for (ptrdiff_t k = 0; k < lanes && j + k < n; k++) {
            const bool two = j + k + lanes < n;
            each_column_vec<T>(first, columns, [&](ptrdiff_t t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
                vec<T> run = product(j + k, i, left, fill(T(0)));
                if (two) run = product(j + k + lanes, i, left, run);
                if (j == 0) sums.lane[k][t] = {run, fill(T(0))};
                else end_run(sums.lane[k][t], run);
            });
        }
    each_column_vec<T>(first, columns, [&](ptrdiff_t t, ptrdiff_t, ptrdiff_t) INLINE_LAMBDA {
        for (ptrdiff_t k = 0; k < lanes && k < n; k++) most = larger(absolute(sums.lane[k][t].hi), most);
        mean[t] = sums.folded(t, n);
        most = most + (mean[t].hi - mean[t].hi);
        mean[t].lo = finite_part(mean[t].lo);
    });
    if (!all_moderate(most)) return false;
    for (ptrdiff_t j = 0; j < n; j++)
        each_column_vec<T>(first, columns, [&](ptrdiff_t t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
            const vec<T> own = turned_output(load(y.at(j, i), left, T(0)), load(v.at(j, i), left, T(0)), mean[t]);
            if (past && left == lanes) stream(z.at(j, i), own);
            else store(z.at(j, i), own, left);
        });
    return true;
}

}}  // namespace
