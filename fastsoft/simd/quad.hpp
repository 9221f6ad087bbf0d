// Sixteen bytes by the vector extension of GCC and Clang: all that portable.hpp and neon.hpp share.
// The contract of each name stands in vec.hpp.
#pragma once
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace fastsoft { namespace {

#if defined(__clang__)
#define SHUFFLE(a, b, index, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, index, ...) __builtin_shuffle(a, b, index{__VA_ARGS__})
#endif

typedef float rf __attribute__((vector_size(16)));
typedef double rd __attribute__((vector_size(16)));
typedef int32_t mf __attribute__((vector_size(16)));
typedef int64_t md __attribute__((vector_size(16)));

inline rf splat(float a) { return rf{a, a, a, a}; }
inline rd splat(double a) { return rd{a, a}; }

inline rf load(const float* p) { rf a; std::memcpy(&a, p, sizeof a); return a; }
inline rd load(const double* p) { rd a; std::memcpy(&a, p, sizeof a); return a; }
inline rf load(const half* p) { return rf{to_work(p[0]), to_work(p[1]), to_work(p[2]), to_work(p[3])}; }
inline rf load(const bfloat* p) { return rf{to_work(p[0]), to_work(p[1]), to_work(p[2]), to_work(p[3])}; }
inline void store(float* p, rf a) { std::memcpy(p, &a, sizeof a); }
inline void store(double* p, rd a) { std::memcpy(p, &a, sizeof a); }
inline void store(half* p, rf a) { for (int i = 0; i < 4; i++) from_work(a[i], p + i); }
inline void store(bfloat* p, rf a) { for (int i = 0; i < 4; i++) from_work(a[i], p + i); }
inline rf from_bytes(const char* p, rf) { return rf{(float)p[0], (float)p[1], (float)p[2], (float)p[3]}; }
inline rd from_bytes(const char* p, rd) { return rd{(double)p[0], (double)p[1]}; }
template <class R, class T> inline R with_part(R rest, const T* p, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++) rest[i] = to_work(p[i]);
    return rest;
}
inline rf load_part(const float* p, ptrdiff_t count, rf rest) { return with_part(rest, p, count); }
inline rd load_part(const double* p, ptrdiff_t count, rd rest) { return with_part(rest, p, count); }
inline void store_part(float* p, rf a, ptrdiff_t count) { for (ptrdiff_t i = 0; i < count; i++) p[i] = a[i]; }
inline void store_part(double* p, rd a, ptrdiff_t count) { for (ptrdiff_t i = 0; i < count; i++) p[i] = a[i]; }
// Of 16 bits, not inlined: a lot of code.
template <class S> __attribute__((noinline)) rf load_part(const S* p, ptrdiff_t count, rf rest) { return with_part(rest, p, count); }
template <class S> __attribute__((noinline)) void store_part(S* p, rf a, ptrdiff_t count) {
    for (ptrdiff_t i = 0; i < count; i++) from_work(a[i], p + i);
}

inline rf add(rf a, rf b) { return a + b; }
inline rd add(rd a, rd b) { return a + b; }
inline rf sub(rf a, rf b) { return a - b; }
inline rd sub(rd a, rd b) { return a - b; }
inline rf mul(rf a, rf b) { return a * b; }
inline rd mul(rd a, rd b) { return a * b; }
inline rf div(rf a, rf b) { return a / b; }
inline rd div(rd a, rd b) { return a / b; }

inline rf absolute(rf a) { return (rf)((mf)a & 0x7fffffff); }
inline rd absolute(rd a) { return (rd)((md)a & 0x7fffffffffffffff); }

inline mf equal(rf a, rf b) { return a == b; }
inline mf not_below(rf a, rf b) { return ~(mf)(a < b); }
#if defined(__SSE2__)  // GCC 12 fails at some of what it makes of a comparison of doubles: SSE2 has none of 64-bit integers
inline md equal(rd a, rd b) { return (md)_mm_cmpeq_pd(a, b); }
inline md not_below(rd a, rd b) { return (md)_mm_cmpnlt_pd(a, b); }
#else
inline md equal(rd a, rd b) { return a == b; }
inline md not_below(rd a, rd b) { return ~(md)(a < b); }
#endif
inline rf keep(mf m, rf a) { return (rf)(m & (mf)a); }
inline rd keep(md m, rd a) { return (rd)(m & (md)a); }
inline rf drop(mf m, rf a) { return (rf)(~m & (mf)a); }
inline rd drop(md m, rd a) { return (rd)(~m & (md)a); }
inline bool any(mf m) { return ((md)m)[0] | ((md)m)[1]; }
inline bool any(md m) { return m[0] | m[1]; }
inline unsigned bits(mf m) { return (m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8); }
inline unsigned bits(md m) { return (m[0] & 1) | (m[1] & 2); }
inline rf choose(mf m, rf a, rf b) { return (rf)((m & (mf)a) | (~m & (mf)b)); }
inline rd choose(md m, rd a, rd b) { return (rd)((m & (md)a) | (~m & (md)b)); }

inline rf low_bits_to_exponent(rf a) { return (rf)((mf)a << 23); }
inline rd low_bits_to_exponent(rd a) { return (rd)((md)a << 52); }
inline rf exponent(rf a) { return (rf)((((mf)a >> 23) & 0xff) | 0x4b000000) - 8388735.0f; }
inline rd exponent(rd a) { return (rd)((((md)a >> 52) & 0x7ff) | 0x4330000000000000) - 4503599627371519.0; }

template <int k> inline rf swap_lanes(rf a) {
    return k == 2 ? SHUFFLE(a, a, mf, 2, 3, 0, 1) : SHUFFLE(a, a, mf, 1, 0, 3, 2);
}
template <int> inline rd swap_lanes(rd a) { return SHUFFLE(a, a, md, 1, 0); }

template <int k> inline rf pick(rf a, rf b) {
    return k == 2 ? SHUFFLE(a, b, mf, 0, 1, 6, 7) : SHUFFLE(a, b, mf, 0, 5, 2, 7);
}
template <int> inline rd pick(rd a, rd b) { return SHUFFLE(a, b, md, 0, 3); }

}}  // namespace
