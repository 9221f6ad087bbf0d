// One AVX2 register (with FMA and F16C). What one register does, and nothing else; the contract of each
// name stands in vec.hpp.
#pragma once
#include <immintrin.h>

namespace fastsoft { namespace {

typedef __m256 rf;
typedef __m256d rd;
typedef __m256 mf;
typedef __m256d md;
const bool has_fma = true;
const int together = 1, exp_together = 2;
const bool begins_next = false;
const bool turns = true;  // rows into lanes by parts of a register
const bool large_caches = false;
const bool whole_lines = false;

inline rf splat(float a) { return _mm256_set1_ps(a); }
inline rd splat(double a) { return _mm256_set1_pd(a); }

inline rf load(const float* p) { return _mm256_loadu_ps(p); }
inline rd load(const double* p) { return _mm256_loadu_pd(p); }
inline rf widen(const half*, __m128i a) { return _mm256_cvtph_ps(a); }
inline rf widen(const bfloat*, __m128i a) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(a), 16)); }
inline rf load(const half* p) { return widen(p, _mm_loadu_si128((const __m128i*)p)); }
inline rf load(const bfloat* p) { return widen(p, _mm_loadu_si128((const __m128i*)p)); }
inline void store(float* p, rf a) { _mm256_storeu_ps(p, a); }
inline void store(double* p, rd a) { _mm256_storeu_pd(p, a); }
inline void stream(float* p, rf a) { _mm256_stream_ps(p, a); }
inline void stream(double* p, rd a) { _mm256_stream_pd(p, a); }
inline void fence() { _mm_sfence(); }
inline void end_loads() { _mm_lfence(); }  // what follows begins after them
inline __m256i rounded(rf a) {  // to nearest even, in the upper half; NaN may become anything
    const __m256i u = _mm256_castps_si256(a);
    return _mm256_add_epi32(u, _mm256_add_epi32(_mm256_set1_epi32(0x7fff), _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1))));
}
inline __m128i upper(__m256i r) {
    r = _mm256_srli_epi32(r, 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}
inline __m128i narrow(const half*, rf a) { return _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }
inline __m128i narrow(const bfloat*, rf a) {
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    return upper(_mm256_blendv_epi8(rounded(a), _mm256_or_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x400000)), nan));
}
inline __m128i narrow(const bnumber*, rf a) { return upper(rounded(a)); }
inline void store(half* p, rf a) { _mm_storeu_si128((__m128i*)p, narrow(p, a)); }
inline void store(bfloat* p, rf a) { _mm_storeu_si128((__m128i*)p, narrow(p, a)); }
inline void store(bnumber* p, rf a) { _mm_storeu_si128((__m128i*)p, narrow(p, a)); }

inline rf from_bytes(const char* p, rf) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}
inline rd from_bytes(const char* p, rd) {
    int32_t four;
    std::memcpy(&four, p, sizeof four);
    return _mm256_cvtepi32_pd(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(four)));
}

