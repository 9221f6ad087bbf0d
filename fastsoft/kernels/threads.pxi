# Who takes which rows: one thread, several that share the rows, or several that share each row.

cdef enum:
    SERIAL = 65536  # bytes of classes of softmax, in their work type, that one thread does fastest everywhere
    ROW = 96  # bytes that a row is worth besides
    SHARES = 4  # for each thread, each half of what is left: of one that comes late the others can take over
    WHOLE = 131072  # bytes for each thread up to which they stay one

# Where the system gives no more threads, by a limit on processes or for lack of memory for their stacks, OpenMP ends
# the process. Those that it would start are therefore tried first. And it ends those that a region does not ask for,
# to start them again for a later one that does: a region has all that wait for it, with or without a part in the work.
# It is written `with parallel`, and its threads take each their own part. For a `prange` Cython asks that its variable
# be copied in and out, and for that compilers let no thread begin before all have come.
cdef extern from *:
    """
    #if defined(_OPENMP)
      #include <omp.h>
      #include <pthread.h>
      static inline int fs_thread(void) { return omp_get_thread_num(); }
      static inline int fs_threads(void) { return omp_get_num_threads(); }
      static thread_local int fs_team = 1;  /* threads of the last region here, which wait for the next */
      static void *fs_try(void *left) {  /* each starts the next and waits for it: all are there at once */
          pthread_t next;
          if (*(int *)left > 0) {
              --*(int *)left;
              if (pthread_create(&next, 0, fs_try, left)) ++*(int *)left;
              else pthread_join(next, 0);
          }
          return 0;
      }
      static inline int fs_region(int threads, int allowed) {
          int waiting = fs_team < allowed ? fs_team : allowed, left;
          if (threads < waiting) threads = waiting;
          left = threads - fs_team;
          if (left > 0) {
              fs_try(&left);
              threads -= left;
          }
          return fs_team = threads;
      }
      static void fs_forget_team(void) { fs_team = 1; }
    #else
      static inline int fs_thread(void) { return 0; }
      static inline int fs_threads(void) { return 1; }
      static int fs_region(int threads, int allowed) { return threads; }
      static void fs_forget_team(void) {}
    #endif
    """
    int fs_region(int threads, int allowed) noexcept nogil  # of how many the next region is; `threads` are wanted
    void fs_forget_team()
    int fs_thread() noexcept nogil  # which of the region's threads this is,
    int fs_threads() noexcept nogil  # and of how many


cdef inline Py_ssize_t of_thread(Py_ssize_t total, int after) noexcept nogil:
    """Where this thread's part of so many begins, or (after = 1) ends"""
    return total * (fs_thread() + after) // fs_threads()


# A worker whose core is taken by another process comes when the scheduler lets it, milliseconds late, and OpenMP
# waits for it. A region that took far too long therefore keeps the calls of a while on one thread: as long as was lost,
# for it may have been chance, and four times as long where it happens again soon after. Where it always happens, about
# a twentieth of the time is lost.
cdef atomic[int64_t] crowded_until, crowded_for

cdef enum:  # nanoseconds
    LATE = 500000  # that a region may take beyond 1 for each 2 bytes
    SOON = 40000000  # after calls could use all threads again, or as long as they could not
    LONGEST = 2000000000
    AS_LONG = 20  # times what was lost, at most


cdef inline bint crowded() noexcept nogil:
    return now() < crowded_until.load()


cdef inline void note_time(int64_t start, Py_ssize_t work) noexcept nogil:
    cdef int64_t stop = now(), lost = stop - start - work // 2, last = crowded_for.load(), span = lost
    if lost > LATE:
        if start - crowded_until.load() < max(last, <int64_t> SOON):
            span = min(4 * last, AS_LONG * lost)
        span = min(span, <int64_t> LONGEST)
        crowded_for.store(span)
        crowded_until.store(stop + span)


# What a region costs, in nanoseconds, is measured when one might first pay, and when one has more threads than before.
cdef atomic[int64_t] region_cost
cdef atomic[int] region_size

cdef enum:
    CHEAP = 500  # nanoseconds: the bounds of it,
    DEAR = 5000
    GRAIN = 48  # and the bytes of work for each of them that make one thread's part worth it


cdef void measure_region(int threads) noexcept nogil:
    """The least of some that do nothing, unless their threads come late"""
    cdef int64_t first = 0, begun = 0, stop, least = DEAR
    cdef int k
    for k in range(17):
        with parallel(num_threads=threads):
            fs_thread()
        stop = now()
        if k == 0:  # which may have started them
            first = stop
        else:
            least = min(least, stop - begun)
        begun = stop
    if stop - first > LATE:
        note_time(first, 0)
    else:
        region_cost.store(max(least, <int64_t> CHEAP))
        region_size.store(threads)


