// Long rows, of which each block of classes is shifted by itself, as if it were a row: then its logits are read once
// for both their maximum and their sum. Shifts differ by powers of two, by which sums, and in the last step
// exponentials, are multiplied without a rounding: pairs of mantissa and exponent, after Dukhan and Ablavatski, "The
// two-pass softmax algorithm", arXiv:2001.04438, and Milakov and Gimelshein, "Online normalizer calculation for softmax",
// arXiv:1805.02867.
#pragma once
#include "gradient.hpp"
#include "steps.hpp"

namespace fastsoft { namespace {

// What a block gives; in a tile, or of a row by itself in all lanes, each lane is a row of its own.
template <class T> struct Block {
    Sums<T> sums;
    vec<T> top;      // the maximum
    vec<T> round;    // as in Shared
    vec<T> largest;  // e^top as a sum takes it: one of the Others, unless it is the row's maximum
};
static_assert(sizeof(Block<float>) <= 6 * 64 && sizeof(Block<double>) <= 6 * 64, "Team::parts has no more for a block");
// And its shift. A block below reach, in a row that is not, is shifted as if it were just below; the largest of its terms
// is then one of many that are not the row's maximum.
const double below_reach = 1 + 1. / 1024;  // where no row within reach has its maximum, however 1/T is rounded
template <class T, class How> APART Shared<T> block_shift(Block<T>& a, vec<T> top, const Factor& f, How how) {
    Shift<T> s;
    set_shift(s, larger(fill((T)(-constants<T>::reach * below_reach / f.hi)), top), fill(T(0)), f, how);
    a.top = top;
    a.round = s.each.round;
    a.largest = value(exp_shifted(pair<T>{s.top, s.top_lo}, a.round, how, Others()));
    return s.each;
}
// That of the row.
template <class T, class How> APART Shift<T> row_shift(vec<T> top, const Factor& f, How how) {
    Shift<T> s;
    set_shift(s, top, fill(T(0)), f, how);
    set_largest(s, how);
    return s;
}
// A power of two as two factors: there may be no number for it. 0 where nothing would be left, lest that be subnormal.
template <class T> struct Power { vec<T> first, second; };
template <class T> INLINE vec<T> shift_of(const Block<T>& a, const Shared<T>& row) {
    return (row.round - a.round) * fill(1 / steps<T>);
}
template <class T> INLINE Power<T> power_of(vec<T> k) {
    typedef constants<T> C;
    const vec<T> first = larger(fill(-C::headroom), k);
    return {power_of_two(first), power_of_two(larger(fill(-C::bias), k - first))};
}
template <class T> INLINE vec<T> times(vec<T> a, const Power<T>& p) { return a * p.first * p.second; }
// To the sums of a row, of All or of the Others.
template <class T> APART void add_block(Sums<T>& to, const Block<T>& a, const Shared<T>& row, bool others) {
    const Power<T> p = power_of(shift_of(a, row));
    Sums<T> own = {times(a.sums.hi, p), times(a.sums.lo, p), others ? a.sums.ties : fill(T(0))};
    if (others) {
        const mask<T> largest = equal(a.top, row.max);
        const pair<T> tied = two_product(own.ties, a.largest);
        merge_values(own, {drop(largest, times(tied.hi, p)), drop(largest, times(tied.lo, p)), own.ties});
        own.ties = keep(largest, own.ties);
    }
    merge(to, own);
}
// The n exponentials at e, times what lies between the shifts.
template <class T> APART void lower(T* e, ptrdiff_t n, vec<T> k) {
    const ptrdiff_t lanes = vec<T>::lanes;
    const Power<T> p = power_of(k);
    for (ptrdiff_t i = 0; i < n; i += lanes) store(e + i, times(load(e + i, n - i, T(0)), p), n - i);
}
// A row's factor, 1 / sum, takes the powers of its blocks down to this one exactly: what of `lo` would be lost on the way
// is dropped for all of them, and in tiles, far below what the result shows.
const int least_shift = -16;
template <class T> INLINE void round_factor(pair<T>& r) {
    r.lo = r.lo * fill(std::ldexp(T(1), least_shift)) * fill(std::ldexp(T(1), -least_shift));
}
// The factor of a block; what it cannot take, the block's n exponentials do.
template <class T>
INLINE pair<T> lowered_factor(const pair<T>& r, T* e, ptrdiff_t n, const Block<T>& a, const Shared<T>& row) {
    const vec<T> k = shift_of(a, row), own = larger(fill(T(least_shift)), k), up = power_of_two(own);
    if (in_lane(k, 0) < least_shift) lower(e, n, k - own);
    return {r.hi * up, r.lo * up};
}

// A row on its way from x, of softmax by way of e, to y.
template <class T> struct LongRow {
    const T* x;
    T* e;
    T* y;
    Block<T>* blocks;
    ptrdiff_t ahead;  // as in Stage
    bool past;        // whether y is written past the caches
    bool waits;  // for its last step, with `factor`, or of log_softmax `log`
    Shared<T> shared;
    pair<T> factor;
    Log<T> log;
};

}}  // namespace
