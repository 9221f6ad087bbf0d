// The AVX-512 intrinsics that fastsoft/simd/avx512.hpp uses, lane by lane, for CPUs that have only AVX2 and FMA: what is
// compiled with it in place of <immintrin.h> gives the bits that AVX-512 gives. Slow, and for tests only.
#pragma once
#include <immintrin.h>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace registers {  // apart from the functions, whose names the headers use as well
template <class T, int n> struct lanes { T a[n]; };
}
namespace emulated {

using registers::lanes;
typedef lanes<float, 16> f32;
typedef lanes<double, 8> f64;
typedef lanes<int64_t, 8> i512;
typedef uint16_t m16;
typedef uint8_t m8;

template <class To, class From> inline To as(const From& a) {
    static_assert(sizeof(To) == sizeof(From), "");
    To b;
    std::memcpy(&b, &a, sizeof b);
    return b;
}
typedef lanes<uint32_t, 16> u32;
typedef lanes<uint64_t, 8> u64;
template <class V, class F> inline V each(F f) {
    V v;
    for (unsigned i = 0; i < sizeof v.a / sizeof v.a[0]; i++) v.a[i] = f(i);
    return v;
}
template <class M, class F> inline M mask(int n, F f) {
    M m = 0;
    for (int i = 0; i < n; i++) m |= (M)((M)(f(i) ? 1 : 0) << i);
    return m;
}

template <class V> struct of;
template <> struct of<f32> { typedef float element; typedef m16 bits; };
template <> struct of<f64> { typedef double element; typedef m8 bits; };
#define TV template <class V> inline V
template <class V> using element = typename of<V>::element;
template <class V> using bits = typename of<V>::bits;
template <class V> const int count = sizeof(V) / sizeof(element<V>);

inline f32 set1(float a) { return each<f32>([=](int) { return a; }); }
inline f64 set1(double a) { return each<f64>([=](int) { return a; }); }
inline f32 load(const float* p) { return each<f32>([=](int i) { return p[i]; }); }
inline f64 load(const double* p) { return each<f64>([=](int i) { return p[i]; }); }
template <class V> inline void store(element<V>* p, const V& a) { std::memcpy(p, a.a, sizeof a.a); }
TV mask_load(const V& rest, bits<V> m, const element<V>* p) {
    return each<V>([&](int i) { return m >> i & 1 ? p[i] : rest.a[i]; });
}
template <class V> inline void mask_store(element<V>* p, bits<V> m, const V& a) {
    for (int i = 0; i < count<V>; i++) if (m >> i & 1) p[i] = a.a[i];
}
TV add(const V& a, const V& b) { return each<V>([&](int i) { return a.a[i] + b.a[i]; }); }
TV sub(const V& a, const V& b) { return each<V>([&](int i) { return a.a[i] - b.a[i]; }); }
TV mul(const V& a, const V& b) { return each<V>([&](int i) { return a.a[i] * b.a[i]; }); }
TV div(const V& a, const V& b) { return each<V>([&](int i) { return a.a[i] / b.a[i]; }); }
TV fmadd(const V& a, const V& b, const V& c) { return each<V>([&](int i) { return std::fma(a.a[i], b.a[i], c.a[i]); }); }
TV fmsub(const V& a, const V& b, const V& c) { return each<V>([&](int i) { return std::fma(a.a[i], b.a[i], -c.a[i]); }); }
TV fnmadd(const V& a, const V& b, const V& c) { return each<V>([&](int i) { return std::fma(-a.a[i], b.a[i], c.a[i]); }); }
TV abs(const V& a) { return each<V>([&](int i) { return std::abs(a.a[i]); }); }
TV max(const V& a, const V& b) { return each<V>([&](int i) { return a.a[i] > b.a[i] ? a.a[i] : b.a[i]; }); }
template <class V> inline bits<V> cmp(const V& a, const V& b, int how) {
    return mask<bits<V>>(count<V>, [&](int i) {
        return how == _CMP_EQ_OQ ? a.a[i] == b.a[i] : how == _CMP_NLT_UQ ? !(a.a[i] < b.a[i])
                                                                        : a.a[i] != a.a[i] || b.a[i] != b.a[i];
    });
}
TV mask_mov(const V& rest, bits<V> m, const V& a) { return each<V>([&](int i) { return m >> i & 1 ? a.a[i] : rest.a[i]; }); }
TV maskz_mov(bits<V> m, const V& a) { return mask_mov(set1(element<V>(0)), m, a); }

inline f32 permute_ps(const f32& a, int k) { return each<f32>([&](int i) { return a.a[i / 4 * 4 + (k >> 2 * (i % 4) & 3)]; }); }
inline f64 permute_pd(const f64& a, int k) { return each<f64>([&](int i) { return a.a[i / 2 * 2 + (k >> i & 1)]; }); }
inline f32 permutevar_ps(const f32& a, const i512& k) {
    const u32 u = as<u32>(k);
    return each<f32>([&](int i) { return a.a[i / 4 * 4 + (u.a[i] & 3)]; });
}
template <class V> inline V shuffle_quarters(const V& a, const V& b, int k) {
    const int n = sizeof a.a / sizeof a.a[0] / 4;
    return each<V>([&](int i) { return (i / n < 2 ? a : b).a[(k >> 2 * (i / n) & 3) * n + i % n]; });
}
inline i512 set1_32(uint32_t a) { return as<i512>(each<u32>([=](int) { return a; })); }
inline i512 set1_64(uint64_t a) { return as<i512>(each<u64>([=](int) { return a; })); }
template <class F> inline i512 words(const i512& a, const i512& b, F f) {
    const u32 x = as<u32>(a), y = as<u32>(b);
    return as<i512>(each<u32>([&](int i) { return f(x.a[i], y.a[i]); }));
}
inline i512 add_32(const i512& a, const i512& b) { return words(a, b, [](uint32_t x, uint32_t y) { return x + y; }); }
inline i512 max_32(const i512& a, const i512& b) {
    return words(a, b, [](uint32_t x, uint32_t y) { return (int32_t)x > (int32_t)y ? x : y; });
}
inline i512 slli_32(const i512& a, int k) { return words(a, a, [=](uint32_t x, uint32_t) { return x << k; }); }
inline i512 srli_32(const i512& a, int k) { return words(a, a, [=](uint32_t x, uint32_t) { return x >> k; }); }
inline i512 slli_64(const i512& a, int k) { return as<i512>(each<u64>([&](int i) { return as<u64>(a).a[i] << k; })); }
inline i512 srli_64(const i512& a, int k) { return as<i512>(each<u64>([&](int i) { return as<u64>(a).a[i] >> k; })); }
inline i512 and_si(const i512& a, const i512& b) { return each<i512>([&](int i) { return a.a[i] & b.a[i]; }); }
inline i512 or_si(const i512& a, const i512& b) { return each<i512>([&](int i) { return a.a[i] | b.a[i]; }); }
inline i512 mask_or_32(const i512& rest, m16 m, const i512& a, const i512& b) {
    const u32 x = as<u32>(rest), y = as<u32>(or_si(a, b));
    return as<i512>(each<u32>([&](int i) { return m >> i & 1 ? y.a[i] : x.a[i]; }));
}
inline i512 broadcast_4x32(__m128i a) {
    const lanes<uint32_t, 4> u = as<lanes<uint32_t, 4>>(a);
    return as<i512>(each<u32>([&](int i) { return u.a[i % 4]; }));
}
typedef lanes<uint16_t, 16> u16;
inline i512 widen_16(__m256i a) {
    const u16 u = as<u16>(a);
    return as<i512>(each<u32>([&](int i) { return u.a[i]; }));
}
inline __m256i narrow_16(const i512& a) {
    const u32 u = as<u32>(a);
    return as<__m256i>(each<u16>([&](int i) { return (uint16_t)u.a[i]; }));
}
inline f32 cvtph(__m256i a) {
    const __m256 half[2] = {_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1))};
    return as<f32>(half);
}
inline __m256i cvtps_ph(const f32& a) {
    struct both { __m256 a[2]; };
    const both u = as<both>(a);
    return _mm256_set_m128i(_mm256_cvtps_ph(u.a[1], _MM_FROUND_TO_NEAREST_INT), _mm256_cvtps_ph(u.a[0], _MM_FROUND_TO_NEAREST_INT));
}
inline __m256i maskz_load_16(m16 m, const void* p) {
    return as<__m256i>(each<u16>([&](int i) { return m >> i & 1 ? ((const uint16_t*)p)[i] : (uint16_t)0; }));
}
inline void mask_store_16(void* p, m16 m, __m256i a) {
    const u16 u = as<u16>(a);
    for (int i = 0; i < 16; i++) if (m >> i & 1) ((uint16_t*)p)[i] = u.a[i];
}

