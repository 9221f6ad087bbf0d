// The floating-point control state of a thread. Other libraries may have set flush-to-zero; a row must not
// depend on which thread takes it, and the caller gets its own state, status flags included, back.
#pragma once
#include <chrono>
#include <cstdint>
#if defined(__x86_64__)
#include <xmmintrin.h>
namespace fastsoft { namespace {
typedef unsigned int control;
inline control enter() { const control old = _mm_getcsr(); if ((old & 0xffc0) != 0x1f80) _mm_setcsr(0x1f80); return old; }
inline void leave(control old) { _mm_setcsr(old); }
}}  // namespace
#elif defined(__aarch64__)
namespace fastsoft { namespace {
typedef uint64_t control;  // FPSR in the upper half, FPCR in the lower
inline control enter() {
    uint64_t flags, mode;
    __asm__ __volatile__("mrs %0, fpsr" : "=r"(flags));
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode));
    if (mode) __asm__ __volatile__("msr fpcr, %0" ::"r"((uint64_t)0));
    return flags << 32 | (uint32_t)mode;
}
inline void leave(control old) {  // "memory": after the last store, and what is rounded for it
    if ((uint32_t)old) __asm__ __volatile__("msr fpcr, %0" ::"r"(old & 0xffffffff) : "memory");
    __asm__ __volatile__("msr fpsr, %0" ::"r"(old >> 32) : "memory");
}
}}  // namespace
#else
namespace fastsoft { namespace {
typedef int control;
inline control enter() { return 0; }
inline void leave(control) {}
}}  // namespace
#endif

namespace fastsoft { namespace {
// Nanoseconds of a clock that does not go back.
inline int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}
}}  // namespace
