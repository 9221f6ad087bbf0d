// One row of at most few_classes classes, by itself and in one go: what a group of rows asks for besides its arithmetic
// would cost more than that. The bits are those of kernels/rows.pxi and kernels/gradients.pxi. Each function gives false,
// and has written nothing, where those have to do the row: it holds a NaN, or is out of the ordinary in another way.
#pragma once
#include "gradient.hpp"

namespace fastsoft { namespace {

template <class T> struct Lone {
    vec<T> top;
    Shift<T> shift;
    Sums<T> sums;
    alignas(64) T e[few_classes];  // the exponentials, and 0 up to the end of a vec
};
// Calls f(i, left) for each vec of the row, which begins with class i, and of which `left` classes are there.
template <class T, class F> INLINE void each_vec(ptrdiff_t n, F f) {
    const ptrdiff_t lanes = vec<T>::lanes;
    ptrdiff_t i = 0;
    if constexpr (vec<T>::regs > 2)  // half the code
        for (; i < n; i += lanes) f(i, n - i);
    else {
        for (; i + lanes < n; i += lanes) f(i, lanes);
        f(i, n - i);
    }
}
// The folds stand here and not in a call: for one row little is left of them.
template <class T, class Which> INLINE bool lone_sums(Lone<T>& a, const T* x, ptrdiff_t n, Which which) {
    const ptrdiff_t lanes = vec<T>::lanes;
    const bool all = std::is_same<Which, All>::value;
    const T low = -std::numeric_limits<T>::infinity();
    vec<T> top = fill(low);
    each_vec<T>(n, [&](ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA { top = larger(load(x + i, left, low), top); });
    a.top = top;
    Fold<lanes / 2, vec<T>>::rows(&a.top, 1);
    if (!all_finite(a.top) || any(beyond_reach(a.top, T(1)))) return false;
    set_shift(a.shift, a.top, fill(T(0)), Factor{1, 0, 1}, Plain());
    if (!all) set_largest(a.shift, Plain());
    Sums<T> sums;
    begin(sums, n, which);
    each_vec<T>(n, [&](ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
        const vec<T> v = load(x + i, left, low);
        const Term<T> e = shifted_term(v, a.shift.each, Plain(), which);
        store(a.e + i, value(e), lanes);
        collect(sums, e, v, a.shift.each, which);
    });
    finish(sums, n, which, false);
    Fold<lanes / 2, std::conditional_t<all, pair<T>, Sums<T>>, all>::rows(&sums, 1);
    a.sums = sums;
    return true;
}

template <class T> APART bool lone_others(Lone<T>& a, const T* x, ptrdiff_t n) { return lone_sums(a, x, n, Others()); }

template <class T> APART bool lone_softmax(const T* x, T* y, ptrdiff_t n) {
    const ptrdiff_t lanes = vec<T>::lanes;
    Lone<T> a;
    if (!lone_sums(a, x, n, All())) return false;
    const pair<T> factor = reciprocal(a.sums, a.shift, T(0));
    if (!all_finite(factor.hi)) return false;
    each_vec<T>(n, [&](ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
        store(y + i, scaled(load(a.e + i, lanes, T(0)), factor), left);
    });
    return true;
}
template <class T> APART bool lone_log_softmax(const T* x, T* y, ptrdiff_t n) {
    const ptrdiff_t lanes = vec<T>::lanes;
    Lone<T> a;
    if (!lone_others(a, x, n)) return false;
    const Log<T> log = log_shift(log_of_sum(a.sums, a.shift), a.shift, T(0));
    if (!all_finite(log.hi)) return false;
    each_vec<T>(n, [&](ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
        store(y + i, log_value(load(x + i, left, T(0)), log, a.shift.each, Plain()), left);
    });
    return true;
}
template <class T> APART bool lone_logsumexp(const T* x, T* y, ptrdiff_t n) {
    Lone<T> a;
    if (!lone_others(a, x, n)) return false;
    const vec<T> value = log_sum_exp(log_of_sum(a.sums, a.shift), a.shift, a.top);
    if (!all_finite(value)) return false;
    *y = in_lane(value, 0);
    return true;
}
// sigma, and then sigma (1 - sigma) times c (apply_jacobian)
template <class T> APART bool lone_jacobian(const T* x, T* y, ptrdiff_t n, T c) {
    const ptrdiff_t lanes = vec<T>::lanes;
    const T low = -std::numeric_limits<T>::infinity();
    Lone<T> a;
    if (!lone_others(a, x, n)) return false;
    const Rest<T> q = rest(a.sums, a.shift);
    if (!all_finite(q.factor.hi)) return false;
    ptrdiff_t largest = n;
    each_vec<T>(n, [&](ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
        const vec<T> sigma = scaled(load(a.e + i, lanes, T(0)), q.factor);
        const mask<T> found = equal(load(x + i, left, low), a.top);
        if (largest == n && any(found)) largest = i + first_lane(found);
        store(y + i, sigma, left);
        store(y + n + i, own_slope(sigma, c), left);
    });
    if (in_lane(q.others.hi, 0) < T(0.5)) y[n + largest] = in_lane(slope_of_largest(q, a.shift), 0) * c;
    return true;
}

}}  // namespace
