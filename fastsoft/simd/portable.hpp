// What every CPU of the platform has (SSE2 on x86-64). No FMA is assumed.
#pragma once
#include "quad.hpp"

namespace fastsoft { namespace {

const bool has_fma = false;
const int together = 1, exp_together = 1;
const bool begins_next = false;
const bool turns = false;
const bool large_caches = false;
const bool whole_lines = false;

inline rf mul_add(rf a, rf b, rf c) { return a * b + c; }
inline rd mul_add(rd a, rd b, rd c) { return a * b + c; }
inline rf mul_sub(rf a, rf b, rf c) { return a * b - c; }
inline rd mul_sub(rd a, rd b, rd c) { return a * b - c; }
inline rf sub_mul(rf c, rf a, rf b) { return c - a * b; }
inline rd sub_mul(rd c, rd a, rd b) { return c - a * b; }
#if defined(__SSE2__)
inline void stream(float* p, rf a) { _mm_stream_ps(p, a); }
inline void stream(double* p, rd a) { _mm_stream_pd(p, a); }
inline void fence() { _mm_sfence(); }
inline void end_loads() { _mm_lfence(); }  // what follows begins after them
inline rf larger(rf a, rf b) { return _mm_max_ps(a, b); }
inline rd larger(rd a, rd b) { return _mm_max_pd(a, b); }
#else
inline void stream(float* p, rf a) { store(p, a); }
inline void stream(double* p, rd a) { store(p, a); }
inline void fence() {}
inline void end_loads() {}
inline rf larger(rf a, rf b) { return choose(a > b, a, b); }
inline rd larger(rd a, rd b) { return choose(a > b, a, b); }
#endif

}}  // namespace
