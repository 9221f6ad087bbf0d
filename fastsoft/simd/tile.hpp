// Tiles: rows side by side, a row in each lane, class j at tile + j * lanes. How rows get there and back, and their sums.
#pragma once
#include "math.hpp"

namespace fastsoft { namespace {

// Class k of rows[i] into lane i of the vec at tile + k * lanes, for the first `left` classes, at most all lanes; and
// back, of the first `count` rows, times r if that is not null. The squares stay in registers, hence the loops unrolled.
template <class T, class S> APART void rows_to_square(const S* const* rows, ptrdiff_t left, T* tile) {
    const int lanes = vec<T>::lanes;
    vec<T> a[lanes];
    if (left >= lanes) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes; i++) a[i] = load(rows[i], (ptrdiff_t)lanes, T(0));
    } else {
#pragma GCC unroll 16
        for (int i = 0; i < lanes; i++) a[i] = load(rows[i], left, T(0));
    }
    transpose(a);
#pragma GCC unroll 16
    for (int k = 0; k < lanes; k++)
        if (k < left) store(tile + k * lanes, a[k], (ptrdiff_t)lanes);
}
template <class T> INLINE vec<T> load_times(const T* p, const pair<T>* r) {
    const vec<T> v = load(p, (ptrdiff_t)vec<T>::lanes, T(0));
    return r ? scaled(v, *r) : v;
}
template <class T, class S> APART void square_to_rows(const T* tile, ptrdiff_t left, S* const* rows, int count, const pair<T>* r = nullptr) {
    const int lanes = vec<T>::lanes;
    vec<T> a[lanes];
#pragma GCC unroll 16
    for (int k = 0; k < lanes; k++) a[k] = k < left ? load_times(tile + k * lanes, r) : fill(T(0));
    transpose(a);
    if (left >= lanes) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes; i++)
            if (i < count) store(rows[i], a[i], (ptrdiff_t)lanes);
    } else {
#pragma GCC unroll 16
        for (int i = 0; i < lanes; i++)
            if (i < count) store(rows[i], a[i], left);
    }
}

// Rows that lie evenly apart, in place of an array of pointers to them.
template <class S> struct Even {
    char* first;
    ptrdiff_t apart;
    INLINE S* operator[](ptrdiff_t r) const { return (S*)(first + r * apart); }
    INLINE Even operator+(ptrdiff_t r) const { return {first + r * apart, apart}; }
};

// Rows of n classes into a tile, and back, of the first `count` rows, times r if that is not null: Rows are as many
// pointers as a vec has lanes, or Even. Where an instruction set `turns` parts of 16 bytes within a register:
//   load_parts   part p from class j on of rows[p * as many classes as a part holds], and store_parts back
//   turn_parts   the squares of as many registers, each within its part
// and where the last classes do not fill a part, some go twice.
template <class T> constexpr int in_part = 16 / sizeof(T);
template <class T, class S, class Rows> APART void to_tile(Rows rows, ptrdiff_t n, T* tile) {
    const int lanes = vec<T>::lanes, width = vec<T>::width, some = in_part<T>;
    const S* at[lanes];
    if constexpr (turns && std::is_same<S, T>::value) {
        if (n >= some) {
            for (ptrdiff_t start = 0; start < n; start += some) {
                const ptrdiff_t j = start + some <= n ? start : n - some;
                for (int i = 0; i < lanes; i += width) {
                    typename isa<T>::reg a[some];
                    for (int k = 0; k < some; k++) a[k] = load_parts(rows + i + k, j, T());
                    turn_parts(a);
                    for (int k = 0; k < some; k++) store(tile + (j + k) * lanes + i, a[k]);
                }
            }
            return;
        }
    }
    for (ptrdiff_t j = 0; j < n; j += lanes) {
        for (int i = 0; i < lanes; i++) at[i] = rows[i] + j;
        rows_to_square(at, n - j, tile + j * lanes);
    }
}
template <class T, class S, class Rows> APART void from_tile(const T* tile, ptrdiff_t n, Rows rows, int count, const pair<T>* r) {
    const int lanes = vec<T>::lanes, width = vec<T>::width, some = in_part<T>;
    S* at[lanes];
    if constexpr (turns && std::is_same<S, T>::value) {
        if (n >= some && count == lanes) {
            for (ptrdiff_t start = 0; start < n; start += some) {
                const ptrdiff_t j = start + some <= n ? start : n - some;
                vec<T> v[some];
                for (int k = 0; k < some; k++) v[k] = load_times(tile + (j + k) * lanes, r);
                for (int i = 0; i < lanes / width; i++) {
                    typename isa<T>::reg a[some];
                    for (int k = 0; k < some; k++) a[k] = v[k].r[i];
                    turn_parts(a);
                    for (int k = 0; k < some; k++) store_parts(rows + i * width + k, j, a[k]);
                }
            }
            return;
        }
    }
    for (ptrdiff_t j = 0; j < n; j += lanes) {
        for (int i = 0; i < count; i++) at[i] = rows[i] + j;
        square_to_rows(tile + j * lanes, n - j, at, count, r);
    }
}

