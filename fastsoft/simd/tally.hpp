// Rows that come in parts. What is known of a row so far is a Tally, and adding to one is associative and commutative
// without a rounding: after Demmel and Nguyen, "Parallel reproducible summation", IEEE Trans. Computers 64, 2015.
#pragma once
#include "gradient.hpp"

namespace fastsoft { namespace {

// A row: its maximum, how many entries equal it, and the sum of e^z over the others, in bins of 32 bits that lie at
// multiples of 32 of the binary exponent: sum_i bin[i] 2^(32 (top - i)). The first bin is that of the largest of the
// others. Each term is rounded to the last bin by itself, as a function of its x alone, and no bin carries into
// another: what falls out of the last one, when a larger term moves the bins, has left no trace. Beside the largest of
// the others a term is off by 2^-97 at most; a bin holds 2^31 terms.
const int tally_bins = 4, bin_bits = 32;
struct Tally {
    double max;    // NaN where the row holds one; -inf where nothing has been seen
    int64_t ties;  // counted for finite maxima
    int64_t top;   // no_bin where there are no others
    int64_t bin[tally_bins];
};
const int64_t no_bin = INT64_MIN;

inline void add_bins(Tally& a, int64_t top, const int64_t* bin) {
    if (top == no_bin) return;
    if (top > a.top) {
        const int64_t up = a.top == no_bin || top - a.top > tally_bins ? tally_bins : top - a.top;
        for (int i = tally_bins - 1; i >= 0; i--) a.bin[i] = i >= up ? a.bin[i - up] : 0;
        a.top = top;
    }
    for (int64_t i = a.top - top; i < tally_bins; i++) a.bin[i] += bin[i - (a.top - top)];
}

// ---- the exponential as a function of x alone ----

// z = x / T of any x: hi + lo + 32 periods log 2, hi within reach and lo far smaller.
struct Place { double hi, lo; int64_t periods; };
const double no_periods = has_fma ? 3.7e8 : 709;  // below it z is what argument() gives
const double too_far = 0x1p64;  // from here on of two different numbers the smaller is nothing beside the larger

// a + b; what its rounding loses is added to rest.
inline double two_sum(double a, double b, double& rest) {
    const double s = a + b, t = s - a;
    rest += (a - (s - t)) + (b - t);
    return s;
}
// Take the nearest multiple of power log 2 from z + more.
inline void take_periods(Place& z, double more, double power) {
    const double log2[] = {0x1.62e42fefa39efp-1, 0x1.abc9e3b39803fp-56, 0x1.7b57a079a1934p-111};
    const double count = std::nearbyint(z.hi / (power * log2[0]));
    if (count == 0) return;
    const double k = count * power, p = k * log2[0], q = k * log2[1];
    double rest = (more - std::fma(k, log2[1], -q)) - k * log2[2];
    double sum = z.hi - p;  // exact: they are near each other
    sum = two_sum(sum, z.lo, rest);
    sum = two_sum(sum, -std::fma(k, log2[0], -p), rest);
    sum = two_sum(sum, -q, rest);
    z.hi = sum + rest;
    z.lo = rest - (z.hi - sum);
    z.periods += (int64_t)count * (int64_t)(power / bin_bits);
}
// False where x lies too far, or is not finite.
APART bool find_place(Place& z, double x, const Factor& f) {
    Shared<double> s;
    s.c_hi = fill(f.hi);
    s.c_lo = fill(f.lo);
    x = x * f.g;
    const pair<double> a = argument(fill(x), s, Scaled());
    z = {in_lane(a.hi, 0), in_lane(a.lo, 0), 0};
    if (!(std::fabs(z.hi) < too_far)) return false;
    double more = 0;
    if (std::fabs(z.hi) > no_periods) {  // without a rounding, which all entries would have to share
        const double q = x * f.lo;
        more = std::fma(x, f.lo, -q);
        z.lo = two_sum(std::fma(x, f.hi, -z.hi), q, more);
    }
    take_periods(z, more, 0x1p30);
    if (!has_fma) take_periods(z, 0, 0x1p11);
    return true;
}

// How the exponentials of a run of entries come into bins.
struct Window {
    Shared<double> each;  // what argument() and exp_shifted() ask for, once x is multiplied by g
    vec<double> g;
    vec<double> max, low;   // others are from low, below which a term is nothing, to max, which is none
    vec<double> value;      // the largest of the others, times 2^-power and without its periods
    vec<double> grid[tally_bins];  // added to a value and taken away again, leaves it in whole units of a bin
    double unit[tally_bins];
    Place place;  // of the largest of the others
    int power;
    int64_t top;
    bool all_near;  // all others are below no_periods
};
// A run with this maximum, `second` the largest of the others; false where they are nothing beside the maximum.
APART bool set_window(Window& w, double max, double second, const Factor& f) {
    typedef constants<double> C;
    const double lowest = -std::numeric_limits<double>::max(), low = second - 200 / f.g / f.hi;
    Shift<double> s;
    if (!find_place(w.place, second, f)) return false;
    set_shift(s, fill(w.place.hi), fill(0.0), Factor{1, 0, 1}, Plain());
    w.each = s.each;
    w.each.c_hi = fill(f.hi);
    w.each.c_lo = fill(f.lo);
    w.g = fill(f.g);
    w.max = fill(max);
    w.low = fill(low < lowest ? lowest : low);
    w.value = value(exp_shifted(pair<double>{fill(w.place.hi), fill(w.place.lo)}, w.each.round, Scaled(), Others()));
    w.power = (int)(C::bias - (in_lane(w.each.round, 0) - C::round) / steps<double>);
    const int first = (int)std::floor((in_lane(exponent(w.value), 0) + w.power) / bin_bits);
    w.top = w.place.periods + first;
    for (int i = 0; i < tally_bins; i++) {
        w.unit[i] = i == 0 ? std::ldexp(1.0, bin_bits * first - w.power) : w.unit[i - 1] * std::ldexp(1.0, -bin_bits);
        w.grid[i] = fill(0x1.8p52 * w.unit[i]);
    }
    w.all_near = w.place.periods == 0 && std::fabs(w.place.hi) + 400 < no_periods;
    return true;
}

// ---- a run of entries ----

// The largest of those below max, and how many equal it, lane by lane.
struct Rank { vec<double> second, ties; };
INLINE void rank_some(Rank& a, const double* x, ptrdiff_t left, vec<double> max) {
    const vec<double, exp_together> v = load_some<exp_together>(x, left, -std::numeric_limits<double>::infinity());
    for (int k = 0; k < exp_together; k++) {
        const mask<double> tie = equal(part(v, k), max);
        a.ties = a.ties + keep(tie, fill(1.0));
        a.second = larger(choose(tie, a.second, part(v, k)), a.second);
    }
}

// Terms in whole units of their bins, added up without a rounding, up to 2^20 of them; NaN where a term is.
struct Bins { vec<double> sum[tally_bins]; };
template <int U> INLINE void add_others(Bins& a, vec<double, U> e, vec<double, U> x, const Window& w) {
    e = keep(not_below(x, spread<U>(w.low)), drop(equal(x, spread<U>(w.max)), e));
    for (int i = 0; i < tally_bins; i++) {
        const vec<double, U> grid = spread<U>(w.grid[i]), whole = (e + grid) - grid;
        for (int k = 0; k < U; k++) a.sum[i] = a.sum[i] + part(whole, k);
        e = e - whole;
    }
}
template <class How> INLINE void tally_some(Bins& a, const double* x, ptrdiff_t left, const Window& w, How how) {
    constexpr int U = exp_together;
    const vec<double, U> v = load_some<U>(x, left, -std::numeric_limits<double>::infinity());
    const vec<double, U> scaled = std::is_same<How, Plain>::value ? v : v * spread<U>(w.g);
    add_others(a, value(exp_shifted(argument(scaled, w.each, how), spread<U>(w.each.round), how, Others())), v, w);
}
// The same, one vec, of any x.
APART void tally_far(Bins& a, const double* x, ptrdiff_t left, const Window& w, const Factor& f) {
    const ptrdiff_t lanes = vec<double>::lanes;
    double hi[lanes], lo[lanes], round[lanes];
    const vec<double> v = load(x, left, -std::numeric_limits<double>::infinity());
    for (int i = 0; i < lanes; i++) {
        const double own = in_lane(v, i);
        Place z = {own, 0, w.place.periods};  // NaN stays NaN; what is no other is left out in the end
        if (own >= in_lane(w.low, 0) && own < in_lane(w.max, 0)) find_place(z, own, f);
        hi[i] = z.hi;
        lo[i] = z.lo;
        round[i] = in_lane(w.each.round, 0) + (double)(bin_bits * (z.periods - w.place.periods)) * steps<double>;
    }
    const pair<double> z = {load(hi, lanes, 0.0), load(lo, lanes, 0.0)};
    add_others(a, value(exp_shifted(z, load(round, lanes, 0.0), Scaled(), Others())), v, w);
}

// ---- tallies ----

// The lanes of a to the others of `to`, unless one is NaN: then so is the row.
APART void add_lanes(Tally& to, const Bins& a, const Window& w) {
    int64_t bin[tally_bins];
    for (int i = 0; i < tally_bins; i++) {
        double sum = 0;
        for (int k = 0; k < vec<double>::lanes; k++) sum += in_lane(a.sum[i], k);
        if (sum != sum) {
            to.max = sum;
            return;
        }
        bin[i] = (int64_t)(sum / w.unit[i]);
    }
    add_bins(to, w.top, bin);
}
// To the others, so many times x.
APART void add_equal(Tally& to, double x, int64_t times, const Factor& f) {
    const double above = std::numeric_limits<double>::infinity();
    int64_t bin[tally_bins];
    Window w;
    if (!set_window(w, above, x, f)) return;
    double e = in_lane(w.value, 0);
    for (int i = 0; i < tally_bins; i++) {
        const double grid = in_lane(w.grid[i], 0), whole = (e + grid) - grid;
        bin[i] = times * (int64_t)(whole / w.unit[i]);
        e -= whole;
    }
    add_bins(to, w.top, bin);
}
inline void add_tally(Tally& to, const Tally& b, const Factor& f) {
    const double inf = std::numeric_limits<double>::infinity();
    if (to.max != to.max || b.max == -inf) return;
    if (b.max != b.max || b.max == inf || to.max == -inf) {
        to = b;
        return;
    }
    if (to.max == inf) return;
    if (b.max == to.max) {
        to.ties += b.ties;
    } else if (b.max < to.max) {
        add_equal(to, b.max, b.ties, f);
    } else {
        add_equal(to, to.max, to.ties, f);
        to.max = b.max;
        to.ties = b.ties;
    }
    add_bins(to, b.top, b.bin);
}

// ---- what a row gives once all of it is known: a finite maximum, its ties and others ----

// The sum of the others times 2^-power, without these periods.
inline pair<double> others_of(const Tally& t, int64_t periods, int power) {
    const int64_t most = (int64_t)1 << 40, apart = t.top == no_bin ? -most : t.top - periods;
    const int64_t lowest = bin_bits * ((apart < -most ? -most : apart) - tally_bins + 1) - power;  // never far above 0
    double digit[tally_bins + 1];
    int64_t carry = 0;
    for (int i = tally_bins; i > 1; i--) {
        carry += t.bin[i - 1];
        digit[i] = (double)(carry & 0xffffffff);
        carry >>= bin_bits;
    }
    carry += t.bin[0];
    digit[1] = (double)(carry & 0xffffffff);
    digit[0] = (double)(carry >> bin_bits);
    pair<double> sum = {fill(0.0), fill(0.0)};
    for (int i = 0; i <= tally_bins; i++) {
        const pair<double> d = {fill(std::ldexp(digit[i], bin_bits * (tally_bins - i))), fill(0.0)};
        merge_values(sum, d);
    }
    const pair<double> s = fast_two_sum(sum.hi, sum.lo);
    const int shift = (int)(lowest < -4000 ? -4000 : lowest);
    return {fill(std::ldexp(in_lane(s.hi, 0), shift)), fill(std::ldexp(in_lane(s.lo, 0), shift))};
}
// The same in all lanes, as rows that are seen at once have it.
template <class How> APART void set_known(Shift<double>& s, Sums<double>& a, const Tally& t, const Factor& f, How how) {
    typedef constants<double> C;
    pair<double> others;
    set_shift(s, fill(t.max), fill(0.0), f, how);
    set_largest(s, how);
    if (!std::is_same<How, Wide>::value) {
        others = others_of(t, 0, (int)(C::bias - (in_lane(s.each.round, 0) - C::round) / steps<double>));
    } else {  // where the shift is the maximum itself
        Window w;
        others = {fill(0.0), fill(0.0)};
        if (set_window(w, t.max, t.max, f)) {
            const pair<double> z = {fill(w.place.hi), fill(w.place.lo)};
            const vec<double> to_field = (w.each.round - fill(C::round)) * fill(1 / steps<double>);
            const pair<double> largest = {w.value, exp_rest(w.value, z, w.each.round, to_field, Scaled())};
            const vec<double> up = fill(std::ldexp(1.0, (int)C::headroom));
            others = quotient(others_of(t, w.place.periods, w.power), largest);
            others = {others.hi * up, others.lo * up};
        }
    }
    a.hi = others.hi;
    a.lo = others.lo;
    a.ties = fill((double)t.ties);
}

// z_max + log sum_j e^(z_j - z_max)
INLINE double log_of_all(const Sums<double>& a, const Shift<double>& s, const Tally& t, const Factor& f) {
    Shared<double> each;
    each.c_hi = fill(f.hi);
    each.c_lo = fill(f.lo);
    const pair<double> log = log_of_sum(a, s);
    const pair<double> half = argument(fill(t.max * (f.g * 0.5)), each, Scaled());  // max * g itself may overflow
    const vec<double> top = half.hi + half.hi;
    const pair<double> sum = two_sum(top, log.hi);
    if (!(std::fabs(in_lane(top, 0)) < too_far)) return in_lane(top, 0);  // which may be infinite
    return in_lane(sum.hi + (sum.lo + (log.lo + (half.lo + half.lo))), 0);
}

// What is larger than all that has been seen has no place in the row.
template <int U> INLINE vec<double, U> if_known(vec<double, U> y, vec<double, U> x, const Shared<double>& s) {
    return choose(not_below(spread<U>(s.max), x), y, fill<U>(std::numeric_limits<double>::quiet_NaN()));
}
// e^z times r, e^z before it is rounded.
template <class How, int U>
INLINE vec<double, U> share(vec<double, U> x, const Shared<double>& s, const pair<double>& r, How how) {
    const Term<double, U> e = shifted_term(x, s, how, Exact());
    const pair<double, U> sum = {value(e), beyond(e, value(e), Exact())};
    return has_fma ? times_factor(sum, r) : scaled(sum.hi, r) + sum.lo * spread<U>(r.hi);
}
template <class How>
INLINE void share_some(
    const double* x, double* y, ptrdiff_t left, const Shared<double>& s, const Rest<double>& q, How how) {
    const auto v = load_some<exp_together>(x, left, -std::numeric_limits<double>::infinity());
    store(y, if_known(share(v, s, q.factor, how), v, s), left);
}
// 1 - share, that of a maximum without cancellation.
template <class How>
INLINE void missing_some(
    const double* x, double* y, ptrdiff_t left, const Shared<double>& s, const Rest<double>& q, How how) {
    constexpr int U = exp_together;
    const vec<double, U> v = load_some<U>(x, left, -std::numeric_limits<double>::infinity());
    const vec<double, U> largest = spread<U>(q.others.hi + q.others.lo);
    const vec<double, U> own = fill<U>(1.0) - share(v, s, q.factor, how);
    store(y, if_known(choose(equal(v, spread<U>(s.max)), largest, own), v, s), left);
}
template <class How>
INLINE void log_share_some(
    const double* x, double* y, ptrdiff_t left, const Shared<double>& s, const Log<double>& l, How how) {
    const auto v = load_some<exp_together>(x, left, -std::numeric_limits<double>::infinity());
    store(y, if_known(log_value(v, l, s, how), v, s), left);
}

}}  // namespace
