# What is to be computed, whatever the type and wherever it lies.

cdef enum:
    REGISTER = 64  # bytes of a vec
    BLOCK = 8192  # classes that are summed in one go: part of the definition of a result's bits
    TILES = 4  # that are computed at once
    MAX_NDIM = 64

cdef enum Kind:
    SOFTMAX
    LOG_SOFTMAX
    LOGSUMEXP

cdef enum Argument:
    PLAIN
    SCALED
    WIDE

cdef struct Operation:
    Kind kind
    Argument how
    Factor factor  # 1/temperature
    double empty  # what a row gives that holds nothing but -inf

cdef struct Team:  # threads that share one row
    int threads
    Py_ssize_t blocks
    char* parts  # what each block gives