// Lines of memory that are due next, as many of the argument and of the result as a tile has classes, to be fetched while
// it is computed: not in a burst, which would hold up what is read now. Inlined in any case: for the optimizer a function
// that only prefetches does nothing.
struct Ahead {
    const char* x;
    ptrdiff_t x_step;
    char* out;
    ptrdiff_t out_step;
    bool far;  // not into the nearest cache
};
INLINE void fetch(const Ahead& a, ptrdiff_t j, int count) {
    for (ptrdiff_t k = j; k < j + count; k++) {
        if (a.far) {
            prefetch_far(a.x + k * a.x_step, 1);
            prefetch_far(a.out + k * a.out_step, 1);
        } else {
            prefetch(a.x + k * a.x_step);
            prefetch_to_write(a.out + k * a.out_step, 1);
        }
    }
}

// The terms of a tile of n classes, in tiles one after the other.
template <class T, class Which> INLINE Term<T> load_term(const T* terms, ptrdiff_t j, ptrdiff_t n, Which) {
    const int lanes = vec<T>::lanes;
    const T* p = terms + j * lanes;
    const bool rests = has_rest<T, Which>;
    const vec<T> rest = rests ? load(p + 2 * n * lanes, lanes, T(0)) : fill(T(-0.0));
    return {load(p, lanes, T(0)), load(p + n * lanes, lanes, T(0)), rest};
}
template <class T, class Which, int U> INLINE void store_term(T* terms, const Term<T, U>& a, ptrdiff_t j, ptrdiff_t n, Which) {
    const ptrdiff_t lanes = vec<T>::lanes, all = vec<T, U>::lanes;
    T* p = terms + j * lanes;
    store(p, a.scale, all);
    store(p + n * lanes, a.p, all);
    if (has_rest<T, Which>) store(p + 2 * n * lanes, a.rest, all);
}
// The sum of those, of the logits in the tile at x; the exponentials go to e, which may be x, unless that is null. `i` and
// `step`: of the classes i, i + step, ... alone. The order is that of a row by itself: what one lane of it would add up,
// and then as `fold` does.
template <class T, class Which, int i = 0, int step = 1> struct TileSum {
    static INLINE void sum(const T* terms, const T* x, T* e, ptrdiff_t n, const Shared<T>& s, Which which, Sums<T>& a) {
        const int lanes = vec<T>::lanes;
        if constexpr (step < lanes) {
            TileSum<T, Which, i, 2 * step>::sum(terms, x, e, n, s, which, a);
            if (i + step < n) {
                Sums<T> b;
                TileSum<T, Which, i + step, 2 * step>::sum(terms, x, e, n, s, which, b);
                merge(a, b, which);
            }
        } else {
            begin(a, which);
            ptrdiff_t j = i;
            do {  // a test before the first class would cost short rows 3 %
                const Term<T> term = load_term(terms, j, n, which);
                // only Others ask for the logits
                const vec<T> own = std::is_same<Which, Others>::value ? load(x + j * lanes, lanes, T(0)) : term.p;
                if (e) store(e + j * lanes, value(term), lanes);
                collect(a, term, own, s, which);
                j += step;
            } while (j < n);
            finish(a, which, false);
        }
    }
};
template <class T, class Which>
APART void sum_of_tile(const T* terms, const T* x, T* e, ptrdiff_t n, const Shared<T>& s, Which which, Sums<T>& a) {
    TileSum<T, Which>::sum(terms, x, e, n, s, which, a);
}
}}  // namespace