inline __m256i first_f(ptrdiff_t count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline __m256i first_d(ptrdiff_t count) {
    return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
inline rf load_part(const float* p, ptrdiff_t count, rf rest) {
    const __m256i m = first_f(count);
    return _mm256_blendv_ps(rest, _mm256_maskload_ps(p, m), _mm256_castsi256_ps(m));
}
inline rd load_part(const double* p, ptrdiff_t count, rd rest) {
    const __m256i m = first_d(count);
    return _mm256_blendv_pd(rest, _mm256_maskload_pd(p, m), _mm256_castsi256_pd(m));
}
// Of 16 bits, by two at a time, and the last by itself; not inlined, a lot of code.
template <class S> __attribute__((noinline)) rf load_part(const S* p, ptrdiff_t count, rf rest) {
    const __m128i last = _mm_cmpeq_epi16(_mm_set1_epi16((short)(count - 1)), _mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7));
    const __m128i twos = _mm_maskload_epi32((const int*)p, _mm256_castsi256_si128(first_f(count / 2)));
    const __m128i all = _mm_blendv_epi8(twos, _mm_set1_epi16((short)p[count - 1].bits), last);
    return _mm256_blendv_ps(rest, widen(p, all), _mm256_castsi256_ps(first_f(count)));
}
template <class S> __attribute__((noinline)) void store_part(S* p, rf a, ptrdiff_t count) {
    __m128i words = narrow(p, a);
    if (count & 4) {
        _mm_storel_epi64((__m128i*)p, words);
        words = _mm_srli_si128(words, 8);
        p += 4;
    }
    if (count & 2) {
        const int two = _mm_cvtsi128_si32(words);
        std::memcpy(p, &two, 4);
        words = _mm_srli_si128(words, 4);
        p += 2;
    }
    if (count & 1) p->bits = (uint16_t)_mm_extract_epi16(words, 0);
}
inline void store_part(float* p, rf a, ptrdiff_t count) { _mm256_maskstore_ps(p, first_f(count), a); }
inline void store_part(double* p, rd a, ptrdiff_t count) { _mm256_maskstore_pd(p, first_d(count), a); }

inline rf add(rf a, rf b) { return _mm256_add_ps(a, b); }
inline rd add(rd a, rd b) { return _mm256_add_pd(a, b); }
inline rf sub(rf a, rf b) { return _mm256_sub_ps(a, b); }
inline rd sub(rd a, rd b) { return _mm256_sub_pd(a, b); }
inline rf mul(rf a, rf b) { return _mm256_mul_ps(a, b); }
inline rd mul(rd a, rd b) { return _mm256_mul_pd(a, b); }
inline rf div(rf a, rf b) { return _mm256_div_ps(a, b); }
inline rd div(rd a, rd b) { return _mm256_div_pd(a, b); }
inline rf mul_add(rf a, rf b, rf c) { return _mm256_fmadd_ps(a, b, c); }
inline rd mul_add(rd a, rd b, rd c) { return _mm256_fmadd_pd(a, b, c); }
inline rf mul_sub(rf a, rf b, rf c) { return _mm256_fmsub_ps(a, b, c); }
inline rd mul_sub(rd a, rd b, rd c) { return _mm256_fmsub_pd(a, b, c); }
inline rf sub_mul(rf c, rf a, rf b) { return _mm256_fnmadd_ps(a, b, c); }
inline rd sub_mul(rd c, rd a, rd b) { return _mm256_fnmadd_pd(a, b, c); }
inline rf larger(rf a, rf b) { return _mm256_max_ps(a, b); }
inline rd larger(rd a, rd b) { return _mm256_max_pd(a, b); }

inline rf absolute(rf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
inline rd absolute(rd a) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), a); }

inline mf equal(rf a, rf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
inline md equal(rd a, rd b) { return _mm256_cmp_pd(a, b, _CMP_EQ_OQ); }
inline mf not_below(rf a, rf b) { return _mm256_cmp_ps(a, b, _CMP_NLT_UQ); }
inline md not_below(rd a, rd b) { return _mm256_cmp_pd(a, b, _CMP_NLT_UQ); }
inline rf keep(mf m, rf a) { return _mm256_and_ps(m, a); }
inline rd keep(md m, rd a) { return _mm256_and_pd(m, a); }
inline rf drop(mf m, rf a) { return _mm256_andnot_ps(m, a); }
inline rd drop(md m, rd a) { return _mm256_andnot_pd(m, a); }
inline bool any(mf m) { return _mm256_movemask_ps(m) != 0; }
inline bool any(md m) { return _mm256_movemask_pd(m) != 0; }
inline unsigned bits(mf m) { return _mm256_movemask_ps(m); }
inline unsigned bits(md m) { return _mm256_movemask_pd(m); }
inline rf choose(mf m, rf a, rf b) { return _mm256_blendv_ps(b, a, m); }
inline rd choose(md m, rd a, rd b) { return _mm256_blendv_pd(b, a, m); }

inline rf low_bits_to_exponent(rf a) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 23)); }
inline rd low_bits_to_exponent(rd a) { return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(a), 52)); }
inline rf quarter_power(rf a) {
    const __m256 all = _mm256_castsi256_ps(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)quarters)));
    const __m256i q = _mm256_castps_si256(a), own = _mm256_castps_si256(_mm256_permutevar_ps(all, q));
    return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_add_epi32(_mm256_slli_epi32(q, 21), own), _mm256_setzero_si256()));
}
inline rf exponent(rf a) {
    const __m256i e = _mm256_srli_epi32(_mm256_slli_epi32(_mm256_castps_si256(a), 1), 24);
    return _mm256_sub_ps(_mm256_castsi256_ps(_mm256_or_si256(e, _mm256_set1_epi32(0x4b000000))), _mm256_set1_ps(8388735.0f));
}
inline rd exponent(rd a) {
    const __m256i e = _mm256_srli_epi64(_mm256_slli_epi64(_mm256_castpd_si256(a), 1), 53);
    return _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(e, _mm256_set1_epi64x(0x4330000000000000))),
                         _mm256_set1_pd(4503599627371519.0));
}

