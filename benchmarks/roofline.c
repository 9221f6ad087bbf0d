// What the hardware can do: passes over memory, and multiply-adds in registers. hardware.py compiles this once for each
// instruction set, with its flags, and times the two functions at the end. For GCC and Clang.
#include <stddef.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#else
static int omp_get_thread_num(void) { return 0; }
#endif

#if defined(__AVX512F__)
enum { WIDTH = 64, CHAINS = 16 };  // bytes of a register; multiply-adds that wait for nothing, twice as many as needed
#define STREAM(p, v) _mm512_stream_ps((float *)(p), (__m512)(v))
#elif defined(__AVX2__)
enum { WIDTH = 32, CHAINS = 12 };  // of 16 registers
#define STREAM(p, v) _mm256_stream_ps((float *)(p), (__m256)(v))
#elif defined(__x86_64__)
enum { WIDTH = 16, CHAINS = 12 };
#define STREAM(p, v) _mm_stream_ps((float *)(p), (__m128)(v))
#else
enum { WIDTH = 16, CHAINS = 16 };
#endif
#define STORE(p, v) (*(p) = (v))
#define TOGETHER 8  // registers of a step of `read`; a thread's share is a multiple of them

typedef float floats __attribute__((vector_size(WIDTH)));
typedef double doubles __attribute__((vector_size(WIDTH)));
typedef void pass(floats *y, const floats *x, const floats *z, floats s, size_t count);

// The compiler must take memory as read and written here; else it makes memcpy or memset of a loop.
#define BARRIER() __asm__ volatile("" ::: "memory")

#define PASS(name, PUT, value)                                                                           \
    static void name(floats *y, const floats *x, const floats *z, floats s, size_t count) {              \
        (void)x, (void)z, (void)s;                                                                       \
        for (size_t i = 0; i < count; i++) {                                                             \
            PUT(y + i, value);                                                                           \
            BARRIER();                                                                                   \
        }                                                                                                \
    }
PASS(fill, STORE, s)
PASS(copy, STORE, x[i])
PASS(triad, STORE, x[i] + s * z[i])
#if defined(STREAM)
PASS(fill_streaming, STREAM, s)
PASS(copy_streaming, STREAM, x[i])
PASS(triad_streaming, STREAM, x[i] + s * z[i])
const int has_streaming = 1;
static void arrived(void) { _mm_sfence(); }
#else
#define fill_streaming fill
#define copy_streaming copy
#define triad_streaming triad
const int has_streaming = 0;
static void arrived(void) {}
#endif

static void read_(floats *y, const floats *x, const floats *z, floats s, size_t count) {
    floats sum[TOGETHER];
    (void)y, (void)z;
    for (int k = 0; k < TOGETHER; k++) sum[k] = s;
    for (size_t i = 0; i < count; i += TOGETHER)
        for (int k = 0; k < TOGETHER; k++) sum[k] += x[i + k];
    __asm__ volatile("" : : "m"(sum));
}

static pass *const passes[][2] = {
    {read_, read_}, {fill, fill_streaming}, {copy, copy_streaming}, {triad, triad_streaming}};

const int step = TOGETHER * WIDTH;  // bytes: an array must hold a multiple of it for each thread

// One pass over `size` bytes of each array, `repeats` times, shared out among threads; `value` is what fill writes.
void move_bytes(int which, int streaming, char *y, const char *x, const char *z, float value, size_t size, int threads,
                size_t repeats) {
#pragma omp parallel num_threads(threads)
    {
        const size_t share = size / threads, first = share * omp_get_thread_num();
        const floats s = value - (floats){0};
        for (size_t r = 0; r < repeats; r++) {
            passes[which][streaming]((floats *)(y + first), (const floats *)(x + first), (const floats *)(z + first), s,
                                     share / WIDTH);
            BARRIER();
        }
        arrived();
    }
}

// a = a b + c, whose limit here is 2: one operation with FMA, else two (the flags forbid to fuse them).
#define MULTIPLY_ADD(name, number, vector)                           \
    static void name(size_t rounds) {                                \
        volatile number half = 0.5, one = 1;                         \
        const vector zero = {0}, b = zero + half, c = zero + one;    \
        vector a[CHAINS];                                            \
        for (int k = 0; k < CHAINS; k++) a[k] = b + (number)k;       \
        for (size_t r = 0; r < rounds; r++)                          \
            for (int k = 0; k < CHAINS; k++) a[k] = a[k] * b + c;    \
        __asm__ volatile("" : : "m"(a));                             \
    }
MULTIPLY_ADD(multiply_add_floats, float, floats)
MULTIPLY_ADD(multiply_add_doubles, double, doubles)

// Do multiply-adds, and return of how many numbers in all.
double multiply_add(int in_double, size_t rounds, int threads) {
#pragma omp parallel num_threads(threads)
    (in_double ? multiply_add_doubles : multiply_add_floats)(rounds);
    return (double)rounds * CHAINS * threads * WIDTH / (in_double ? sizeof(double) : sizeof(float));
}
