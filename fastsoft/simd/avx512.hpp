// One AVX-512 register (F, DQ, BW, VL). What one register does, and nothing else; the contract of each
// name stands in vec.hpp.
#pragma once
#include <immintrin.h>

namespace fastsoft { namespace {

typedef __m512 rf;
typedef __m512d rd;
typedef __mmask16 mf;
typedef __mmask8 md;
const bool has_fma = true;
const int together = 2, exp_together = 4;
const bool begins_next = true;  // exp of some vecs before that of those before them has ended
const bool turns = true;  // rows into lanes by parts of a register
const bool large_caches = true;  // a panel, the next one and what it gives fit into the second-level cache
const bool whole_lines = true;  // a load or store is as long as a line, and touches two where it does not begin with one

inline rf splat(float a) { return _mm512_set1_ps(a); }
inline rd splat(double a) { return _mm512_set1_pd(a); }

inline rf load(const float* p) { return _mm512_loadu_ps(p); }
inline rd load(const double* p) { return _mm512_loadu_pd(p); }
inline rf widen(const half*, __m256i a) { return _mm512_cvtph_ps(a); }
inline rf widen(const bfloat*, __m256i a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(a), 16)); }
inline rf widen(const bnumber*, __m256i a) {  // in one instruction; exp would wait for it, and has others
    const __m512i word = _mm512_set_epi32(15 << 16, 14 << 16, 13 << 16, 12 << 16, 11 << 16, 10 << 16, 9 << 16, 8 << 16,
                                          7 << 16, 6 << 16, 5 << 16, 4 << 16, 3 << 16, 2 << 16, 1 << 16, 0);
    return _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, word, _mm512_castsi256_si512(a)));
}
inline rf load(const half* p) { return widen(p, _mm256_loadu_si256((const __m256i*)p)); }
inline rf load(const bfloat* p) { return widen(p, _mm256_loadu_si256((const __m256i*)p)); }
inline rf load(const bnumber* p) { return widen(p, _mm256_loadu_si256((const __m256i*)p)); }
inline void store(float* p, rf a) { _mm512_storeu_ps(p, a); }
inline void store(double* p, rd a) { _mm512_storeu_pd(p, a); }
inline void stream(float* p, rf a) { _mm512_stream_ps(p, a); }
inline void stream(double* p, rd a) { _mm512_stream_pd(p, a); }
inline void fence() { _mm_sfence(); }
inline void end_loads() { _mm_lfence(); }  // what follows begins after them
inline __m256i narrow(const half*, rf a) { return _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); }
inline __m256i narrow(const bfloat*, rf a) {  // to nearest even by integers: vcvtneps2bf16 would drop subnormals
    const __m512i u = _mm512_castps_si512(a);
    __m512i r = _mm512_add_epi32(u, _mm512_add_epi32(_mm512_set1_epi32(0x7fff),
                                                     _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1))));
    r = _mm512_mask_or_epi32(r, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), u, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(r, 16));
}
inline __m256i narrow(const bnumber*, rf a) {  // likewise
    const __m512i u = _mm512_castps_si512(a), below = _mm512_add_epi32(u, _mm512_set1_epi32(0x7fff));
    const __m512i r = _mm512_mask_add_epi32(below, _mm512_test_epi32_mask(u, _mm512_set1_epi32(0x10000)), below, _mm512_set1_epi32(1));
    const __m512i upper = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
    return _mm512_castsi512_si256(_mm512_permutexvar_epi16(upper, r));
}
inline void store(half* p, rf a) { _mm256_storeu_si256((__m256i*)p, narrow(p, a)); }
inline void store(bfloat* p, rf a) { _mm256_storeu_si256((__m256i*)p, narrow(p, a)); }
inline void store(bnumber* p, rf a) { _mm256_storeu_si256((__m256i*)p, narrow(p, a)); }

