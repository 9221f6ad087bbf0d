# What the headers in simd/ give: 64-byte registers, and the arithmetic of a row in them.
# Contracts stand there.
from cython.parallel cimport parallel
from libc.math cimport INFINITY
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int64_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from libcpp.atomic cimport atomic, memory_order_relaxed

cdef extern from "few.hpp" namespace "fastsoft" nogil:
    cdef cppclass half:
        pass
    cdef cppclass bfloat:
        pass
    cdef cppclass vec[T]:
        pass
    cdef cppclass bunch[T]:
        pass
    cdef cppclass mask[T]:
        pass
    cdef cppclass pair[T]:
        vec[T] hi
        vec[T] lo
    cdef cppclass Factor:
        double hi
        double lo
        double g
    cdef cppclass Shared[T]:
        pass
    cdef cppclass Shift[T]:
        Shared[T] each
        vec[T] e_max
    cdef cppclass Sums[T]:
        vec[T] hi
        vec[T] lo
    cdef cppclass Log[T]:
        vec[T] hi
    cdef cppclass Plain:
        pass
    cdef cppclass Scaled:
        pass
    cdef cppclass Wide:
        pass
    cdef cppclass All:
        pass
    cdef cppclass Exact:
        pass
    cdef cppclass Others:
        pass
    cdef cppclass Near:
        pass
    cdef cppclass Past:
        pass
    cdef cppclass Product:
        pass
    cdef cppclass Dot:
        pass
    cdef cppclass LogTarget:
        pass
    cdef cppclass Turn:
        pass
    cdef cppclass TurnOutput:
        pass
    cdef cppclass LogTurnOutput:
        pass
    cdef cppclass Centre:
        pass
    cdef cppclass LogTurn:
        pass
    cdef cppclass Slope:
        pass
    cdef cppclass Times:
        pass
    cdef cppclass DiagonalOf:
        pass
    cdef cppclass TargetSlope:
        pass

    float to_work(half)
    float to_work(bfloat)
    float to_work(float)
    double to_work(double)
    void from_work(float, half*)
    void from_work(float, bfloat*)
    void from_work(float, float*)
    void from_work(double, double*)

    vec[float] load(const half*, ptrdiff_t left, float rest)
    vec[float] load(const bfloat*, ptrdiff_t left, float rest)
    vec[float] load(const float*, ptrdiff_t left, float rest)
    vec[double] load(const double*, ptrdiff_t left, double rest)
    void store(half*, vec[float], ptrdiff_t left)
    void store(bfloat*, vec[float], ptrdiff_t left)
    void store(float*, vec[float], ptrdiff_t left)
    void store(double*, vec[double], ptrdiff_t left)

    void stream(float*, vec[float])
    void stream(double*, vec[double])
    void fence()
    void end_loads()
    bunch[float] load_bunch(const float*, ptrdiff_t left, float rest)
    bunch[double] load_bunch(const double*, ptrdiff_t left, double rest)
    void store(float*, bunch[float], ptrdiff_t left)
    void store(double*, bunch[double], ptrdiff_t left)
    int together
    int exp_together
    int exp_vecs
    bint begins_next
    bint has_fma
    bint turns
    bint large_caches
    bint whole_lines
    void prefetch(const half*)
    void prefetch(const bfloat*)
    void prefetch(const float*)
    void prefetch(const double*)
    void fetch_rows(const char* start, ptrdiff_t stride, int count, ptrdiff_t bytes)
    void fetch_rows_to_write(char* start, ptrdiff_t stride, int count, ptrdiff_t bytes)
    void prefetch(const char*, int vecs)
    void prefetch(const float*, int vecs)
    void prefetch(const double*, int vecs)
    void prefetch_to_write(float*, int vecs)
    void prefetch_to_write(double*, int vecs)
    void prefetch_to_write(char*, int vecs)

    vec[float] fill(float)
    vec[double] fill(double)
    vec[T] larger[T](vec[T], vec[T])
    vec[T] operator+[T](vec[T], vec[T])
    vec[T] operator-[T](vec[T], vec[T])
    vec[T] operator*[T](vec[T], vec[T])
    vec[T] operator/[T](vec[T], vec[T])
    vec[T] drop[T](mask[T], vec[T])
    vec[T] choose[T](mask[T], vec[T] a, vec[T] b)
    vec[T] absolute[T](vec[T])
    vec[T] shown[T](vec[T] y, const char* bytes, ptrdiff_t left)
    ptrdiff_t row_offset(int ndim, const Py_ssize_t* shape, const Py_ssize_t* stride, ptrdiff_t i)
    void hide_in_tiles[T](
        T* tiles, ptrdiff_t n, int rows, const char* bytes, ptrdiff_t step, int ndim, const Py_ssize_t* shape,
        const Py_ssize_t* stride, ptrdiff_t i
    )
    mask[T] equal[T](vec[T], vec[T])
    bint any[T](mask[T])
    int lanes_of[T](mask[T])
    int first_lane[T](mask[T])
    cppclass Even[S]:
        char* first
        ptrdiff_t apart
        S* operator[](ptrdiff_t)
    enum:
        PANEL_TILES "fastsoft::panel_tiles"
        NEAR "fastsoft::near_bytes"
    void read_panel[T, S](
        const S* x, ptrdiff_t step, ptrdiff_t n, int count, ptrdiff_t left, T* tiles, ptrdiff_t apart, vec[T]* top,
        bint next_panel
    )
    void write_panel[T, S](
        const T* tiles, ptrdiff_t apart, ptrdiff_t n, int count, ptrdiff_t left, const Ending[T]* end, S* out,
        ptrdiff_t step, bint past, bint next_panel
    )
    cppclass Ahead:
        const char* x
        const char* v
        ptrdiff_t x_step
        ptrdiff_t v_step
        char* out
        ptrdiff_t out_step
        bint far
    void fetch(const Ahead&, ptrdiff_t j, int count)
    cppclass Ending[T]:
        pass
    void end_with[T](Ending[T]&, const pair[T]& factor)
    void end_with[T](Ending[T]&, const Log[T]&, const Shared[T]&)
    void set_ended[T](Ending[T]&, bint is_log)
    void end_in_place[T](T* tile, ptrdiff_t n, const Ending[T]*)
    void to_tile[T, S](S** rows, ptrdiff_t n, T* tile)
    void to_tile[T, S](Even[S] rows, ptrdiff_t n, T* tile)
    void from_tile[T, S](const T* tile, ptrdiff_t n, S** rows, int count, const Ending[T]*)
    void from_tile[T, S](const T* tile, ptrdiff_t n, Even[S] rows, int count, const Ending[T]*)
    void rows_to_square[T, S](S** rows, ptrdiff_t left, T* tile)
    void square_to_rows[T, S](const T* tile, ptrdiff_t left, S** rows, int count)
    Shared[T] of_row[T](const Shared[T]&, int k)
    pair[T] of_row[T](const pair[T]&, int k)
    Log[T] of_row[T](const Log[T]&, int k)
    void fold[T](vec[T]*, int count)
    vec[T] nan_of[T](vec[T])
    vec[T] one_nan[T](vec[T] a, vec[T] like)
    bint has_nan[T](vec[T])

    mask[T] beyond_reach[T](vec[T] max, T c)
    cppclass Term[T]:
        pass
    bunch[T] value[T](const Term[T]&)
    Term[T] shifted_term[T, How, Which](bunch[T] x, const Shared[T]&, How, Which)
    void set_shift[T, How](Shift[T]&, vec[T] max, vec[T] nan, const Factor&, How)
    void set_largest[T, How](Shift[T]&, How)
    void begin[T, Which](Sums[T]&, ptrdiff_t n, Which)
    cppclass Begun "fastsoft::BegunSome"[T]:
        pass
    void begin_terms[T, How, Which](Begun[T]&, const T* x, ptrdiff_t left, const Shared[T]&, How, Which)
    void collect_last[T, How, Which](
        Sums[T]&, const Begun[T]&, const T* x, T* e, bint keep, ptrdiff_t left, const Shared[T]&, How, Which,
        bint many
    )
    cppclass Seam[T]:
        T* at
    void end_seam[T](Seam[T]&)
    cppclass Stage[T]:
        ptrdiff_t first
        int count
        bint waits
        bint holds
        Seam[T]* seam
        ptrdiff_t ahead
        const T** x  # arrays of 16, as in Pass
        T** e
        T** y
        vec[T]* tops
        pair[T] factor
        Shared[T] shared
        Log[T] log
    cppclass Beside[T]:
        const T* following
        ptrdiff_t ahead
        vec[T] top
        const T* from_ "from"
        T* y
        ptrdiff_t room
        Seam[T]* seam
        pair[T] factor
        Shared[T] shared
        Log[T] log
    void end_part[T, How, Which](
        const T* e, T* y, ptrdiff_t left, const pair[T]&, const Log[T]&, const Shared[T]&, How, Which, Seam[T]*
    )
    void end_terms[T, How, Which](
        const T* e, T* y, ptrdiff_t first, ptrdiff_t n, const pair[T]&, const Log[T]&, const Shared[T]&, How, Which,
        Seam[T]*
    )
    ptrdiff_t to_line[S](const S* y, ptrdiff_t n, bint past)
    ptrdiff_t sum_alone[T, How, Which](
        Sums[T]&, Begun[T]&, const T* x, T* e, bint keep, ptrdiff_t i, ptrdiff_t stop, const Shared[T]&, How,
        Which, bint many, ptrdiff_t ahead
    )
    void sum_block[T, How, Which](
        Sums[T]&, const T* x, T* e, ptrdiff_t start, ptrdiff_t stop, ptrdiff_t n, const Shared[T]&, How, Which,
        Beside[T]&
    )
    void finish[T, Which](Sums[T]&, ptrdiff_t n, Which, bint full)
    int few_classes
    void merge[T](Sums[T]&, const Sums[T]&)
    void merge[T, Which](Sums[T]&, const Sums[T]&, Which)
    cppclass TileSums[T]:
        pass
    void begin_tile[T](TileSums[T]&, vec[T]& hi, ptrdiff_t n)
    ptrdiff_t tile_exp_some[T, How](TileSums[T]&, vec[T]& sum, T* x, ptrdiff_t j, ptrdiff_t n, const Shared[T]&, How)
    ptrdiff_t tile_terms_some[T, How, Which](
        const T* x, T* e, ptrdiff_t j, ptrdiff_t n, const Shared[T]&, How, Which
    )
    void tile_lanes_some[T, How, Which](
        Sums[T]*, T* x, bint keep, ptrdiff_t j, ptrdiff_t n, const Shared[T]&, How, Which
    )
    Sums[T] end_tile[T](const TileSums[T]&, vec[T] hi, ptrdiff_t n)
    void sum_of_others[T](const T* terms, const T* x, T* e, ptrdiff_t n, const Shared[T]&, Sums[T]&)
    void fold[T](Sums[T]*, int count, All)
    void fold[T](Sums[T]*, int count, Others)
    void fold_lanes[T, Which](Sums[T]*, ptrdiff_t n, Which)
    void fold_sums[T, Which](Sums[T]*, int count, ptrdiff_t n, Which)
    vec[T] scaled[T](vec[T] e, const pair[T]& r)
    pair[T] reciprocal[T](const Sums[T]&, const Shift[T]&, T empty)
    pair[T] log_of_sum[T](const Sums[T]&, const Shift[T]&)
    void log_of_sums[T](const Sums[T]*, const Shift[T]*, int count, pair[T]* log)
    Log[T] log_shift[T](const pair[T]& log, const Shift[T]&, T empty)
    vec[T] log_sum_exp[T](const pair[T]& log, const Shift[T]&, vec[T] max)

    int run_length
    int many_vecs
    void begin_runs[T](Sums[T]&)
    void add_products[T](vec[T]& run, bunch[T] a, bunch[T] b)
    void add_terms[T](vec[T]& run, bunch[T] a)
    void end_run[T](Sums[T]&, vec[T] run)
    int weighed_run
    vec[T] power_of_two[T](vec[T])
    vec[T] unit_scale[T](vec[T] size)
    vec[T] exponent[T](vec[T])
    vec[T] product_scale[T](vec[T] size)
    Sums[T] scaled_by[T](const Sums[T]&, vec[T] scale)
    void begin_run[T](pair[T]& run)
    void end_run[T](Sums[T]&, const pair[T]& run)
    void add_exactly[T](Sums[T]&, bunch[T])
    bint all_moderate[T](vec[T])
    bint all_finite[T](vec[T])
    void tidy[S](S*, ptrdiff_t n)
    bint is_finite[T](T)
    cppclass Rest[T]:
        pair[T] factor
        pair[T] others
    Rest[T] rest[T](const Sums[T]&, const Shift[T]&)
    ptrdiff_t weigh_some_classes[T, How](
        TileSums[T]& sums, TileSums[T]& dots, vec[T]& sum, vec[T]& dot, T* x, const T* v, ptrdiff_t j, ptrdiff_t n,
        const Shared[T]&, How, vec[T] scale, vec[T] middle
    )
    void sum_of_products[T](const T* y, const T* v, ptrdiff_t n, Sums[T]&, vec[T]& size)
    void sum_of_runs[T](const T* v, ptrdiff_t n, int length, Sums[T]&, vec[T]& size)
    void sum_of_shortfalls[T, How](const T* x, const T* v, ptrdiff_t n, const Shift[T]&, How, Sums[T]&)
    T loss_of[T](T hi, T lo)
    cppclass Vjp[T]:
        pair[T] mean
        pair[T] factor
        vec[T] dominant
        vec[T] gap
    cppclass LogVjp[T]:
        pair[T] factor
        pair[T] minus
        vec[T] up
        vec[T] dominant
    cppclass Loss[T]:
        vec[T] loss
        pair[T] factor
        vec[T] down
        vec[T] special
    cppclass Label[T]:
        vec[T] x
        vec[T] e
        vec[T] weight
    cppclass Pass[T]:
        int what
        int first
        int last
        const T** x
        const T** v
        T** y
        ptrdiff_t n
        const Shift[T]* shift
        const Shared[T]* shared
        T scale[16]
        T middle[16]
        pair[T] mean
        pair[T] factor
        pair[T] minus
        Sums[T]* sums  # arrays of 16, as are these: a declaration of one of a template Cython does not read
        Sums[T]* dots
    void target_sums[T, How](
        const Pass[T]&, How, ptrdiff_t start, ptrdiff_t stop, Sums[T]* weights, Sums[T]* shortfalls
    )
    void map_rows[T, Map](const Pass[T]&, Map, ptrdiff_t start, ptrdiff_t stop)
    void weigh_last[T, How](
        Sums[T]&, pair[T]& run, const Begun[T]&, const T* x, const T* v, T* y, ptrdiff_t left, const Shared[T]&,
        How, T scale, T middle
    )
    ptrdiff_t weigh_steps[T, How](
        Sums[T]&, pair[T]& run, Begun[T]&, const T* x, const T* v, T* y, ptrdiff_t i, ptrdiff_t end,
        ptrdiff_t stop, const Shared[T]&, How, T scale, T middle, ptrdiff_t ahead
    )
    void set_vjp[T](
        Vjp[T]&, const Sums[T]&, const Sums[T]& dot, const Shift[T]&, vec[T] up, vec[T] middle, const Factor&
    )
    void set_log_vjp[T](
        LogVjp[T]&, const Sums[T]&, const Sums[T]& total, const Shift[T]&, vec[T] g_max, vec[T] scale, const Factor&
    )
    void set_label_loss[T, How](
        Loss[T]&, const Sums[T]&, const pair[T]& log, const Shift[T]&, const Label[T]&, double scale, double z_loss,
        const Factor&, bint gradient, How
    )
    void take_labels[T](
        const int64_t* labels, const double* weights, ptrdiff_t count, ptrdiff_t n, vec[T]& label, vec[T]& weight
    )
    void set_target_loss[T](
        Loss[T]&, const Sums[T]&, const pair[T]& log, const Sums[T]& weight, const Sums[T]& shortfall, const Shift[T]&,
        vec[T] a_max, double scale, double z_loss, const Factor&
    )
    vec[T] turned[T](vec[T] e, vec[T] v, T scale, const pair[T]& mean, const pair[T]& factor)
    vec[T] turned_output[T](vec[T] y, vec[T] v, const pair[T]& mean)
    vec[T] less_target[T](vec[T] e, vec[T] a, const pair[T]& factor, T down)
    vec[T] log_turned[T](vec[T] e, vec[T] g, const pair[T]& factor, const pair[T]& minus, T up)
    bunch[T] log_turned[T](bunch[T] e, bunch[T] g, const pair[T]& factor, const pair[T]& minus, T up)
    cppclass LogTurning[T]:
        pass
    LogTurning[T] log_turning[T](const pair[T]& sum)
    mask[T] too_small[T](const pair[T]& sum)
    vec[T] log_turned[T](vec[T] e, vec[T] g, const LogTurning[T]&)
    bunch[T] log_turned[T](bunch[T] e, bunch[T] g, const LogTurning[T]&)
    bunch[T] multiplied[T](bunch[T], T)
    vec[T] minus_product[T](vec[T], vec[T])
    vec[T] times[T](vec[T], vec[T])
    bunch[T] target_log[T](bunch[T] z, bunch[T] t)
    bunch[T] weighed[T](bunch[T] v, T scale, T middle)
    Shift[T] of_row[T](const Shift[T]&, int k)
    T small_scale[T](T)
    vec[T] finite_part[T](vec[T])
    void balance[T](pair[T]& factor, pair[T]& minus, vec[T] scale)
    vec[T] slope_of_largest[T](const Rest[T]&, const Shift[T]&)
    vec[T] own_or_largest_slope[T](vec[T] e, vec[T] y, const Rest[T]&, const Shift[T]&)
    T in_lane[T](const vec[T]&, int k)
    Shared[T] unshifted[T](T)
    vec[T] exp_unshifted[T](vec[T] x, const Shared[T]&)
    pair[T] unshifted_unit[T](T)

    int few_vecs
    int matrix_vecs
    void few_maxima[T](const T** x, int count, ptrdiff_t n, bint size, vec[T]* tops)
    void few_overlapped[T, How, Which](
        const Stage[T]& last, const Stage[T]& now, Stage[T]& next, ptrdiff_t n, bint full, const Shared[T]&, How,
        Which, Sums[T]* total
    )
    void few_weighed[T, How](const Pass[T]&, How, Sums[T]* sums, Sums[T]* dots)
    void few_mapped[T, Map](const Pass[T]&, Map)
    void few_entries[T, S](const T* rows, ptrdiff_t n, ptrdiff_t start, ptrdiff_t stop, T c, S* out, ptrdiff_t ahead)

    ctypedef unsigned int control
    control enter()
    void leave(control)
    int64_t now()

