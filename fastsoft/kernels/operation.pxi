# What is to be computed, whatever the type and wherever it lies.

cdef enum:
    REGISTER = 64  # bytes of a vec
    BLOCK = 8192  # classes that are summed in one go: part of the definition of a result's bits
    LONG_ROW = 65536  # classes beyond which a row's blocks are shifted each by itself (long.pxi): likewise
    SHORT = 32  # classes up to which rows go side by side, in a tile;
    TURNED = 48  # of softmax and its like where turning them round is fast
    TILES = 4  # that are computed at once
    FAR = 16384  # bytes by which what comes next is fetched, as NEAR, where a group of rows is long;
    FOLLOWING = 262144  # up to so many bytes of it the next group is fetched instead
    BEYOND = 8192  # the same as NEAR, from beyond the caches
    MAX_NDIM = 64

cdef inline Py_ssize_t blocks_in(Py_ssize_t n) noexcept nogil:
    """Of a row of n classes"""
    return (n + BLOCK - 1) // BLOCK


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
    const int64_t* labels  # of each row, negative where it is ignored; or NULL
    const double* row_weights  # or NULL
    const double* class_weights  # or NULL
    char* loss  # of each row, in the work type

cdef struct Team:  # threads that share one row; or one thread, with `parts` for a long row
    int threads
    Py_ssize_t blocks
    char* parts  # what each block gives
