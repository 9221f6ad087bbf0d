// Rows of few vecs, unrolled: what a loop needs besides its arithmetic costs as much as that. V says how many vecs a row
// has, or the end of a row that begins with a loop. The bits are those of the loops in kernels/.
#pragma once
#include "gradient.hpp"

namespace fastsoft { namespace {

// None where a vec takes four registers: the code would be half as large again.
const int few_vecs = vec<float>::regs > 2 ? 0 : 8;
template <class T> constexpr int least_vecs = 32 / vec<T>::lanes + 1;  // rows of up to 32 classes go by tiles

// f(V) of a row of n classes that has least .. most vecs, V as a type; nothing where no rows are of few vecs. The functions
// for each V do not call one another: what each would save and restore, to find that it is not the one, takes as long as a
// vec's exponentials.
template <class T, int least = least_vecs<T>, int most = few_vecs, class F> INLINE auto of_vecs(ptrdiff_t n, F f) {
    if constexpr (most < least) return decltype(f(std::integral_constant<int, least>()))();
    if constexpr (most > least)
        if (n <= (most - 1) * vec<T>::lanes) return of_vecs<T, least, most - 1>(n, f);
    if constexpr (most >= least) return f(std::integral_constant<int, most>());
}

// The maxima of a group's rows, of `size` of their absolute values, lane by lane, NaN apart.
template <int V, class T> APART void maxima_of(const T* const* x, int count, ptrdiff_t n, bool size, vec<T>* tops) {
    const ptrdiff_t lanes = vec<T>::lanes, last = n - (V - 1) * lanes;
    const T low = size ? T(0) : -std::numeric_limits<T>::infinity();
    for (int r = 0; r < count; r++) {
        vec<T> top = fill(low);
#pragma GCC unroll 8
        for (int k = 0; k < V; k++) {
            const vec<T> v = load(x[r] + k * lanes, k < V - 1 ? lanes : last, low);
            top = larger(size ? absolute(v) : v, top);
        }
        tops[r] = top;
    }
}
template <class T> INLINE void few_maxima(const T* const* x, int count, ptrdiff_t n, bool size, vec<T>* tops) {
    of_vecs<T>(n, [&](auto V) INLINE_LAMBDA { maxima_of<V>(x, count, n, size, tops); });
}

// V vecs go through exp in parts of U, and what is left in parts of 2 and 1: how many from vec k on.
template <int V, int U, int k = 0> constexpr int part_at = U <= V - k ? U : V - k > 1 && U > 2 ? 2 : 1;
// Calls one(begun, k) for each part of a row, from vec k on; begin(next, k) for the one after it comes before that, and in the
// end next_row(first), for the first part of the next row.
template <int V, int U, int k = 0, class T, class Begin, class NextRow, class One>
INLINE void in_parts(Begun<T, part_at<V, U>>& first, const Begun<T, part_at<V, U, k>>& begun, Begin begin, NextRow next_row, One one) {
    constexpr int end = k + part_at<V, U, k>;
    const std::integral_constant<int, k> here{};
    if constexpr (end < V) {
        Begun<T, part_at<V, U, end>> next;
        begin(next, std::integral_constant<int, end>());
        one(begun, here);
        in_parts<V, U, end>(first, next, begin, next_row, one);
    } else {
        const auto last = begun;  // which may be `first`
        next_row(first);
        one(last, here);
    }
}
// Rows of V vecs on their way through exp, up to row `end`; the first part of each begins before the last one of the row
// before it has ended.
template <int V, bool leads, class T, class How, class Which> struct FewRows {
    static constexpr int U = exp_vecs;
    static constexpr ptrdiff_t lanes = vec<T>::lanes, step = U * lanes;
    const T* const* x;
    int end;
    ptrdiff_t n, lead;  // classes that come before the V vecs, in a loop of whole steps; 0 unless it `leads`
    const Shared<T>& shared;
    How how;
    Which which;
    Shared<T> own;
    Begun<T, part_at<V, U>> begun;
    static_assert(!leads || V > U, "the loop begins a whole part, which must not be the end of a row");

    INLINE FewRows(const T* const* x, int first, int end, ptrdiff_t n, ptrdiff_t lead, const Shared<T>& shared, How how, Which which)
        : x(x), end(end), n(n), lead(lead), shared(shared), how(how), which(which), own(of_row(shared, first)) {
        begin_terms(begun, x[first], left(0, part_at<V, U>), own, how, which);
    }
    INLINE ptrdiff_t left(int k, int vecs) const {  // classes in a part from vec k on of those V
        return k + vecs < V ? vecs * lanes : n - lead - k * lanes;
    }
    INLINE int after(int r) const { return r + 1 < end ? r + 1 : r; }
    // What exp asks for in row r; each row in turn.
    INLINE Shared<T> of(int r) {
        const Shared<T> s = begins_next ? own : of_row(shared, r);
        own = of_row(shared, after(r));
        return s;
    }
    // Calls one(begun, j, vecs, after, left, many) for the parts of row r, which begin with class j and of which `left` classes
    // are there; `after` vecs or more come then, if any; `many` as in collect_in_turn, in the loop alone: elsewhere it would
    // be more code for few vecs.
    template <class One> INLINE void parts(int r, const Shared<T>& s, One one) {
        if constexpr (!begins_next) return one_by_one(one);
        const T *row = x[r], *next = x[after(r)];
        if constexpr (leads) {  // as in_steps, but that steps are known to be whole
            const bool many = n >= many_vecs * lanes;
            ptrdiff_t j = 0;
            Begun<T, U> odd;
            if (lead / step % 2) {
                begin_terms(odd, row + step, step, s, how, which);
                one(begun, j, U, V, step, false);
                begun = odd;
                j = step;
            }
            for (; j < lead; j += 2 * step) {
                begin_terms(odd, row + j + step, step, s, how, which);
                one(begun, j, U, V, step, many);
                begin_terms(begun, row + j + 2 * step, step, s, how, which);
                one(odd, j + step, U, V, step, many);
            }
        }
        row += lead;
        in_parts<V, U>(begun, begun, [&](auto& b, auto k) INLINE_LAMBDA {
            begin_terms(b, row + k * lanes, left(k, part_at<V, U, k>), s, how, which);
        }, [&](auto& b) INLINE_LAMBDA {
            begin_terms(b, next, left(0, part_at<V, U>), own, how, which);
        }, [&](const auto& b, auto k) INLINE_LAMBDA {
            constexpr int vecs = part_at<V, U, k>;
            one(b, lead + k * lanes, vecs, V - k - vecs, left(k, vecs), false);
        });
    }
    template <int k = 0, class One> INLINE void one_by_one(One one) {
        constexpr int vecs = part_at<V, U, k>;
        one(Begun<T, vecs>(), k * lanes, vecs, V - k - vecs, left(k, vecs), false);
        if constexpr (k + vecs < V) one_by_one<k + vecs>(one);
    }
};

// scale_some of the `vecs` vecs of a row from class j on, of which `after` more come then. All are whole, for the last one,
// which `reaches_back`, is read before the one in front of it is written: where it comes alone, that one waits for it.
template <class T> INLINE void scale_whole(const T* x, T* y, ptrdiff_t n, ptrdiff_t j, int vecs, int after, const pair<T>& factor) {
    constexpr ptrdiff_t lanes = vec<T>::lanes;
    const int first = after == 0 && vecs == 1 ? -1 : 0, end = after == 1 ? vecs - 1 : vecs;
    vec<T> a[exp_vecs + 1];
    const auto place = [&](int k) INLINE_LAMBDA { return after == 0 && k == vecs - 1 ? n - lanes : j + k * lanes; };
    for (int k = first; k < end; k++) a[k - first] = load(x + place(k), lanes, T(0));
    for (int k = first; k < end; k++) store(y + place(k), scaled(a[k - first], factor), lanes);
}

// sum_overlapped (overlap.pxi)
template <int V, bool leads, class T, class How, class Which>
APART void overlapped_of(const Stage<T>& before, const Stage<T>& now, Stage<T>& next, ptrdiff_t n, ptrdiff_t lead, bool full, const Shared<T>& shared, How how, Which which, Sums<T>* total) {
    const bool keeps = std::is_same<Which, All>::value, ends = before.waits;
    const ptrdiff_t near = near_bytes / sizeof(T), ahead = now.ahead;
    const bool back = !leads && reaches_back<T>(n);  // beside a loop, where ends are rare, no faster
    FewRows<V, leads, T, How, Which> rows(now.x, 0, now.count, n, lead, shared, how, which);
    for (int r = 0; r < now.count; r++) {
        const Shared<T> s = rows.of(r);
        const T *x = now.x[r], *following = next.x[r], *from = keeps ? before.e[r] : before.x[r];
        T *e = now.e[r], *y = before.y[r];
        const Shared<T> its = of_row(before.shared, r);
        const pair<T> factor = of_row(before.factor, r);
        const Log<T> log = of_row(before.log, r);
        vec<T> top = fill(-std::numeric_limits<T>::infinity());
        Sums<T> a;
        begin(a, n, which);
        rows.parts(r, s, [&](const auto& begun, ptrdiff_t j, int vecs, int after, ptrdiff_t left, bool many) INLINE_LAMBDA {
            prefetch((const char*)(following + j) + ahead, vecs);
            if (keeps) prefetch_to_write(e + j + near, vecs);
            if (!begins_next) collect_terms(a, begun, x + j, e + j, keeps, left, s, how, which, many);
            max_some(top, following + j, left, vecs);
            if (ends && keeps && back && after < 2) scale_whole(from, y, n, j, vecs, after, factor);
            else if (ends && keeps) scale_some(from + j, y + j, left, vecs, factor, (Seam<T>*)nullptr);
            if (ends && !keeps) log_some(from + j, y + j, left, vecs, log, its, how, (Seam<T>*)nullptr);
            if (begins_next) collect_terms(a, begun, x + j, e + j, keeps, left, s, how, which, many);
        });
        finish(a, n, which, leads && full);
        total[r] = a;
        next.tops[r] = top;
    }
}

// The same of longer rows as well, up to a block, which may be `full`, where exp of some vecs begins before that of those
// before them has ended (else that is no faster): in a loop, but for their ends.
template <class T, class How, class Which>
INLINE void few_overlapped(const Stage<T>& before, const Stage<T>& now, Stage<T>& next, ptrdiff_t n, bool full, const Shared<T>& shared, How how, Which which, Sums<T>* total) {
    constexpr int least = exp_vecs + 1, most = 2 * exp_vecs;  // vecs of an end, which begins with as many as a step
    constexpr ptrdiff_t lanes = vec<T>::lanes, step = exp_vecs * lanes;
    if (!begins_next || n <= few_vecs * lanes) of_vecs<T>(n, [&](auto V) INLINE_LAMBDA {
        overlapped_of<V, false>(before, now, next, n, 0, full, shared, how, which, total);
    });
    else if constexpr (begins_next) {
        static_assert(!begins_next || most <= few_vecs, "fewer come before the loop");
        const ptrdiff_t lead = (n - most * lanes + step - 1) / step * step;
        of_vecs<T, least, most>(n - lead, [&](auto V) INLINE_LAMBDA {
            overlapped_of<V, true>(before, now, next, n, lead, full, shared, how, which, total);
        });
    }
}

// WEIGH (gradients.pxi)
template <int V, class T, class How> APART void weighed_of(const Pass<T>& p, How how, Sums<T>* sums, Sums<T>* dots) {
    const ptrdiff_t n = p.n, ahead = (p.last - p.first) * n;
    FewRows<V, false, T, How, Exact> rows(p.x, p.first, p.last, n, 0, *p.shared, how, Exact());
    for (int r = p.first; r < p.last; r++) {
        const Shared<T> s = rows.of(r);
        const T *x = p.x[r], *v = p.v[r], scale = p.scale[r], middle = p.middle[r];
        T* y = p.y[r];
        Sums<T> a, d;
        pair<T> run;
        begin(a, n, Exact());
        begin_runs(d);
        begin_run(run);
        rows.parts(r, s, [&](const auto& begun, ptrdiff_t j, int vecs, int, ptrdiff_t left, bool) INLINE_LAMBDA {
            prefetch(x + j + ahead, vecs);
            prefetch(v + j + ahead, vecs);
            weigh_terms(a, run, begun, x + j, v + j, y + j, left, s, how, scale, middle);
        });
        end_run(d, run);
        finish(a, n, Exact(), false);
        sums[r] = a;
        dots[r] = d;
    }
}
template <class T, class How> INLINE void few_weighed(const Pass<T>& p, How how, Sums<T>* sums, Sums<T>* dots) {
    of_vecs<T>(p.n, [&](auto V) INLINE_LAMBDA { weighed_of<V>(p, how, sums, dots); });
}
// A pass that gives y (gradients.pxi)
template <int V, class T, class Map> APART void mapped_of(const Pass<T>& p, Map what) {
    const ptrdiff_t lanes = vec<T>::lanes, n = p.n;
    for (int r = p.first; r < p.last; r++) {
        const T *x = p.x[r], *v = p.v[r], scale = p.scale[r], middle = p.middle[r];
        T* y = p.y[r];
        const pair<T> factor = of_row(p.factor, r), mean = of_row(p.mean, r), minus = of_row(p.minus, r);
        const auto map = [&](ptrdiff_t i) INLINE_LAMBDA {
            return mapped<1>(x + i, v + i, what, lanes, scale, middle, factor, mean, minus);
        };
        const vec<T> last = map(n - lanes);  // as in end_terms
#pragma GCC unroll 8
        for (int k = 0; k < V - 1; k++) store(y + k * lanes, map(k * lanes), lanes);
        store(y + n - lanes, last, lanes);
    }
}
template <class T, class Map> INLINE void few_mapped(const Pass<T>& p, Map what) {
    of_vecs<T>(p.n, [&](auto V) INLINE_LAMBDA { mapped_of<V>(p, what); });
}

// Rows start .. stop of Jacobians, one below the other, of at most matrix_vecs vecs: -sigma_i sigma_j and the diagonal,
// times c. `rows` holds sigma and the diagonal of each; `ahead` says by how many bytes memory is fetched before it is
// written. The last vec of a row is stored in part, which pays with masks, or where it is the only one.
const int matrix_vecs = together > 1 ? few_vecs : 1;
template <int V, class T, class S>
APART void entries_of(const T* rows, ptrdiff_t n, ptrdiff_t start, ptrdiff_t stop, T c, S* out, ptrdiff_t ahead) {
    const ptrdiff_t lanes = vec<T>::lanes, last = n - (V - 1) * lanes;
    const vec<T> zero = fill(T(0));
    T number[V * lanes];
    for (int j = 0; j < V * lanes; j++) number[j] = j;
    const T* y = rows + start / n * 2 * n;
    ptrdiff_t i = start % n, left = stop - start;
    while (left > 0) {
        vec<T> minus[V], own[V];
#pragma GCC unroll 8
        for (int k = 0; k < V; k++) {
            minus[k] = zero - load(y + k * lanes, k < V - 1 ? lanes : last, T(0));
            own[k] = load(y + n + k * lanes, k < V - 1 ? lanes : last, T(0)) * fill(c);
        }
        const ptrdiff_t end = n - i < left ? n : i + left;
        left -= end - i;
        for (; i < end; i++, out += n) {
            const vec<T> sigma = fill(y[i]), here = fill(number[i]);
            prefetch_to_write((char*)out + ahead, V);
#pragma GCC unroll 8
            for (int k = 0; k < V; k++) {
                const vec<T> e = mul_add(minus[k], sigma, zero) * fill(c);
                const mask<T> diagonal = equal(load(number + k * lanes, lanes, T(0)), here);
                store(out + k * lanes, choose(diagonal, own[k], e), k < V - 1 ? lanes : last);
            }
        }
        i = 0;
        y += 2 * n;
    }
}
template <class T, class S>
INLINE void few_entries(const T* rows, ptrdiff_t n, ptrdiff_t start, ptrdiff_t stop, T c, S* out, ptrdiff_t ahead) {
    of_vecs<T, 1, matrix_vecs>(n, [&](auto V) INLINE_LAMBDA { entries_of<V>(rows, n, start, stop, c, out, ahead); });
}

}}  // namespace
