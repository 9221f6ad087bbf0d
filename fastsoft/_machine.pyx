"""What this CPU, operating system and OpenMP runtime can do; compiled for the platform's floor."""
cimport cython

cdef extern from *:
    """
    #if defined(__x86_64__)
      #include <cpuid.h>
      static void fs_cpuid(int leaf, int sub, int *r) {
          unsigned a, b, c, d;
          if (!__get_cpuid_count(leaf, sub, &a, &b, &c, &d)) a = b = c = d = 0;
          r[0] = a; r[1] = b; r[2] = c; r[3] = d;
      }
      static unsigned long long fs_xcr0(void) {
          unsigned lo, hi;
          __asm__ __volatile__("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
          return ((unsigned long long)hi << 32) | lo;
      }
      static int fs_avx2(void) {  /* with FMA, F16C, and an OS that saves the registers */
          int a[4], b[4];
          fs_cpuid(1, 0, a); fs_cpuid(7, 0, b);
          return (a[2] >> 27 & 1) && (a[2] >> 28 & 1) && (a[2] >> 12 & 1) && (a[2] >> 29 & 1) && (b[1] >> 5 & 1)
              && (fs_xcr0() & 6) == 6;
      }
      static int fs_avx512(void) {  /* F, DQ, BW, VL */
          int b[4];
          if (!fs_avx2()) return 0;
          fs_cpuid(7, 0, b);
          return (b[1] >> 16 & 1) && (b[1] >> 17 & 1) && (b[1] >> 30 & 1) && (b[1] >> 31 & 1)
              && (fs_xcr0() & 0xe6) == 0xe6;
      }
    #else
      static int fs_avx2(void) { return 0; }
      static int fs_avx512(void) { return 0; }
    #endif
    #if defined(__aarch64__)
      static int fs_neon(void) { return 1; }
    #else
      static int fs_neon(void) { return 0; }
    #endif
    #if defined(_OPENMP)
      #include <dlfcn.h>
      #include <omp.h>
      static int fs_openmp(void) { return _OPENMP; }
      /* In libgomp since OpenMP 5.0, hence looked up, in the very library that runs here; 1 is omp_pause_soft. */
      static int fs_pause(void) {
          Dl_info info;
          void *library;
          int (*pause)(int) = 0;
          if (!dladdr((void *)omp_get_max_threads, &info)) return -1;
          library = dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
          if (library) {
              pause = (int (*)(int))dlsym(library, "omp_pause_resource_all");
              dlclose(library);
          }
          return pause ? pause(1) : -1;
      }
    #else
      static int fs_openmp(void) { return 0; }
      static int fs_pause(void) { return -1; }
    #endif
    """
    int fs_avx2()
    int fs_avx512()
    int fs_neon()
    int fs_pause()
    int fs_openmp()

cdef extern from "<fenv.h>":
    ctypedef struct fenv_t:
        pass
    const fenv_t* FE_DFL_ENV
    int fegetenv(fenv_t*)
    int fesetenv(const fenv_t*)


def runs(str isa not None):
    """Whether this CPU and operating system run the variant of that name."""
    if isa == "portable":
        return True
    if isa == "avx2":
        return bool(fs_avx2())
    if isa == "avx512":
        return bool(fs_avx512())
    return isa == "neon" and bool(fs_neon())


def openmp():
    """The OpenMP version (yyyymm) this was built with, or 0."""
    return fs_openmp()


def pause_openmp():
    """End the OpenMP workers of this thread; whether that was possible."""
    return fs_pause() == 0


@cython.final
cdef class DefaultState:
    """`with DefaultState()`: the default floating-point state; then the thread's own again, status flags included.
    All of it: where NumPy sets a flag by feraiseexcept, that is one of the x87 unit, which the kernels never touch."""
    cdef fenv_t own

    def __enter__(self):
        fegetenv(&self.own)
        fesetenv(FE_DFL_ENV)

    def __exit__(self, *_):
        fesetenv(&self.own)
