// A row by steps of some vecs: the sums of its exponentials, and what goes on beside them.
#pragma once
#include "math.hpp"

namespace fastsoft { namespace {

// Add the vecs of a bunch, of one row, one after the other. Where few vecs hold a maximum, a branch costs less than the
// count; where there are few vecs it is seldom foreseen.
const int many_vecs = 16;
template <class T, class Which, int U>
INLINE void collect_in_turn(Sums<T>& a, Term<T, U> e, vec<T, U> x, const Shared<T>& s, Which which, bool many) {
    if (std::is_same<Which, Others>::value && many && !any(equal(x, spread<U>(s.max)))) {
        for (int k = 0; k < U; k++) add_other(a, value(part(e, k)));
        return;
    }
    for (int k = 0; k < U; k++) collect(a, part(e, k), part(x, k), s, which);
}
// How many vecs of a row go through exp side by side: exp waits for itself, and only those fill the pipelines. Where
// registers are many, two and the first step of the next two: a shorter wait than that of four.
const int exp_vecs = begins_next ? 2 : exp_together;
// Logits on their way through exp, after the first step; unless begins_next nothing, and all is done in the second one.
struct Nothing {};
template <class T, int U> struct Begun { std::conditional_t<begins_next, Reduced<T, U>, Nothing> first; };
template <class T> using BegunSome = Begun<T, exp_vecs>;
template <class T, class How, class Which, int U>
INLINE void begin_terms(Begun<T, U>& b, const T* x, ptrdiff_t left, const Shared<T>& s, How how, Which which) {
    if constexpr (begins_next) b.first = reduced(load_some<U>(x, left, -std::numeric_limits<T>::infinity()), s, how, which);
}
template <class T, class How, class Which, int U>
INLINE Term<T, U> term_of(const Begun<T, U>& b, vec<T, U> x, const Shared<T>& s, How how, Which which) {
    if constexpr (begins_next) return term(b.first, which);
    else return shifted_term(x, s, how, which);
}
// The terms of the `left` logits at x, added in turn; to e, if they are kept.
template <class T, class How, class Which, int U>
INLINE void collect_terms(Sums<T>& a, const Begun<T, U>& b, const T* x, T* e, bool keep, ptrdiff_t left, const Shared<T>& s, How how, Which which, bool many) {
    const vec<T, U> v = load_some<U>(x, left, -std::numeric_limits<T>::infinity());  // before e takes its place
    const Term<T, U> w = term_of(b, v, s, how, which);
    if (keep) store(e, value(w), left);
    collect_in_turn(a, w, v, s, which, many);
}
// The first vec of them.
template <class T, int U> INLINE Begun<T, 1> first_of(const Begun<T, U>& b) {
    Begun<T, 1> a;
    if constexpr (begins_next)
        a.first = {part(b.first.t, 0), part(b.first.r_hi, 0), part(b.first.minus_lo, 0), part(b.first.r, 0), part(b.first.square, 0)};
    return a;
}
// collect_terms at the end of a row, where one vec may do.
template <class T, class How, class Which, int U>
INLINE void collect_last(Sums<T>& a, const Begun<T, U>& b, const T* x, T* e, bool keep, ptrdiff_t left, const Shared<T>& s, How how, Which which, bool many) {
    if (U > 1 && left <= vec<T>::lanes) collect_terms(a, first_of(b), x, e, keep, left, s, how, which, many);
    else collect_terms(a, b, x, e, keep, left, s, how, which, many);
}
// The maximum of the next `left` elements at x, at most so many vecs, lane by lane.
template <class T> INLINE void max_some(vec<T>& top, const T* x, ptrdiff_t left, int vecs) {
    const int lanes = vec<T>::lanes;
    const T low = -std::numeric_limits<T>::infinity();
    for (int k = 0; k < vecs; k++) top = larger(load(x + k * lanes, left - k * lanes, low), top);
}

// ---- the last step of a row ----

// How many of n numbers go before the first line of memory, so that the others are written by whole lines: where that is
// faster, or must be, for what goes past the caches.
const ptrdiff_t to_line_from = 768;  // bytes of a row
template <class S> INLINE ptrdiff_t to_line(const S* y, ptrdiff_t n, bool past) {
    if (!past && (!whole_lines || n * (ptrdiff_t)sizeof(S) < to_line_from)) return 0;
    const ptrdiff_t before = -(uintptr_t)y % 64 / sizeof(S);
    return before < n ? before : n;
}

// The next `left` elements at e, at most so many vecs, times r, to y, as `put`.
template <class T> INLINE void scale_some(const T* e, T* y, ptrdiff_t left, int vecs, const pair<T>& r, Seam<T>* seam) {
    const int lanes = vec<T>::lanes;
    for (int k = 0; k < vecs; k++) {
        const ptrdiff_t here = left - k * lanes;
        put(y + k * lanes, scaled(load(e + k * lanes, here, T(0)), r), here, seam);
    }
}
// The next `left` log_value, at most so many vecs, likewise.
template <class T, class How>
INLINE void log_some(const T* x, T* y, ptrdiff_t left, int vecs, const Log<T>& l, const Shared<T>& s, How how, Seam<T>* seam) {
    const int lanes = vec<T>::lanes;
    for (int k = 0; k < vecs; k++) {
        const ptrdiff_t here = left - k * lanes;
        const vec<T> v = load(x + k * lanes, here, -std::numeric_limits<T>::infinity());
        put(y + k * lanes, log_value(v, l, s, how), here, seam);
    }
}
// Of All the first, from exponentials; of Others the second, from logits.
template <class T, class How, class Which>
INLINE void end_some(const T* x, T* y, ptrdiff_t left, int vecs, const pair<T>& factor, const Log<T>& log, const Shared<T>& s, How how, Which, Seam<T>* seam) {
    if constexpr (std::is_same<Which, All>::value) scale_some(x, y, left, vecs, factor, seam);
    else log_some(x, y, left, vecs, log, s, how, seam);
}
// Of at most a vec, which may be nothing; a function where a part of one takes a loop.
template <class T, class How, class Which>
APART void end_part_apart(const T* x, T* y, ptrdiff_t left, const pair<T>& factor, const Log<T>& log, const Shared<T>& s, How how, Which which, Seam<T>* seam) {
    end_some(x, y, left, 1, factor, log, s, how, which, seam);
}
template <class T, class How, class Which>
INLINE void end_part(const T* x, T* y, ptrdiff_t left, const pair<T>& factor, const Log<T>& log, const Shared<T>& s, How how, Which which, Seam<T>* seam) {
    if (left <= 0) return;
    if constexpr (vec<T>::regs > 1) end_part_apart(x, y, left, factor, log, s, how, which, seam);
    else end_some(x, y, left, 1, factor, log, s, how, which, seam);
}
// Whether the last vec of a row is made whole, by reaching back over classes that come before it: a part of one, stored,
// would hold back the first load from the row after it, until it is in the cache.
template <class T> INLINE bool reaches_back(ptrdiff_t n) { return n > vec<T>::lanes && n % vec<T>::lanes; }
// A whole vec of what end_some stores.
template <class T, class How, class Which>
INLINE vec<T> ended(const T* x, const pair<T>& factor, const Log<T>& log, const Shared<T>& s, How how, Which) {
    const vec<T> v = load(x, vec<T>::lanes, T(0));
    if constexpr (std::is_same<Which, All>::value) return scaled(v, factor);
    else return log_value(v, log, s, how);
}
// n of them, the first few, up to a line of memory, by themselves.
template <class T, class How, class Which>
INLINE void end_terms(const T* x, T* y, ptrdiff_t first, ptrdiff_t n, const pair<T>& factor, const Log<T>& log, const Shared<T>& s, How how, Which which, Seam<T>* seam) {
    constexpr int vecs = vec<T>::regs > 2 ? 1 : 2 * exp_vecs;  // long runs of memory are faster
    constexpr ptrdiff_t lanes = vec<T>::lanes, step = vecs * lanes;
    const bool back = !seam && reaches_back<T>(n - first);
    const ptrdiff_t stop = back ? n - lanes : n;
    end_part(x, y, first, factor, log, s, how, which, seam);
    ptrdiff_t i = first;
    for (; i + step <= stop; i += step) end_some(x + i, y + i, step, vecs, factor, log, s, how, which, seam);
    const auto whole = [&]() INLINE_LAMBDA {
        for (; i + lanes <= n; i += lanes) end_some(x + i, y + i, lanes, 1, factor, log, s, how, which, seam);
    };
    if (back) {
        const vec<T> last = ended(x + stop, factor, log, s, how, which);  // before what is there changes: y may be x
        whole();
        store(y + stop, last, lanes);
        return;
    }
    if (vecs > 1) whole();
    end_part(x + i, y + i, n - i, factor, log, s, how, which, seam);
}

// ---- many steps ----

// Steps of whole vecs from class i on as far as they end before `end`, in a row that ends at `stop`; how far that is.
// one(terms, i) is done for each; if begins_next, they are taken two at a time, with two(i) after both.
template <class T, class How, class Which, class One, class Two>
INLINE ptrdiff_t in_steps(BegunSome<T>& begun, const T* x, ptrdiff_t i, ptrdiff_t end, ptrdiff_t stop, const Shared<T>& s, How how, Which which, One one, Two two) {
    constexpr ptrdiff_t step = exp_vecs * vec<T>::lanes;
    if constexpr (!begins_next)
        for (; i + step <= end; i += step) one(begun, i);
    else for (; i + 2 * step <= end; i += 2 * step) {
        BegunSome<T> odd;
        begin_terms(odd, x + i + step, step, s, how, which);
        one(begun, i);
        begin_terms(begun, x + i + 2 * step, stop - i - 2 * step, s, how, which);
        one(odd, i + step);
        two(i);
    }
    return i;
}
const ptrdiff_t near_bytes = 2048;  // by which what comes next is fetched into the nearest cache
// Sums without anything beside them; fetched is what comes `ahead` numbers later, and e.
template <class T, class How, class Which>
INLINE ptrdiff_t sum_alone(Sums<T>& a, BegunSome<T>& begun, const T* x, T* e, bool keep, ptrdiff_t i, ptrdiff_t stop, const Shared<T>& s, How how, Which which, bool many, ptrdiff_t ahead) {
    const ptrdiff_t near = near_bytes / sizeof(T);
    const auto fetch = [&](ptrdiff_t i, int vecs) INLINE_LAMBDA {
        prefetch(x + i + ahead, vecs);
        if (keep && i + near < stop) prefetch_to_write(e + i + near, vecs);  // beyond it may lie what another thread writes
        else if (e) prefetch_to_write(e + i, vecs);
    };
    if (begins_next && std::is_same<Which, Others>::value && !keep) {  // the branch for a maximum parts what would go together
        constexpr int vecs = exp_together;
        constexpr ptrdiff_t step = vecs * vec<T>::lanes;
        for (; i + step <= stop; i += step) {
            fetch(i, vecs);
            const auto v = load_some<vecs>(x + i, step, -std::numeric_limits<T>::infinity());
            collect_in_turn(a, shifted_term(v, s, how, which), v, s, which, many);
        }
        if (i < stop) begin_terms(begun, x + i, stop - i, s, how, which);
        return i;
    }
    return in_steps(begun, x, i, stop, stop, s, how, which, [&](const BegunSome<T>& terms, ptrdiff_t i) INLINE_LAMBDA {
        fetch(i, exp_vecs);
        collect_terms(a, terms, x + i, e + i, keep, exp_vecs * vec<T>::lanes, s, how, which, many);
    }, [](ptrdiff_t) INLINE_LAMBDA {});
}
// What goes on beside the sums of a row: the last step of one before, and the maximum of one to come.
template <class T> struct Beside {
    const T* following;
    ptrdiff_t ahead;  // bytes by which it is fetched
    vec<T> top;
    const T* from;  // the last step, from there to y, of the first `room` classes as far as there are whole steps
    T* y;
    ptrdiff_t room;
    Seam<T>* seam;
    pair<T> factor;  // of All
    Shared<T> shared;  // of Others
    Log<T> log;
};
template <class T, class How, class Which, class Way>
INLINE ptrdiff_t sum_beside(Sums<T>& a, BegunSome<T>& begun, const T* x, T* e, ptrdiff_t i, ptrdiff_t end, ptrdiff_t stop, const Shared<T>& s, How how, Which which, bool many, Beside<T>& b, Way) {
    constexpr bool keeps = std::is_same<Which, All>::value, past = std::is_same<Way, Past>::value, any = std::is_same<Way, Any>::value;
    constexpr int vecs = exp_vecs;
    constexpr ptrdiff_t step = vecs * vec<T>::lanes;
    const auto beside = [&](ptrdiff_t i, int steps) INLINE_LAMBDA {
        if (past || any) max_some(b.top, b.following + i, steps * step, steps * vecs);
        if (any ? b.room != 0 : !std::is_same<Way, Alone>::value)
            end_some(b.from + i, b.y + i, steps * step, steps * vecs, b.factor, b.log, b.shared, how, which, past || any ? b.seam : nullptr);
        if (!past && !any) max_some(b.top, b.following + i, steps * step, steps * vecs);
    };
    if constexpr (past && sizeof(T) == 4) {  // memory is the limit, and likes longer runs of all
        for (; i + 2 * step <= end; i += 2 * step) {
            Begun<T, 2 * vecs> terms;
            prefetch((const char*)(b.following + i) + b.ahead, 2 * vecs);
            begin_terms(terms, x + i, 2 * step, s, how, which);
            collect_terms(a, terms, x + i, e + i, keeps, 2 * step, s, how, which, many);
            beside(i, 2);
        }
        if (i < stop) begin_terms(begun, x + i, stop - i, s, how, which);
        return i;
    }
    begin_terms(begun, x + i, stop - i, s, how, which);
    return in_steps(begun, x, i, end, stop, s, how, which, [&](const BegunSome<T>& terms, ptrdiff_t i) INLINE_LAMBDA {
        prefetch((const char*)(b.following + i) + b.ahead, vecs);
        if (keeps) prefetch_to_write(e + i + near_bytes / (ptrdiff_t)sizeof(T), vecs);
        if (!past && !any) beside(i, 1);
        collect_terms(a, terms, x + i, e + i, keeps, step, s, how, which, many);
        if (any) beside(i, 1);
    }, [&](ptrdiff_t i) INLINE_LAMBDA {
        if (past) beside(i, 2);  // memory is the limit, and likes longer runs
    });
}
// The sums of classes start .. stop of a row of n, and what goes on beside them.
template <class T, class How, class Which>
INLINE void sum_block(Sums<T>& a, const T* x, T* e, ptrdiff_t start, ptrdiff_t stop, ptrdiff_t n, const Shared<T>& s, How how, Which which, Beside<T>& b) {
    constexpr int vecs = exp_vecs;
    constexpr ptrdiff_t step = vecs * vec<T>::lanes;
    const ptrdiff_t end = stop < b.room ? stop : b.room;
    const bool many = n >= many_vecs * vec<T>::lanes;
    BegunSome<T> next;
    begin(a, n, which);
    ptrdiff_t i;
    if constexpr (!begins_next) i = sum_beside(a, next, x, e, start, b.room ? end : stop, stop, s, how, which, many, b, Any());
    else if (b.room == 0) i = sum_beside(a, next, x, e, start, stop, stop, s, how, which, many, b, Alone());
    else if (b.seam) i = sum_beside(a, next, x, e, start, end, stop, s, how, which, many, b, Past());
    else i = sum_beside(a, next, x, e, start, end, stop, s, how, which, many, b, Near());
    for (; i < stop; i += step) {
        const BegunSome<T> terms = next;
        begin_terms(next, x + i + step, stop - i - step, s, how, which);
        prefetch((const char*)(b.following + i) + b.ahead, vecs);
        if (i + step <= end) end_some(b.from + i, b.y + i, step, vecs, b.factor, b.log, b.shared, how, which, b.seam);
        max_some(b.top, b.following + i, stop - i, vecs);
        collect_last(a, terms, x + i, e + i, std::is_same<Which, All>::value, stop - i, s, how, which, many);
    }
}

// A group of rows on its way from x, of softmax by way of e, to y, all of which may be one and the same: see overlap.pxi.
template <class T> struct Stage {
    ptrdiff_t first;  // which of the batch's rows its first one is; not set for a block of a long row
    int count;
    bool waits;  // for its last step, with `factor`, or of log_softmax `shared` and `log`
    bool holds;  // results in scratch, which go to where they belong after that
    Seam<T>* seam;    // null unless that goes past the caches
    ptrdiff_t ahead;  // bytes by which the logits of the next group are fetched
    const T* x[16];
    T* e[16];
    T* y[16];
    vec<T> tops[16];
    pair<T> factor;
    Shared<T> shared;
    Log<T> log;
};

}}  // namespace