inline rf from_bytes(const char* p, rf) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
}
inline rd from_bytes(const char* p, rd) {
    return _mm512_cvtepi32_pd(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}

inline __mmask16 first(ptrdiff_t count) { return (__mmask16)((1u << count) - 1); }
inline rf load_part(const float* p, ptrdiff_t count, rf rest) { return _mm512_mask_loadu_ps(rest, first(count), p); }
inline rd load_part(const double* p, ptrdiff_t count, rd rest) { return _mm512_mask_loadu_pd(rest, (md)first(count), p); }
inline void store_part(float* p, rf a, ptrdiff_t count) { _mm512_mask_storeu_ps(p, first(count), a); }
inline void store_part(double* p, rd a, ptrdiff_t count) { _mm512_mask_storeu_pd(p, (md)first(count), a); }

template <class S> inline rf load_part(const S* p, ptrdiff_t count, rf rest) {
    return _mm512_mask_mov_ps(rest, first(count), widen(p, _mm256_maskz_loadu_epi16(first(count), p)));
}
template <class S> inline void store_part(S* p, rf a, ptrdiff_t count) {
    _mm256_mask_storeu_epi16(p, first(count), narrow(p, a));
}

inline rf add(rf a, rf b) { return _mm512_add_ps(a, b); }
inline rd add(rd a, rd b) { return _mm512_add_pd(a, b); }
inline rf sub(rf a, rf b) { return _mm512_sub_ps(a, b); }
inline rd sub(rd a, rd b) { return _mm512_sub_pd(a, b); }
inline rf mul(rf a, rf b) { return _mm512_mul_ps(a, b); }
inline rd mul(rd a, rd b) { return _mm512_mul_pd(a, b); }
inline rf div(rf a, rf b) { return _mm512_div_ps(a, b); }
inline rd div(rd a, rd b) { return _mm512_div_pd(a, b); }
inline rf mul_add(rf a, rf b, rf c) { return _mm512_fmadd_ps(a, b, c); }
inline rd mul_add(rd a, rd b, rd c) { return _mm512_fmadd_pd(a, b, c); }
inline rf mul_sub(rf a, rf b, rf c) { return _mm512_fmsub_ps(a, b, c); }
inline rd mul_sub(rd a, rd b, rd c) { return _mm512_fmsub_pd(a, b, c); }
inline rf sub_mul(rf c, rf a, rf b) { return _mm512_fnmadd_ps(a, b, c); }
inline rd sub_mul(rd c, rd a, rd b) { return _mm512_fnmadd_pd(a, b, c); }
inline rf larger(rf a, rf b) { return _mm512_max_ps(a, b); }
inline rd larger(rd a, rd b) { return _mm512_max_pd(a, b); }

inline rf absolute(rf a) { return _mm512_abs_ps(a); }
inline rd absolute(rd a) { return _mm512_abs_pd(a); }

inline mf equal(rf a, rf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
inline md equal(rd a, rd b) { return _mm512_cmp_pd_mask(a, b, _CMP_EQ_OQ); }
inline mf not_below(rf a, rf b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); }
inline md not_below(rd a, rd b) { return _mm512_cmp_pd_mask(a, b, _CMP_NLT_UQ); }
inline rf keep(mf m, rf a) { return _mm512_maskz_mov_ps(m, a); }
inline rd keep(md m, rd a) { return _mm512_maskz_mov_pd(m, a); }
inline rf drop(mf m, rf a) { return _mm512_maskz_mov_ps((mf)~m, a); }
inline rd drop(md m, rd a) { return _mm512_maskz_mov_pd((md)~m, a); }
inline bool any(mf m) { return m != 0; }
inline bool any(md m) { return m != 0; }
inline unsigned bits(mf m) { return m; }
inline unsigned bits(md m) { return m; }
inline rf choose(mf m, rf a, rf b) { return _mm512_mask_blend_ps(m, b, a); }
inline rd choose(md m, rd a, rd b) { return _mm512_mask_blend_pd(m, b, a); }

inline rf low_bits_to_exponent(rf a) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23)); }
inline rd low_bits_to_exponent(rd a) { return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(a), 52)); }
inline rf quarter_power(rf a) {
    const __m512 all = _mm512_castsi512_ps(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)quarters)));
    const __m512i q = _mm512_castps_si512(a), own = _mm512_castps_si512(_mm512_permutevar_ps(all, q));
    return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_add_epi32(_mm512_slli_epi32(q, 21), own), _mm512_setzero_si512()));
}
inline rf exponent(rf a) {
    const __m512i e = _mm512_srli_epi32(_mm512_slli_epi32(_mm512_castps_si512(a), 1), 24);
    return _mm512_sub_ps(_mm512_castsi512_ps(_mm512_or_si512(e, _mm512_set1_epi32(0x4b000000))), _mm512_set1_ps(8388735.0f));
}
inline rd exponent(rd a) {
    const __m512i e = _mm512_srli_epi64(_mm512_slli_epi64(_mm512_castpd_si512(a), 1), 53);
    return _mm512_sub_pd(_mm512_castsi512_pd(_mm512_or_si512(e, _mm512_set1_epi64(0x4330000000000000))),
                         _mm512_set1_pd(4503599627371519.0));
}