#undef TV

}  // namespace emulated

#define __m512 emulated::f32
#define __m512d emulated::f64
#define __m512i emulated::i512
#define __mmask16 emulated::m16
#define __mmask8 emulated::m8
#define _mm512_set1_ps(a) emulated::set1((float)(a))
#define _mm512_set1_pd(a) emulated::set1((double)(a))
#define _mm512_loadu_ps emulated::load
#define _mm512_loadu_pd emulated::load
#define _mm512_storeu_ps emulated::store
#define _mm512_storeu_pd emulated::store
#define _mm512_stream_ps emulated::store
#define _mm512_stream_pd emulated::store
#define _mm512_mask_loadu_ps emulated::mask_load
#define _mm512_mask_loadu_pd emulated::mask_load
#define _mm512_mask_storeu_ps emulated::mask_store
#define _mm512_mask_storeu_pd emulated::mask_store
#define _mm512_add_ps emulated::add
#define _mm512_add_pd emulated::add
#define _mm512_sub_ps emulated::sub
#define _mm512_sub_pd emulated::sub
#define _mm512_mul_ps emulated::mul
#define _mm512_mul_pd emulated::mul
#define _mm512_div_ps emulated::div
#define _mm512_div_pd emulated::div
#define _mm512_fmadd_ps emulated::fmadd
#define _mm512_fmadd_pd emulated::fmadd
#define _mm512_fmsub_ps emulated::fmsub
#define _mm512_fmsub_pd emulated::fmsub
#define _mm512_fnmadd_ps emulated::fnmadd
#define _mm512_fnmadd_pd emulated::fnmadd
#define _mm512_abs_ps emulated::abs
#define _mm512_abs_pd emulated::abs
#define _mm512_max_ps emulated::max
#define _mm512_max_pd emulated::max
#define _mm512_cmp_ps_mask emulated::cmp
#define _mm512_cmp_pd_mask emulated::cmp
#define _mm512_maskz_mov_ps emulated::maskz_mov
#define _mm512_maskz_mov_pd emulated::maskz_mov
#define _mm512_mask_mov_ps emulated::mask_mov
#define _mm512_mask_mov_pd emulated::mask_mov
#define _mm512_mask_blend_ps(m, a, b) emulated::mask_mov(a, (emulated::m16)(m), b)
#define _mm512_mask_blend_pd(m, a, b) emulated::mask_mov(a, (emulated::m8)(m), b)
#define _mm512_permute_ps emulated::permute_ps
#define _mm512_permute_pd emulated::permute_pd
#define _mm512_permutevar_ps emulated::permutevar_ps
#define _mm512_shuffle_f32x4 emulated::shuffle_quarters
#define _mm512_shuffle_f64x2 emulated::shuffle_quarters
#define _mm512_castps_si512 emulated::as<emulated::i512>
#define _mm512_castpd_si512 emulated::as<emulated::i512>
#define _mm512_castsi512_ps emulated::as<emulated::f32>
#define _mm512_castsi512_pd emulated::as<emulated::f64>
#define _mm512_set1_epi32 emulated::set1_32
#define _mm512_set1_epi64 emulated::set1_64
#define _mm512_add_epi32 emulated::add_32
#define _mm512_max_epi32 emulated::max_32
#define _mm512_setzero_si512() emulated::set1_32(0)
#define _mm512_slli_epi32 emulated::slli_32
#define _mm512_srli_epi32 emulated::srli_32
#define _mm512_slli_epi64 emulated::slli_64
#define _mm512_srli_epi64 emulated::srli_64
#define _mm512_and_si512 emulated::and_si
#define _mm512_or_si512 emulated::or_si
#define _mm512_mask_or_epi32 emulated::mask_or_32
#define _mm512_broadcast_i32x4 emulated::broadcast_4x32
#define _mm512_cvtepu16_epi32 emulated::widen_16
#define _mm512_cvtepi32_epi16 emulated::narrow_16
#define _mm512_cvtph_ps emulated::cvtph
#define _mm512_cvtps_ph(a, how) emulated::cvtps_ph(a)
#define _mm256_maskz_loadu_epi16 emulated::maskz_load_16
#define _mm256_mask_storeu_epi16 emulated::mask_store_16