template <int k> inline rf swap_lanes(rf a) {
    return k == 4 ? _mm256_permute2f128_ps(a, a, 1) : k == 2 ? _mm256_permute_ps(a, 0x4e) : _mm256_permute_ps(a, 0xb1);
}
template <int k> inline rd swap_lanes(rd a) {
    return k == 2 ? _mm256_permute2f128_pd(a, a, 1) : _mm256_permute_pd(a, 0x5);
}

inline __m128 load_16(const float* p) { return _mm_loadu_ps(p); }
inline __m128d load_16(const double* p) { return _mm_loadu_pd(p); }
inline __m128 load_16(const float* p, ptrdiff_t count) { return _mm_maskload_ps(p, _mm256_castsi256_si128(first_f(count))); }
inline void store_16(float* p, __m128 a) { _mm_storeu_ps(p, a); }
inline void store_16(double* p, __m128d a) { _mm_storeu_pd(p, a); }
inline void store_16(float* p, __m128 a, ptrdiff_t count) { _mm_maskstore_ps(p, _mm256_castsi256_si128(first_f(count)), a); }
template <class Rows, class Load> inline rf load_parts(Rows rows, Load load, float) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(load(rows[0])), load(rows[4]), 1);
}
template <class Rows, class Load> inline rd load_parts(Rows rows, Load load, double) {
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(load(rows[0])), load(rows[2]), 1);
}
template <class Rows, class Store> inline void store_parts(Rows rows, rf a, Store store) {
    store(rows[0], _mm256_castps256_ps128(a));
    store(rows[4], _mm256_extractf128_ps(a, 1));
}
template <class Rows, class Store> inline void store_parts(Rows rows, rd a, Store store) {
    store(rows[0], _mm256_castpd256_pd128(a));
    store(rows[2], _mm256_extractf128_pd(a, 1));
}
inline void turn_parts(rf* a) {
    const rf b0 = _mm256_unpacklo_ps(a[0], a[1]), b1 = _mm256_unpackhi_ps(a[0], a[1]);
    const rf b2 = _mm256_unpacklo_ps(a[2], a[3]), b3 = _mm256_unpackhi_ps(a[2], a[3]);
    a[0] = _mm256_shuffle_ps(b0, b2, 0x44);
    a[1] = _mm256_shuffle_ps(b0, b2, 0xee);
    a[2] = _mm256_shuffle_ps(b1, b3, 0x44);
    a[3] = _mm256_shuffle_ps(b1, b3, 0xee);
}
inline void turn_parts(rd* a) {
    const rd b = _mm256_unpacklo_pd(a[0], a[1]);
    a[1] = _mm256_unpackhi_pd(a[0], a[1]);
    a[0] = b;
}

template <int k> inline rf pick(rf a, rf b) { return _mm256_blend_ps(a, b, k == 4 ? 0xf0 : k == 2 ? 0xcc : 0xaa); }
template <int k> inline rd pick(rd a, rd b) { return _mm256_blend_pd(a, b, k == 2 ? 0xc : 0xa); }

}}  // namespace
