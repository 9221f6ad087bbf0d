// The element types, and how they meet their work type: float16 and bfloat16 are computed in float32 and
// rounded once. Scalar; the registers' own conversions give the same bits.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace fastsoft { namespace {

struct half { uint16_t bits; };
struct bfloat { uint16_t bits; };
struct bnumber : bfloat {};  // where loads and stores take longest, and no NaN is stored: registers have quicker ways then

inline uint32_t bits_of(float a) { uint32_t u; std::memcpy(&u, &a, 4); return u; }
inline float float_of(uint32_t u) { float a; std::memcpy(&a, &u, 4); return a; }

inline float to_work(float a) { return a; }
inline double to_work(double a) { return a; }
inline float to_work(bfloat a) { return float_of((uint32_t)a.bits << 16); }
inline float to_work(half a) {
    const uint32_t sign = (uint32_t)(a.bits & 0x8000) << 16, u = a.bits & 0x7fff;
    if (u >= 0x7c00) return float_of(sign | ((u << 13) + 0x70000000));  // infinity, NaN
    if (u >= 0x0400) return float_of(sign | ((u << 13) + 0x38000000));
    return float_of(sign | bits_of((float)u * 5.9604644775390625e-08f));  // subnormal: u steps of 2^-24
}
template <class S> using work = decltype(to_work(S()));

inline void from_work(float a, float* p) { *p = a; }
inline void from_work(double a, double* p) { *p = a; }
inline void from_work(float a, bfloat* p) {
    const uint32_t u = bits_of(a);
    p->bits = (uint16_t)((a != a ? u | 0x400000 : u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
inline void from_work(float a, half* p) {
    const uint32_t u = bits_of(a) & 0x7fffffff, sign = (bits_of(a) >> 16) & 0x8000;
    uint32_t r;
    if (u > 0x7f800000) r = 0x7e00 | ((u >> 13) & 0x3ff);
    else if (u >= 0x477ff000) r = 0x7c00;  // 65520 and more
    else if (u >= 0x38800000) r = (u + 0xfff + ((u >> 13) & 1) - 0x38000000) >> 13;
    else r = bits_of(float_of(u) + 0.5f) - 0x3f000000;  // subnormal: the addition rounds to steps of 2^-24
    p->bits = (uint16_t)(sign | r);
}

// The bits of u 2^(j/4) beyond those of 1, less j << 21: added to q << 21 of a q = j mod 4, they give u 2^(q/4). With
// this u all four are numbers of the format, to 4e-10.
const uint32_t quarters[4] = {0x0003b496, 0xfffca001, 0xfffa4274, 0xfffd8050};

}}  // namespace
