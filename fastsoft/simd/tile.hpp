// Tiles: rows side by side, a row in each lane, class j at tile + j * lanes. How rows get there and back, and their sums.
#pragma once
#include "math.hpp"

namespace fastsoft { namespace {

const int unrolled = vec<float>::regs > 2 ? 1 : 16;  // squares of more registers than there are stay in memory
// Class k of rows[i] into lane i of the vec at tile + k * lanes, for the first `left` classes, at most all lanes; and
// back, of the first `count` rows, with what ends them if that is not null. The squares stay in registers, hence the loops unrolled.
template <class T, class S> APART void rows_to_square(const S* const* rows, ptrdiff_t left, T* tile) {
    const int lanes = vec<T>::lanes;
    vec<T> a[lanes];
    if (left >= lanes) {
#pragma GCC unroll unrolled
        for (int i = 0; i < lanes; i++) a[i] = load(rows[i], (ptrdiff_t)lanes, T(0));
    } else {
#pragma GCC unroll unrolled
        for (int i = 0; i < lanes; i++) a[i] = load(rows[i], left, T(0));
    }
    transpose(a);
#pragma GCC unroll unrolled
    for (int k = 0; k < lanes; k++)
        if (k < left) store(tile + k * lanes, a[k], (ptrdiff_t)lanes);
}
// What a tile is still to be given on its way out: a factor, or the logarithm of the sum for logits as they came.
template <class T> struct Ending {
    pair<T> factor;
    Log<T> log;
    vec<T> max;
    bool is_log;
};
template <class T> INLINE vec<T> by_factor(vec<T> v, const Ending<T>& end) { return scaled(v, end.factor); }
template <class T> INLINE vec<T> by_log(vec<T> v, const Ending<T>& end) { return log_value(v, end.log, end.max); }
template <class T> INLINE vec<T> load_ended(const T* p, const Ending<T>* end) {
    const vec<T> v = load(p, (ptrdiff_t)vec<T>::lanes, T(0));
    return !end ? v : end->is_log ? by_log(v, *end) : by_factor(v, *end);
}
template <class T> INLINE void end_with(Ending<T>& end, const pair<T>& factor) {
    end.factor = factor;
    end.is_log = false;
}
template <class T> INLINE void end_with(Ending<T>& end, const Log<T>& log, const Shared<T>& s) {
    end.log = log;
    end.max = s.max;  // of an empty row not the maximum
    end.is_log = true;
}
// Of a tile that needs no more, as those beside it are ended: from logarithms 0 is taken, none being a maximum.
template <class T> INLINE void set_ended(Ending<T>& end, bool is_log) {
    const vec<T> zero = fill(T(0));
    end.factor = {fill(T(1)), zero};
    end.log = {zero, zero, zero};
    end.max = fill(std::numeric_limits<T>::quiet_NaN());
    end.is_log = is_log;
}
template <class T> INLINE void end_in_place(T* tile, ptrdiff_t n, const Ending<T>* end) {
    for (ptrdiff_t j = 0; j < n; j++) store(tile + j * vec<T>::lanes, load_ended(tile + j * vec<T>::lanes, end), (ptrdiff_t)vec<T>::lanes);
}
template <class T, class S> APART void square_to_rows(const T* tile, ptrdiff_t left, S* const* rows, int count, const Ending<T>* end = nullptr) {
    const int lanes = vec<T>::lanes;
    vec<T> a[lanes];
#pragma GCC unroll unrolled
    for (int k = 0; k < lanes; k++) a[k] = k < left ? load_ended(tile + k * lanes, end) : fill(T(0));
    transpose(a);
    if (left >= lanes) {
#pragma GCC unroll unrolled
        for (int i = 0; i < lanes; i++)
            if (i < count) store(rows[i], a[i], (ptrdiff_t)lanes);
    } else {
#pragma GCC unroll unrolled
        for (int i = 0; i < lanes; i++)
            if (i < count) store(rows[i], a[i], left);
    }
}

// Where row i of a batch starts, in bytes, its axes being of that shape and stride.
INLINE ptrdiff_t row_offset(int ndim, const ptrdiff_t* shape, const ptrdiff_t* stride, ptrdiff_t i) {
    ptrdiff_t at = 0;
    for (int d = ndim - 1; d > 0; d--) {
        at += i % shape[d] * stride[d];
        i /= shape[d];
    }
    return ndim > 0 ? at + i * stride[0] : 0;
}

// y where the byte of a lane is not 0, else -inf; and of the first `left` lanes, whose bytes alone are read.
template <class T> INLINE vec<T> shown(vec<T> y, const char* bytes) {
    return choose(equal(from_bytes<T>(bytes), fill(T(0))), fill(-std::numeric_limits<T>::infinity()), y);
}
template <class T> INLINE vec<T> shown(vec<T> y, const char* bytes, ptrdiff_t left) {
    constexpr ptrdiff_t lanes = vec<T>::lanes;
    if (left >= lanes) return shown(y, bytes);
    char some[lanes] = {};
    for (ptrdiff_t i = 0; i < left; i++) some[i] = bytes[i];
    return shown(y, some);
}
// The same in tiles of `rows` rows of n classes, from row i on of those whose bytes begin at `bytes`, j * step further for
// class j.
template <class T>
INLINE void hide_in_tile(T* tile, ptrdiff_t n, const char* bytes, ptrdiff_t step, int ndim, const ptrdiff_t* shape,
                        const ptrdiff_t* stride, ptrdiff_t i, int count) {
    constexpr ptrdiff_t lanes = vec<T>::lanes, classes = 32;
    const auto hide = [&](ptrdiff_t j, const char* of_lanes) INLINE_LAMBDA {
        store(tile + j * lanes, shown(load(tile + j * lanes, lanes, T(0)), of_lanes), lanes);
    };
    const bool even = ndim > 0 && i % shape[ndim - 1] + count <= shape[ndim - 1];
    const ptrdiff_t apart = even ? stride[ndim - 1] : 0;
    const char* const first = bytes + row_offset(ndim, shape, stride, i);
    if (even && apart == 0) {  // the same for all rows
        for (ptrdiff_t j = 0; j < n; j++)
            if (!first[j * step]) store(tile + j * lanes, fill(-std::numeric_limits<T>::infinity()), lanes);
        return;
    }
    if (even && count == lanes && apart == 1) {
        for (ptrdiff_t j = 0; j < n; j++) hide(j, first + j * step);
        return;
    }
    char turned[classes * lanes];
    std::memset(turned, 1, sizeof turned);
    for (ptrdiff_t start = 0; start < n; start += classes) {
        const ptrdiff_t some = n - start < classes ? n - start : classes;
        for (int r = 0; r < count; r++) {
            const char* row = even ? first + r * apart : bytes + row_offset(ndim, shape, stride, i + r);
            for (ptrdiff_t j = 0; j < some; j++) turned[j * lanes + r] = row[(start + j) * step];
        }
        for (ptrdiff_t j = 0; j < some; j++) hide(start + j, turned + j * lanes);
    }
}

template <class T>
APART void hide_in_tiles(T* tiles, ptrdiff_t n, int rows, const char* bytes, ptrdiff_t step, int ndim, const ptrdiff_t* shape,
                         const ptrdiff_t* stride, ptrdiff_t i) {
    constexpr int lanes = vec<T>::lanes;
    for (int r = 0; r < rows; r += lanes)
        hide_in_tile(tiles + r * n, n, bytes, step, ndim, shape, stride, i + r, rows - r < lanes ? rows - r : lanes);
}

// Rows that lie evenly apart, in place of an array of pointers to them.
template <class S> struct Even {
    char* first;
    ptrdiff_t apart;
    INLINE S* operator[](ptrdiff_t r) const { return (S*)(first + r * apart); }
    INLINE Even operator+(ptrdiff_t r) const { return {first + r * apart, apart}; }
};

// Rows of n classes into a tile, and back, of the first `count` rows, with what ends them if that is not null: Rows are as many
// pointers as a vec has lanes, or Even. Where an instruction set `turns` parts of 16 bytes within a register:
//   load_16, store_16   a part, or its first `count` floats
//   load_parts   part p of load(rows[p * as many classes as a part holds]), and store_parts back
//   turn_parts   the squares of as many registers, each within its part
// and where the last classes do not fill a part, some go twice.
template <class T> constexpr int in_part = 16 / sizeof(T);
template <class T, class Rows, class Load> INLINE void turn_in(Rows rows, T* tile, ptrdiff_t count, Load load) {
    const int lanes = vec<T>::lanes, width = vec<T>::width, some = in_part<T>;
    for (int i = 0; i < lanes; i += width) {
        typename isa<T>::reg a[some];
        for (int k = 0; k < some; k++) a[k] = load_parts(rows + i + k, load, T());
        turn_parts(a);
        for (int k = 0; k < some && k < count; k++) store(tile + k * lanes + i, a[k]);
    }
}
template <class T, class Rows, class Store>
INLINE void turn_out(const T* tile, Rows rows, ptrdiff_t count, const Ending<T>* end, Store store) {
    const int lanes = vec<T>::lanes, width = vec<T>::width, some = in_part<T>;
    vec<T> v[some];
    for (int k = 0; k < some; k++) v[k] = k < count ? load_ended(tile + k * lanes, end) : fill(T(0));
    for (int i = 0; i < lanes / width; i++) {
        typename isa<T>::reg a[some];
        for (int k = 0; k < some; k++) a[k] = v[k].r[i];
        turn_parts(a);
        for (int k = 0; k < some; k++) store_parts(rows + i * width + k, a[k], store);
    }
}
template <class T, class S, class Rows> APART void to_tile(Rows rows, ptrdiff_t n, T* tile) {
    const int lanes = vec<T>::lanes, some = in_part<T>;
    const S* at[lanes];
    if constexpr (turns && std::is_same<S, T>::value) {
        for (ptrdiff_t start = 0; n >= some && start < n; start += some) {
            const ptrdiff_t j = start + some <= n ? start : n - some;
            turn_in(rows, tile + j * lanes, some, [j](const T* p) INLINE_LAMBDA { return load_16(p + j); });
        }
        if constexpr (some > 2)
            if (n < some) turn_in(rows, tile, n, [n](const T* p) INLINE_LAMBDA { return load_16(p, n); });
        if (n >= some || some > 2) return;
    }
    for (ptrdiff_t j = 0; j < n; j += lanes) {
        for (int i = 0; i < lanes; i++) at[i] = rows[i] + j;
        rows_to_square(at, n - j, tile + j * lanes);
    }
}
template <class T, class S, class Rows> APART void from_tile(const T* tile, ptrdiff_t n, Rows rows, int count, const Ending<T>* end) {
    const int lanes = vec<T>::lanes, some = in_part<T>;
    S* at[lanes];
    if constexpr (turns && std::is_same<S, T>::value) {
        if (count == lanes) {
            for (ptrdiff_t start = 0; n >= some && start < n; start += some) {
                const ptrdiff_t j = start + some <= n ? start : n - some;
                turn_out(tile + j * lanes, rows, some, end, [j](T* p, auto a) INLINE_LAMBDA { store_16(p + j, a); });
            }
            if constexpr (some > 2)
                if (n < some) turn_out(tile, rows, n, end, [n](T* p, auto a) INLINE_LAMBDA { store_16(p, a, n); });
            if (n >= some || some > 2) return;
        }
    }
    for (ptrdiff_t j = 0; j < n; j += lanes) {
        for (int i = 0; i < count; i++) at[i] = rows[i] + j;
        square_to_rows(tile + j * lanes, n - j, at, count, end);
    }
}

// ---- a panel: tiles of columns side by side, `apart` numbers from one to the next ----

const int panel_tiles = 16;  // that one may have
const int panel_next = 8;    // classes by which what comes next is fetched, unless that is the next panel
// By how many bytes that is. Where arrays do not begin with a line, it is the end of a vec that is fetched: its first line
// was the last one of the panel before.
template <class T, class S> INLINE ptrdiff_t panel_ahead(ptrdiff_t step, int count, bool next_panel) {
    const ptrdiff_t size = vec<T>::lanes * (ptrdiff_t)sizeof(S);
    return size - 1 + (next_panel ? count * size : panel_next * step);
}
// `count` tiles in, class by class, `step` bytes from one to the next, of the last tile `left` lanes; and their maxima, NaN
// apart. `most` is what count is at most, and all there is for the compiler.
template <int most, class T, class S>
INLINE void panel_in(const S* x, ptrdiff_t step, ptrdiff_t n, int count, ptrdiff_t left, T* tiles, ptrdiff_t apart, vec<T>* top, ptrdiff_t next) {
    const ptrdiff_t lanes = vec<T>::lanes;
    vec<T> high[most];
#pragma GCC unroll 16
    for (int t = 0; t < most; t++) high[t] = fill(-std::numeric_limits<T>::infinity());
    for (ptrdiff_t j = 0; j < n; j++, x = (const S*)((const char*)x + step)) {
#pragma GCC unroll 16
        for (int t = 0; t < most; t++) {
            if (t == count) break;
            prefetch((const char*)(x + t * lanes) + next, 1);
            const vec<T> v = load(x + t * lanes, t < count - 1 ? lanes : left, T(0));
            high[t] = larger(v, high[t]);
            store(tiles + t * apart + j * lanes, v, lanes);
        }
    }
    for (int t = 0; t < most && t < count; t++) top[t] = high[t];
}
template <class T, class S>
APART void read_panel(const S* x, ptrdiff_t step, ptrdiff_t n, int count, ptrdiff_t left, T* tiles, ptrdiff_t apart, vec<T>* top, bool next_panel) {
    const ptrdiff_t lanes = vec<T>::lanes, next = panel_ahead<T, S>(step, count, next_panel);
    if constexpr (vec<float>::regs > 2)  // unrolled, the code would be too large
        for (int t = 0; t < count; t++)
            panel_in<1>(x + t * lanes, step, n, 1, t < count - 1 ? lanes : left, tiles + t * apart, apart, top + t, next);
    else if (count == 1) panel_in<1>(x, step, n, 1, left, tiles, apart, top, next);
    else if (count == 2) panel_in<2>(x, step, n, 2, left, tiles, apart, top, next);
    else if (count == 3) panel_in<3>(x, step, n, 3, left, tiles, apart, top, next);
    else if (count == 4) panel_in<4>(x, step, n, 4, left, tiles, apart, top, next);
    else if (count == panel_tiles) panel_in<panel_tiles>(x, step, n, panel_tiles, left, tiles, apart, top, next);
    else panel_in<panel_tiles>(x, step, n, count, left, tiles, apart, top, next);
}
// The way back, with end(v, t) of what is in tile t; past the caches if wanted, and the types are the same.
template <int most, class T, class S, class End>
INLINE void panel_out(const T* tiles, ptrdiff_t apart, ptrdiff_t n, int count, ptrdiff_t left, S* out, ptrdiff_t step, bool past, ptrdiff_t next, End end) {
    const ptrdiff_t lanes = vec<T>::lanes;
    for (ptrdiff_t j = 0; j < n; j++, out = (S*)((char*)out + step)) {
#pragma GCC unroll 16
        for (int t = 0; t < most; t++) {
            if (t == count) break;
            const vec<T> v = end(load(tiles + t * apart + j * lanes, lanes, T(0)), t);
            const ptrdiff_t here = t < count - 1 ? lanes : left;
            if constexpr (std::is_same<S, T>::value) {
                if (past && here == lanes) {
                    stream(out + t * lanes, v);
                    continue;
                }
            }
            prefetch_to_write((char*)(out + t * lanes) + next, 1);
            store(out + t * lanes, v, here);
        }
    }
}
template <class T, class S, class End>
APART void end_panel(const T* tiles, ptrdiff_t apart, ptrdiff_t n, int count, ptrdiff_t left, S* out, ptrdiff_t step, bool past, bool next_panel, End end) {
    const ptrdiff_t lanes = vec<T>::lanes, next = panel_ahead<T, S>(step, count, next_panel);
    if constexpr (vec<float>::regs > 2)
        for (int t = 0; t < count; t++)
            panel_out<1>(tiles + t * apart, apart, n, 1, t < count - 1 ? lanes : left, out + t * lanes, step, past, next, [=](vec<T> v, int) INLINE_LAMBDA { return end(v, t); });
    else if (count == 1) panel_out<1>(tiles, apart, n, 1, left, out, step, past, next, end);
    else if (count == 2) panel_out<2>(tiles, apart, n, 2, left, out, step, past, next, end);
    else if (count == 3) panel_out<3>(tiles, apart, n, 3, left, out, step, past, next, end);
    else if (count == 4) panel_out<4>(tiles, apart, n, 4, left, out, step, past, next, end);
    else if (count == panel_tiles) panel_out<panel_tiles>(tiles, apart, n, panel_tiles, left, out, step, past, next, end);
    else panel_out<panel_tiles>(tiles, apart, n, count, left, out, step, past, next, end);
}
// Each tile with what ends it, unless that is null.
template <class T, class S>
INLINE void write_panel(const T* tiles, ptrdiff_t apart, ptrdiff_t n, int count, ptrdiff_t left, const Ending<T>* end, S* out, ptrdiff_t step, bool past, bool next_panel) {
    const auto write = [&](auto end_of) INLINE_LAMBDA { end_panel(tiles, apart, n, count, left, out, step, past, next_panel, end_of); };
    if (!end) write([](vec<T> v, int) INLINE_LAMBDA { return v; });
    else if (end->is_log) write([end](vec<T> v, int t) INLINE_LAMBDA { return by_log(v, end[t]); });
    else write([end](vec<T> v, int t) INLINE_LAMBDA { return by_factor(v, end[t]); });
}

// Ask for `count` rows of so many bytes. The asm is for the optimizer, to which a function that only prefetches does nothing.
template <class Fetch> APART void fetch_each(ptrdiff_t stride, int count, ptrdiff_t bytes, Fetch fetch) {
    __asm__ volatile("");
    if (stride < 64 || stride == bytes) return fetch(0, (int)(count * stride / 64));  // some rows in a line, or without a gap
    for (int c = 0; c < count; c++) fetch(c * stride, (int)((bytes + 63) / 64));
}
INLINE void fetch_rows(const char* start, ptrdiff_t stride, int count, ptrdiff_t bytes) {
    fetch_each(stride, count, bytes, [start](ptrdiff_t at, int lines) INLINE_LAMBDA { prefetch(start + at, lines); });
}
INLINE void fetch_rows_to_write(char* start, ptrdiff_t stride, int count, ptrdiff_t bytes) {
    fetch_each(stride, count, bytes, [start](ptrdiff_t at, int lines) INLINE_LAMBDA { prefetch_to_write(start + at, lines); });
}

// Lines of memory that are due next, as many of the argument and of the result as a tile has classes, to be fetched while
// it is computed: not in a burst, which would hold up what is read now. Inlined in any case, for the optimizer again.
struct Ahead {
    const char *x, *v;  // v: if `far`
    ptrdiff_t x_step, v_step;
    char* out;
    ptrdiff_t out_step;
    bool far;  // not into the nearest cache
};
INLINE void fetch(const Ahead& a, ptrdiff_t j, int count) {
    const char* x = a.x + j * a.x_step;
    char* out = a.out + j * a.out_step;
    for (int k = 0; k < count; k++, x += a.x_step, out += a.out_step) {
        if (a.far) {
            prefetch_far(x, 1);
            prefetch_far(a.v + (j + k) * a.v_step, 1);
            prefetch_far(out, 1);
        } else {
            prefetch(x);
            prefetch_to_write(out, 1);
        }
    }
}

// ---- sums over the classes of a tile: the bits are those of a row by itself, of which class j is in lane j mod lanes ----

// Sums of rows of at most few_classes classes whose larger parts, what `hi` has taken of each class, add up exactly.
// What is lost has an order: lane by lane in that of the classes, and then as `fold` does.
template <class T> struct TileSums {
    vec<T> so_far[vec<T>::lanes], lost[vec<T>::lanes];  // of each lane; it begins above all that may come, as `begin` does
};
const int least_lanes = 4;  // of which all are looked at
template <class T> INLINE void begin_tile(TileSums<T>& a, vec<T>& hi, ptrdiff_t n) {
    hi = fill(T(0));
    for (ptrdiff_t i = n; i < (n <= least_lanes ? least_lanes : vec<T>::lanes); i++) a.lost[i] = fill(T(0));
}
// Add U classes from class j on, all within the lanes; `add` gives a sum so far and one more, and what that lacks.
template <int U, class T, class Add> INLINE void add_classes(TileSums<T>& a, vec<T>& hi, ptrdiff_t j, ptrdiff_t n, T start, Add add) {
    const int lanes = vec<T>::lanes;
    T *so_far = (T*)&a.so_far[j % lanes], *lost = (T*)&a.lost[j % lanes];
    vec<T, U> before = fill<U>(start), lost_before = fill<U>(T(0));
    if (j >= lanes) {
        before = load_some<U>(so_far, U * lanes, T(0));
        lost_before = load_some<U>(lost, U * lanes, T(0));
    }
    const pair<T, U> after = add(before);
    const vec<T, U> taken = after.hi - before;
    for (int k = 0; k < U; k++) hi = hi + part(taken, k);
    store(lost, lost_before + after.lo, U * lanes);
    if (j + lanes < n) store(so_far, after.hi, U * lanes);
}
template <int lanes, int i = 0, int step = 1, class T> INLINE vec<T> all_lost(const TileSums<T>& a) {
    if constexpr (step < lanes) return all_lost<lanes, i, 2 * step>(a) + all_lost<lanes, i + step, 2 * step>(a);
    else return a.lost[i];
}
template <class T> INLINE Sums<T> end_tile(const TileSums<T>& a, vec<T> hi, ptrdiff_t n) {
    return {hi, n <= least_lanes ? all_lost<least_lanes>(a) : all_lost<vec<T>::lanes>(a), fill(T(0))};
}

// Calls f(count) for as many of the classes from j on as go through exp together; how many that were.
template <class F> INLINE ptrdiff_t some_classes(ptrdiff_t j, ptrdiff_t n, F f) {
    if (j + exp_together <= n) {
        f(std::integral_constant<int, exp_together>());
        return exp_together;
    }
    if (exp_together > 2 && j + 2 <= n) {
        f(std::integral_constant<int, 2>());
        return 2;
    }
    f(std::integral_constant<int, 1>());
    return 1;
}
// e = exp(x_j - max) in place of x, of U classes from class j on; or of some, and of how many.
template <int U, class T, class How>
INLINE void tile_exps(TileSums<T>& a, vec<T>& sum, T* x, ptrdiff_t j, ptrdiff_t n, const Shared<T>& s, How how) {
    const ptrdiff_t all = U * vec<T>::lanes;
    T* at = x + j * vec<T>::lanes;
    const Term<T, U> e = shifted_term(load_some<U>(at, all, T(0)), s, how, All());
    store(at, value(e), all);
    add_classes<U>(a, sum, j, n, start_of_sum<T>(n), [&](vec<T, U> hi) INLINE_LAMBDA { return with_term(hi, e, All()); });
}
template <class T, class How>
INLINE ptrdiff_t tile_exp_some(TileSums<T>& a, vec<T>& sum, T* x, ptrdiff_t j, ptrdiff_t n, const Shared<T>& s, How how) {
    return some_classes(j, n, [&](auto count) INLINE_LAMBDA { tile_exps<count>(a, sum, x, j, n, s, how); });
}
// exp(x_j - max) to e, of some classes from class j on; of how many.
template <class T, class How, class Which>
INLINE ptrdiff_t tile_terms_some(const T* x, T* e, ptrdiff_t j, ptrdiff_t n, const Shared<T>& s, How how, Which which) {
    const int lanes = vec<T>::lanes;
    return some_classes(j, n, [&](auto count) INLINE_LAMBDA {
        const vec<T, count> v = load_some<count>(x + j * lanes, count * lanes, T(0));
        store(e + j * lanes, value(shifted_term(v, s, how, which)), count * lanes);
    });
}
// exp(x_j - max), in place of x if wanted, of exp_together classes from class j on, if they are there, each added to the
// sums of its lane.
template <class T, class How, class Which>
INLINE void tile_lanes_some(Sums<T>* lane, T* x, bool keep, ptrdiff_t j, ptrdiff_t n, const Shared<T>& s, How how, Which which) {
    const ptrdiff_t lanes = vec<T>::lanes, left = (n - j) * lanes;
    Sums<T>* own = lane + j % lanes;
    Sums<T, exp_together> a;
    const vec<T, exp_together> v = load_some<exp_together>(x + j * lanes, left, -std::numeric_limits<T>::infinity());
    const Term<T, exp_together> e = shifted_term(v, s, how, which);
    if (keep) store(x + j * lanes, value(e), left);
    put_together(own, a, which);
    collect(a, e, v, s, which);
    take_apart(a, own, which);
}

// Calls join(to, from) for the lanes of n classes, class j in lane j mod lanes, until lane 0 has all: as a tree over lanes
// whose numbers differ in one bit, the highest first.
template <class T, class Join> INLINE void join_lanes(ptrdiff_t n, Join join) {
    for (ptrdiff_t step = vec<T>::lanes / 2; step > 0; step /= 2)
        for (ptrdiff_t i = 0; i < step && i + step < n; i++) join(i, i + step);
}
// The sums of all lanes into lane[0].
template <class T, class Which> INLINE void fold_lanes(Sums<T>* lane, ptrdiff_t n, Which which) {
    join_lanes<T>(n, [&](ptrdiff_t to, ptrdiff_t from) INLINE_LAMBDA { merge(lane[to], lane[from], which); });
}
// Sums of n classes as a tree: what one lane of a row by itself would add up, and then as `fold` does. `lane(j, a)` gives
// the sums of classes j, j + lanes, ...
template <class T, class Which, int i = 0, int step = 1> struct TileTree {
    template <class Lane> static INLINE void sum(ptrdiff_t n, Which which, Sums<T>& a, Lane lane) {
        if constexpr (step < vec<T>::lanes) {
            TileTree<T, Which, i, 2 * step>::sum(n, which, a, lane);
            if (i + step < n) {
                Sums<T> b;
                TileTree<T, Which, i + step, 2 * step>::sum(n, which, b, lane);
                merge(a, b, which);
            }
        } else {
            lane((ptrdiff_t)i, a);
        }
    }
};
// Of Others, in the tile at `terms`, of the logits in the tile at x; they go to e, which may be x, unless that is null.
template <class T>
APART void sum_of_others(const T* terms, const T* x, T* e, ptrdiff_t n, const Shared<T>& s, Sums<T>& a) {
    const int lanes = vec<T>::lanes;
    TileTree<T, Others>::sum(n, Others(), a, [&](ptrdiff_t j, Sums<T>& own) INLINE_LAMBDA {
        vec<T> term = load(terms + j * lanes, lanes, T(0));
        const mask<T> tie = equal(load(x + j * lanes, lanes, T(0)), s.max);
        if (e) store(e + j * lanes, term, lanes);
        own = {drop(tie, term), fill(T(0)), keep(tie, fill(T(1)))};  // as collect_other would begin
        while ((j += lanes) < n) {
            term = load(terms + j * lanes, lanes, T(0));
            collect_other(own, term, load(x + j * lanes, lanes, T(0)), s);
            if (e) store(e + j * lanes, term, lanes);
        }
    });
}
}}  // namespace
