// Columns of two, three or four classes, a row in each lane and all classes of a vec of them in registers: the steps that
// tiles take (kernels/tiles.pxi), which would mostly load and store. The bits are the same. Each function gives how many
// columns it did: the next is one of some that are out of the ordinary, of which nothing is written.
#pragma once
#include "gradient.hpp"

namespace fastsoft { namespace {

// Class k of columns side by side, of which `i` is the first that is meant.
template <class T> struct Columns {
    char* first;
    ptrdiff_t step;  // bytes from class to class
    INLINE T* at(ptrdiff_t k, ptrdiff_t i) const { return (T*)(first + k * step) + i; }
    // n classes, of which `there` are there; the others are what has no share.
    template <int n> INLINE vec<T, n> load_classes(ptrdiff_t i, ptrdiff_t left, ptrdiff_t there = n) const {
        const T low = -std::numeric_limits<T>::infinity();
        vec<T, n> v;
        for (int k = 0; k < n; k++) set_part(v, k, k < there ? load(at(k, i), left, T(0)) : fill(low));
        return v;
    }
    // Asks for what comes next of n classes; of two arguments the CPU foresees less than of one.
    template <int n> INLINE void fetch_classes(ptrdiff_t i) const {
        for (int k = 0; k < n; k++) prefetch((const char*)at(k, i) + near_bytes, 1);
    }
    template <int n> INLINE void store_classes(ptrdiff_t i, vec<T, n> v, ptrdiff_t left, ptrdiff_t there = n) const {
        for (int k = 0; k < n && k < there; k++) store(at(k, i), part(v, k), left);
    }
};
// Some vecs of columns, which go step by step together: what one of them waits for, the others fill.
template <class T> struct Together {
    ptrdiff_t first, columns;
    int count;  // vecs, at most logs_together
    Shift<T> shift[logs_together];
    // Calls step(t, i, left) for the t-th of them: column i and those after it, `left` of them.
    template <class Step> INLINE void each(Step step) const {
        const ptrdiff_t lanes = vec<T>::lanes;
        for (int t = 0; t < count; t++) step(t, first + t * lanes, columns - t * lanes < lanes ? columns - t * lanes : lanes);
    }
};
// Calls some(together), with the shifts set, for all columns, as long as their maxima are within reach and it gives true.
template <int n, class T, class Some> INLINE ptrdiff_t each_together(Columns<T> x, ptrdiff_t count, Some some, ptrdiff_t there = n) {
    const ptrdiff_t lanes = vec<T>::lanes, most = logs_together * lanes;
    const T low = -std::numeric_limits<T>::infinity();
    Together<T> a;
    for (ptrdiff_t start = 0; start < count; start += most) {
        a.first = start;
        a.columns = count - start < most ? count - start : most;
        a.count = (int)((a.columns + lanes - 1) / lanes);
        vec<T> largest = fill(T(0));
        a.each([&](int t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
            const vec<T, n> v = x.template load_classes<n>(i, left, there);
            vec<T> top = fill(low);
            for (int k = 0; k < n; k++) top = larger(part(v, k), top);
            largest = larger(absolute(top), largest);
            set_shift(a.shift[t], top, fill(T(0)), Factor{1, 0, 1}, Plain());
        });
        if (any(not_below(largest, fill(std::nextafter(constants<T>::reach, -low)))) || !some(a)) return start;
    }
    return count;
}
// The sums of all classes in each[0], as the tree over lanes has them.
template <int n, class T, class Join> INLINE void join_classes(Sums<T>* each, Join join) {
    if constexpr (n > 2) join(each[0], each[2]);
    if constexpr (n > 3) join(each[1], each[3]);
    join(each[0], each[1]);
}
// As sum_in_runs of gradient.hpp: of so few classes each is a run by itself, whatever `length` they may have.
template <int length, int n, class T, class Add> INLINE void sum_in_runs(std::integral_constant<int, n>, Sums<T>& a, vec<T>& size, Add add) {
    Sums<T> each[n];
    for (int k = 0; k < n; k++) {
        each[k] = {add(fill(T(0)), k), fill(T(0)), fill(T(0))};
        size = larger(absolute(each[k].hi), size);
    }
    join_classes<n>(each, [](Sums<T>& to, const Sums<T>& from) INLINE_LAMBDA { merge_values(to, from); });
    a = each[0];
}
// What `add` makes of one start for all classes, and what that lacks, in each of them; these add up exactly.
template <int n, class T, class Add> INLINE Sums<T> sums_from(T start, Add add) {
    const vec<T, n> before = fill<n>(start);
    const pair<T, n> after = add(before);
    Sums<T> each[n];
    for (int k = 0; k < n; k++) each[k] = {part(after.hi - before, k), part(after.lo, k), fill(T(0))};
    join_classes<n>(each, [](Sums<T>& a, const Sums<T>& b) INLINE_LAMBDA { a = {a.hi + b.hi, a.lo + b.lo, a.ties}; });
    return each[0];
}
template <int n, class T> INLINE Sums<T> classes_of_others(vec<T, n> v, const Shared<T>& s) {
    const vec<T, n> e = value(shifted_term(v, s, Plain(), Others()));
    Sums<T> each[n];
    for (int k = 0; k < n; k++) {
        const mask<T> tie = equal(part(v, k), s.max);
        each[k] = {drop(tie, part(e, k)), fill(T(0)), keep(tie, fill(T(1)))};
    }
    join_classes<n>(each, [](Sums<T>& a, const Sums<T>& b) INLINE_LAMBDA { merge(a, b); });
    return each[0];
}

template <int n, class T> APART ptrdiff_t softmax_of_classes(Columns<T> x, Columns<T> out, ptrdiff_t count) {
    return each_together<n>(x, count, [&](const Together<T>& a) INLINE_LAMBDA {
        vec<T, n> e[logs_together];
        Sums<T> sums[logs_together];
        pair<T> factor[logs_together];
        vec<T> seen = fill(T(0));
        a.each([&](int t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
            const Term<T, n> own = shifted_term(x.template load_classes<n>(i, left), a.shift[t].each, Plain(), All());
            e[t] = value(own);
            sums[t] = sums_from<n>(start_of_sum<T>(n), [&](vec<T, n> hi) INLINE_LAMBDA { return with_term(hi, own, All()); });
        });
        a.each([&](int t, ptrdiff_t, ptrdiff_t) INLINE_LAMBDA {
            factor[t] = reciprocal(sums[t], a.shift[t], T(0));
            seen = seen + factor[t].hi;
        });
        if (!all_finite(seen)) return false;
        a.each([&](int t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA { out.store_classes(i, scaled(e[t], factor[t]), left); });
        return true;
    });
}
// Calls put(i, left, log, shift) with the logarithm of each sum.
template <int n, class T, class Put> INLINE ptrdiff_t logs_of_classes(Columns<T> x, ptrdiff_t count, Put put) {
    return each_together<n>(x, count, [&](Together<T>& a) INLINE_LAMBDA {
        Sums<T> sums[logs_together];
        pair<T> log[logs_together];
        vec<T> seen = fill(T(0));
        a.each([&](int t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
            sums[t] = classes_of_others(x.template load_classes<n>(i, left), a.shift[t].each);
        });
        a.each([&](int t, ptrdiff_t, ptrdiff_t) INLINE_LAMBDA { set_largest(a.shift[t], Plain()); });
        log_of_sums(sums, a.shift, a.count, log);
        a.each([&](int t, ptrdiff_t, ptrdiff_t) INLINE_LAMBDA { seen = seen + log[t].hi; });
        if (!all_finite(seen)) return false;
        a.each([&](int t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA { put(i, left, log[t], a.shift[t]); });
        return true;
    });
}
template <int n, class T> APART ptrdiff_t log_softmax_of_classes(Columns<T> x, Columns<T> out, ptrdiff_t count) {
    return logs_of_classes<n>(x, count, [&](ptrdiff_t i, ptrdiff_t left, const pair<T>& log, const Shift<T>& s) INLINE_LAMBDA {
        out.store_classes(i, log_value(x.template load_classes<n>(i, left), log_shift(log, s, T(0)), s.each, Plain()), left);
    });
}
template <int n, class T> APART ptrdiff_t logsumexp_of_classes(Columns<T> x, Columns<T> out, ptrdiff_t count) {
    return logs_of_classes<n>(x, count, [&](ptrdiff_t i, ptrdiff_t left, const pair<T>& log, const Shift<T>& s) INLINE_LAMBDA {
        store(out.at(0, i), log_sum_exp(log, s, s.each.max), left);
    });
}

// As vjp_tiles.
template <int n, class T> APART ptrdiff_t vjp_of_classes(Columns<T> x, Columns<T> v, Columns<T> out, ptrdiff_t count) {
    return each_together<n>(x, count, [&](Together<T>& a) INLINE_LAMBDA {
        vec<T, n> e[logs_together];
        vec<T> first[logs_together], middle[logs_together], unit[logs_together];
        Sums<T> sums[logs_together], dots[logs_together];
        Vjp<T> of[logs_together];
        vec<T> most = fill(T(0)), seen = fill(T(0));
        a.each([&](int t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
            const vec<T, n> own = x.template load_classes<n>(i, left), w = v.template load_classes<n>(i, left);
            vec<T> largest = fill(T(0));
            x.template fetch_classes<n>(i);
            v.template fetch_classes<n>(i);
            first[t] = middle[t] = fill(T(0));
            for (int k = n - 1; k >= 0; k--) {
                const mask<T> top = equal(part(own, k), a.shift[t].each.max);
                first[t] = choose(top, fill(T(k)), first[t]);
                middle[t] = choose(top, part(w, k), middle[t]);
                largest = larger(absolute(part(w, k)), largest);
            }
            most = larger(largest, most);
            unit[t] = unit_scale(largest);
            middle[t] = middle[t] * unit[t];
            set_largest(a.shift[t], Plain());
        });
        if (any(equal(product_scale(most), fill(small_scale(T()))))) return false;
        a.each([&](int t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
            const Term<T, n> own = shifted_term(x.template load_classes<n>(i, left), a.shift[t].each, Plain(), Exact());
            const vec<T, n> w = mul_sub(v.template load_classes<n>(i, left), spread<n>(unit[t]), spread<n>(middle[t]));
            e[t] = value(own);
            sums[t] = sums_from<n>(start_of_sum<T>(n), [&](vec<T, n> hi) INLINE_LAMBDA { return with_term(hi, own, Exact()); });
            dots[t] = sums_from<n>(start_of_weighed<T>(), [&](vec<T, n> hi) INLINE_LAMBDA { return with_weighed(hi, own, w); });
            const vec<T> up = power_of_two(fill(T(0)) - exponent(unit[t]));
            dots[t] = scaled_by(dots[t], up);
            middle[t] = middle[t] * up;  // as in apply_vjp what it had below the smallest number is lost
        });
        a.each([&](int t, ptrdiff_t, ptrdiff_t) INLINE_LAMBDA {
            set_vjp(of[t], sums[t], dots[t], a.shift[t], fill(T(1)), middle[t], Factor{1, 0, 1});
            seen = seen + (of[t].mean.hi + of[t].factor.hi);
        });
        if (!all_finite(seen)) return false;
        a.each([&](int t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
            vec<T, n> z = v.template load_classes<n>(i, left);
            for (int k = 0; k < n; k++) {
                const vec<T> own = turned(part(e[t], k), part(z, k), T(1), of[t].mean, of[t].factor);
                set_part(z, k, choose(equal(first[t], fill(T(k))), of[t].dominant, own));
            }
            out.store_classes(i, z, left);
        });
        return true;
    });
}

// As loss_tiles: the losses to `loss`, and the gradient to `out` unless that is null. One form for any number of classes, for
// most of the work is done once a column.
template <class T> struct Labels {
    const int64_t* label;
    const double* weight;  // or null
    T* loss;
    double scale, z_loss;
};
template <int most, class T> APART ptrdiff_t losses_of_classes(Columns<T> x, Columns<T> out, ptrdiff_t n, ptrdiff_t count, const Labels<T>& l) {
    return each_together<most>(x, count, [&](Together<T>& a) INLINE_LAMBDA {
        vec<T, most> e[logs_together];
        Sums<T> sums[logs_together];
        pair<T> log[logs_together];
        vec<T> label[logs_together];
        Label<T> at[logs_together];
        Loss<T> of[logs_together];
        vec<T> seen = fill(T(0));
        a.each([&](int t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
            const vec<T, most> own = x.template load_classes<most>(i, left, n);
            set_largest(a.shift[t], Plain());
            e[t] = value(shifted_term(own, a.shift[t].each, Plain(), Others()));
            sums[t] = classes_of_others(own, a.shift[t].each);
            take_labels(l.label + i, l.weight ? l.weight + i : l.weight, left, n, label[t], at[t].weight);
            at[t].x = part(own, 0);
            at[t].e = part(e[t], 0);
            for (int k = 1; k < most; k++) {
                const mask<T> here = equal(label[t], fill(T(k)));
                at[t].x = choose(here, part(own, k), at[t].x);
                at[t].e = choose(here, part(e[t], k), at[t].e);
            }
        });
        log_of_sums(sums, a.shift, a.count, log);
        a.each([&](int t, ptrdiff_t, ptrdiff_t) INLINE_LAMBDA {
            set_label_loss(of[t], sums[t], log[t], a.shift[t], at[t], l.scale, l.z_loss, Factor{1, 0, 1}, out.first, Plain());
            seen = seen + (of[t].loss + of[t].factor.hi);
        });
        if (!all_finite(seen)) return false;
        a.each([&](int t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
            const mask<T> ignored = equal(label[t], fill(T(-1)));
            store(l.loss + i, drop(ignored, of[t].loss), left);
            if (!out.first) return;
            vec<T, most> z;
            for (int k = 0; k < most; k++) {
                const vec<T> own = choose(equal(label[t], fill(T(k))), of[t].special, scaled(part(e[t], k), of[t].factor));
                set_part(z, k, drop(ignored, own));
            }
            out.store_classes(i, z, left, n);
        });
        return true;
    }, n);
}

// With small registers there is no room for that, and a lot of code would gain little.
const int narrow_classes = vec<float>::regs > 2 ? 0 : 4;  // up to so many, and more than one
template <class Some> INLINE ptrdiff_t with_classes(ptrdiff_t n, Some some) {
    if constexpr (narrow_classes == 0) return 0;
    else if (n == 2) return some(std::integral_constant<int, 2>());
    else if (n == 3) return some(std::integral_constant<int, 3>());
    else return some(std::integral_constant<int, 4>());
}
template <class T> INLINE ptrdiff_t narrow_softmax(Columns<T> x, Columns<T> out, ptrdiff_t n, ptrdiff_t count) {
    return with_classes(n, [&](auto k) INLINE_LAMBDA { return softmax_of_classes<k>(x, out, count); });
}
template <class T> INLINE ptrdiff_t narrow_log_softmax(Columns<T> x, Columns<T> out, ptrdiff_t n, ptrdiff_t count) {
    return with_classes(n, [&](auto k) INLINE_LAMBDA { return log_softmax_of_classes<k>(x, out, count); });
}
template <class T> INLINE ptrdiff_t narrow_logsumexp(Columns<T> x, Columns<T> out, ptrdiff_t n, ptrdiff_t count) {
    return with_classes(n, [&](auto k) INLINE_LAMBDA { return logsumexp_of_classes<k>(x, out, count); });
}
template <class T> INLINE ptrdiff_t narrow_vjp(Columns<T> x, Columns<T> v, Columns<T> out, ptrdiff_t n, ptrdiff_t count) {
    return with_classes(n, [&](auto k) INLINE_LAMBDA { return vjp_of_classes<k>(x, v, out, count); });
}
template <class T> INLINE ptrdiff_t narrow_losses(Columns<T> x, Columns<T> out, ptrdiff_t n, ptrdiff_t count, const Labels<T>& l) {
    if constexpr (narrow_classes == 0) return 0;
    else return losses_of_classes<narrow_classes>(x, out, n, count, l);
}

}}  // namespace
