// Advanced SIMD of 64-bit Arm, with its FMA.
#pragma once
#include <arm_neon.h>
#include "quad.hpp"

namespace fastsoft { namespace {

const bool has_fma = true;
const int together = 1, exp_together = 1;
const bool begins_next = false;
const bool turns = false;
const bool large_caches = false;
const bool whole_lines = false;

inline rf mul_add(rf a, rf b, rf c) { return vfmaq_f32(c, a, b); }
inline rd mul_add(rd a, rd b, rd c) { return vfmaq_f64(c, a, b); }
inline rf mul_sub(rf a, rf b, rf c) { return vfmaq_f32(-c, a, b); }
inline rd mul_sub(rd a, rd b, rd c) { return vfmaq_f64(-c, a, b); }
inline rf sub_mul(rf c, rf a, rf b) { return vfmsq_f32(c, a, b); }
inline rd sub_mul(rd c, rd a, rd b) { return vfmsq_f64(c, a, b); }
inline rf quarter_power(rf a) {
    const uint32x4_t q = vreinterpretq_u32_f32(a), first = vmulq_n_u32(vandq_u32(q, vdupq_n_u32(3)), 0x04040404);
    const uint8x16_t at = vreinterpretq_u8_u32(vaddq_u32(first, vdupq_n_u32(0x03020100)));
    const uint8x16_t own = vqtbl1q_u8(vreinterpretq_u8_u32(vld1q_u32(quarters)), at);
    const int32x4_t power = vreinterpretq_s32_u32(vaddq_u32(vshlq_n_u32(q, 21), vreinterpretq_u32_u8(own)));
    return vreinterpretq_f32_s32(vmaxq_s32(power, vdupq_n_s32(0)));
}
inline void stream(float* p, rf a) { store(p, a); }  // Arm has no such store by itself; a pair, stnp, is only a hint
inline void stream(double* p, rd a) { store(p, a); }
inline void fence() {}
inline void end_loads() {}
inline rf larger(rf a, rf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }  // fmax would spread a NaN
inline rd larger(rd a, rd b) { return vbslq_f64(vcgtq_f64(a, b), a, b); }

}}  // namespace