cdef extern from "output.hpp" namespace "fastsoft" nogil:
    cppclass OutputRow[S]:
        const S* y
        const S* v
        S* z
        ptrdiff_t y_apart
        ptrdiff_t v_apart
        ptrdiff_t z_apart
    OutputRow[S] next_row[S](const OutputRow[S]&)
    ptrdiff_t turn_outputs[S, What, Way, T](
        OutputRow[S], ptrdiff_t n, ptrdiff_t count, bint in_turn, What, Way, Seam[T]*
    )
    ptrdiff_t few_outputs[S, What](const OutputRow[S]&, ptrdiff_t n, ptrdiff_t count, What)
    int product_vecs
    pair[T] folded[T](const Sums[T]&)
    void add_runs[T](Sums[T]&, const T* x, const T* v, ptrdiff_t left)
    ptrdiff_t add_steps[T](Sums[T]&, const T* x, const T* v, ptrdiff_t i, ptrdiff_t stop, int between)
    void overlap_steps[T, Way](
        Sums[T]&, const T* next_y, const T* next_v, ptrdiff_t i, ptrdiff_t stop, int between, ptrdiff_t near,
        const T* y, const T* v, T* z, ptrdiff_t end, const pair[T]& mean, Way, Seam[T]*
    )
    void turn_some[T, Way](const T* y, const T* v, T* z, ptrdiff_t left, const pair[T]& mean, Way, Seam[T]*)

