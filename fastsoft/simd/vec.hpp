// vec<T>: 64 bytes of T on every instruction set, so that sums have the same order, and results the same bits,
// everywhere. The header of one instruction set (-DFASTSOFT_ISA=avx2 -> avx2.hpp) says what one of its registers
// does; here each operation is spread over the 1, 2 or 4 registers of a vec, and its contract stands.
#pragma once
#include <type_traits>
#include "types.hpp"
#include "state.hpp"
#define FASTSOFT_TEXT_(a) #a
#define FASTSOFT_TEXT(a) FASTSOFT_TEXT_(a.hpp)
#include FASTSOFT_TEXT(FASTSOFT_ISA)

#if defined(__SANITIZE_ADDRESS__)
#define INLINE inline  // the checks of all that is inlined in one function would take the compiler minutes
#define INLINE_LAMBDA
#else
#define INLINE_LAMBDA __attribute__((always_inline))
#define INLINE inline INLINE_LAMBDA
#endif

#define APART __attribute__((noinline))  // long enough to be called, and compiled once for each type

namespace fastsoft { namespace {

template <class T> struct isa;
template <> struct isa<float> { typedef rf reg; typedef mf mask; };
template <> struct isa<double> { typedef rd reg; typedef md mask; };

// U vecs side by side, on which each operation is done in turn: independent work fills the pipelines.
template <class T, int U = 1> struct vec {
    static const int width = sizeof(typename isa<T>::reg) / sizeof(T), lanes = 64 / sizeof(T) * U, regs = lanes / width;
    typename isa<T>::reg r[regs];
    // Register by register: GCC copies the array as a whole by way of memory.
    vec() = default;
    INLINE vec(const vec& b) { for (int i = 0; i < regs; i++) r[i] = b.r[i]; }
    INLINE vec& operator=(const vec& b) { for (int i = 0; i < regs; i++) r[i] = b.r[i]; return *this; }
};
template <class T, int U = 1> struct mask {
    typename isa<T>::mask r[vec<T, U>::regs];
};
template <class T> using bunch = vec<T, together>;  // as many as suit the instruction set; exp_together: those that go through exp side by side
// One line for each register; the count is known when compiling.
#define EACH for (int i = 0; i < vec<T, U>::regs; i++)
#define TV template <class T, int U> INLINE vec<T, U>
#define TM template <class T, int U> INLINE mask<T, U>

template <int U = 1, class T> INLINE vec<T, U> fill(T a) { vec<T, U> v; EACH v.r[i] = splat(a); return v; }

// As many bytes as a vec has lanes, as numbers.
template <class T> INLINE vec<T> from_bytes(const char* p) {
    const int U = 1;
    vec<T> v;
    EACH v.r[i] = from_bytes(p + i * vec<T>::width, v.r[i]);
    return v;
}

// U times the same vec; one of them.
template <int U, class T> INLINE vec<T, U> spread(vec<T> a) {
    vec<T, U> v;
    EACH v.r[i] = a.r[i % vec<T>::regs];
    return v;
}
template <class T, int U> INLINE vec<T> part(vec<T, U> a, int k) {
    vec<T> v;
    for (int i = 0; i < vec<T>::regs; i++) v.r[i] = a.r[k * vec<T>::regs + i];
    return v;
}
template <class T, int U> INLINE void set_part(vec<T, U>& a, int k, vec<T> v) {
    for (int i = 0; i < vec<T>::regs; i++) a.r[k * vec<T>::regs + i] = v.r[i];
}

TV operator+(vec<T, U> a, vec<T, U> b) { EACH a.r[i] = add(a.r[i], b.r[i]); return a; }
TV operator-(vec<T, U> a, vec<T, U> b) { EACH a.r[i] = sub(a.r[i], b.r[i]); return a; }
TV operator*(vec<T, U> a, vec<T, U> b) { EACH a.r[i] = mul(a.r[i], b.r[i]); return a; }
TV operator/(vec<T, U> a, vec<T, U> b) { EACH a.r[i] = div(a.r[i], b.r[i]); return a; }
// a * b + c, a * b - c, c - a * b: rounded once where the hardware has FMA, else twice.
TV mul_add(vec<T, U> a, vec<T, U> b, vec<T, U> c) { EACH a.r[i] = mul_add(a.r[i], b.r[i], c.r[i]); return a; }
TV mul_sub(vec<T, U> a, vec<T, U> b, vec<T, U> c) { EACH a.r[i] = mul_sub(a.r[i], b.r[i], c.r[i]); return a; }
TV sub_mul(vec<T, U> c, vec<T, U> a, vec<T, U> b) { EACH c.r[i] = sub_mul(c.r[i], a.r[i], b.r[i]); return c; }
// a > b ? a : b, hence b where either is NaN.
TV larger(vec<T, U> a, vec<T, U> b) { EACH a.r[i] = larger(a.r[i], b.r[i]); return a; }
TV absolute(vec<T, U> a) { EACH a.r[i] = absolute(a.r[i]); return a; }

TM equal(vec<T, U> a, vec<T, U> b) { mask<T, U> m; EACH m.r[i] = equal(a.r[i], b.r[i]); return m; }
// !(a < b), hence true where either is NaN.
TM not_below(vec<T, U> a, vec<T, U> b) { mask<T, U> m; EACH m.r[i] = not_below(a.r[i], b.r[i]); return m; }
// m ? a : 0, m ? 0 : a, m ? a : b
TV keep(mask<T, U> m, vec<T, U> a) { EACH a.r[i] = keep(m.r[i], a.r[i]); return a; }
TV drop(mask<T, U> m, vec<T, U> a) { EACH a.r[i] = drop(m.r[i], a.r[i]); return a; }
TV choose(mask<T, U> m, vec<T, U> a, vec<T, U> b) { EACH a.r[i] = choose(m.r[i], a.r[i], b.r[i]); return a; }

template <class T, int U> INLINE bool any(mask<T, U> m) { bool b = false; EACH b |= any(m.r[i]); return b; }

// The number whose exponent field is the lowest bits of a's.
TV low_bits_to_exponent(vec<T, U> a) { EACH a.r[i] = low_bits_to_exponent(a.r[i]); return a; }
// 2^(q/4) of the number q in the lowest bits of a, counted from the smallest exponent, in the unit of types.hpp; 0 where
// q < 0.
TV quarter_power(vec<T, U> a) { EACH a.r[i] = quarter_power(a.r[i]); return a; }
// floor(log2 |a|) of a normal a.
TV exponent(vec<T, U> a) { EACH a.r[i] = exponent(a.r[i]); return a; }

// Lane i of the result is lane i ^ k.
template <int k, class T> INLINE vec<T> swap_lanes(vec<T> a) {
    const int width = vec<T>::width, U = 1;
    vec<T> b;
    if (k >= width) EACH b.r[i] = a.r[i ^ (k / width ? k / width : 1)];
    else EACH b.r[i] = swap_lanes<(k < width ? k : 1)>(a.r[i]);
    return b;
}

// Lane i of the result is that of a where i has not the bit k, else that of b.
template <int k, class T> INLINE vec<T> pick(vec<T> a, vec<T> b) {
    const int width = vec<T>::width, U = 1;
    vec<T> v;
    if (k >= width) EACH v.r[i] = i & (k / width ? k / width : 1) ? b.r[i] : a.r[i];
    else EACH v.r[i] = pick<(k < width ? k : 1)>(a.r[i], b.r[i]);
    return v;
}
// Transpose the square of as many vecs as a vec has lanes: in step k the blocks off the diagonal change places.
template <int k, class T> struct Transpose {
    static INLINE void square(vec<T>* a) {
        for (int i = 0; i < vec<T>::lanes; i++) {
            if (i & k) continue;
            const vec<T> b = pick<k>(a[i], swap_lanes<k>(a[i + k]));
            a[i + k] = pick<k>(swap_lanes<k>(a[i]), a[i + k]);
            a[i] = b;
        }
        Transpose<k / 2, T>::square(a);
    }
};
template <class T> struct Transpose<0, T> {
    static INLINE void square(vec<T>*) {}
};
template <class T> INLINE void transpose(vec<T>* a) { Transpose<vec<T>::lanes / 2, T>::square(a); }

// Lane k of v, alone and in all lanes.
template <class T> INLINE T in_lane(const vec<T>& v, int k) {
    T a;
    std::memcpy(&a, (const char*)&v + k * sizeof a, sizeof a);
    return a;
}
template <class T> INLINE vec<T> lane(const vec<T>& v, int k) { return fill(in_lane(v, k)); }

// Load `left` elements, at most all lanes, from p, into the work type; lanes past them take `rest`. Nothing past them is read.
template <int U, class S, class T> INLINE vec<T, U> load_some(const S* p, ptrdiff_t left, T rest) {
    const int width = vec<T, U>::width;
    vec<T, U> v;
    if (left >= vec<T, U>::lanes) {
        EACH v.r[i] = load(p + i * width);
        return v;
    }
    EACH {
        const ptrdiff_t here = left - i * width;
        v.r[i] = here >= width ? load(p + i * width) : here > 0 ? load_part(p + i * width, here, splat(rest)) : splat(rest);
    }
    return v;
}
// The same, read once: GCC would rather read a second time what two instructions take from memory.
template <class T, int U> INLINE vec<T, U> in_registers(vec<T, U> v) {
#if defined(__x86_64__) || defined(__i386__)
    EACH __asm__("" : "+v"(v.r[i]));
#elif defined(__aarch64__)
    EACH __asm__("" : "+w"(v.r[i]));
#endif
    return v;
}
// Store the first `left` lanes, at most all, to p, rounded once. Nothing past them is written.
template <class S, int U> INLINE void store(S* p, vec<work<S>, U> v, ptrdiff_t left) {
    typedef work<S> T;
    const int width = vec<T, U>::width;
    if (left >= vec<T, U>::lanes) {
        EACH store(p + i * width, v.r[i]);
        return;
    }
    EACH {
        const ptrdiff_t here = left - i * width;
        if (here >= width) store(p + i * width, v.r[i]);
        else if (here > 0) store_part(p + i * width, v.r[i], here);
    }
}
// Store to a p that is a multiple of 64 bytes, past the caches; fence() before another thread may look.
template <class T> INLINE void stream(T* p, vec<T> v) {
    const int U = 1;
    EACH stream(p + i * vec<T>::width, v.r[i]);
}
// Where rows that follow each other go past the caches, a line of memory in which one ends and the next begins waits here to
// be written whole: in two parts it would hold up all that is written after the first.
template <class T> struct Seam {
    alignas(64) T line[2 * vec<T>::lanes];
    T* at;            // null if none waits
    ptrdiff_t count;  // numbers that are there
};
template <class T> INLINE void end_seam(Seam<T>& seam) {
    if (seam.at) store(seam.at, load_some<1>(seam.line, seam.count, T(0)), seam.count);
    seam.at = nullptr;
}
// The next `left` numbers of a row past the caches: p begins with a line, unless these are the first of the row, up to a line.
template <class T> INLINE void put_past(T* p, vec<T> v, ptrdiff_t left, Seam<T>& seam) {
    const ptrdiff_t lanes = vec<T>::lanes;
    if (left >= lanes) return stream(p, v);
    if (left <= 0) return;
    if (seam.at && p == seam.at + seam.count && seam.count + left == lanes) {
        store(seam.line + seam.count, v, lanes);
        stream(seam.at, load_some<1>(seam.line, lanes, T(0)));
        seam.at = nullptr;
        return;
    }
    end_seam(seam);  // of a row before one that was written otherwise
    if ((uintptr_t)p % 64) return store(p, v, left);
    store(seam.line, v, lanes);
    seam.at = p;
    seam.count = left;
}
// So with a seam, else by way of the caches, as those of 16 bits always go.
template <class S, class T> INLINE void put(S* p, vec<T> v, ptrdiff_t left, Seam<T>* seam) {
    if constexpr (std::is_same<S, T>::value)
        if (seam) return put_past(p, v, left, *seam);
    store(p, v, left);
}
struct Near {};  // by way of the caches, and past them, as types: a branch for each store costs the VJP some percent
struct Past {};
struct Alone {};  // nothing is written
struct Any {};    // known only when it runs
template <class S> INLINE vec<work<S>> load(const S* p, ptrdiff_t left, work<S> rest) { return load_some<1>(p, left, rest); }
template <class T> INLINE bunch<T> load_bunch(const T* p, ptrdiff_t left, T rest) {
    return load_some<together>(p, left, rest);
}

// Vecs that follow each other from p on. Lines reads each line of memory once, and turns what it read: a load that touches
// two lines takes as long as four others. It reads up to a vec beyond those that it gives.
template <class S> struct Vecs {
    const S* p;
    INLINE vec<work<S>> next() {
        const vec<work<S>> v = load(p, vec<work<S>>::lanes, work<S>(0));
        p += vec<work<S>>::lanes;
        return v;
    }
};
template <class T> struct Lines {
    Vecs<T> lines;
    vec<T> line, index;
    INLINE Lines(const T* p) {
        const ptrdiff_t lanes = vec<T>::lanes, before = (uintptr_t)p % 64 / sizeof(T);
        const vec<T> own = load(p, lanes, T(0));
        lines.p = p - before + lanes;
        line.r[0] = from_both(own.r[0], own.r[0], lanes_from(lanes - before, T(0)));
        index.r[0] = lanes_from(before, T(0));
    }
    INLINE vec<T> next() {
        const vec<T> following = lines.next();
        vec<T> v;
        v.r[0] = from_both(line.r[0], following.r[0], index.r[0]);
        line = following;
        return v;
    }
};

// Ask for lines, which need not exist: for what will soon be read, so many vecs, in the nearest cache; for what will be
// read not quite so soon, in the next one; and for what will be written.
template <class S> INLINE void prefetch(const S* p, int vecs = 1) {
    for (int i = 0; i < vecs; i++) __builtin_prefetch((const char*)p + 64 * i, 0, 3);
}
template <class S> INLINE void prefetch_far(const S* p, int vecs) {
    for (int i = 0; i < vecs; i++) __builtin_prefetch((const char*)p + 64 * i, 0, 2);
}
template <class S> INLINE void prefetch_to_write(S* p, int vecs) {
    for (int i = 0; i < vecs; i++) __builtin_prefetch((char*)p + 64 * i, 1, 3);
}

// The lanes that are set, as bits; how many; and the first, if there is one.
template <class T> INLINE unsigned bits(mask<T> m) {
    unsigned b = 0;
    for (int i = 0; i < vec<T>::regs; i++) b |= bits(m.r[i]) << i * vec<T>::width;
    return b;
}
template <class T> INLINE int lanes_of(mask<T> m) { return any(m) ? __builtin_popcount(bits(m)) : 0; }
template <class T> INLINE int first_lane(mask<T> m) { return __builtin_ctz(bits(m)); }

#undef EACH
#undef TV
#undef TM

}}  // namespace