template <int k> inline rf swap_lanes(rf a) {
    return k == 8 ? _mm512_shuffle_f32x4(a, a, 0x4e) : k == 4 ? _mm512_shuffle_f32x4(a, a, 0xb1)
         : k == 2 ? _mm512_permute_ps(a, 0x4e) : _mm512_permute_ps(a, 0xb1);
}
template <int k> inline rd swap_lanes(rd a) {
    return k == 4 ? _mm512_shuffle_f64x2(a, a, 0x4e) : k == 2 ? _mm512_shuffle_f64x2(a, a, 0xb1)
                                                              : _mm512_permute_pd(a, 0x55);
}

// Of the lanes of a and then of b those from `index` on, in order.
inline rf lanes_from(ptrdiff_t index, float) {
    const __m512i all = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return _mm512_castsi512_ps(_mm512_add_epi32(all, _mm512_set1_epi32((int)index)));
}
inline rd lanes_from(ptrdiff_t index, double) {
    return _mm512_castsi512_pd(_mm512_add_epi64(_mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi64(index)));
}
inline rf from_both(rf a, rf b, rf index) { return _mm512_permutex2var_ps(a, _mm512_castps_si512(index), b); }
inline rd from_both(rd a, rd b, rd index) { return _mm512_permutex2var_pd(a, _mm512_castpd_si512(index), b); }

inline __m128 load_16(const float* p) { return _mm_loadu_ps(p); }
inline __m128d load_16(const double* p) { return _mm_loadu_pd(p); }
inline __m128 load_16(const float* p, ptrdiff_t count) { return _mm_maskz_loadu_ps((__mmask8)first(count), p); }
inline void store_16(float* p, __m128 a) { _mm_storeu_ps(p, a); }
inline void store_16(double* p, __m128d a) { _mm_storeu_pd(p, a); }
inline void store_16(float* p, __m128 a, ptrdiff_t count) {
    __asm__("" : "+v"(a));  // GCC would store by vextractf32x4 with a mask, which faults for what the mask leaves out
    _mm_mask_storeu_ps(p, (__mmask8)first(count), a);
}
template <class Rows, class Load> inline rf load_parts(Rows rows, Load load, float) {
    rf a = _mm512_castps128_ps512(load(rows[0]));
    a = _mm512_insertf32x4(a, load(rows[4]), 1);
    a = _mm512_insertf32x4(a, load(rows[8]), 2);
    return _mm512_insertf32x4(a, load(rows[12]), 3);
}
template <class Rows, class Load> inline rd load_parts(Rows rows, Load load, double) {
    rd a = _mm512_castpd128_pd512(load(rows[0]));
    a = _mm512_insertf64x2(a, load(rows[2]), 1);
    a = _mm512_insertf64x2(a, load(rows[4]), 2);
    return _mm512_insertf64x2(a, load(rows[6]), 3);
}
template <class Rows, class Store> inline void store_parts(Rows rows, rf a, Store store) {
    store(rows[0], _mm512_castps512_ps128(a));
    store(rows[4], _mm512_extractf32x4_ps(a, 1));
    store(rows[8], _mm512_extractf32x4_ps(a, 2));
    store(rows[12], _mm512_extractf32x4_ps(a, 3));
}
template <class Rows, class Store> inline void store_parts(Rows rows, rd a, Store store) {
    store(rows[0], _mm512_castpd512_pd128(a));
    store(rows[2], _mm512_extractf64x2_pd(a, 1));
    store(rows[4], _mm512_extractf64x2_pd(a, 2));
    store(rows[6], _mm512_extractf64x2_pd(a, 3));
}
inline void turn_parts(rf* a) {
    const rf b0 = _mm512_unpacklo_ps(a[0], a[1]), b1 = _mm512_unpackhi_ps(a[0], a[1]);
    const rf b2 = _mm512_unpacklo_ps(a[2], a[3]), b3 = _mm512_unpackhi_ps(a[2], a[3]);
    a[0] = _mm512_shuffle_ps(b0, b2, 0x44);
    a[1] = _mm512_shuffle_ps(b0, b2, 0xee);
    a[2] = _mm512_shuffle_ps(b1, b3, 0x44);
    a[3] = _mm512_shuffle_ps(b1, b3, 0xee);
}
inline void turn_parts(rd* a) {
    const rd b = _mm512_unpacklo_pd(a[0], a[1]);
    a[1] = _mm512_unpackhi_pd(a[0], a[1]);
    a[0] = b;
}

template <int k> inline rf pick(rf a, rf b) {
    return _mm512_mask_blend_ps(k == 8 ? 0xff00 : k == 4 ? 0xf0f0 : k == 2 ? 0xcccc : 0xaaaa, a, b);
}
template <int k> inline rd pick(rd a, rd b) { return _mm512_mask_blend_pd(k == 4 ? 0xf0 : k == 2 ? 0xcc : 0xaa, a, b); }

}}  // namespace
