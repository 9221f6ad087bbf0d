# The kernels, compiled for avx2: see setup.py for its flags.
include "../kernels/all.pxi"
