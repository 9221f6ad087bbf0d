# The kernels, compiled for avx512: see setup.py for its flags.
include "../kernels/all.pxi"