cdef extern from "long.hpp" namespace "fastsoft" nogil:
    cppclass Block[T]:
        Sums[T] sums
        vec[T] top
    void add_block[T](Sums[T]& to, const Block[T]&, const Shared[T]& row, bint others)
    Shared[T] block_shift[T, How](Block[T]&, vec[T] top, const Factor&, How)
    Shift[T] row_shift[T, How](vec[T] top, const Factor&, How)
    vec[T] shift_of[T](const Block[T]&, const Shared[T]& row)
    void lower[T](T* e, ptrdiff_t n, vec[T] k)
    void round_factor[T](pair[T]&)
    pair[T] lowered_factor[T](const pair[T]&, T* e, ptrdiff_t n, const Block[T]&, const Shared[T]& row)
    cppclass LongRow[T]:
        const T* x
        T* e
        T* y
        Block[T]* blocks
        ptrdiff_t ahead
        bint past
        bint waits
        Shared[T] shared
        pair[T] factor
        Log[T] log

cdef extern from "lone.hpp" namespace "fastsoft" nogil:
    bint lone_softmax[T](const T* x, T* y, ptrdiff_t n)
    bint lone_log_softmax[T](const T* x, T* y, ptrdiff_t n)
    bint lone_logsumexp[T](const T* x, T* y, ptrdiff_t n)
    bint lone_jacobian[T](const T* x, T* y, ptrdiff_t n, T c)

