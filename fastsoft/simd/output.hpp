// z from a kept output y, and v: y_i (v_i - y.v), or, where y is a log_softmax, v_i - e^(y_i) sum v. Contiguous rows of any
// type, each by itself and its sum in registers: while one row is summed, z of the one before is written. The bits are those
// of kernels/gradients.pxi, which does the rows that are out of the ordinary. What names the operation: TurnOutput or
// LogTurnOutput.
#pragma once
#include "few.hpp"

namespace fastsoft { namespace {

template <class What> constexpr bool takes_products = std::is_same<What, TurnOutput>::value;

// A row of y, v and z, and how many bytes the next one lies after it.
template <class S> struct OutputRow {
    const S* y;
    const S* v;
    S* z;
    ptrdiff_t y_apart, v_apart, z_apart;
};
template <class T> INLINE T* shifted(T* p, ptrdiff_t bytes) { return (T*)((uintptr_t)p + bytes); }
template <class S> INLINE OutputRow<S> next_row(const OutputRow<S>& a) {
    return {shifted(a.y, a.y_apart), shifted(a.v, a.v_apart), shifted(a.z, a.z_apart), a.y_apart, a.v_apart, a.z_apart};
}

// A row whose sum is in order gives no NaN but by way of exp.
template <class S> INLINE OutputRow<S> stored(const OutputRow<S>& a, LogTurnOutput) { return a; }
template <class S> INLINE OutputRow<S> stored(const OutputRow<S>& a, TurnOutput) { return a; }
INLINE OutputRow<bnumber> stored(const OutputRow<bfloat>& a, TurnOutput) {
    return {(const bnumber*)a.y, (const bnumber*)a.v, (bnumber*)a.z, a.y_apart, a.v_apart, a.z_apart};
}

// ---- z ----

// What a row's sum gives, or, lane by lane, those of several rows.
template <class T, class What> struct Turning { pair<T> mean; };
template <class T> struct Turning<T, LogTurnOutput> {
    LogTurning<T> log;
    Shared<T> shared;
};
template <class T> INLINE Turning<T, TurnOutput> turning(const pair<T>& sum, TurnOutput) { return {sum}; }
template <class T> INLINE Turning<T, LogTurnOutput> turning(const pair<T>& sum, LogTurnOutput) { return {log_turning(sum), unshifted(T(0))}; }
template <class T> INLINE Turning<T, TurnOutput> of_row(const Turning<T, TurnOutput>& a, int r) { return {of_row(a.mean, r)}; }
template <class T> INLINE Turning<T, LogTurnOutput> of_row(const Turning<T, LogTurnOutput>& a, int r) { return {of_row(a.log, r), a.shared}; }
// z of some y and v; `seen` is not finite in the end if an exponential was not.
template <class T, int U> INLINE vec<T, U> turned_by(const Turning<T, TurnOutput>& a, vec<T, U> y, vec<T, U> v, vec<T>&) { return turned_output(y, v, a.mean); }
template <class T, int U> INLINE vec<T, U> turned_by(const Turning<T, LogTurnOutput>& a, vec<T, U> y, vec<T, U> v, vec<T>& seen) {
    const vec<T, U> e = value(shifted_term(y, a.shared, Plain(), Others()));
    for (int k = 0; k < U; k++) seen = seen + part(e, k);
    return log_turned(e, v, a.log);
}
// Of rows, lane by lane, how many come before one whose sum goes another way.
template <class T, class What> INLINE int ordinary(const pair<T>& sum, int rows, What) {
    if (takes_products<What>) return rows;
    const mask<T> small = too_small(sum);
    const int first = any(small) ? first_lane(small) : rows;
    return first < rows ? first : rows;
}
// The next `left` z, U vecs of which all but the last are whole, as `put`.
template <int U, class T, class S, class What, class Way>
INLINE void turn_vecs(const S* y, const S* v, S* z, ptrdiff_t left, const Turning<T, What>& a, vec<T>& seen, Way, Seam<T>* seam) {
    const ptrdiff_t lanes = vec<T>::lanes, last = left - (U - 1) * lanes;
    if (std::is_same<Way, Near>::value) seam = nullptr;
    if constexpr (U == 1) return put(z, turned_by(a, load(y, left, T(0)), load(v, left, T(0)), seen), left, seam);
    const auto here = [&](int k) INLINE_LAMBDA { return k < U - 1 ? lanes : last; };
    vec<T, U> own, w;
    for (int k = 0; k < U; k++) set_part(own, k, load(y + k * lanes, here(k), T(0)));
    for (int k = 0; k < U; k++) set_part(w, k, load(v + k * lanes, here(k), T(0)));
    w = turned_by(a, own, w, seen);
    for (int k = 0; k < U; k++) put(z + k * lanes, part(w, k), here(k), seam);
}
// How many of them go side by side: exponentials wait for themselves.
template <class What> constexpr int turned_together = takes_products<What> ? 1 : exp_together;
// product_vecs of them.
template <class T, class S, class What, class Way>
INLINE void turn_any(const S* y, const S* v, S* z, const Turning<T, What>& a, vec<T>& seen, Way way, Seam<T>* seam) {
    constexpr ptrdiff_t vecs = turned_together<What>, step = vecs * vec<T>::lanes;
    for (ptrdiff_t k = 0; k < product_vecs * vec<T>::lanes; k += step)
        turn_vecs<vecs>(y + k, v + k, z + k, step, a, seen, way, seam);
}
// The last, or the first, of a row.
template <class T, class S, class What, class Way>
INLINE void turn_rest(const S* y, const S* v, S* z, ptrdiff_t left, const Turning<T, What>& a, vec<T>& seen, Way way, Seam<T>* seam) {
    for (ptrdiff_t k = 0; k < left; k += vec<T>::lanes) turn_vecs<1>(y + k, v + k, z + k, left - k, a, seen, way, seam);
}
template <class T, class S> INLINE void end_row(const OutputRow<S>& row, ptrdiff_t n, vec<T> seen, Seam<T>* seam) {
    if (all_finite(seen)) return;
    if (seam) end_seam(*seam);
    tidy(row.z, n);
}

// ---- sums ----

// Products go in runs; nothing bounds v, so that of its sum each is added without loss.
template <class What> constexpr int vecs_in_run = takes_products<What> ? run_length : 1;
template <class T, class What> INLINE vec<T> to_run(vec<T> y, vec<T> v, vec<T> run, What) {
    if constexpr (takes_products<What>) return mul_add(y, v, run);
    else return v;
}
// What add_any_steps leaves, the last vec in part; and with(k) beside each vec.
template <class T, class S, class What, class With>
INLINE void add_rest(Sums<T>& a, const S* y, const S* v, ptrdiff_t left, What what, With with) {
    const ptrdiff_t lanes = vec<T>::lanes, step = vecs_in_run<What> * lanes;
    for (ptrdiff_t i = 0; i < left; i += step) {
        vec<T> run = fill(T(0));
        for (ptrdiff_t k = i; k < i + step && k < left; k += lanes) {
            run = to_run(load(y + k, left - k, T(0)), load(v + k, left - k, T(0)), run, what);
            with(k);
        }
        end_run(a, run);
    }
}
// product_vecs at a time, from i on as far as all are there before `stop`, and with each of them with(i). Says how far it came.
template <class T, class S, class What, class With>
INLINE ptrdiff_t add_any_steps(Sums<T>& a, const S* y, const S* v, ptrdiff_t i, ptrdiff_t stop, What what, With with) {
    const ptrdiff_t step = product_vecs * vec<T>::lanes;
    Vecs<S> from_y{y + i}, from_v{v + i};
    for (; i + step <= stop; i += step) {
        for (int k = 0; k < product_vecs; k += vecs_in_run<What>) {
            vec<T> run = fill(T(0));
            for (int j = 0; j < vecs_in_run<What>; j++) run = to_run(from_y.next(), from_v.next(), run, what);
            end_run(a, run);
        }
        with(i);
    }
    return i;
}
const ptrdiff_t output_block = 8192;  // classes that are summed in one go, as BLOCK in kernels/operation.pxi
// The sum of a row; other(a, start, stop) adds those of a block.
template <class T, class Other> INLINE Sums<T> in_blocks(ptrdiff_t n, Other other) {
    Sums<T> all, a;
    begin_runs(all);
    for (ptrdiff_t start = 0; start < n; start += output_block) {
        begin_runs(a);
        other(a, start, n < start + output_block ? n : start + output_block);
        if (start == 0) all = a;
        else merge(all, a);
    }
    return all;
}
template <class T, class S, class What> INLINE Sums<T> output_sum(const OutputRow<S>& row, ptrdiff_t n, What what) {
    return in_blocks<T>(n, [&](Sums<T>& a, ptrdiff_t start, ptrdiff_t stop) INLINE_LAMBDA {
        const ptrdiff_t i = add_any_steps(a, row.y, row.v, start, stop, what, [](ptrdiff_t) INLINE_LAMBDA {});
        add_rest(a, row.y + i, row.v + i, stop - i, what, [](ptrdiff_t) INLINE_LAMBDA {});
    });
}

// ---- rows ----

// z of a row, and the sum of the next, if there is one and they go at once.
template <class T, class S, class What, class Way>
INLINE Sums<T> turn_row(const OutputRow<S>& row, const Turning<T, What>& turning, const OutputRow<S>* next, ptrdiff_t n, What what, Way way, Seam<T>* seam) {
    const ptrdiff_t step = product_vecs * vec<T>::lanes, near = near_bytes / sizeof(S), lines = step * sizeof(S) / 64;
    const ptrdiff_t skip = std::is_same<Way, Past>::value ? to_line(row.z, n, true) : 0, end = n - skip;
    const S *y = row.y + skip, *v = row.v + skip;
    S* z = row.z + skip;
    const Turning<T, What> a = turning;  // in registers: for the compiler a store to z might change it
    vec<T> seen = fill(T(0));
    Sums<T> sum;
    turn_rest(row.y, row.v, row.z, skip, a, seen, way, seam);
    if (next) {
        const S *next_y = next->y, *next_v = next->v;
        sum = in_blocks<T>(n, [&](Sums<T>& own, ptrdiff_t start, ptrdiff_t stop) INLINE_LAMBDA {
            const ptrdiff_t i = add_any_steps(own, next_y, next_v, start, stop < end ? stop : end, what, [&](ptrdiff_t i) INLINE_LAMBDA {
                prefetch(next_y + i + near, lines);
                prefetch(next_v + i + near, lines);
                turn_any(y + i, v + i, z + i, a, seen, way, seam);
            });
            add_rest(own, next_y + i, next_v + i, stop - i, what, [&](ptrdiff_t k) INLINE_LAMBDA {
                if (i + k < end) turn_vecs<1>(y + i + k, v + i + k, z + i + k, end - i - k, a, seen, way, seam);
            });
        });
    } else {
        ptrdiff_t i = 0;
        for (; i + step <= end; i += step) turn_any(y + i, v + i, z + i, a, seen, way, seam);
        turn_rest(y + i, v + i, z + i, end - i, a, seen, way, seam);
    }
    if (!takes_products<What>) end_row(row, n, seen, seam);
    return sum;
}
// `count` rows, as far as their sums are moderate; how many that are. `in_turn`: sums and z not at once.
template <class S, class What, class Way, class T>
APART ptrdiff_t turn_outputs_of(OutputRow<S> row, ptrdiff_t n, ptrdiff_t count, bool in_turn, What what, Way way, Seam<T>* seam) {
    Sums<T> sum = output_sum<T>(row, n, what);
    for (ptrdiff_t r = 0; r < count; r++) {
        if (!all_moderate(sum.hi)) return r;
        const pair<T> all = folded(sum);
        if (ordinary(all, 1, what) == 0) return r;
        const Turning<T, What> a = turning(all, what);
        const OutputRow<S> next = next_row(row);
        const bool last = r + 1 == count;
        if (!in_turn && !last) sum = turn_row(row, a, &next, n, what, way, seam);
        else {
            turn_row(row, a, (const OutputRow<S>*)nullptr, n, what, way, seam);
            if (!last) sum = output_sum<T>(next, n, what);
        }
        row = next;
    }
    return count;
}

template <class S, class What, class Way, class T>
INLINE ptrdiff_t turn_outputs(const OutputRow<S>& row, ptrdiff_t n, ptrdiff_t count, bool in_turn, What what, Way way, Seam<T>* seam) {
    return turn_outputs_of(stored(row, what), n, count, in_turn, what, way, seam);
}

// V in groups of at most so many: f(how many, as a type, and which is the first).
template <int V, int most, int k = 0, class F> INLINE void in_groups(F f) {
    constexpr int U = V - k < most ? V - k : most;
    f(std::integral_constant<int, U>(), k);
    if constexpr (k + U < V) in_groups<V, most, k + U>(f);
}
// The same of rows of few vecs. Some rows at a time: more share the work over the lanes, fewer are still in the nearest cache
// when their z is written. Fetched is what comes `near_bytes` later, as a rule of the next rows.
const int dots_together = 8;
template <int V, class S, class What> APART ptrdiff_t few_outputs_of(OutputRow<S> row, ptrdiff_t n, ptrdiff_t count, What what) {
    typedef work<S> T;
    const ptrdiff_t lanes = vec<T>::lanes, last = n - (V - 1) * lanes, near = near_bytes / sizeof(S);
    Seam<T>* const no_seam = nullptr;
    ptrdiff_t done = 0;
    while (done < count) {
        Sums<T> sums[dots_together];
        OutputRow<S> a = row;
        int some = 0;
        for (; some < dots_together && some < count - done; some++, a = next_row(a)) {
            Sums<T> sum;
            vec<T> run;
            begin_runs(sum);
#pragma GCC unroll 8
            for (int k = 0; k < V; k++) {
                const ptrdiff_t j = k * lanes, left = k < V - 1 ? lanes : last;
                if (k % vecs_in_run<What> == 0) run = fill(T(0));
                prefetch(a.y + j + near, 1);
                prefetch(a.v + j + near, 1);
                run = to_run(load(a.y + j, left, T(0)), load(a.v + j, left, T(0)), run, what);
                if (k % vecs_in_run<What> == vecs_in_run<What> - 1 || k == V - 1) end_run(sum, run);
            }
            if (!all_moderate(sum.hi)) break;
            sums[some] = sum;
        }
        if (some == 0) break;
        if (some == dots_together) Fold<vec<T>::lanes / 2, pair<T>>::rows(sums, dots_together);  // so unrolled
        else fold(sums, some, All());
        const pair<T> sum = {sums[0].hi, sums[0].lo};
        const int rows = ordinary(sum, some, what);
        const Turning<T, What> all = turning(sum, what);
        for (int r = 0; r < rows; r++, row = next_row(row)) {
            const Turning<T, What> own = of_row(all, r);
            vec<T> seen = fill(T(0));
            in_groups<V, turned_together<What>>([&](auto U, int k) INLINE_LAMBDA {
                const ptrdiff_t j = k * lanes, left = k + U < V ? U * lanes : n - j;
                turn_vecs<U>(row.y + j, row.v + j, row.z + j, left, own, seen, Near(), no_seam);
            });
            if (!takes_products<What>) end_row(row, n, seen, no_seam);
        }
        done += rows;
        if (rows < some) break;
    }
    return done;
}
template <class S, class What> INLINE ptrdiff_t few_outputs(const OutputRow<S>& row, ptrdiff_t n, ptrdiff_t count, What what) {
    return of_vecs<work<S>>(n, [&](auto V) INLINE_LAMBDA { return few_outputs_of<V>(stored(row, what), n, count, what); });
}

// ---- products of float32 and float64, once more ----

// The same for what asks for most, y (v - y.v) as it lies: these loops are as fast as memory, and as fast with small registers
// only if the compiler needs no more of them than here (with those above they are slower by a tenth).

// Runs of products, of which `left` are there.
template <class T> INLINE void add_runs(Sums<T>& a, const T* x, const T* v, ptrdiff_t left) {
    const ptrdiff_t run_step = run_length * vec<T>::lanes, step = together * vec<T>::lanes;
    for (ptrdiff_t i = 0; i < product_vecs * vec<T>::lanes && i < left; i += run_step) {
        vec<T> run = fill(T(0));
        for (ptrdiff_t k = i; k < i + run_step && k < left; k += step)
            add_products(run, load_bunch(x + k, left - k, T(0)), load_bunch(v + k, left - k, T(0)));
        end_run(a, run);
    }
}
// The same for product_vecs at a time, from i on as far as all are there before `stop`, and with each of them other(i).
// Says how far it came. `between`: 0, or 1 where v does not begin with a line of memory, or 2 where x does not either.
template <class T, class Other>
INLINE ptrdiff_t add_steps(Sums<T>& a, const T* x, const T* v, ptrdiff_t i, ptrdiff_t stop, int between, Other other) {
    const ptrdiff_t step = product_vecs * vec<T>::lanes;
    const auto go = [&](auto from_x, auto from_v, ptrdiff_t end) INLINE_LAMBDA {
        for (; i + step <= end; i += step) {
            for (int k = 0; k < product_vecs; k += run_length) {
                vec<T> run = fill(T(0));
                for (int j = 0; j < run_length; j++) run = mul_add(from_x.next(), from_v.next(), run);
                end_run(a, run);
            }
            other(i);
        }
    };
    if constexpr (whole_lines) {
        if (between == 1) go(Vecs<T>{x + i}, Lines<T>(v + i), stop - vec<T>::lanes);
        else if (between == 2) go(Lines<T>(x + i), Lines<T>(v + i), stop - vec<T>::lanes);
    }
    go(Vecs<T>{x + i}, Vecs<T>{v + i}, stop);
    return i;
}
template <class T> INLINE ptrdiff_t add_steps(Sums<T>& a, const T* x, const T* v, ptrdiff_t i, ptrdiff_t stop, int between) {
    return add_steps(a, x, v, i, stop, between, [](ptrdiff_t) INLINE_LAMBDA {});
}

// The next `left` z, at most a vec, or product_vecs, likewise, as `put`.
template <class T, class Way>
INLINE void turn_vec(const T* y, const T* v, T* z, ptrdiff_t left, const pair<T>& mean, Way, Seam<T>* seam) {
    if (std::is_same<Way, Near>::value) seam = nullptr;
    put(z, turned_output(load(y, left, T(0)), load(v, left, T(0)), mean), left, seam);
}
template <class T, class Way>
INLINE void turn_some(const T* y, const T* v, T* z, ptrdiff_t left, const pair<T>& mean, Way way, Seam<T>* seam) {
    const int lanes = vec<T>::lanes;
    for (ptrdiff_t k = 0; k < product_vecs * lanes && k < left; k += lanes)
        turn_vec(y + k, v + k, z + k, left - k, mean, way, seam);
}
// The sums of one row's products from i on, and z of another, up to `stop` of the one and `end` of the other.
template <class T, class Way>
INLINE void overlap_steps(Sums<T>& a, const T* next_y, const T* next_v, ptrdiff_t i, ptrdiff_t stop, int between,
                          ptrdiff_t near, const T* y, const T* v, T* z, ptrdiff_t end, const pair<T>& mean, Way way, Seam<T>* seam) {
    const ptrdiff_t lanes = vec<T>::lanes, step = run_length * lanes;
    i = add_steps(a, next_y, next_v, i, stop < end ? stop : end, between, [&](ptrdiff_t i) INLINE_LAMBDA {
        prefetch(next_y + i + near, product_vecs);
        prefetch(next_v + i + near, product_vecs);
        turn_some(y + i, v + i, z + i, product_vecs * lanes, mean, way, seam);
    });
    for (; i < stop; i += step) {
        vec<T> run = fill(T(0));
        for (ptrdiff_t k = i; k < i + step; k += lanes) {
            run = mul_add(load(next_y + k, stop - k, T(0)), load(next_v + k, stop - k, T(0)), run);
            if (k < end) turn_vec(y + k, v + k, z + k, end - k, mean, way, seam);
        }
        end_run(a, run);
    }
}

}}  // namespace
