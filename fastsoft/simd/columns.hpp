// Derivatives of columns, a row in each lane, class by class for some vecs of columns side by side: from a kept output
// straight from and to memory, from logits by way of scratch. The bits are those of kernels/gradients.pxi, which has to do
// the columns that a function leaves out; of these nothing is written.
#pragma once
#include "narrow.hpp"
#include <algorithm>

namespace fastsoft { namespace {

// Side by side, at most; in long runs, where few classes, or the sums of a lane alone, leave room in the nearest cache. With
// small registers a lot of code would gain little.
const int column_vecs = 16, long_column_vecs = narrow_classes > 0 ? 64 : column_vecs;
const int classes_in_lane = 4;  // up to which some lanes go at once
template <class S> constexpr bool direct_columns = long_column_vecs > column_vecs || std::is_same<S, work<S>>::value;

// Calls each(t, i, left) for the vecs of `columns` columns from column `first` on: as Together does, but the last one, of
// which a part may be there, apart. What each class asks for is little here, and so faster by an eighth.
template <class T, class Each> INLINE void each_column_vec(ptrdiff_t first, ptrdiff_t columns, Each each) {
    const ptrdiff_t lanes = vec<T>::lanes;
    ptrdiff_t t = 0;
    for (; (t + 1) * lanes <= columns; t++) each(t, first + t * lanes, lanes);
    if (t * lanes < columns) each(t, first + t * lanes, columns - t * lanes);
}
// The same for `together` vecs at a time, as many as each(count, t, i, left) is told; what is left goes one by one.
template <class T, class Each> INLINE void each_column_vecs(ptrdiff_t first, ptrdiff_t columns, Each each) {
    const ptrdiff_t lanes = vec<T>::lanes, whole = columns / (together * lanes) * together;
    for (ptrdiff_t t = 0; t < whole; t += together) each(std::integral_constant<int, together>(), t, first + t * lanes, together * lanes);
    each_column_vec<T>(first + whole * lanes, columns - whole * lanes, [&](ptrdiff_t t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
        each(std::integral_constant<int, 1>(), whole + t, i, left);
    });
}
// What a class of a kept output adds to the sum of a column, and what there is that must not be.
template <class S> struct ProductOfOutput {
    typedef work<S> T;
    static const int length = run_length;
    static const bool lane_by_lane = std::is_same<S, T>::value;  // whether many classes may go so
    Columns<S> y, v;
    vec<T> largest = fill(T(0));
    template <int U> INLINE vec<T, U> add(ptrdiff_t j, ptrdiff_t i, ptrdiff_t left, vec<T, U> run) {
        const vec<T, U> w = load_some<U>(v.at(j, i), left, T(0));
        for (int u = 0; !has_fma && u < U; u++) largest = larger(absolute(part(w, u)), largest);
        return mul_add(load_some<U>(y.at(j, i), left, T(0)), w, run);
    }
    INLINE bool in_order() const { return all_moderate(largest); }
};
template <class T> constexpr T largest_log = sizeof(T) == 4 ? 44 : 64;  // of y, 0 at most in all that is of use: exp_unshifted is finite
template <class S> struct TotalOfLogOutput {
    typedef work<S> T;
    static const int length = 1;
    static const bool lane_by_lane = false;
    Columns<S> y, v;
    vec<T> beyond = fill(T(0));  // how many are, or are NaN
    template <int U> INLINE vec<T, U> add(ptrdiff_t j, ptrdiff_t i, ptrdiff_t left, vec<T, U> run) {
        const vec<T, U> own = load_some<U>(y.at(j, i), left, T(0));
        for (int u = 0; u < U; u++) beyond = beyond + keep(not_below(part(own, u), fill(largest_log<T>)), fill(T(1)));
        return run + load_some<U>(v.at(j, i), left, T(0));
    }
    INLINE bool in_order() const { return !any(not_below(beyond, fill(T(1)))); }
};
// Sums over n classes of some columns, as a row by itself has them: class j in lane j mod lanes, and then as `fold` does. So
// many lanes at once: of few classes some, vec by vec, in registers; of long runs one, so that only its own sums go with the
// classes through the nearest cache; else all, class by class.
template <class Term> struct ColumnSums {
    typedef typename Term::T T;
    static const int length = Term::length;
    static const ptrdiff_t lanes = vec<T>::lanes, columns_ahead = 8 * lanes;
    Term term;
    ptrdiff_t n, first, columns, vecs;
    bool far;  // so that it is worth to ask for what comes next
    vec<T> most;
    pair<T>* room;

    INLINE ColumnSums(Term term, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool far, pair<T>* room)
        : term(term), n(n), first(first), columns(columns), vecs((columns + lanes - 1) / lanes), far(far), most(fill(T(0))), room(room) {}
    INLINE pair<T>* lane(ptrdiff_t k) const { return room + k * vecs; }
    // A run of some classes of a lane, from class j on, of U vecs of columns.
    template <int U> INLINE vec<T, U> run_of(ptrdiff_t j, ptrdiff_t i, ptrdiff_t left) {
        vec<T, U> run = fill<U>(T(0));
        for (int k = 0; k < length && j < n; k++, j += lanes) {
            if (far) {
                prefetch(term.y.at(j, i + columns_ahead), U);
                prefetch(term.v.at(j, i + columns_ahead), U);
            }
            run = term.add(j, i, left, run);
        }
        return run;
    }
    template <int U> static INLINE void add_run(pair<T, U>& own, vec<T, U> run) {
        const pair<T, U> all = two_sum(own.hi, run);
        own = {all.hi, own.lo + all.lo};
    }
    // The sums of lanes k, k + step, ...
    template <int U, int step> INLINE pair<T, U> sum_in_registers(ptrdiff_t k, ptrdiff_t i, ptrdiff_t left) {
        if constexpr (step < lanes) {
            pair<T, U> all = sum_in_registers<U, 2 * step>(k, i, left);
            if (k + step < n) merge_values(all, sum_in_registers<U, 2 * step>(k + step, i, left));
            return all;
        } else {
            pair<T, U> own = {run_of<U>(k, i, left), fill<U>(T(0))};
            for (ptrdiff_t j = k + length * lanes; j < n; j += length * lanes) add_run(own, run_of<U>(j, i, left));
            for (int u = 0; u < U; u++) most = larger(absolute(part(own.hi, u)), most);
            return own;
        }
    }
    // Of all columns, one or two classes to the sums of a lane, which it may begin.
    INLINE void add_class(pair<T>* own, ptrdiff_t j, bool begins) {
        const bool two = length > 1 && j + lanes < n;
        each_column_vec<T>(first, columns, [&](ptrdiff_t t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
            vec<T> run = term.add(j, i, left, fill(T(0)));
            if (two) run = term.add(j + lanes, i, left, run);
            const pair<T> all = begins ? pair<T>{run, fill(T(0))} : two_sum(own[t].hi, run);
            own[t] = {all.hi, begins ? all.lo : own[t].lo + all.lo};
        });
    }
    INLINE void largest_of(const pair<T>* own) {
        for (ptrdiff_t t = 0; t < vecs; t++) most = larger(absolute(own[t].hi), most);
    }
    INLINE void merge_lanes(pair<T>* own, const pair<T>* other) const {
        for (ptrdiff_t t = 0; t < vecs; t++) merge_values(own[t], other[t]);
    }
    INLINE void add_all_lanes() {
        for (ptrdiff_t start = 0; start < n; start += length * lanes)
            for (ptrdiff_t k = 0; k < lanes && start + k < n; k++) add_class(lane(k), start + k, start == 0);
        for (ptrdiff_t k = 0; k < lanes && k < n; k++) largest_of(lane(k));
        join_lanes<T>(n, [&](ptrdiff_t to, ptrdiff_t from) INLINE_LAMBDA { merge_lanes(lane(to), lane(from)); });
    }
    // Lanes k, k + step, ... to lane(depth), as TileTree does.
    template <int at_once> void add_lanes(ptrdiff_t k, ptrdiff_t step, int depth) {
        pair<T>* own = lane(depth);
        if (step * at_once < lanes) {
            add_lanes<at_once>(k, 2 * step, depth);
            if (k + step >= n) return;
            add_lanes<at_once>(k + step, 2 * step, depth + 1);
            merge_lanes(own, lane(depth + 1));
        } else if constexpr (at_once > 1) {
            each_column_vecs<T>(first, columns, [&](auto count, ptrdiff_t t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
                const pair<T, count> all = sum_in_registers<count, lanes / at_once>(k, i, left);
                for (int u = 0; u < count; u++) own[t + u] = {part(all.hi, u), part(all.lo, u)};
            });
        } else {
            for (ptrdiff_t j = k; j < n; j += length * lanes) add_class(own, j, j == k);
            largest_of(own);
        }
    }
    // Whether none of them, or a part, is too large for what follows.
    INLINE bool in_order() {
        for (ptrdiff_t t = 0; t < vecs; t++) {
            room[t].lo = finite_part(room[t].lo);
            most = most + (room[t].hi - room[t].hi);
        }
        return all_moderate(most) && term.in_order();
    }
};
const int tree_over_lanes = 5;  // lanes that it has on its way
template <class T> constexpr int sums_room = std::max(vec<T>::lanes * column_vecs, tree_over_lanes * long_column_vecs);
// Of each vec to room[t]; false where they are not in order.
template <class Term>
APART bool sums_by_class(Term term, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, pair<typename Term::T>* room) {
    ColumnSums<Term> a(term, n, first, columns, false, room);
    a.add_all_lanes();
    return a.in_order();
}
template <class Term>
APART bool sums_in_long_runs(Term term, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool far, pair<typename Term::T>* room) {
    ColumnSums<Term> a(term, n, first, columns, far, room);
    if constexpr (Term::lane_by_lane)
        if (n > classes_in_lane * a.lanes) a.template add_lanes<1>(0, 1, 0);
    if (n <= classes_in_lane * a.lanes) a.template add_lanes<4>(0, 1, 0);
    return a.in_order();
}
template <class Term>
INLINE bool sums_of_columns(Term term, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool long_runs, bool far, pair<typename Term::T>* room) {
    if constexpr (long_column_vecs > column_vecs)
        if (long_runs) return sums_in_long_runs(term, n, first, columns, far, room);
    return sums_by_class(term, n, first, columns, room);
}
// Past the caches, if wanted, where a whole vec, which then begins with a line, is written; never those of 16 bits.
template <class S> INLINE void put_vec(S* z, vec<work<S>> own, ptrdiff_t left, bool past) {
    if constexpr (std::is_same<S, work<S>>::value)
        if (past && left == vec<S>::lanes) return stream(z, own);
    store(z, own, left);
}
// z = value(j, t, i, left), likewise.
template <class S, class Value>
INLINE void put_columns(const Columns<S>& z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool past, Value value) {
    for (ptrdiff_t j = 0; j < n; j++)
        each_column_vec<work<S>>(first, columns, [&](ptrdiff_t t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
            put_vec(z.at(j, i), value(j, t, i, left), left, past);
        });
}

// How columns are read and written where none of them gives NaN.
template <class S> INLINE Columns<S> stored(const Columns<S>& a) { return a; }
INLINE Columns<bnumber> stored(const Columns<bfloat>& a) { return {a.first, a.step}; }

// As apply_to_output, of columns first .. first + columns: all of them or, where it gives false, none. At most long_column_vecs
// in long runs, else column_vecs.
template <class S>
APART bool vjp_of_stored_columns(Columns<S> y, Columns<S> v, Columns<S> z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool past, bool long_runs, bool far) {
    typedef work<S> T;
    pair<T> means[sums_room<T>];
    if (!sums_of_columns(ProductOfOutput<S>{y, v}, n, first, columns, long_runs, far, means)) return false;
    put_columns(z, n, first, columns, past, [&](ptrdiff_t j, ptrdiff_t t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
        return turned_output(load(y.at(j, i), left, T(0)), load(v.at(j, i), left, T(0)), means[t]);
    });
    return true;
}
template <class S>
INLINE bool vjp_of_output_columns(const Columns<S>& y, const Columns<S>& v, const Columns<S>& z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool past, bool long_runs, bool far) {
    if constexpr (!direct_columns<S>) return false;
    else return vjp_of_stored_columns(stored(y), stored(v), stored(z), n, first, columns, past, long_runs, far);
}
template <class S>
APART bool log_vjp_of_output_columns(Columns<S> y, Columns<S> v, Columns<S> z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool past, bool long_runs, bool far) {
    if constexpr (!direct_columns<S>) return false;
    typedef work<S> T;
    const Shared<T> shared = unshifted(T(0));
    pair<T> totals[sums_room<T>];
    LogTurning<T> turnings[long_column_vecs];
    bool small = false;
    if (!sums_of_columns(TotalOfLogOutput<S>{y, v}, n, first, columns, long_runs, far, totals)) return false;
    each_column_vec<T>(first, columns, [&](ptrdiff_t t, ptrdiff_t, ptrdiff_t) INLINE_LAMBDA {
        turnings[t] = log_turning(totals[t]);
        small |= any(too_small(totals[t]));
    });
    if (small) return false;
    put_columns(z, n, first, columns, past, [&](ptrdiff_t j, ptrdiff_t t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
        const vec<T> e = exp_unshifted(load(y.at(j, i), left, T(0)), shared);
        return log_turned(e, load(v.at(j, i), left, T(0)), turnings[t]);
    });
    return true;
}
// The same of few classes, vec by vec, which goes on as long as sum(of, load_class) says that all is in order; it sets what
// turn(y, v, of) asks for, and calls load_class(j) once for each class. How many columns are done: with small registers, where
// this is slower, none.
template <class Of, class S, class N, class Sum, class Turn>
INLINE ptrdiff_t few_by_few(Columns<S> y, Columns<S> v, Columns<S> z, N n, ptrdiff_t first, ptrdiff_t columns, bool past, Sum sum, Turn turn) {
    typedef work<S> T;
    constexpr ptrdiff_t lanes = vec<T>::lanes, ahead = 5 * lanes * sizeof(S) - 1;  // of the fourth vec the end, as in panel_ahead
    const auto turn_vec = [&](ptrdiff_t i, auto left) INLINE_LAMBDA {
        Of of;
        const bool ordinary = sum(of, [=](ptrdiff_t j) INLINE_LAMBDA {
            prefetch((const char*)y.at(j, i) + ahead, 1);
            prefetch((const char*)v.at(j, i) + ahead, 1);
            return pair<T>{load(y.at(j, i), left, T(0)), load(v.at(j, i), left, T(0))};
        });
        for (ptrdiff_t j = 0; ordinary && j < n; j++)
            put_vec(z.at(j, i), turn(load(y.at(j, i), left, T(0)), load(v.at(j, i), left, T(0)), of), left, past);
        return ordinary;
    };
    ptrdiff_t done = 0;
    if constexpr (narrow_classes == 0) return done;
    for (; done + lanes <= columns; done += lanes)
        if (!turn_vec(first + done, std::integral_constant<ptrdiff_t, lanes>())) return done;
    return done == columns || turn_vec(first + done, columns - done) ? columns : done;
}
template <class S>
APART ptrdiff_t vjp_of_few_stored(Columns<S> y, Columns<S> v, Columns<S> z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool past) {
    typedef work<S> T;
    const auto of = [&](auto count) INLINE_LAMBDA {  // n, as a constant where it is next to nothing
        return few_by_few<pair<T>>(y, v, z, count, first, columns, past, [=](pair<T>& mean, auto load_class) INLINE_LAMBDA {
            Sums<T> a;
            vec<T> most = fill(T(0));
            sum_in_runs<run_length>(count, a, most, [&](vec<T> run, ptrdiff_t j) INLINE_LAMBDA {
                const pair<T> both = load_class(j);
                if (!has_fma) most = larger(absolute(both.lo), most);
                return mul_add(both.hi, both.lo, run);
            });
            mean = {a.hi, finite_part(a.lo)};
            return all_moderate(most) && all_finite(a.hi);
        }, [](vec<T> own, vec<T> w, const pair<T>& mean) INLINE_LAMBDA { return turned_output(own, w, mean); });
    };
    return n <= narrow_classes ? with_classes(n, of) : of(n);
}
template <class S>
INLINE ptrdiff_t vjp_of_few_outputs(const Columns<S>& y, const Columns<S>& v, const Columns<S>& z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool past) {
    return vjp_of_few_stored(stored(y), stored(v), stored(z), n, first, columns, past);
}
template <class S>
APART ptrdiff_t log_vjp_of_few_outputs(Columns<S> y, Columns<S> v, Columns<S> z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool past) {
    typedef work<S> T;
    const Shared<T> shared = unshifted(T(0));
    return few_by_few<LogTurning<T>>(y, v, z, n, first, columns, past, [=](LogTurning<T>& of, auto load_class) INLINE_LAMBDA {
        Sums<T> a;
        vec<T> most = fill(T(0)), beyond = fill(T(0));
        sum_in_runs<1>(n, a, most, [&](vec<T> run, ptrdiff_t j) INLINE_LAMBDA {
            const pair<T> both = load_class(j);
            beyond = beyond + keep(not_below(both.hi, fill(largest_log<T>)), fill(T(1)));
            return run + both.lo;
        });
        of = log_turning(pair<T>{a.hi, finite_part(a.lo)});
        return all_moderate(most) && all_finite(a.hi) && !any(too_small(pair<T>{a.hi, finite_part(a.lo)})) && !any(not_below(beyond, fill(T(1))));
    }, [&](vec<T> own, vec<T> w, const LogTurning<T>& of) INLINE_LAMBDA { return log_turned(exp_unshifted(own, shared), w, of); });
}

// ---- from logits ----

// Some vecs of columns of logits x and of v, in scratch, one after the other, class by class: from x and v themselves, where
// rows lie a power of two apart, the caches would hold few classes of a column. Of each the maximum is known, the first class
// that has it, v there, and the largest |v|; NaN apart.
const int logit_vecs = vec<float>::regs > 2 ? 0 : 4;  // at most; with small registers a lot of code would gain little
const int classes_near = 8;                           // by which memory is fetched
template <class T> struct LogitColumns {
    struct Top { vec<T> max, at, middle, most; };
    ptrdiff_t n, first, columns;
    T *x, *v;
    Top tops[logit_vecs];

    INLINE LogitColumns(Columns<T> from_x, Columns<T> from_v, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, T* scratch)
        : n(n), first(first), columns(columns), x(scratch), v(scratch + logit_vecs * n * vec<T>::lanes) {
        const ptrdiff_t lanes = vec<T>::lanes;
        if (columns == logit_vecs * lanes) read<logit_vecs>(from_x, from_v, 0, lanes);
        else for (ptrdiff_t t = 0; t * lanes < columns; t++) read<1>(from_x, from_v, t, columns - t * lanes);
    }
    INLINE T* x_of(ptrdiff_t t) const { return x + t * n * vec<T>::lanes; }
    INLINE T* v_of(ptrdiff_t t) const { return v + t * n * vec<T>::lanes; }
    // `some` vecs from the t-th on; of one, `left` columns may be there.
    template <int some> APART void read(Columns<T> from_x, Columns<T> from_v, ptrdiff_t t, ptrdiff_t left) {
        const ptrdiff_t lanes = vec<T>::lanes, i = first + t * lanes, last = lanes * sizeof(T) - 1;  // as in panel_ahead
        T *to_x = x_of(t), *to_v = v_of(t);
        Top a[some];
#pragma GCC unroll 4
        for (int k = 0; k < some; k++) a[k] = {fill(-std::numeric_limits<T>::infinity()), fill(T(0)), fill(T(0)), fill(T(0))};
        for (ptrdiff_t j = 0; j < n; j++) {
            const T *here_x = from_x.at(j, i), *here_v = from_v.at(j, i);
            prefetch((const char*)here_x + classes_near * from_x.step + last, some);
            prefetch((const char*)here_v + classes_near * from_v.step + last, some);
#pragma GCC unroll 4
            for (int k = 0; k < some; k++) {
                const vec<T> own = load(here_x + k * lanes, left, T(0)), w = load(here_v + k * lanes, left, T(0));
                const mask<T> known = not_below(a[k].max, own);
                a[k].max = choose(known, a[k].max, own);
                a[k].at = choose(known, a[k].at, fill(T(j)));
                a[k].middle = choose(known, a[k].middle, w);
                a[k].most = larger(absolute(w), a[k].most);
                store(to_x + (k * n + j) * lanes, own, lanes);
                store(to_v + (k * n + j) * lanes, w, lanes);
            }
        }
        for (int k = 0; k < some; k++) tops[t + k] = a[k];
    }
    // Calls sum(t, shift) for each vec, as long as the maxima are within reach and it gives true; how many columns that are.
    template <class Sum> INLINE ptrdiff_t in_order(Sum sum) const {
        const vec<T> beyond = fill(std::nextafter(constants<T>::reach, std::numeric_limits<T>::infinity()));
        for (ptrdiff_t t = 0; t * vec<T>::lanes < columns; t++) {
            Shift<T> shift;
            if (any(not_below(absolute(tops[t].max), beyond))) return t * vec<T>::lanes;
            set_shift(shift, tops[t].max, fill(T(0)), Factor{1, 0, 1}, Plain());
            set_largest(shift, Plain());
            if (!sum(t, shift)) return t * vec<T>::lanes;
        }
        return columns;
    }
    // z of the first `count` columns, by what in_order made of them, past the caches as put_vec does. Some classes of a vec,
    // and then of the next, so that what these ask for is in registers, and lines that lie together are written together.
    template <class Of> INLINE void put(const Columns<T>& z, ptrdiff_t count, bool past, const Of* of) const {
        const ptrdiff_t lanes = vec<T>::lanes;
        for (ptrdiff_t start = 0; start < n; start += classes_near)
            each_column_vec<T>(first, count, [&](ptrdiff_t t, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
                const ptrdiff_t end = start + classes_near < n ? start + classes_near : n;
                const T *e = x_of(t), *w = v_of(t);
                const vec<T> at = tops[t].at;
                const Of own = of[t];
                for (ptrdiff_t j = start; j < end; j++) {
                    T* to = z.at(j, i);
                    const vec<T> value = turned_by(own, load(e + j * lanes, lanes, T(0)), load(w + j * lanes, lanes, T(0)));
                    const vec<T> result = choose(equal(at, fill(T(j))), own.dominant, value);
                    prefetch_to_write((char*)to + classes_near * z.step, 1);
                    if (past && left == lanes) stream(to, result);
                    else store(to, result, left);
                }
            });
    }
};
template <class T> INLINE vec<T> turned_by(const Vjp<T>& a, vec<T> e, vec<T> v) { return turned(e, v, T(1), a.mean, a.factor); }
template <class T> INLINE vec<T> turned_by(const LogVjp<T>& a, vec<T> e, vec<T> g) { return log_turned(e, g, a.factor, a.minus, T(1)); }

// The second sum of sum_column, of some lanes: e (v scale - middle) in runs, or v.
template <class T> struct WeighedSum {
    vec<T> scale, middle;
    typedef pair<T, together> Run;
    INLINE Run begin(const Sums<T>*) const { return {fill<together>(start_of_weighed<T>()), fill<together>(T(0))}; }
    INLINE void add(Run& run, const Term<T, together>& e, bunch<T> v) const {
        const Run next = with_weighed(run.hi, e, mul_sub(v, spread<together>(scale), spread<together>(middle)));  // as `weighed`
        run = {next.hi, run.lo + next.lo};
    }
    INLINE void end(Sums<T>* all, const Run& run) {
        for (int u = 0; u < together; u++) end_run(all[u], pair<T>{part(run.hi, u), part(run.lo, u)});
    }
};
template <class T> struct PlainSum {
    vec<T> most = fill(T(0));  // of a lane on its way
    typedef Sums<T, together> Run;
    INLINE Run begin(const Sums<T>* all) const {
        Run run;
        put_together(all, run, All());
        return run;
    }
    INLINE void add(Run& run, const Term<T, together>&, bunch<T> v) const { add_other(run, v); }
    INLINE void end(Sums<T>* all, const Run& run) {
        take_apart(run, all, All());
        for (int u = 0; u < together; u++) most = larger(absolute(all[u].hi), most);
    }
};
// Sums over the classes of a vec of columns as a row by itself has them, class j in lane j mod lanes: of exp(x - max), which
// takes the place of x, and another. Some lanes go side by side, and no farther than a run of weighed_run vecs at a time,
// which stays in the nearest cache.
template <class Which, class T, class Second>
APART void sum_column(T* x, const T* v, ptrdiff_t n, const Shared<T>& shared, Which which, Second& second, Sums<T>& sum, Sums<T>& other) {
    const ptrdiff_t lanes = vec<T>::lanes, length = weighed_run * lanes;
    const Shared<T> s = shared;
    Sums<T> sums[vec<T>::lanes], others[vec<T>::lanes];
    for (ptrdiff_t k = 0; k < lanes; k++) {
        begin(sums[k], n, which);
        begin_runs(others[k]);
    }
    for (ptrdiff_t start = 0; start < n; start += length) {
        const ptrdiff_t end = start + length < n ? start + length : n;
        for (ptrdiff_t k = 0; k < lanes && start + k < end; k += together) {
            Sums<T, together> a;
            put_together(sums + k, a, which);
            auto run = second.begin(others + k);
            for (ptrdiff_t j = start + k; j < end; j += lanes) {
                const ptrdiff_t at = j * lanes, left = (end - j) * lanes;  // of one lane no class may be left
                const bunch<T> own = load_bunch(x + at, left, -std::numeric_limits<T>::infinity());
                const Term<T, together> e = shifted_term(own, s, Plain(), which);
                store(x + at, value(e), left);
                collect(a, e, own, s, which);
                second.add(run, e, load_bunch(v + at, left, T(0)));
            }
            take_apart(a, sums + k, which);
            second.end(others + k, run);
        }
    }
    for (ptrdiff_t k = 0; k < lanes; k++) finish(sums[k], n, which, false);
    if (std::is_same<Which, Exact>::value && n <= few_classes)
        join_lanes<T>(n, [&](ptrdiff_t to, ptrdiff_t from) INLINE_LAMBDA {
            sums[to].hi = sums[to].hi + sums[from].hi;
            sums[to].lo = sums[to].lo + sums[from].lo;
        });
    else fold_lanes(sums, n, which);
    fold_lanes(others, n, All());
    sum = sums[0];
    other = others[0];
}

// z of columns first .. first + columns, at most logit_vecs: sum(logits, t, shift, of) sets what turned_by asks for of the t-th
// vec, and says whether that is in order. Scratch holds 2 n logit_vecs vecs. How many columns are done.
template <class Of, class T, class Sum>
INLINE ptrdiff_t turn_columns(Columns<T> x, Columns<T> v, Columns<T> z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool past, T* scratch, Sum sum) {
    if constexpr (logit_vecs == 0) return 0;
    else {
        LogitColumns<T> a(x, v, n, first, columns, scratch);
        Of of[logit_vecs];
        const ptrdiff_t done = a.in_order([&](ptrdiff_t t, const Shift<T>& shift) INLINE_LAMBDA { return sum(a, t, shift, of[t]); });
        a.put(z, done, past, of);
        return done;
    }
}
// As apply_vjp.
template <class T>
APART ptrdiff_t vjp_of_columns(Columns<T> x, Columns<T> v, Columns<T> z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool past, T* scratch) {
    return turn_columns<Vjp<T>>(x, v, z, n, first, columns, past, scratch, [n](auto& a, ptrdiff_t t, const Shift<T>& shift, Vjp<T>& of) INLINE_LAMBDA {
        const vec<T> most = a.tops[t].most, unit = unit_scale(most), up = power_of_two(fill(T(0)) - exponent(unit));
        WeighedSum<T> weighed = {unit, a.tops[t].middle * unit};
        Sums<T> sum, dot;
        if (any(equal(product_scale(most), fill(small_scale(T()))))) return false;
        sum_column(a.x_of(t), a.v_of(t), n, shift.each, Exact(), weighed, sum, dot);
        set_vjp(of, sum, scaled_by(dot, up), shift, fill(T(1)), weighed.middle * up, Factor{1, 0, 1});
        return all_finite(of.mean.hi + of.factor.hi);
    });
}
// As apply_log_vjp.
template <class T>
APART ptrdiff_t log_vjp_of_columns(Columns<T> x, Columns<T> v, Columns<T> z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bool past, T* scratch) {
    return turn_columns<LogVjp<T>>(x, v, z, n, first, columns, past, scratch, [n](auto& a, ptrdiff_t t, const Shift<T>& shift, LogVjp<T>& of) INLINE_LAMBDA {
        PlainSum<T> plain;
        Sums<T> sum, total;
        sum_column(a.x_of(t), a.v_of(t), n, shift.each, Others(), plain, sum, total);
        set_log_vjp(of, sum, total, shift, a.tops[t].middle, fill(T(1)), Factor{1, 0, 1});
        return all_moderate(plain.most) && all_finite(of.factor.hi + of.minus.hi);
    });
}

}}  // namespace
