# The kernels, compiled for portable: see setup.py for its flags.
include "../kernels/all.pxi"
