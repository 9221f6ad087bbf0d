# What is to be computed, whatever the type and wherever it lies.

cdef enum:
    REGISTER = 64  # bytes of a vec
    BLOCK = 8192  # classes that are summed in one go: part of the definition of a result's bits
    SHORT = 32  # classes up to which rows go side by side, in a tile;
    TURNED = 48  # of softmax and its like where turning them round is fast
    TILES = 4  # that are computed at once
    TO_LINE = 768  # bytes of a row from which it is written by whole lines
    NEAR = 2048  # bytes by which what comes next is fetched into the nearest cache
    MAX_NDIM = 64

cdef enum Kind:
    SOFTMAX
    LOG_SOFTMAX
    LOGSUMEXP
    VJP  # from here on: gradients.pxi
    VJP_GAP  # v_i - v.sigma
    LOG_VJP
    JACOBIAN  # sigma and the diagonal
    DIAGONAL
    LABELS  # cross-entropy from logits
    TARGETS
    VJP_FROM_OUTPUT  # from here on without exp of a shifted x
    LOG_VJP_FROM_OUTPUT
    CROSS_ENTROPY
    CROSS_ENTROPY_GRAD

cdef enum Argument:
    PLAIN
    SCALED
    WIDE

cdef struct Operation:
    Kind kind
    Argument how
    Factor factor  # 1/temperature
    double empty  # what a row gives that holds nothing but -inf
    double scale  # of a gradient
    double z_loss
    double on  # a target t becomes on t + off, times its class's weight
    double off
    const int64_t* labels  # of each row, -1 where it is ignored; or NULL
    const double* row_weights  # or NULL
    const double* class_weights  # or NULL
    char* loss  # of each row, in the work type

cdef struct Team:  # threads that share one row
    int threads
    Py_ssize_t blocks
    char* parts  # what each block gives

# A region is written `with parallel`, and its threads take each their own part of the work. For a `prange` Cython asks
# that its variable be copied in and out, and for that compilers let no thread begin before all have come.
cdef extern from *:
    """
    #if defined(_OPENMP)
      #include <omp.h>
      static inline int fs_thread(void) { return omp_get_thread_num(); }
      static inline int fs_threads(void) { return omp_get_num_threads(); }
    #else
      static inline int fs_thread(void) { return 0; }
      static inline int fs_threads(void) { return 1; }
    #endif
    """
    int fs_thread() noexcept nogil  # which of the region's threads this is,
    int fs_threads() noexcept nogil  # and of how many


cdef inline Py_ssize_t of_thread(Py_ssize_t total, int after) noexcept nogil:
    """Where this thread's part of so many begins, or (after = 1) ends"""
    return total * (fs_thread() + after) // fs_threads()
