// exp, log1p and error-free arithmetic on vec<T>. The constants come from tools/derive_coefficients.py.
#pragma once
#include "vec.hpp"
#include <cmath>
#include <limits>
#include <type_traits>

namespace fastsoft { namespace {

template <class T> struct constants;
template <> struct constants<float> {
    static constexpr float exp_q[] = {0.49999994f, 0.166665122f, 0.0416684896f, 0.00836973451f, 0.00138124858f};
    static constexpr float exp_quarter[] = {0.500000238f, 0.166722611f, 0.0416410379f};
    static constexpr float exp_quarter_exact[] = {0.49999997f, 0.166666687f, 0.0416814797f, 0.00833225716f};
    static constexpr const float (&exp_raised)[5] = exp_q;  // not raised: see exp_shifted
    static constexpr float raise = 0;
    // exp takes quarters of powers of two from a table where that is one instruction: all times `unit`, for the sake of
    // their roundings (see types.hpp).
    static constexpr bool by_quarters = has_fma;
    static constexpr float unit = has_fma ? 1.02894855f : 1.0f;
    static constexpr float log_w[] = {0.666666627f, 0.400003344f, 0.285373658f, 0.235811546f};
    static constexpr float log2e = 1.44269502f;
    // Without FMA k * ln2_hi must be exact by itself: fewer bits, and a narrower reach.
    static constexpr float ln2_hi = has_fma ? 0.693147182f : 0.693145752f;
    static constexpr float ln2_lo = has_fma ? -1.90465421e-09f : 1.42860677e-06f;
    static constexpr float reach = has_fma ? 131072.0f : 300.0f;  // largest |max| for which x itself goes into exp
    static constexpr float round = 12582912.0f;                   // 1.5 * 2^23
    static constexpr float bias = 127, headroom = 64;
    static constexpr float split = 4097.0f;
};
template <> struct constants<double> {
    static constexpr double exp_q[] = {0.50000000000000122, 0.16666666666666374, 0.041666666666513995,
        0.0083333333335138815, 0.00138888889484415, 0.00019841269476662723, 2.4801487643042569e-05,
        2.7557602161057436e-06, 2.7632334780484964e-07, 2.4998500492850607e-08};
    static constexpr bool by_quarters = false;
    static constexpr double exp_raised[] = {0.49999999999999867, 0.16666666666666768, 0.041666666666844543,
        0.00833333333308694, 0.0013888888816518104, 0.00019841271386867204, 2.480170004640428e-05,
        2.7553909280053706e-06, 2.7510924092270621e-07, 2.7501193693624406e-08};
    static constexpr double raise = 0.0965;
    static constexpr double unit = 1;
    static constexpr double log_w[] = {0.66666666666666663, 0.40000000000006214, 0.28571428569095658, 0.2222222264541647,
        0.18181775769670588, 0.15387086439442849, 0.13250210877769913, 0.13250522527498387};
    static constexpr double log2e = 1.4426950408889634;
    static constexpr double ln2_hi = has_fma ? 0.69314718060195446 : 0.69314718055989033;
    static constexpr double ln2_lo = has_fma ? -4.2009150726810846e-11 : 5.4979230187083712e-14;
    static constexpr double reach = has_fma ? 524288.0 : 1300.0;
    static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
    static constexpr double bias = 1023, headroom = 128;
    static constexpr double split = 134217729.0;
};

// Horner's rule.
template <class T, int U, int n> INLINE vec<T, U> polynomial(vec<T, U> x, const T (&c)[n]) {
    vec<T, U> y = fill<U>(c[n - 1]);
    for (int i = n - 2; i >= 0; i--) y = mul_add(y, x, fill<U>(c[i]));
    return y;
}

// The same by even and odd powers, in as many steps, of which half wait for each other.
template <class T, int U, int n> INLINE vec<T, U> polynomial(vec<T, U> x, vec<T, U> square, const T (&c)[n]) {
    if (n % 2) return polynomial(x, c);
    vec<T, U> even = fill<U>(c[n - 2]), odd = fill<U>(c[n - 1]);
    for (int i = n - 4; i >= 0; i -= 2) {
        even = mul_add(even, square, fill<U>(c[i]));
        odd = mul_add(odd, square, fill<U>(c[i + 1]));
    }
    return mul_add(odd, x, even);
}

// ---- error-free arithmetic: the sum, or product, and what its rounding lost ----

template <class T, int U = 1> struct pair { vec<T, U> hi, lo; };

// Knuth, TAOCP 2, 4.2.2
template <class T, int U> INLINE pair<T, U> two_sum(vec<T, U> a, vec<T, U> b) {
    const vec<T, U> s = a + b, t = s - a;
    return {s, (a - (s - t)) + (b - t)};
}
// Dekker 1971; |a| >= |b| or a = 0
template <class T, int U> INLINE pair<T, U> fast_two_sum(vec<T, U> a, vec<T, U> b) {
    const vec<T, U> s = a + b;
    return {s, b - (s - a)};
}
// Dekker and Veltkamp 1971 where there is no FMA; a * b away from overflow and underflow
template <class T, int U> INLINE pair<T, U> two_product(vec<T, U> a, vec<T, U> b) {
    const vec<T, U> p = a * b;
    if (has_fma) return {p, mul_sub(a, b, p)};
    const vec<T, U> s = fill<U>(constants<T>::split), as = a * s, bs = b * s;
    const vec<T, U> ah = as - (as - a), al = a - ah, bh = bs - (bs - b), bl = b - bh;
    return {p, ((ah * bh - p) + ah * bl + al * bh) + al * bl};
}

// ---- a row's argument: how x enters exp ----

// z = x / T as it enters exp: a pair, whose lo is 0 for Plain. 1/T = factor.g * (factor.hi + factor.lo).
//   Plain   z = x                   T = 1, |max| within reach
//   Scaled  z = x * c               g = 1, |max * c| within reach
//   Wide    z = (x - max) * g * c   any finite x; g a power of two, part of which comes before the subtraction,
//                                   lest that overflow
struct Plain {};
struct Scaled {};
struct Wide {};
struct Factor { double hi, lo, g; };

// What the elements of a row need, in all lanes; in a tile, or for a group of rows, each lane is a row of its own.
template <class T> struct Shared {
    vec<T> max;    // of x, NaN apart; 0 where the row is empty
    vec<T> low;    // where the exponent field of e^z is 0: from here down e^z counts as 0
    vec<T> round;  // added to z log2 e, leaves k - K + headroom + bias, the exponent field, in the low bits (see steps)
    vec<T> c_hi, c_lo, before, after;  // before * after = g; not set for Plain
};
// What a row as a whole needs besides.
template <class T> struct Shift {
    Shared<T> each;
    vec<T> top, top_lo;      // z of max
    vec<T> e_max, e_max_lo;  // e^top 2^(headroom - K) as exp_shifted gives it, and what that lacks
    vec<T> nan;              // NaN where max is infinite and the row holds a NaN, else 0
    mask<T> empty;           // nothing but -inf in the row
};

template <class T, int U> INLINE pair<T, U> argument(vec<T, U> x, const Shared<T>&, Plain) { return {x, fill<U>(T(0))}; }
template <class T, int U> INLINE pair<T, U> argument(vec<T, U> x, const Shared<T>& s, Scaled) {
    pair<T, U> z = two_product(x, spread<U>(s.c_hi));
    z.lo = mul_add(x, spread<U>(s.c_lo), z.lo);
    return z;
}
template <class T, int U> INLINE pair<T, U> argument(vec<T, U> x, const Shared<T>& s, Wide) {
    const vec<T, U> before = spread<U>(s.before), after = spread<U>(s.after);
    const pair<T, U> d = two_sum(x * before, fill<U>(T(0)) - spread<U>(s.max) * before);
    const vec<T, U> hi = d.hi * after, lo = d.lo * after;
    pair<T, U> z = two_product(hi, spread<U>(s.c_hi));
    z.lo = mul_add(hi, spread<U>(s.c_lo), mul_add(lo, spread<U>(s.c_hi), z.lo));
    return z;
}

// The lanes whose maximum is finite and, times c, beyond the reach of Plain and Scaled.
template <class T> INLINE mask<T> beyond_reach(vec<T> max, T c) {
    const T inf = std::numeric_limits<T>::infinity();
    const vec<T> zero = fill(T(0)), m = larger(max, zero - max);
    return not_below(keep(not_below(fill(std::numeric_limits<T>::max()), m), m * fill(c)),
                     fill(std::nextafter(constants<T>::reach, inf)));
}

// ---- exp ----

// Which exponentials a sum takes: All of a row, or Exact, which is All with smaller errors; or the Others, without those
// equal to the maximum, which are counted in `ties`.
struct All {};
struct Exact {};
struct Others {};

// What one step of Shared::round is worth: a power of two, or a quarter of one.
template <class T> constexpr T steps = constants<T>::by_quarters ? T(4) : T(1);

// What of an exponential comes before the polynomial: t holds its scale, and r = z - k log 2 is r_hi, exact, less minus_lo;
// but these two are set only where e^r - 1 is taken in two parts.
template <class T, int U = 1> struct Reduced { vec<T, U> t, r_hi, minus_lo, r, square; };
template <class T, class How, int U> INLINE Reduced<T, U> reduced_exactly(pair<T, U> z, vec<T, U> t, vec<T, U> k, How) {
    typedef constants<T> C;
    const vec<T, U> r_hi = sub_mul(z.hi, k, fill<U>(C::ln2_hi)), lo = fill<U>(C::ln2_lo);
    const vec<T, U> minus_lo = std::is_same<How, Plain>::value ? k * lo : mul_sub(k, lo, z.lo), r = r_hi - minus_lo;
    return {t, r_hi, minus_lo, r, r * r};
}
// e^r - 1 as a pair: its larger part, exact, and the rest, by a polynomial for such r.
template <class T, int U, int n> INLINE pair<T, U> exp_less_1(const Reduced<T, U>& a, const T (&c)[n]) {
    return {a.r_hi, mul_sub(a.square, polynomial(a.r, a.square, c), a.minus_lo)};
}
// An exponential before it is rounded: scale (1 + p + rest), scale a power of two or, rounded, a quarter of one. Where there
// is no rest it is -0, which the compiler drops from a sum.
template <class T, int U = 1> struct Term { vec<T, U> scale, p, rest; };
template <class T, class Which> constexpr bool has_rest =
    std::is_same<Which, Exact>::value && (!has_fma || !constants<T>::by_quarters);
template <class T, int U> INLINE vec<T, U> value(const Term<T, U>& a) { return mul_add(a.scale, a.p + a.rest, a.scale); }
// What it has beyond `a`, which is near it.
template <class T, class Which, int U> INLINE vec<T, U> beyond(const Term<T, U>& e, vec<T, U> a, Which) {
    const vec<T, U> most = mul_add(e.scale, e.p, e.scale - a);
    return has_rest<T, Which> ? mul_add(e.scale, e.rest, most) : most;
}
template <class T, int U> INLINE Term<T> part(const Term<T, U>& a, int k) {
    return {part(a.scale, k), part(a.p, k), part(a.rest, k)};
}
// e^z 2^(headroom - K) of z = hi + lo with |hi| within reach and lo far smaller, s.low <= hi <= s.top, round = s.round:
// 0 at s.low; NaN stays NaN. p + rest is off by at most 2^-2 ulp of 1; in double, of All and of Others, 2^-1. There the
// roundings of r and p weigh least beside a large 1 + p, so that r is from -0.25 to log 2 - 0.25, but for Others: r_hi, not
// larger than z then, is exact.
// Two steps, for the second one of some vecs may wait for the first one of others (steps.hpp).
template <class T, class Which> constexpr bool is_raised =
    has_fma && !constants<T>::by_quarters && !std::is_same<Which, Others>::value;
template <class T, class Which> constexpr bool is_in_two_parts = !has_fma || has_rest<T, Which>;  // every rounding counts
template <class T, class How, class Which, int U>
INLINE Reduced<T, U> reduced(pair<T, U> z, vec<T, U> round, How how, Which) {
    typedef constants<T> C;
    const vec<T, U> near = is_raised<T, Which> ? z.hi - fill<U>(T(C::raise)) : z.hi;
    const vec<T, U> t = mul_add(near, fill<U>(C::log2e * steps<T>), round), k = t - round;
    if constexpr (is_in_two_parts<T, Which>) return reduced_exactly(z, t, k, how);
    const vec<T, U> r_hi = sub_mul(z.hi, k, fill<U>(C::ln2_hi / steps<T>)), lo = fill<U>(C::ln2_lo / steps<T>);
    const vec<T, U> r = std::is_same<How, Plain>::value ? sub_mul(r_hi, k, lo) : r_hi + sub_mul(z.lo, k, lo);
    return {t, r, r, r, r * r};
}
template <class T, class Which, int U> INLINE Term<T, U> term(const Reduced<T, U>& a, Which) {
    typedef constants<T> C;
    const vec<T, U> no_rest = fill<U>(T(-0.0));
    if constexpr (is_in_two_parts<T, Which>) {
        const pair<T, U> p = exp_less_1(a, is_raised<T, Which> ? C::exp_raised : C::exp_q);
        if (has_rest<T, Which>) return {low_bits_to_exponent(a.t), p.hi, p.lo};
        return {low_bits_to_exponent(a.t), p.hi + p.lo, no_rest};
    }
    if constexpr (C::by_quarters && std::is_same<Which, Exact>::value)
        return {quarter_power(a.t), mul_add(a.square, polynomial(a.r, C::exp_quarter_exact), a.r), no_rest};
    else if constexpr (C::by_quarters)
        return {quarter_power(a.t), mul_add(a.square, polynomial(a.r, C::exp_quarter), a.r), no_rest};
    else
        return {low_bits_to_exponent(a.t), mul_add(a.square, polynomial(a.r, a.square, is_raised<T, Which> ? C::exp_raised : C::exp_q), a.r), no_rest};
}
template <class T, class How, class Which, int U>
INLINE Term<T, U> exp_shifted(pair<T, U> z, vec<T, U> round, How how, Which which) {
    return term(reduced(z, round, how, which), which);
}
// e^z as a pair, of which hi + lo is off by less than 0.3 ulp; to_field = headroom + bias - K.
template <class T> APART pair<T> exp_exactly(pair<T> z, vec<T> to_field) {
    typedef constants<T> C;
    const vec<T> round = fill(C::round) + to_field, t = mul_add(z.hi, fill(C::log2e), round);
    const pair<T> part = exp_less_1(reduced_exactly(z, t, t - round, Wide()), C::exp_q);
    const vec<T> p = part.hi + part.lo, scale = low_bits_to_exponent(t), e = mul_add(scale, p, scale);
    return {e, mul_add(scale, p, scale - e) + scale * (part.lo - (p - part.hi))};
}
// What e = exp_shifted(z, round, how) lacks, as exactly.
template <class T, class How> INLINE vec<T> exp_rest(vec<T> e, pair<T> z, vec<T> round, vec<T> to_field, How) {
    typedef constants<T> C;
    if constexpr (C::by_quarters || !has_fma) {
        const pair<T> exact = exp_exactly(z, to_field), by_unit = two_product(exact.hi, fill(C::unit));
        return (by_unit.hi - e) + mul_add(exact.lo, fill(C::unit), by_unit.lo);
    }
    const vec<T> t = mul_add(z.hi, fill(C::log2e), round), k = t - round, scale = low_bits_to_exponent(t);  // as there,
    const vec<T> r_hi = sub_mul(z.hi, k, fill(C::ln2_hi)), lo = fill(C::ln2_lo), rest = sub_mul(z.lo, k, lo);
    const vec<T> r = std::is_same<How, Plain>::value ? sub_mul(r_hi, k, lo) : r_hi + rest;
    const vec<T> r2 = r * r, q = polynomial(r, r2, C::exp_q), p = mul_add(r2, q, r);  // and now what each rounding lost
    const vec<T> r_lo = (r_hi - r) + rest;
    return mul_add(scale, p, scale - e) + scale * (mul_add(r2, q, r - p) + r_lo);
}

// Where e^z counts as 0. By quarters, 0 takes an exponent field below 0 (quarter_power).
template <class T> INLINE vec<T> low_of(vec<T> to_field) {
    typedef constants<T> C;
    return (fill(C::by_quarters ? T(-1) : T(0)) - to_field) * fill(C::ln2_hi + C::ln2_lo);
}
// z, but not below s.low; NaN stays NaN.
template <class T, int U> INLINE pair<T, U> not_too_low(pair<T, U> z, const Shared<T>& s, Plain) {
    return {larger(spread<U>(s.low), z.hi), z.lo};
}
template <class T, class How, int U> INLINE pair<T, U> not_too_low(pair<T, U> z, const Shared<T>& s, How) {
    const vec<T, U> hi = larger(spread<U>(s.low), z.hi);
    return {hi, keep(equal(hi, z.hi), z.lo)};  // lo is not finite where hi was not
}
// e^z of x as above, and 0 where z <= s.low, which is below half the smallest subnormal after division by the sum.
template <class T, class How, class Which, int U>
INLINE Reduced<T, U> reduced(vec<T, U> x, const Shared<T>& s, How how, Which which) {
    return reduced(not_too_low(argument(x, s, how), s, how), spread<U>(s.round), how, which);
}
template <class T, class How, class Which, int U>
INLINE Term<T, U> shifted_term(vec<T, U> x, const Shared<T>& s, How how, Which which) {
    return term(reduced(x, s, how, which), which);
}

// `nan` is NaN where the row holds one (asked for only where max is infinite), else 0.
template <class T, class How> INLINE void set_shift(Shift<T>& s, vec<T> max, vec<T> nan, const Factor& f, How how) {
    typedef constants<T> C;
    const vec<T> zero = fill(T(0));
    s.empty = equal(max + nan, fill(-std::numeric_limits<T>::infinity()));
    s.each.max = drop(s.empty, max);
    if constexpr (!std::is_same<How, Plain>::value) {
        s.each.c_hi = fill((T)f.hi);
        s.each.c_lo = fill((T)((f.hi - (double)(T)f.hi) + f.lo));
        s.each.before = fill((T)(f.g == 1 ? 0.5 : f.g < 1 ? f.g : 1));
        s.each.after = fill((T)(f.g == 1 ? 2 : f.g < 1 ? 1 : f.g));
    }
    const pair<T> top = argument(s.each.max, s.each, how);
    s.top = top.hi;
    s.top_lo = top.lo;
    // K is even: then `round` has the same parity, and the choice of k in a tie is the same, for every K.
    const vec<T> magic = fill(C::round);
    const vec<T> half_k = mul_add(top.hi, fill(C::log2e * T(0.5)), magic) - magic;
    const vec<T> to_field = fill(C::bias + C::headroom) - (half_k + half_k);
    s.each.round = magic + to_field * fill(steps<T>);
    s.each.low = low_of(to_field);
    s.nan = nan;
}
// The exponential of the maximum, which what is said of the others asks for.
template <class T, class How> INLINE void set_largest(Shift<T>& s, How how) {
    const pair<T> top = {s.top, s.top_lo};
    s.e_max = value(exp_shifted(top, s.each.round, how, Others()));
    const vec<T> to_field = (s.each.round - fill(constants<T>::round)) * fill(1 / steps<T>);
    s.e_max_lo = exp_rest(s.e_max, top, s.each.round, to_field, how);
}

// ---- sums without loss of digits ----

// Each lane adds its own terms; what an addition rounds away is known exactly, and collects in `lo`.
template <class T, int U = 1> struct Sums { vec<T, U> hi, lo, ties; };

// The sum of All is not small beside its largest term. So `hi` starts above any term (4 * 2^headroom): Dekker's condition
// holds for good, and an exponential can be added as it is before it is rounded. In a row of few classes it starts above
// the sum of all: then what `hi` takes of each is a multiple of one number, and these add up exactly, in any order.
const int few_classes = 128;
template <class T> INLINE T start_of_sum(ptrdiff_t n) {
    const int k = (int)constants<T>::headroom;
    return n > few_classes ? std::ldexp(T(4), k) : std::ldexp(T(512), k);
}
template <class T, class Which, int U> INLINE void begin(Sums<T, U>& a, ptrdiff_t n, Which) {
    a.hi = fill<U>(std::is_same<Which, Others>::value ? T(0) : start_of_sum<T>(n));
    a.lo = a.ties = fill<U>(T(0));
}
// hi + e, and what that lacks.
template <class T, class Which, int U> INLINE pair<T, U> with_term(vec<T, U> hi, const Term<T, U>& e, Which which) {
    const vec<T, U> t = hi + value(e);
    return {t, beyond(e, t - hi, which)};
}
template <class T, class Which, int U> INLINE void add_term(Sums<T, U>& a, const Term<T, U>& e, Which which) {
    const pair<T, U> t = with_term(a.hi, e, which);
    a.hi = t.hi;
    a.lo = a.lo + t.lo;
}
// Others may be small, and are what matters then.
template <class T, int U> INLINE void add_other(Sums<T, U>& a, vec<T, U> e) {
    const pair<T, U> p = two_sum(a.hi, e);
    a.hi = p.hi;
    a.lo = a.lo + p.lo;
}
template <class T, int U> INLINE void collect_other(Sums<T, U>& a, vec<T, U> e, vec<T, U> x, const Shared<T>& s) {
    const mask<T, U> tie = equal(x, spread<U>(s.max));
    a.ties = a.ties + keep(tie, fill<U>(T(1)));
    add_other(a, drop(tie, e));
}
// Add the exponential e of x, lane by lane.
template <class T, class Which, int U>
INLINE void collect(Sums<T, U>& a, const Term<T, U>& e, vec<T, U> x, const Shared<T>& s, Which which) {
    if (!std::is_same<Which, Others>::value) return add_term(a, e, which);
    collect_other(a, value(e), x, s);
}
// n is that of the whole row, or of a block that is shifted by itself, as in `begin`. `full`: a block, which others may
// follow, lest lo grow with their number.
template <class T, class Which, int U> INLINE void finish(Sums<T, U>& a, ptrdiff_t n, Which, bool full) {
    if (std::is_same<Which, Others>::value) return;
    a.hi = a.hi - fill<U>(start_of_sum<T>(n));
    if (!full) return;
    const pair<T, U> p = two_sum(a.hi, a.lo);
    a.hi = p.hi;
    a.lo = p.lo;
}
template <class T, class Which, int U> INLINE void take_apart(const Sums<T, U>& a, Sums<T>* parts, Which) {
    for (int k = 0; k < U; k++) {
        parts[k].hi = part(a.hi, k);
        parts[k].lo = part(a.lo, k);
        if (std::is_same<Which, Others>::value) parts[k].ties = part(a.ties, k);
    }
}
template <class T, class Which, int U> INLINE void put_together(const Sums<T>* parts, Sums<T, U>& a, Which) {
    for (int k = 0; k < U; k++) {
        set_part(a.hi, k, parts[k].hi);
        set_part(a.lo, k, parts[k].lo);
        if (std::is_same<Which, Others>::value) set_part(a.ties, k, parts[k].ties);
    }
}
// Of pairs, or of sums without their ties.
template <class A> INLINE void merge_values(A& a, const A& b) {
    const auto p = two_sum(a.hi, b.hi);
    a.hi = p.hi;
    a.lo = (a.lo + b.lo) + p.lo;
}
template <class T, int U> INLINE void merge(Sums<T, U>& a, const Sums<T, U>& b) {
    merge_values(a, b);
    a.ties = a.ties + b.ties;
}
template <class T, class Which> INLINE void merge(Sums<T>& a, const Sums<T>& b, Which) {
    if (std::is_same<Which, Others>::value) merge(a, b);
    else merge_values(a, b);  // no ties
}
// Fold `count` rows, at most as many as a vec has lanes: of a[i] all lanes are combined, as a tree over the lanes
// whose numbers differ in one bit, the highest first. The result, in a[0], has row i in lane i; lanes beyond the
// rows repeat one of them. So the horizontal work of several rows is done together.
template <class T> INLINE void join(vec<T>& a, vec<T> b) { a = larger(a, b); }
template <class T> INLINE void join(pair<T>& a, const pair<T>& b) { merge_values(a, b); }
template <class T> INLINE void join(Sums<T>& a, const Sums<T>& b) { merge(a, b); }
template <int k, class T> INLINE pair<T> swap_lanes(const pair<T>& a) { return {swap_lanes<k>(a.hi), swap_lanes<k>(a.lo)}; }
template <int k, class T> INLINE Sums<T> swap_lanes(const Sums<T>& a) {
    return {swap_lanes<k>(a.hi), swap_lanes<k>(a.lo), swap_lanes<k>(a.ties)};
}
template <int k, class T> INLINE pair<T> pick(const pair<T>& a, const pair<T>& b) {
    return {pick<k>(a.hi, b.hi), pick<k>(a.lo, b.lo)};
}
template <int k, class T> INLINE Sums<T> pick(const Sums<T>& a, const Sums<T>& b) {
    return {pick<k>(a.hi, b.hi), pick<k>(a.lo, b.lo), pick<k>(a.ties, b.ties)};
}
template <class A> INLINE void take(A& a, const A& from) { a = from; }
template <class T> INLINE void take(pair<T>& a, const Sums<T>& from) { a.hi = from.hi; a.lo = from.lo; }
template <class T> INLINE void take(Sums<T>& a, const pair<T>& from) { a.hi = from.hi; a.lo = from.lo; }
// A is what of each row is folded: of sums without ties, a pair; `exact`: one whose hi add up without a rounding, as those
// of All, or Exact, of few classes do.
template <int k, class A, bool exact = false> struct Fold {
    template <class B> static INLINE void rows(B* a, int count) {
        for (int i = 0; i < (count < k ? count : k); i++) {
            A own, next, other;
            take(own, a[i]);
            if (i + k < count) {
                take(next, a[i + k]);
                other = swap_lanes<k>(pick<k>(next, own));
                own = pick<k>(own, next);
            } else {
                other = swap_lanes<k>(own);
            }
            if constexpr (exact) own = {own.hi + other.hi, own.lo + other.lo};
            else join(own, other);
            take(a[i], own);
        }
        Fold<k / 2, A, exact>::rows(a, count < k ? count : k);
    }
};
template <class A, bool exact> struct Fold<0, A, exact> {
    template <class B> static INLINE void rows(B*, int) {}
};
template <class A, class T, bool exact = false, class B> INLINE void fold_rows(B* a, int count) {
    constexpr int lanes = vec<T>::lanes;
    if (vec<T>::regs <= 2 && count == lanes) Fold<lanes / 2, A, exact>::rows(a, lanes);  // so unrolled, where it is not too long
    else Fold<lanes / 2, A, exact>::rows(a, count);
}
template <class T> APART void fold(vec<T>* a, int count) { fold_rows<vec<T>, T>(a, count); }
template <class T> APART void fold(Sums<T>* a, int count, All) { fold_rows<pair<T>, T>(a, count); }
// The same of one row, in registers.
template <class T> INLINE pair<T> folded(const Sums<T>& a) {
    pair<T> all = {a.hi, a.lo};
    Fold<vec<T>::lanes / 2, pair<T>>::rows(&all, 1);
    return all;
}
template <class T> APART void fold_few(Sums<T>* a, int count) { fold_rows<pair<T>, T, true>(a, count); }
template <class T> APART void fold(Sums<T>* a, int count, Others) { fold_rows<Sums<T>, T>(a, count); }

// The same of sums that began with begin(a, n, which).
template <class T, class Which> INLINE void fold_sums(Sums<T>* a, int count, ptrdiff_t n, Which) {
    if (std::is_same<Which, Others>::value) fold(a, count, Others());
    else if (n <= few_classes) fold_few(a, count);
    else fold(a, count, All());
}

// The same of row k alone, in all lanes: the compiler then knows that one register does for all.
template <class T> INLINE Shared<T> of_row(const Shared<T>& s, int k) {
    return {lane(s.max, k), lane(s.low, k), lane(s.round, k), lane(s.c_hi, k), lane(s.c_lo, k), lane(s.before, k), lane(s.after, k)};
}
template <class T> INLINE pair<T> of_row(const pair<T>& a, int k) { return {lane(a.hi, k), lane(a.lo, k)}; }

// v where it is NaN, else 0.
template <class T, int U> INLINE vec<T, U> nan_of(vec<T, U> v) { return drop(equal(v, v), v); }

// ---- what a row's sum gives ----

// a / b of pairs, a >= 0, b > 0: relative error below 2^-40 (float), 2^-100 (double) where nothing underflows.
template <class T> INLINE pair<T> quotient(pair<T> a, pair<T> b) {
    const vec<T> r = fill(T(1)) / b.hi, q = a.hi * r;  // within 2 ulp, so that a.hi - p.hi is exact
    const pair<T> p = two_product(q, b.hi);
    const vec<T> rest = ((a.hi - p.hi) - p.lo) + sub_mul(a.lo, q, b.lo);
    return fast_two_sum(q, rest * r);
}

template <class T, int U> INLINE bool has_nan(vec<T, U> v) {
    const vec<T, U> one = fill<U>(T(1));
    return any(equal(drop(equal(v, v), one), one));
}
// a, but where `like` is NaN always the same NaN: its sign and payload would depend on the compiler.
template <class T, int U> INLINE vec<T, U> one_nan(vec<T, U> a, vec<T, U> like) {
    return choose(equal(like, like), a, fill<U>(std::numeric_limits<T>::quiet_NaN()));
}

// 1 / sum of All, in two parts; `empty` (0 or NaN) in an empty row.
template <class T> INLINE pair<T> reciprocal(const Sums<T>& a, const Shift<T>& s, T empty) {
    const vec<T> one = fill(T(1));
    const pair<T> t = two_sum(a.hi, a.lo);
    const vec<T> q = one / t.hi;
    const pair<T> p = two_product(q, t.hi);
    const vec<T> rest = sub_mul((one - p.hi) - p.lo, q, t.lo);
    const pair<T> r = fast_two_sum(q, rest * q);  // q in place of 1 / sum: the correction need not be as exact
    return {choose(s.empty, fill(empty), r.hi), choose(s.empty, fill(T(0)), r.lo)};
}

// e * (r.hi + r.lo), rounded once more than exp; without FMA by halves, whose products are exact.
template <class T, int U> INLINE vec<T, U> scaled(vec<T, U> e, const pair<T>& r) {
    if (has_fma) {
        e = in_registers(e);
        return mul_add(e, spread<U>(r.hi), e * spread<U>(r.lo));
    }
    const T split = constants<T>::split, up = std::ldexp(T(1), (int)constants<T>::headroom);
    const vec<T> hi = r.hi * fill(up), rs = hi * fill(split), rh = rs - (rs - hi), rl = (hi - rh) + r.lo * fill(up);
    const vec<T, U> es = e * fill<U>(split), eh = es - (es - e), el = e - eh;
    return (eh * spread<U>(rh) + (el * spread<U>(rh) + e * spread<U>(rl))) * fill<U>(1 / up);  // subnormal only here
}

// log(1 + f) + f_rest + k log 2 as a pair, 1 + f from sqrt(1/2) to sqrt(2), f_rest far smaller.
// log(1 + f) = f - (f^2/2 - s (f^2/2 + R)), s = f / (2 + f): the form of FreeBSD's msun, with our R.
template <class T, int U> INLINE pair<T, U> log_near_1(vec<T, U> f, vec<T, U> f_rest, vec<T, U> k) {
    typedef constants<T> C;
    const vec<T, U> s = f / (f + fill<U>(T(2))), z = s * s, square = fill<U>(T(0.5)) * f * f;
    const vec<T, U> tail = square - s * mul_add(z, polynomial(z, C::log_w), square);
    const pair<T, U> p = two_product(k, fill<U>(C::ln2_hi)), t = fast_two_sum(p.hi, f);  // 0, or larger than f
    return {t.hi, (t.lo + p.lo) + (mul_add(k, fill<U>(C::ln2_lo), f_rest) - tail)};
}

// 1 + q of a pair q >= 0 as 2^k (1 + f + f_rest (1 + f)), and its logarithm: error of hi + lo, rounded, <= 1.5 ulp, also
// relative to a small result; NaN stays NaN.
template <class T> struct Near1 { vec<T> f, f_rest, k; };
template <class T> INLINE Near1<T> near_1(pair<T> q) {
    typedef constants<T> C;
    const vec<T> one = fill(T(1)), zero = fill(T(0));
    const pair<T> u = two_sum(one, q.hi);
    const vec<T> k = exponent(u.hi * fill(T(1.4142135623730951)));  // u 2^-k in [sqrt(1/2), sqrt(2))
    const vec<T> scale = low_bits_to_exponent(fill(C::round) + (fill(C::bias) - k));
    const mask<T> small = equal(k, zero);
    const vec<T> f = choose(small, q.hi, mul_sub(u.hi, scale, one));
    const vec<T> f_lo = choose(small, q.lo, (u.lo + q.lo) * scale);
    return {f, f_lo / (one + f), k};
}

// log sum_j e^(z_j - z_max) = log1p((ties - 1) + Others / e_max): all terms are positive, nothing cancels. Of `count` sums,
// step by step: a logarithm by itself is one long chain of operations, each of which waits for the one before.
const int logs_together = 8;  // at most
template <class T> APART void log_of_sums(const Sums<T>* a, const Shift<T>* s, int count, pair<T>* log) {
    Near1<T> near[logs_together];
    for (int t = 0; t < count; t++) {
        const pair<T> q = quotient(fast_two_sum(a[t].hi, a[t].lo), {s[t].e_max, s[t].e_max_lo});
        const pair<T> p = two_sum(a[t].ties - fill(T(1)), q.hi);
        log[t] = {p.hi, p.lo + q.lo};
    }
    for (int t = 0; t < count; t++) near[t] = near_1(log[t]);
    for (int t = 0; t < count; t++) log[t] = log_near_1(near[t].f, near[t].f_rest, near[t].k);
}
template <class T> INLINE pair<T> log_of_sum(const Sums<T>& a, const Shift<T>& s) {
    pair<T> log;
    log_of_sums(&a, &s, 1, &log);
    return log;
}

// log_softmax is z - (top + log of sum), -inf or NaN in an empty row as `empty` is 0 or NaN; the maximum itself gives -log of sum, which does not cancel.
template <class T> struct Log { vec<T> hi, lo, dominant; };

template <class T> INLINE Log<T> of_row(const Log<T>& l, int k) {
    return {lane(l.hi, k), lane(l.lo, k), lane(l.dominant, k)};
}
template <class T> INLINE Log<T> log_shift(const pair<T>& log, const Shift<T>& s, T empty) {
    const vec<T> l = log.hi + log.lo;
    const pair<T> p = two_sum(s.top, l);
    return {choose(s.empty, fill(empty), p.hi), drop(s.empty, p.lo + s.top_lo), fill(T(0)) - l};
}
template <class T, int U> INLINE vec<T, U> log_value(vec<T, U> x, const Log<T>& l, vec<T> max) {
    x = in_registers(x);
    return choose(equal(x, spread<U>(max)), spread<U>(l.dominant), (x - spread<U>(l.hi)) - spread<U>(l.lo));
}
template <class T, int U> INLINE vec<T, U> log_value(vec<T, U> x, const Log<T>& l, const Shared<T>& s, Plain) { return log_value(x, l, s.max); }
template <class T, class How, int U> INLINE vec<T, U> log_value(vec<T, U> x, const Log<T>& l, const Shared<T>& s, How how) {
    const pair<T, U> z = argument(x, s, how);
    const vec<T, U> lo = z.lo - spread<U>(l.lo);  // not finite where z.hi is not
    return choose(equal(x, spread<U>(s.max)), spread<U>(l.dominant), (z.hi - spread<U>(l.hi)) + keep(equal(lo - lo, fill<U>(T(0))), lo));
}
// max + log of sum; an infinite maximum stays what it is, unless a NaN is about.
template <class T> INLINE vec<T> log_sum_exp(const pair<T>& log, const Shift<T>& s, vec<T> max) {
    const mask<T> infinite = equal(max, fill(std::numeric_limits<T>::infinity()));
    const pair<T> sum = two_sum(s.each.max, log.hi);  // which may cancel
    const vec<T> value = choose(infinite, max + s.nan, sum.hi + (sum.lo + log.lo));
    const vec<T> result = choose(s.empty, max, value);
    return one_nan(result, result);
}

}}  // namespace