cdef extern from "narrow.hpp" namespace "fastsoft" nogil:
    int narrow_classes
    cppclass Columns[T]:
        char* first
        ptrdiff_t step
    cppclass Labels[T]:
        const int64_t* label
        const double* weight
        T* loss
        double scale
        double z_loss
    ptrdiff_t narrow_softmax[T](Columns[T] x, Columns[T] out, ptrdiff_t n, ptrdiff_t count)
    ptrdiff_t narrow_log_softmax[T](Columns[T] x, Columns[T] out, ptrdiff_t n, ptrdiff_t count)
    ptrdiff_t narrow_logsumexp[T](Columns[T] x, Columns[T] out, ptrdiff_t n, ptrdiff_t count)
    ptrdiff_t narrow_vjp[T](Columns[T] x, Columns[T] v, Columns[T] out, ptrdiff_t n, ptrdiff_t count)
    ptrdiff_t narrow_losses[T](Columns[T] x, Columns[T] out, ptrdiff_t n, ptrdiff_t count, const Labels[T]&)

cdef extern from "columns.hpp" namespace "fastsoft" nogil:
    int column_vecs
    int long_column_vecs
    int classes_in_lane
    bint vjp_of_output_columns[T](
        Columns[T] y, Columns[T] v, Columns[T] z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bint past,
        bint long_runs, bint far
    )
    bint log_vjp_of_output_columns[T](
        Columns[T] y, Columns[T] v, Columns[T] z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bint past,
        bint long_runs, bint far
    )
    ptrdiff_t vjp_of_few_outputs[T](
        Columns[T] y, Columns[T] v, Columns[T] z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bint past
    )
    ptrdiff_t log_vjp_of_few_outputs[T](
        Columns[T] y, Columns[T] v, Columns[T] z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bint past
    )
    int logit_vecs
    ptrdiff_t vjp_of_columns[T](
        Columns[T] x, Columns[T] v, Columns[T] z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bint past, T* scratch
    )
    ptrdiff_t log_vjp_of_columns[T](
        Columns[T] x, Columns[T] v, Columns[T] z, ptrdiff_t n, ptrdiff_t first, ptrdiff_t columns, bint past, T* scratch
    )

