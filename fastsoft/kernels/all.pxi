# The kernels of one instruction set: isa/<isa>.pyx includes this file, setup.py gives the flags.
include "vec.pxi"
include "operation.pxi"
include "rows.pxi"
include "tiles.pxi"
include "layout.pxi"
include "batch.pxi"
include "threads.pxi"
include "module.pxi"