cdef inline int threads_worth(Py_ssize_t work, int threads) noexcept nogil:
    """How many of the threads so many bytes are worth: one where there are few, or while others come late; or where
    none are given"""
    if work < SERIAL or threads <= 1 or crowded():
        return 1
    if threads > region_size.load():
        threads = fs_region(threads, threads)
        measure_region(threads)
        if crowded():
            return 1
    return <int> max(1, min(threads, work // (GRAIN * region_cost.load())))


cdef inline atomic[int64_t]* taken(char* scratch, Py_ssize_t size, int thread) noexcept nogil:
    """How many of its own shares of a thread have been taken: in the last line of its scratch"""
    return <atomic[int64_t]*> (scratch + (thread + 1) * size - REGISTER)


cdef inline Py_ssize_t left(Py_ssize_t parts, Py_ssize_t taken, Py_ssize_t shares) noexcept nogil:
    """How many of a thread's parts are left once so many shares are taken, each half of what was left before"""
    return parts >> taken if taken < shares else 0


cdef inline Py_ssize_t take(atomic[int64_t]* count, Py_ssize_t parts, Py_ssize_t shares, bint own) noexcept nogil:
    """The next share, which may be empty. The last is left to a thread that has begun: it has to be waited for
    anyway, and its core's cache holds it."""
    cdef Py_ssize_t k = 0 if own else count.load()
    if k > 0 and left(parts, k + 1, shares) == 0:
        return shares
    return count.fetch_add(1)


cdef inline Py_ssize_t work_of(const Batch* b, Py_ssize_t rows, Py_ssize_t worksize) noexcept nogil:
    """How much so many rows are, in bytes of classes of softmax"""
    cdef Py_ssize_t classes = b.n * worksize
    if b.op.kind >= VJP_FROM_OUTPUT:  # no exponentials
        classes //= 2
    elif b.op.kind >= VJP:  # and sums of products
        classes *= 2
    return rows * (classes + ROW)


cdef void take_shares(
    const Batch* b, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t step, Py_ssize_t shares, int thread, int threads,
    char* scratch, Py_ssize_t size, element* unused
) noexcept nogil:
    """A thread's own shares, which its core's cache may still hold from the last call, and then what others leave"""
    cdef Py_ssize_t parts = (stop - start + step - 1) // step, first, last, own, k
    cdef int other, owner
    for other in range(threads):
        owner = (thread + other) % threads
        last = parts * (owner + 1) // threads
        own = last - parts * owner // threads
        while True:
            k = take(taken(scratch, size, owner), own, shares, other == 0)
            if left(own, k, shares) == 0:
                break
            first = start + (last - left(own, k, shares)) * step
            run(
                b, first, min(start + (last - left(own, k + 1, shares)) * step, stop), scratch + thread * size, unused
            )


cdef void run_shared(
    const Batch* b, Py_ssize_t start, Py_ssize_t stop, Py_ssize_t work, int threads, int region, char* scratch,
    Py_ssize_t size, element* unused
) noexcept nogil:
    """Rows start .. stop shared evenly among so many threads of a region; where it can be, by whole groups"""
    cdef Py_ssize_t step = rows_at_once(b, unused), shares = SHARES if work > WHOLE * threads else 1
    cdef int t
    if stop - start < step * threads:
        step = 1
    for t in range(threads):
        taken(scratch, size, t).store(0, memory_order_relaxed)  # OpenMP passes on what was written before a region
    with parallel(num_threads=region):
        for t from fs_thread() <= t < threads by fs_threads():  # one for several where OpenMP gives fewer
            take_shares(b, start, stop, step, shares, t, threads, scratch, size, unused)


cdef void run_split(
    const Batch* b, Py_ssize_t start, Py_ssize_t stop, char* scratch, const Team* team, element* unused
) noexcept nogil:
    """Rows start .. stop one after the other, each shared among the team"""
    cdef control state = enter()
    cdef Py_ssize_t i
    for i in range(start, stop):
        if element is double:
            some_rows[double, element](b, i, 1, <double*> scratch, unused, team)
        else:
            some_rows[float, element](b, i, 1, <float*> scratch, unused, team)
    leave(state)


cdef int run_all(
    const Batch* b, Py_ssize_t start, Py_ssize_t stop, int threads, element* unused
) noexcept nogil:
    """Rows start .. stop on at most `threads` threads; -1 where there is no memory for it"""
    cdef Py_ssize_t worksize = sizeof(double) if element is double else sizeof(float)
    cdef Py_ssize_t rows = stop - start, work = work_of(b, rows, worksize)
    cdef Py_ssize_t size = scratch_size(b, worksize, unused)
    cdef Team team
    cdef char[4096 + REGISTER] small
    cdef char* memory = small
    cdef char* scratch
    cdef bint split
    cdef int64_t begun
    cdef int allowed = threads, region
    start = run_lone(b, start, stop, unused)
    if start == stop:
        return 0
    threads = threads_worth(work, threads)
    split = threads > 1 and rows < threads and not by_tiles(b, sizeof(element))
    if threads > rows and not split:
        threads = <int> rows
    size = (size + REGISTER - 1) // REGISTER * REGISTER
    team.blocks = blocks_in(b.n)
    if split:  # a block gives two sums of three vecs at most
        size += 6 * REGISTER * team.blocks
    elif threads > 1:
        size += REGISTER  # how many shares are taken; and no two threads in one line
    if size * (1 if split else threads) > 4096:
        memory = <char*> malloc(size * (1 if split else threads) + REGISTER)
        if memory == NULL:
            return -1
    scratch = memory + (-<uintptr_t> memory) % REGISTER
    if threads > 1:
        region = team.threads = fs_region(threads, allowed)  # once all memory has been taken
        threads = min(threads, region)
        split = split and threads > 1
    begun = now() if threads > 1 else 0
    if split:
        team.parts = scratch + size - 6 * REGISTER * team.blocks  # for a long row a Block each
        run_split(b, start, stop, scratch, &team, unused)
    elif threads > 1:
        run_shared(b, start, stop, work, threads, region, scratch, size, unused)
    else:
        run(b, start, stop, scratch, unused)
    if threads > 1:
        note_time(begun, work)
    if memory != small:
        free(memory)
    return 0
