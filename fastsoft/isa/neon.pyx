# The kernels, compiled for neon: see setup.py for its flags.
include "../kernels/all.pxi"
