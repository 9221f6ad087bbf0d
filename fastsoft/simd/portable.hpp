// What every CPU of the platform has (SSE2 on x86-64). No FMA is assumed.
#pragma once
#include "quad.hpp"
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace fastsoft { namespace {

const bool has_fma = false;
const int together = 1;

inline rf mul_add(rf a, rf b, rf c) { return a * b + c; }
inline rd mul_add(rd a, rd b, rd c) { return a * b + c; }
inline rf mul_sub(rf a, rf b, rf c) { return a * b - c; }
inline rd mul_sub(rd a, rd b, rd c) { return a * b - c; }
inline rf sub_mul(rf c, rf a, rf b) { return c - a * b; }
inline rd sub_mul(rd c, rd a, rd b) { return c - a * b; }
#if defined(__SSE2__)
inline rf larger(rf a, rf b) { return _mm_max_ps(a, b); }
inline rd larger(rd a, rd b) { return _mm_max_pd(a, b); }
#else
inline rf larger(rf a, rf b) { return choose(a > b, a, b); }
inline rd larger(rd a, rd b) { return choose(a > b, a, b); }
#endif

}}  // namespace
