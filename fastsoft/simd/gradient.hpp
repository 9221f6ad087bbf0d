// What derivatives and losses need besides math.hpp: sums of either sign, and what follows from a row's sums.
// As there, what is computed once a row is computed for a group of rows, a row in each lane.
#pragma once
#include "steps.hpp"
#include "tile.hpp"

namespace fastsoft { namespace {

// ---- sums of products, which may have either sign ----

// A run of run_length vecs is added as it comes, and the runs without loss: the error stays below 2 ulp of the largest
// factor however long the row is. `ties` is not used. What goes over products alone takes several runs at a time.
const int run_length = 2, product_vecs = 2 * run_length;
template <class T> INLINE void begin_runs(Sums<T>& a) { a.hi = a.lo = a.ties = fill(T(0)); }
template <class T, int U> INLINE void add_products(vec<T>& run, vec<T, U> a, vec<T, U> b) {
    for (int k = 0; k < U; k++) run = mul_add(part(a, k), part(b, k), run);
}
template <class T, int U> INLINE void add_terms(vec<T>& run, vec<T, U> a) {
    for (int k = 0; k < U; k++) run = run + part(a, k);
}
template <class T> INLINE void end_run(Sums<T>& a, vec<T> run) {
    const pair<T> p = two_sum(a.hi, run);
    a.hi = p.hi;
    a.lo = a.lo + p.lo;
}
template <class T, int U> INLINE void add_exactly(Sums<T>& a, vec<T, U> b) {
    for (int k = 0; k < U; k++) end_run(a, part(b, k));
}
// e w with the exponential e before it is rounded, w = v scale - middle: nothing of a product is lost, as in a sum of All,
// where a run begins above what it can come to. Hence |v scale| is from 1 to 2, but for the ends of the type's range, and
// |w| < 8.
const int weighed_run = 16;  // vecs
template <class T> INLINE vec<T> power_of_two(vec<T> k) {
    typedef constants<T> C;
    return low_bits_to_exponent(fill(C::round) + (fill(C::bias) + k));
}
template <class T> INLINE vec<T> unit_scale(vec<T> size) {
    const vec<T> most = fill(constants<T>::bias - 1), zero = fill(T(0)), k = exponent(size);
    return power_of_two(zero - larger(zero - most, zero - larger(zero - most, zero - k)));
}
template <class T> INLINE T start_of_weighed() { return std::ldexp(T(1.5), (int)constants<T>::headroom + 10); }
template <class T> INLINE void begin_run(pair<T>& run) { run = {fill(start_of_weighed<T>()), fill(T(0))}; }
// hi + e w, and what that lacks.
template <class T, int U> INLINE pair<T, U> with_weighed(vec<T, U> hi, const Term<T, U>& e, vec<T, U> w) {
    const vec<T, U> rounded = value(e), lost = beyond(e, rounded, Exact());
    if (has_fma) {
        const vec<T, U> t = mul_add(rounded, w, hi);
        return {t, mul_add(lost, w, mul_sub(rounded, w, t - hi))};
    }
    const pair<T, U> p = two_product(rounded, w);
    const vec<T, U> t = hi + p.hi;
    return {t, (p.hi - (t - hi)) + mul_add(lost, w, p.lo)};
}
template <class T> INLINE void add_weighed(pair<T>& run, const Term<T>& e, vec<T> w) {
    const pair<T> t = with_weighed(run.hi, e, w);
    run.hi = t.hi;
    run.lo = run.lo + t.lo;
}
template <class T, int U> INLINE void add_weighed(pair<T>& run, const Term<T, U>& e, vec<T, U> w) {
    for (int k = 0; k < U; k++) add_weighed(run, part(e, k), part(w, k));
}
template <class T> INLINE void end_run(Sums<T>& a, const pair<T>& run) {
    pair<T> start;
    begin_run(start);
    const pair<T> p = two_sum(a.hi, run.hi - start.hi);
    a.hi = p.hi;
    a.lo = a.lo + (p.lo + run.lo);
}
template <class T> INLINE bool all_finite(vec<T> a) { return !has_nan(a - a); }
template <class T> INLINE bool is_finite(T a) { return a - a == 0; }
// Whether products of all lanes can be taken in two parts.
template <class T> INLINE bool all_moderate(vec<T> a) { return all_finite(a * fill(2 * constants<T>::split)); }

template <class T> INLINE vec<T> finite_part(vec<T> a) { return keep(equal(a - a, fill(T(0))), a); }

// One and the same NaN for all: sign and payload would depend on the instruction set.
template <class S> APART void tidy(S* z, ptrdiff_t n) {
    typedef work<S> T;
    for (ptrdiff_t i = 0; i < n; i += vec<T>::lanes) {
        const vec<T> a = load(z + i, n - i, T(0));
        store(z + i, one_nan(a, a), n - i);
    }
}

// ---- pairs ----

template <class T> INLINE pair<T> product(pair<T> a, pair<T> b) {
    const pair<T> p = two_product(a.hi, b.hi);
    return fast_two_sum(p.hi, p.lo + mul_add(a.hi, b.lo, a.lo * b.hi));
}
template <class T> INLINE pair<T> sum(pair<T> a, pair<T> b) {
    const pair<T> p = two_sum(a.hi, b.hi);
    return fast_two_sum(p.hi, p.lo + (a.lo + b.lo));
}
// 1 / T but for the power of two g, which comes last: 1 / T itself may be beyond the numbers of the type.
template <class T> INLINE pair<T> inverse_temperature(const Factor& f) {
    return {fill((T)f.hi), fill((T)((f.hi - (double)(T)f.hi) + f.lo))};
}
// a f, rounded once where the hardware has FMA; unlike scaled(), which asks for an exponential, for any a
template <class T, int U> INLINE vec<T, U> times_factor(pair<T, U> a, const pair<T>& f) {
    return mul_add(a.hi, spread<U>(f.hi), mul_add(a.lo, spread<U>(f.hi), a.hi * spread<U>(f.lo)));
}
// Where a row gives NaN: it is empty, or holds NaN or +inf.
template <class T> INLINE pair<T> nan_if_empty(pair<T> r, const Shift<T>& s) {
    return {choose(s.empty, fill(std::numeric_limits<T>::quiet_NaN()), r.hi), drop(s.empty, r.lo)};
}

// ---- sums of Others: the whole, its reciprocal, and 1 - sigma of a class of the maximum, which does not cancel ----

template <class T> INLINE pair<T> with_maxima(const Sums<T>& a, const Shift<T>& s, vec<T> count) {
    const pair<T> p = two_product(count, s.e_max), t = two_sum(p.hi, a.hi);
    return fast_two_sum(t.hi, t.lo + (p.lo + (a.lo + count * s.e_max_lo)));
}
template <class T> struct Rest {
    pair<T> factor;  // 1 / sum
    pair<T> others;  // 1 - sigma_max
};
template <class T> APART Rest<T> rest(const Sums<T>& a, const Shift<T>& s) {
    const vec<T> one = fill(T(1)), zero = fill(T(0));
    const pair<T> whole = with_maxima(a, s, a.ties);
    return {nan_if_empty(quotient({one, zero}, whole), s), quotient(with_maxima(a, s, a.ties - one), whole)};
}

// sigma_m (1 - sigma_m) of a class m of the maximum.
template <class T> INLINE vec<T> slope_of_largest(const Rest<T>& q, const Shift<T>& s) {
    return scaled(s.e_max, q.factor) * (q.others.hi + q.others.lo);
}
// sigma (1 - sigma) of y = sigma, which comes from e: that of the largest class where it has more than half.
template <class T> INLINE vec<T> own_or_largest_slope(vec<T> e, vec<T> y, const Rest<T>& q, const Shift<T>& s) {
    const vec<T> own = sub_mul(y, y, y);
    const vec<T> either = choose(equal(e, s.e_max), slope_of_largest(q, s), own);
    const vec<T> slope = choose(not_below(q.others.hi, fill(T(0.5))), own, either);
    return one_nan(slope, slope);
}

// ---- z = v J ----

// v enters as v * scale, scale a power of two that keeps its products from overflow. With m a class of the maximum
// and D = sum_j e_j (v_j - v_m), v.sigma = v_m + D / sum e; what is left for class m, -D / sum e, does not cancel.
template <class T> struct Vjp {
    pair<T> mean;    // v.sigma * scale, of which `up` is the inverse
    pair<T> factor;  // e_i to sigma_i / (T scale)
    vec<T> dominant, gap;  // z_m, and v_m - v.sigma
};
template <class T> INLINE T small_scale(T) { return std::ldexp(T(1), sizeof(T) == 4 ? -96 : -300); }
template <class T> INLINE vec<T> product_scale(vec<T> size) {  // of v in a product with an exponential
    return choose(not_below(size, fill(std::ldexp(T(1), sizeof(T) == 4 ? 48 : 800))), fill(small_scale(T())), fill(T(1)));
}
// A sum times a power of two.
template <class T> INLINE Sums<T> scaled_by(const Sums<T>& a, vec<T> scale) { return {a.hi * scale, a.lo * scale, a.ties}; }
template <class T>
APART void set_vjp(Vjp<T>& a, const Sums<T>& sums, const Sums<T>& dot, const Shift<T>& s, vec<T> up, vec<T> middle,
                    const Factor& f) {
    const vec<T> zero = fill(T(0));
    const pair<T> r = reciprocal(sums, s, std::numeric_limits<T>::quiet_NaN());
    const pair<T> d = product(two_sum(dot.hi, dot.lo), r);
    a.mean = sum({middle, zero}, d);
    a.factor = product(r, inverse_temperature<T>(f));
    a.factor.hi = a.factor.hi * up;
    a.factor.lo = a.factor.lo * up;
    a.dominant = times_factor(product(pair<T>{s.e_max, s.e_max_lo}, pair<T>{zero - d.hi, zero - d.lo}), a.factor);
    a.gap = (zero - d.hi) * up;
}
// sigma G by e factor minus: what a large G has of a power of two goes over to the factor, for sigma may be subnormal.
template <class T> APART void balance(pair<T>& factor, pair<T>& minus, vec<T> scale) {
    typedef constants<T> C;
    const vec<T> zero = fill(T(0)), one = fill(T(1));
    const vec<T> all = larger(exponent(minus.hi), zero), some = zero - larger(zero - all, fill(T(-24)));
    const vec<T> k = choose(equal(scale, one), all, some);  // where scale goes over as well, that is enough
    const vec<T> up = power_of_two(k) / scale, down = power_of_two(zero - k);
    factor.hi = factor.hi * up;
    factor.lo = factor.lo * up;
    minus.hi = minus.hi * down;
    minus.lo = minus.lo * down;
}
// The same for log_softmax: z_i = (g_i - sigma_i G) / T with G = sum g; z_m = g_m (1 - sigma_m) - sigma_m (G - g_m).
template <class T> struct LogVjp {
    pair<T> factor;  // e_i to sigma_i
    pair<T> minus;   // -G / T; powers of two may have gone from one to the other
    vec<T> up;       // 1 / T
    vec<T> dominant;
};
template <class T>
APART void set_log_vjp(LogVjp<T>& a, const Sums<T>& sums, const Sums<T>& total, const Shift<T>& s, vec<T> g_max, vec<T> scale, const Factor& f) {
    const vec<T> zero = fill(T(0));
    const Rest<T> q = rest(sums, s);
    const pair<T> t = inverse_temperature<T>(f), g = fast_two_sum(total.hi, total.lo);
    a.factor = q.factor;
    a.minus = product({zero - g.hi, zero - g.lo}, t);
    balance(a.factor, a.minus, scale);
    a.up = t.hi;
    const vec<T> g_m = g_max * scale;
    const pair<T> sigma = product({s.e_max, s.e_max_lo}, q.factor), kept = product({g_m, zero}, q.others);
    const pair<T> lost = product(sum(g, {zero - g_m, zero}), sigma);
    a.dominant = (sum(kept, {zero - lost.hi, zero - lost.lo})).hi * t.hi / scale;
}

// ---- cross-entropy ----

// What a row's loss l = sum_i a_i (log sum_j e^z_j - z_i) + z_loss (log sum_j e^z_j)^2 gives.
template <class T> struct Loss {
    vec<T> loss;
    pair<T> factor;  // e_i to sigma_i A scale / T, with A = sum a + 2 z_loss log sum_j e^z_j
    vec<T> down;     // scale / T
    vec<T> special;  // the gradient at the label, or at a class of the maximum
};
template <class T> INLINE vec<T> log_sum(const pair<T>& log, const Shift<T>& s, const Factor& f) {
    const pair<T> m = product({s.each.max, fill(T(0))}, inverse_temperature<T>(f));
    const vec<T> g = fill((T)f.g);
    const pair<T> l = two_sum(m.hi * g, log.hi);
    return l.hi + finite_part(l.lo + (m.lo * g + log.lo));
}
// Add z_loss (log sum_j e^z_j)^2 to the loss; what it adds to sum a in the gradient.
template <class T> INLINE vec<T> add_z_loss(vec<T>& loss, const pair<T>& log, const Shift<T>& s, double z_loss, const Factor& f) {
    if (z_loss == 0) return fill(T(0));
    const vec<T> lse = log_sum(log, s, f);
    loss = mul_add(lse * lse, fill((T)z_loss), loss);
    return lse * fill((T)(2 * z_loss));
}
// Labels: a is `weight` at the label, whose logit is x_label, and 0 elsewhere. Without `gradient` the loss alone.
template <class T> struct Label { vec<T> x, e, weight; };
template <class T, class How>
APART void set_label_loss(Loss<T>& l, const Sums<T>& sums, const pair<T>& log, const Shift<T>& s, const Label<T>& t, double scale, double z_loss, const Factor& f, bool gradient, How how) {
    const vec<T> zero = fill(T(0)), one = fill(T(1)), inf = fill(std::numeric_limits<T>::infinity());
    const pair<T> z = argument(t.x, s.each, how), inverse = inverse_temperature<T>(f);
    const pair<T> d = two_sum(s.top, zero - z.hi), sum_hi = two_sum(d.hi, log.hi);
    const vec<T> near = sum_hi.hi + finite_part(sum_hi.lo + (((d.lo + s.top_lo) - finite_part(z.lo)) + log.lo));
    l.loss = choose(equal(t.x, zero - inf), inf + log.hi, near);
    l.loss = choose(s.empty, fill(std::numeric_limits<T>::quiet_NaN()), l.loss) * t.weight;
    const vec<T> extra = add_z_loss(l.loss, log, s, z_loss, f);
    l.factor = {zero, zero};
    if (!gradient) return;
    const Rest<T> q = rest(sums, s);
    const pair<T> down = product(inverse, {fill((T)scale), zero});
    l.factor = product(q.factor, product(down, {t.weight + extra, zero}));
    l.down = down.hi;
    const vec<T> sigma = scaled(t.e, q.factor);
    const vec<T> minus = choose(equal(t.x, s.each.max), zero - (q.others.hi + q.others.lo), sigma - one);
    l.special = mul_add(t.weight, minus, sigma * extra) * down.hi;
}
// The labels of the next `count` rows, -1 where they are ignored, and those rows' weights; no label is beyond its row, if
// another thread changes it after the check.
template <class T>
INLINE void take_labels(const int64_t* labels, const double* weights, ptrdiff_t count, ptrdiff_t n, vec<T>& label, vec<T>& weight) {
    const ptrdiff_t lanes = vec<T>::lanes, last = n - 1, some = count < lanes ? count : lanes;
    T number[vec<T>::lanes] = {}, own[vec<T>::lanes] = {};
    for (ptrdiff_t r = 0; r < some; r++) {
        const int64_t here = labels[r] < last ? labels[r] : last;
        number[r] = (T)(here < -1 ? -1 : here);
    }
    for (ptrdiff_t r = 0; weights && r < some; r++) own[r] = (T)weights[r];
    label = load(number, lanes, T(0));
    weight = weights ? load(own, lanes, T(0)) : fill(T(1));
}
// Dense targets: weight = sum a, shortfall = sum a_i (z_max - z_i), a_max at the class of the maximum.
template <class T>
APART void set_target_loss(Loss<T>& l, const Sums<T>& sums, const pair<T>& log, const Sums<T>& weight, const Sums<T>& shortfall, const Shift<T>& s,
                            vec<T> a_max, double scale, double z_loss, const Factor& f) {
    const vec<T> zero = fill(T(0));
    const pair<T> inverse = inverse_temperature<T>(f);
    const pair<T> a = fast_two_sum(weight.hi, weight.lo), p = fast_two_sum(shortfall.hi, shortfall.lo);
    const pair<T> whole = sum(p, product(a, log));
    l.loss = choose(s.empty, fill(std::numeric_limits<T>::quiet_NaN()), choose(equal(whole.hi - whole.hi, zero), whole.hi + whole.lo, shortfall.hi + log.hi));
    const vec<T> extra = add_z_loss(l.loss, log, s, z_loss, f);
    const Rest<T> q = rest(sums, s);
    const pair<T> down = product(inverse, {fill((T)scale), zero});
    l.factor = product(q.factor, product(down, sum(a, {extra, zero})));
    l.down = down.hi;
    const vec<T> sigma = scaled(s.e_max, q.factor);
    const pair<T> others = product(a, q.others), gap = sum(sum(a, {zero - a_max, zero}), {zero - others.hi, zero - others.lo});
    l.special = mul_add(sigma, extra, gap.hi + gap.lo) * down.hi;
}

// One row's part of what its shift needs beyond Shared.
template <class T> INLINE Shift<T> of_row(const Shift<T>& s, int k) {
    Shift<T> a;
    a.each = of_row(s.each, k);
    a.top = lane(s.top, k);
    a.top_lo = lane(s.top_lo, k);
    return a;
}
// exp without a shift, for logarithms of probabilities; its unit, as a pair.
template <class T> INLINE Shared<T> unshifted(T) {
    typedef constants<T> C;
    const vec<T> zero = fill(T(0)), field = fill(C::bias + C::headroom);
    return {zero, low_of(field), fill(C::round) + field * fill(steps<T>), zero, zero, zero, zero};
}
template <class T> INLINE pair<T> unshifted_unit(T) {
    typedef constants<T> C;
    const T down = std::ldexp(T(1), -(int)C::headroom), hi = 1 / C::unit;
    return {fill(hi * down), fill(std::fma(-hi, C::unit, T(1)) * hi * down)};
}
template <class T> INLINE vec<T> exp_unshifted(vec<T> x, const Shared<T>& s) { return value(shifted_term(x, s, Plain(), Others())); }

// ---- one register ----

// v as it enters a weighted sum
template <class T, int U> INLINE vec<T, U> weighed(vec<T, U> v, T scale, T middle) {
    return mul_sub(v, fill<U>(scale), fill<U>(middle));
}
// e (v scale - mean) factor, rounded but for e only at last
template <class T, int U> INLINE vec<T, U> turned(vec<T, U> e, vec<T, U> v, T scale, const pair<T>& mean, const pair<T>& factor) {
    const pair<T, U> d = two_sum(v * fill<U>(scale), fill<U>(T(0)) - spread<U>(mean.hi));
    const pair<T, U> p = two_product(e, d.hi);
    return times_factor(pair<T, U>{p.hi, mul_add(e, d.lo - spread<U>(mean.lo), p.lo)}, factor);
}
// y (v - mean) for a kept y; the difference itself might be too large
template <class T, int U> INLINE vec<T, U> turned_output(vec<T, U> y, vec<T, U> v, const pair<T>& mean) {
    y = in_registers(y);
    return mul_sub(y, v, mul_add(y, spread<U>(mean.hi), y * spread<U>(mean.lo)));
}
// v - mean, back from its scale
template <class T, int U> INLINE vec<T, U> centred(vec<T, U> v, T scale, T up, const pair<T>& mean) {
    return (mul_sub(v, fill<U>(scale), spread<U>(mean.hi)) - spread<U>(mean.lo)) * fill<U>(up);
}
// g up + e factor minus
template <class T, int U>
INLINE vec<T, U> log_turned(vec<T, U> e, vec<T, U> g, const pair<T>& factor, const pair<T>& minus, T up) {
    if (has_fma) {
        const pair<T, U> p = two_product(e, spread<U>(factor.hi));
        const vec<T, U> lost = (e * spread<U>(factor.lo) + p.lo) * spread<U>(minus.hi);  // so 0 for 1 in the unit of exp
        return mul_add(p.hi, spread<U>(minus.hi), g * fill<U>(up)) + mul_add(p.hi, spread<U>(minus.lo), lost);
    }
    const vec<T, U> y = mul_add(e, spread<U>(factor.hi), e * spread<U>(factor.lo));
    const vec<T, U> half = y * fill<U>(T(0.5)), d = half * spread<U>(minus.hi) + g * fill<U>(up * T(0.5));  // products are rounded, and might be too large
    return d + (d + y * spread<U>(minus.lo));
}
// g - e^y G of a kept output y, G = sum g, e as exp_unshifted gives it: what e is multiplied by is one number, a pair, for the
// whole row. But where e^y is 1 nothing may be left of that; and where G is next to nothing, it would lose digits.
template <class T> struct LogTurning {
    pair<T> slope;  // -G over the unit of e
    vec<T> rest;    // -G less slope.hi times that unit
};
template <class T> INLINE T unit_of_exp(T) { return constants<T>::unit * std::ldexp(T(1), (int)constants<T>::headroom); }
template <class T> INLINE LogTurning<T> log_turning(const pair<T>& sum) {
    const pair<T> minus = {fill(T(0)) - sum.hi, fill(T(0)) - sum.lo}, slope = product(minus, unshifted_unit(T(0)));
    return {slope, sub_mul(minus.hi, slope.hi, fill(unit_of_exp(T(0)))) + minus.lo};
}
template <class T> INLINE LogTurning<T> of_row(const LogTurning<T>& a, int r) { return {of_row(a.slope, r), lane(a.rest, r)}; }
template <class T> INLINE mask<T> too_small(const pair<T>& sum) {
    const vec<T> one = fill(T(1)), all = sum.hi + sum.lo, least = fill(std::ldexp(T(1), sizeof(T) == 4 ? -56 : -880));
    return equal(drop(equal(all, fill(T(0))), drop(not_below(absolute(all), least), one)), one);
}
template <class T, int U> INLINE vec<T, U> log_turned(vec<T, U> e, vec<T, U> g, const LogTurning<T>& a) {
    const vec<T, U> t = mul_add(e, spread<U>(a.slope.hi), g), z = mul_add(e, spread<U>(a.slope.lo), t);
    if (constants<T>::unit == 1) return z;
    return choose(equal(e, fill<U>(unit_of_exp(T(0)))), t + spread<U>(a.rest), z);
}
template <class T, int U> INLINE vec<T, U> multiplied(vec<T, U> x, T c) { return x * fill<U>(c); }
// e factor - a down
template <class T, int U> INLINE vec<T, U> less_target(vec<T, U> e, vec<T, U> a, const pair<T>& factor, T down) {
    return sub_mul(scaled(e, factor), a, fill<U>(down));
}
// -a b, and 0 where either is 0; not 0 - a b in one instruction, which on Arm turns the sign of a NaN round
template <class T, int U> INLINE vec<T, U> minus_product(vec<T, U> a, vec<T, U> b) {
    const vec<T, U> zero = fill<U>(T(0));
    return mul_add(zero - a, b, zero);
}
template <class T, int U> INLINE vec<T, U> times(vec<T, U> a, vec<T, U> b) { return a * b; }
// sigma (1 - sigma), rounded once; times c
template <class T, int U> INLINE vec<T, U> own_slope(vec<T, U> y, T c) { return sub_mul(y, y, y) * fill<U>(c); }
// run + a (z_max - z); where that is 0 times infinity, NaN, or, of `any` target, nothing is added.
template <bool any, class T, class How>
INLINE vec<T> add_shortfall(vec<T> run, vec<T> x, vec<T> a, const Shift<T>& s, How how) {
    const vec<T> zero = fill(T(0));
    const pair<T> z = argument(x, s.each, how);
    vec<T> d = s.top - z.hi;
    if constexpr (!std::is_same<How, Plain>::value) {
        const vec<T> lo = s.top_lo - z.lo;
        d = d + keep(equal(lo - lo, zero), lo);
    }
    return mul_add(a, any ? drop(equal(a, zero), d) : d, run);
}
// t log z, and 0 where t is 0; z < 0 gives NaN
template <class T, int U> INLINE vec<T, U> log_normal(vec<T, U> u, vec<T, U> by) {  // log(u / by) of a normal u, by = 2^k
    typedef constants<T> C;
    const vec<T, U> j = exponent(u * fill<U>(T(1.4142135623730951)));
    const vec<T, U> f = mul_sub(u, low_bits_to_exponent(fill<U>(C::round + C::bias) - j), fill<U>(T(1)));
    const pair<T, U> both = log_near_1(f, fill<U>(T(0)), j - by);
    return both.hi + both.lo;
}
template <class T> constexpr T lift_of_log(T) { return sizeof(T) == 4 ? T(0x1p64) : T(0x1p512); }
template <class T, int U> APART vec<T, U> target_log_of_any(vec<T, U> z, vec<T, U> t) {
    const T inf = std::numeric_limits<T>::infinity(), lift = lift_of_log(T());
    const vec<T, U> zero = fill<U>(T(0)), up = fill<U>(lift), down = fill<U>(1 / lift);
    const vec<T, U> by = choose(not_below(down, z), up, choose(not_below(z, up), down, fill<U>(T(1))));
    vec<T, U> log = log_normal(z * by, exponent(by));
    log = choose(equal(z, zero), fill<U>(-inf), choose(equal(z, fill<U>(inf)), z, log));
    log = choose(not_below(z, zero), log, fill<U>(std::numeric_limits<T>::quiet_NaN()));
    return choose(equal(z, z), drop(equal(t, zero), t * log), z);
}
template <class T, int U> INLINE vec<T, U> target_log(vec<T, U> z, vec<T, U> t) {
    const vec<T, U> least = fill<U>(std::numeric_limits<T>::min()), up = fill<U>(lift_of_log(T()));
    if (any(not_below(least, z)) || any(not_below(z, up))) return target_log_of_any(z, t);
    return t * log_normal(z, fill<U>(T(0)));
}
// -t / z; where z is 0, 0 if t is, else infinite
template <class T, int U> INLINE vec<T, U> target_slope(vec<T, U> z, vec<T, U> t) {
    const vec<T, U> zero = fill<U>(T(0)), minus = zero - t;
    const mask<T, U> none = equal(z, zero);
    const vec<T, U> pole = drop(equal(t, zero), minus * fill<U>(std::numeric_limits<T>::infinity()));
    return choose(none, pole, minus / choose(none, fill<U>(T(1)), z));
}


// Which pass: kernels/gradients.pxi says what each does.
struct Product {};
struct Dot {};
struct LogTarget {};
struct Turn {};
struct TurnOutput {};
struct LogTurnOutput {};
struct Centre {};
struct LogTurn {};
struct Slope {};
struct Times {};
struct DiagonalOf {};
struct TargetSlope {};

// The next `left` y, at most a bunch.
template <int U, class T, class Map>
INLINE vec<T, U> mapped(const T* from_x, const T* from_v, Map, ptrdiff_t left, T scale, T middle, const pair<T>& factor,
                        const pair<T>& mean, const pair<T>& minus) {
    const bool alone = std::is_same<Map, Times>::value || std::is_same<Map, DiagonalOf>::value;  // there may be no v
    vec<T, U> x = load_some<U>(from_x, left, T(0));
    const vec<T, U> v = alone ? x : load_some<U>(from_v, left, T(0));
    if constexpr (std::is_same<Map, Turn>::value) x = turned(x, v, scale, mean, factor);
    else if constexpr (std::is_same<Map, TurnOutput>::value) x = turned_output(x, v, mean);
    else if constexpr (std::is_same<Map, Centre>::value) x = centred(v, scale, middle, mean);
    else if constexpr (std::is_same<Map, LogTurn>::value) x = log_turned(x, v, factor, minus, middle);
    else if constexpr (std::is_same<Map, Slope>::value) x = less_target(x, v, factor, middle);
    else if constexpr (std::is_same<Map, Times>::value) x = multiplied(x, scale);
    else if constexpr (std::is_same<Map, DiagonalOf>::value) x = own_slope(scaled(x, factor), middle);
    else x = target_slope(x, v);
    return x;
}
// Those of a row, or of a block of it, the last vec as in end_terms.
template <class T, class Map>
INLINE void map_row(const T* x, const T* v, T* y, ptrdiff_t n, Map what, T scale, T middle, const pair<T>& factor,
                    const pair<T>& mean, const pair<T>& minus) {
    constexpr ptrdiff_t lanes = vec<T>::lanes, step = together * lanes, near = near_bytes / (ptrdiff_t)sizeof(T);
    const auto map = [&](auto U, ptrdiff_t i, ptrdiff_t left) INLINE_LAMBDA {
        return mapped<U>(x + i, v + i, what, left, scale, middle, factor, mean, minus);
    };
    const std::integral_constant<int, together> bunch{};
    const std::integral_constant<int, 1> one{};
    const bool back = reaches_back<T>(n);
    const ptrdiff_t stop = back ? n - lanes : n;
    ptrdiff_t i = 0;
    for (; i + step <= stop; i += step) {
        if (std::is_same<Map, TurnOutput>::value && i + near < n) prefetch_to_write(y + i + near, together);
        store(y + i, map(bunch, i, step), step);
    }
    if (back) {
        const vec<T> last = map(one, stop, lanes);  // before what is there changes: y may be x
        for (; i + lanes <= n; i += lanes) store(y + i, map(one, i, lanes), lanes);
        store(y + stop, last, lanes);
    } else if (i < n) store(y + i, map(one, i, n - i), n - i);
}
// The exponentials of the next `left` logits, of which the first step is done, to y; their sums, and those weighed by v.
template <class T, class How, int U>
INLINE void weigh_terms(Sums<T>& a, pair<T>& run, const Begun<T, U>& b, const T* x, const T* v, T* y, ptrdiff_t left, const Shared<T>& s, How how, T scale, T middle) {
    const Term<T, U> e = term_of(b, load_some<U>(x, left, -std::numeric_limits<T>::infinity()), s, how, Exact());
    store(y, value(e), left);
    for (int k = 0; k < U; k++) add_term(a, part(e, k), Exact());
    add_weighed(run, e, weighed(load_some<U>(v, left, T(0)), scale, middle));
}
template <class T, class How, int U>
INLINE void weigh_last(Sums<T>& a, pair<T>& run, const Begun<T, U>& b, const T* x, const T* v, T* y, ptrdiff_t left, const Shared<T>& s, How how, T scale, T middle) {
    if (U > 1 && left <= vec<T>::lanes) weigh_terms(a, run, first_of(b), x, v, y, left, s, how, scale, middle);
    else weigh_terms(a, run, b, x, v, y, left, s, how, scale, middle);
}
template <class T, class How>
INLINE ptrdiff_t weigh_steps(Sums<T>& a, pair<T>& run, BegunSome<T>& begun, const T* x, const T* v, T* y, ptrdiff_t i, ptrdiff_t end, ptrdiff_t stop, const Shared<T>& s, How how, T scale, T middle, ptrdiff_t ahead) {
    constexpr int vecs = exp_vecs;
    return in_steps(begun, x, i, end, stop, s, how, Exact(), [&](const BegunSome<T>& terms, ptrdiff_t i) INLINE_LAMBDA {
        prefetch(x + i + ahead, vecs);
        prefetch(v + i + ahead, vecs);
        weigh_terms(a, run, terms, x + i, v + i, y + i, vecs * vec<T>::lanes, s, how, scale, middle);
    }, [](ptrdiff_t) INLINE_LAMBDA {});
}

// ---- tiles (short.pxi) ----

// exp(x_j - max) in place of x, its sum, and that weighed by v scale - middle, of U classes from class j on; or of some,
// and of how many.
template <int U, class T, class How>
INLINE void weigh_classes(TileSums<T>& sums, TileSums<T>& dots, vec<T>& sum, vec<T>& dot, T* x, const T* v, ptrdiff_t j, ptrdiff_t n, const Shared<T>& s, How how, vec<T> scale, vec<T> middle) {
    const ptrdiff_t at = j * vec<T>::lanes, all = U * vec<T>::lanes;
    const Term<T, U> e = shifted_term(load_some<U>(x + at, all, T(0)), s, how, Exact());
    const vec<T, U> w = mul_sub(load_some<U>(v + at, all, T(0)), spread<U>(scale), spread<U>(middle));  // as `weighed`
    store(x + at, value(e), all);
    add_classes<U>(sums, sum, j, n, start_of_sum<T>(n), [&](vec<T, U> hi) INLINE_LAMBDA { return with_term(hi, e, Exact()); });
    add_classes<U>(dots, dot, j, n, start_of_weighed<T>(), [&](vec<T, U> hi) INLINE_LAMBDA { return with_weighed(hi, e, w); });
}
template <class T, class How>
INLINE ptrdiff_t weigh_some_classes(TileSums<T>& sums, TileSums<T>& dots, vec<T>& sum, vec<T>& dot, T* x, const T* v, ptrdiff_t j, ptrdiff_t n, const Shared<T>& s, How how, vec<T> scale, vec<T> middle) {
    return some_classes(j, n, [&](auto count) INLINE_LAMBDA { weigh_classes<count>(sums, dots, sum, dot, x, v, j, n, s, how, scale, middle); });
}
// A sum over classes in runs of `length`, as of a row by itself: add(run, j) adds class j to one. Made larger by the largest
// number in it is `size`.
template <int length, class T, class Add> INLINE void sum_in_runs(ptrdiff_t n, Sums<T>& a, vec<T>& size, Add add) {
    const ptrdiff_t lanes = vec<T>::lanes;
    TileTree<T, All>::sum(n, All(), a, [&](ptrdiff_t j, Sums<T>& own) INLINE_LAMBDA {
        begin_runs(own);
        for (bool first = true; j < n; first = false) {
            vec<T> run = fill(T(0));
            for (int k = 0; k < length && j < n; k++, j += lanes) run = add(run, j);
            if (first) own.hi = run;
            else end_run(own, run);
        }
        size = larger(absolute(own.hi), size);
    });
}
// The sum of y v of a tile, and the largest number in it that may ask for a scale.
template <class T> APART void sum_of_products(const T* y, const T* v, ptrdiff_t n, Sums<T>& a, vec<T>& size) {
    const ptrdiff_t lanes = vec<T>::lanes;
    size = fill(T(0));
    sum_in_runs<run_length>(n, a, size, [&](vec<T> run, ptrdiff_t j) INLINE_LAMBDA {
        const vec<T> w = load(v + j * lanes, lanes, T(0));
        if (!has_fma) size = larger(absolute(w), size);
        return mul_add(load(y + j * lanes, lanes, T(0)), w, run);
    });
}

// The same by a loop, for what is a small part of what asks for it; runs of `length`.
template <class T, class Add> INLINE void sum_in_loop(ptrdiff_t n, int length, Sums<T>& a, vec<T>& size, Add add) {
    const ptrdiff_t lanes = vec<T>::lanes;
    Sums<T> lane[vec<T>::lanes];
    size = fill(T(0));
    for (ptrdiff_t i = 0; i < lanes && i < n; i++) {
        begin_runs(lane[i]);
        for (ptrdiff_t j = i; j < n;) {
            vec<T> run = fill(T(0));
            for (int k = 0; k < length && j < n; k++, j += lanes) run = add(run, j);
            end_run(lane[i], run);
        }
        size = larger(absolute(lane[i].hi), size);
    }
    fold_lanes(lane, n, All());
    a = lane[0];
}
// The sum of v, and of v (z_max - z).
template <class T> APART void sum_of_runs(const T* v, ptrdiff_t n, int length, Sums<T>& a, vec<T>& size) {
    const ptrdiff_t lanes = vec<T>::lanes;
    sum_in_loop(n, length, a, size, [&](vec<T> run, ptrdiff_t j) INLINE_LAMBDA { return run + load(v + j * lanes, lanes, T(0)); });
}
template <class T, class How> APART void sum_of_shortfalls(const T* x, const T* v, ptrdiff_t n, const Shift<T>& s, How how, Sums<T>& a) {
    const ptrdiff_t lanes = vec<T>::lanes;
    vec<T> size;
    const auto sum = [&](auto any) INLINE_LAMBDA {
        sum_in_loop(n, run_length, a, size, [&](vec<T> run, ptrdiff_t j) INLINE_LAMBDA {
            return add_shortfall<any>(run, load(x + j * lanes, lanes, T(0)), load(v + j * lanes, lanes, T(0)), s, how);
        });
    };
    sum(std::false_type());
    if (!all_finite(a.hi)) sum(std::true_type());
}

template <class T> INLINE T loss_of(T hi, T lo) {
    const T loss = 0 - (hi + lo);
    return loss == loss ? loss : std::numeric_limits<T>::quiet_NaN();
}

// What the passes over the rows of a group share; a pass goes over rows first .. last - 1.
template <class T> struct Pass {
    int what, first, last;
    const T** x;
    const T** v;
    T** y;
    ptrdiff_t n;
    const Shift<T>* shift;
    const Shared<T>* shared;
    // of row r: scale[r] and middle[r], lane r of the pairs, and, lane by lane, sums[r] and dots[r]
    T scale[16], middle[16];
    pair<T> mean, factor, minus;
    Sums<T> sums[16], dots[16];
};
// Sums of v, and of v (z_max - z), of classes start .. stop of the rows of a pass; again, of `any` target, where that asks
// for it.
template <bool any, class T, class How>
INLINE void add_targets(Sums<T>& weights, Sums<T>& shortfalls, const T* x, const T* v, ptrdiff_t left, const Shift<T>& s, How how) {
    vec<T> weight = fill(T(0)), run = weight;
    for (ptrdiff_t k = 0; k < run_length * vec<T>::lanes && k < left; k += vec<T>::lanes) {
        const vec<T> a = load(v + k, left - k, T(0));
        weight = weight + a;
        run = add_shortfall<any>(run, load(x + k, left - k, T(0)), a, s, how);
    }
    end_run(weights, weight);
    end_run(shortfalls, run);
}
template <class T, class How>
APART void target_sums(const Pass<T>& p, How how, ptrdiff_t start, ptrdiff_t stop, Sums<T>* weights, Sums<T>* shortfalls) {
    const ptrdiff_t step = run_length * vec<T>::lanes;
    for (int r = p.first; r < p.last; r++) {
        const Shift<T> s = of_row(*p.shift, r);
        const auto sum = [&](auto any) INLINE_LAMBDA {
            Sums<T> a, b;
            begin_runs(a);
            begin_runs(b);
            ptrdiff_t i = start;
            for (; i + step <= stop; i += step) add_targets<any>(a, b, p.x[r] + i, p.v[r] + i, step, s, how);
            if (i < stop) add_targets<any>(a, b, p.x[r] + i, p.v[r] + i, stop - i, s, how);
            weights[r] = a;
            shortfalls[r] = b;
        };
        sum(std::false_type());
        if (!all_finite(shortfalls[r].hi)) sum(std::true_type());
    }
}
// map_row of classes start .. stop of the rows of a pass.
template <class T, class Map> APART void map_rows(const Pass<T>& p, Map what, ptrdiff_t start, ptrdiff_t stop) {
    for (int r = p.first; r < p.last; r++)
        map_row(p.x[r] + start, p.v[r] + start, p.y[r] + start, stop - start, what, p.scale[r], p.middle[r],
                of_row(p.factor, r), of_row(p.mean, r), of_row(p.minus, r));
}

}}  // namespace