cdef extern from "tally.hpp" namespace "fastsoft" nogil:
    int tally_bins
    int64_t no_bin
    cppclass Tally:
        double max
        int64_t ties
        int64_t top
        int64_t* bin  # an array of tally_bins, as those below
    cppclass Window:
        bint all_near
    cppclass Rank:
        vec[double] second
        vec[double] ties
    cppclass Bins:
        vec[double]* sum
    bint set_window(Window&, double max, double second, const Factor&)
    void rank_some(Rank&, const double* x, ptrdiff_t left, vec[double] max)
    void tally_some[How](Bins&, const double* x, ptrdiff_t left, const Window&, How)
    void tally_far(Bins&, const double* x, ptrdiff_t left, const Window&, const Factor&)
    void add_lanes(Tally&, const Bins&, const Window&)
    void add_tally(Tally&, const Tally&, const Factor&)
    void set_known[How](Shift[double]&, Sums[double]&, const Tally&, const Factor&, How)
    double log_of_all(const Sums[double]&, const Shift[double]&, const Tally&, const Factor&)
    void share_some[How](const double* x, double* y, ptrdiff_t left, const Shared[double]&, const Rest[double]&, How)
    void missing_some[How](const double* x, double* y, ptrdiff_t left, const Shared[double]&, const Rest[double]&, How)
    void log_share_some[How](const double* x, double* y, ptrdiff_t left, const Shared[double]&, const Log[double]&, How)

ctypedef fused floating:  # the types that are computed in
    float
    double

ctypedef fused element:  # the types that arrays hold
    half
    bfloat
    float
    double

ctypedef fused How:  # how x enters exp
    Plain
    Scaled
    Wide

ctypedef fused Within:  # the same of what is within reach
    Plain
    Scaled

ctypedef fused Which:  # which terms a sum takes
    All
    Others

ctypedef fused Terms:  # the same, kept before they are rounded
    All
    Exact
    Others

ctypedef fused Way:  # how a result is written
    Near
    Past

ctypedef fused FromOutput:  # what takes a kept output
    TurnOutput
    LogTurnOutput

ctypedef fused Runs:  # passes that give sums, by runs
    Product
    Dot
    LogTarget

ctypedef fused Map:  # passes that give y
    Turn
    TurnOutput
    Centre
    LogTurn
    Slope
    Times
    DiagonalOf
    TargetSlope
