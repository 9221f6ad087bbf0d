// vec<T>: 64 bytes of T on every instruction set, so that sums have the same order, and results the same bits,
// everywhere. The header of one instruction set (-DFASTSOFT_ISA=avx2 -> avx2.hpp) says what one of its registers
// does; here each operation is spread over the 1, 2 or 4 registers of a vec, and its contract stands.
#pragma once
#include "types.hpp"
#include "state.hpp"
#define FASTSOFT_TEXT_(a) #a
#define FASTSOFT_TEXT(a) FASTSOFT_TEXT_(a.hpp)
#include FASTSOFT_TEXT(FASTSOFT_ISA)

#if defined(__GNUC__)
#define INLINE inline __attribute__((always_inline))
#else
#define INLINE __forceinline
#endif

namespace fastsoft { namespace {

template <class T> struct isa;
template <> struct isa<float> { typedef rf reg; typedef mf mask; };
template <> struct isa<double> { typedef rd reg; typedef md mask; };

template <class T> struct vec {
    static const int lanes = 64 / sizeof(T), regs = 64 / sizeof(typename isa<T>::reg), width = lanes / regs;
    typename isa<T>::reg r[regs];
};
template <class T> struct mask {
    typename isa<T>::mask r[vec<T>::regs];
};
template <class T> struct work { typedef T type; };
template <> struct work<half> { typedef float type; };
template <> struct work<bfloat> { typedef float type; };

// One line for each register; the count is known when compiling.
#define EACH for (int i = 0; i < vec<T>::regs; i++)
#define TV template <class T> INLINE vec<T>
#define TM template <class T> INLINE mask<T>

template <class T> INLINE vec<T> fill(T a) { vec<T> v; EACH v.r[i] = splat(a); return v; }

TV operator+(vec<T> a, vec<T> b) { EACH a.r[i] = add(a.r[i], b.r[i]); return a; }
TV operator-(vec<T> a, vec<T> b) { EACH a.r[i] = sub(a.r[i], b.r[i]); return a; }
TV operator*(vec<T> a, vec<T> b) { EACH a.r[i] = mul(a.r[i], b.r[i]); return a; }
TV operator/(vec<T> a, vec<T> b) { EACH a.r[i] = div(a.r[i], b.r[i]); return a; }
// a * b + c, a * b - c, c - a * b: rounded once where the hardware has FMA, else twice.
TV mul_add(vec<T> a, vec<T> b, vec<T> c) { EACH a.r[i] = mul_add(a.r[i], b.r[i], c.r[i]); return a; }
TV mul_sub(vec<T> a, vec<T> b, vec<T> c) { EACH a.r[i] = mul_sub(a.r[i], b.r[i], c.r[i]); return a; }
TV sub_mul(vec<T> c, vec<T> a, vec<T> b) { EACH c.r[i] = sub_mul(c.r[i], a.r[i], b.r[i]); return c; }
// a > b ? a : b, hence b where either is NaN.
TV larger(vec<T> a, vec<T> b) { EACH a.r[i] = larger(a.r[i], b.r[i]); return a; }

TM equal(vec<T> a, vec<T> b) { mask<T> m; EACH m.r[i] = equal(a.r[i], b.r[i]); return m; }
// !(a < b), hence true where either is NaN.
TM not_below(vec<T> a, vec<T> b) { mask<T> m; EACH m.r[i] = not_below(a.r[i], b.r[i]); return m; }
// m ? a : 0, m ? 0 : a, m ? a : b
TV keep(mask<T> m, vec<T> a) { EACH a.r[i] = keep(m.r[i], a.r[i]); return a; }
TV drop(mask<T> m, vec<T> a) { EACH a.r[i] = drop(m.r[i], a.r[i]); return a; }
TV choose(mask<T> m, vec<T> a, vec<T> b) { EACH a.r[i] = choose(m.r[i], a.r[i], b.r[i]); return a; }

template <class T> INLINE bool any(mask<T> m) { bool b = false; EACH b |= any(m.r[i]); return b; }

// The number whose exponent field is the lowest bits of a's.
TV low_bits_to_exponent(vec<T> a) { EACH a.r[i] = low_bits_to_exponent(a.r[i]); return a; }
// floor(log2 |a|) of a normal a.
TV exponent(vec<T> a) { EACH a.r[i] = exponent(a.r[i]); return a; }

// Lane i of the result is lane i ^ k.
template <int k, class T> INLINE vec<T> swap_lanes(vec<T> a) {
    const int width = vec<T>::width;
    vec<T> b;
    if (k >= width) EACH b.r[i] = a.r[i ^ (k / width ? k / width : 1)];
    else EACH b.r[i] = swap_lanes<(k < width ? k : 1)>(a.r[i]);
    return b;
}

// Load `left` elements, at most a vec, from p; lanes past them take `rest`. Nothing past them is read.
template <class T> INLINE vec<T> load(const T* p, ptrdiff_t left, T rest) {
    vec<T> v;
    const int width = vec<T>::width;
    if (left >= vec<T>::lanes) {
        EACH v.r[i] = load(p + i * width);
        return v;
    }
    EACH {
        const ptrdiff_t here = left - i * width;
        v.r[i] = here >= width ? load(p + i * width) : here > 0 ? load_part(p + i * width, here, splat(rest)) : splat(rest);
    }
    return v;
}
template <class S> INLINE vec<float> load16(const S* p, ptrdiff_t left, float rest) {
    typedef float T;
    vec<T> v;
    if (left >= vec<T>::lanes) {
        EACH v.r[i] = load(p + i * vec<T>::width);
        return v;
    }
    float part[vec<T>::lanes];
    for (int i = 0; i < vec<T>::lanes; i++) part[i] = i < left ? to_work(p[i]) : rest;
    return load(part, (ptrdiff_t)vec<T>::lanes, rest);
}
INLINE vec<float> load(const half* p, ptrdiff_t left, float rest) { return load16(p, left, rest); }
INLINE vec<float> load(const bfloat* p, ptrdiff_t left, float rest) { return load16(p, left, rest); }

// Store the first `left` lanes, at most all, to p. Nothing past them is written.
template <class T> INLINE void store(T* p, vec<T> v, ptrdiff_t left) {
    const int width = vec<T>::width;
    if (left >= vec<T>::lanes) {
        EACH store(p + i * width, v.r[i]);
        return;
    }
    EACH {
        const ptrdiff_t here = left - i * width;
        if (here >= width) store(p + i * width, v.r[i]);
        else if (here > 0) store_part(p + i * width, v.r[i], here);
    }
}
template <class S> INLINE void store16(S* p, vec<float> v, ptrdiff_t left) {
    typedef float T;
    if (left >= vec<T>::lanes) {
        EACH store(p + i * vec<T>::width, v.r[i]);
        return;
    }
    float part[vec<T>::lanes];
    store(part, v, (ptrdiff_t)vec<T>::lanes);
    for (ptrdiff_t i = 0; i < left; i++) from_work(part[i], p + i);
}
INLINE void store(half* p, vec<float> v, ptrdiff_t left) { store16(p, v, left); }
INLINE void store(bfloat* p, vec<float> v, ptrdiff_t left) { store16(p, v, left); }

// How many lanes are set.
template <class T> INLINE int lanes_of(mask<T> m) {
    T a[vec<T>::lanes];
    int n = 0;
    if (any(m)) {
        store(a, keep(m, fill(T(1))), (ptrdiff_t)vec<T>::lanes);
        for (int i = 0; i < vec<T>::lanes; i++) n += a[i] != 0;
    }
    return n;
}

#undef EACH
#undef TV
#undef TM

}}  // namespace
