"""Memory for results that are not small.

Large ones: in huge pages, and kept for the next result when one is freed. A new array beyond the heap is mapped page
by page as it is written, which takes longer than to compute it. What is kept here is marked as free (MADV_FREE): the
system takes it back when it needs it, and until then its pages are there for the next result. But not the block that
was freed last, unless it is very large: marking goes through all of its pages, and the result that takes them has to
enter them again; measured on two threads that is up to 1.4 times as long.

Others: from the heap, but from the start of a line on, so that no load of a register need cross two. NumPy's own begin
16 bytes later. They are kept likewise, but not marked: where a few results are freed together, the heap may shrink, and
would grow again for the next ones, page by page.
"""
cimport numpy as cnp

import numpy as np

cnp.import_array()

cdef extern from *:
    """
    #include <atomic>
    #include <cstdint>
    #include <cstdlib>
    #include <cstring>
    #if defined(__linux__)
      #include <sys/mman.h>
      static void *fs_map(size_t size) {
          void *p = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
          if (p == MAP_FAILED) return 0;
          madvise(p, size, MADV_HUGEPAGE);
          return p;
      }
      static void fs_use_huge(char *p, size_t size) {  /* of the pages that begin in it */
          const size_t before = 4095 - ((uintptr_t)p + 4095) % 4096;
          madvise(p + before, size - before, MADV_HUGEPAGE);
      }
      static void fs_unmap(void *p, size_t size) { munmap(p, size); }
      static void fs_mark_free(char *p, size_t size) {  /* of its pages, which have 64 KB at most */
          const size_t before = 65535 - ((uintptr_t)p + 65535) % 65536;
          madvise(p + before, size - before, MADV_FREE);
      }
      static const int fs_pool = 1;
    #else
      static void *fs_map(size_t size) { return malloc(size); }
      static void fs_use_huge(char *, size_t) {}
      static void fs_unmap(void *p, size_t) { free(p); }
      static void fs_mark_free(char *, size_t) {}
      static const int fs_pool = 0;
    #endif

    enum { FS_SLOTS = 4, FS_HEAD = 4096, FS_HUGE = 2 << 20 };
    static const size_t fs_largest = (size_t)256 << 20, fs_largest_line = 4 << 20;  /* that are kept */
    struct fs_head { void *raw; size_t size; };  /* before what NumPy sees: where the block begins, the bytes after */
    static fs_head *fs_head_of(void *p) { return (fs_head *)p - 1; }

    template <void give_back(fs_head *)> struct fs_kept {  /* the blocks that were freed last */
        std::atomic<fs_head *> slot[FS_SLOTS];
        fs_head *take(size_t size) {
            for (auto &s : slot) {
                fs_head *b = s.exchange(0);
                if (b && b->size >= size && b->size / 2 <= size) return b;
                if (b && (b = s.exchange(b))) give_back(b);  /* another thread's has come between */
            }
            return 0;
        }
        void put(fs_head *b) {
            for (auto &s : slot)
                if (!(b = s.exchange(b))) return;
            give_back(b);  /* the oldest falls out */
        }
        void drop() {
            for (auto &s : slot)
                if (fs_head *b = s.exchange(0)) give_back(b);
        }
    };
    static void fs_unmap_block(fs_head *b) { fs_unmap(b->raw, b->size + FS_HEAD); }
    static void fs_free_line(fs_head *b) { free(b->raw); }
    static fs_kept<fs_unmap_block> fs_blocks;
    static fs_kept<fs_free_line> fs_line_blocks;

    /* What was freed last, unless it is very large, is not marked. */
    static const size_t fs_largest_last = (size_t)128 << 20;
    static std::atomic<fs_head *> fs_last;
    static void fs_put(fs_head *b) {
        if (b->size <= fs_largest_last && !(b = fs_last.exchange(b))) return;
        fs_mark_free((char *)(b + 1), b->size);  /* the head is still read */
        fs_blocks.put(b);
    }
    static fs_head *fs_take(size_t size) {
        fs_head *b = fs_last.exchange(0);
        if (b && b->size >= size && b->size / 2 <= size) return b;
        if (b) fs_put(b);
        return fs_blocks.take(size);
    }
    static void fs_drop_kept(void) {
        if (fs_head *b = fs_last.exchange(0)) fs_unmap_block(b);
        fs_blocks.drop();
        fs_line_blocks.drop();
    }

    static void *fs_malloc(void *, size_t size) {
        if (size > SIZE_MAX / 2) return 0;
        if (fs_head *b = fs_take(size)) return b + 1;
        const size_t need = (size + FS_HEAD + FS_HUGE - 1) / FS_HUGE * FS_HUGE;
        char *raw = (char *)fs_map(need);
        if (!raw) {
            fs_drop_kept();
            raw = (char *)fs_map(need);
        }
        if (!raw) return 0;
        *fs_head_of(raw + FS_HEAD) = {raw, need - FS_HEAD};
        return raw + FS_HEAD;
    }
    static void fs_free(void *, void *p, size_t) {
        if (!p) return;
        fs_head *b = fs_head_of(p);
        if (!fs_pool || b->size > fs_largest) return fs_unmap_block(b);
        fs_put(b);
    }
    static void *fs_line_malloc(void *, size_t size) {  /* aligned_alloc would map anew for each result of some sizes */
        if (size > SIZE_MAX / 2) return 0;
        if (size <= fs_largest_line)
            if (fs_head *b = fs_line_blocks.take(size)) return b + 1;
        void *raw = malloc(size + sizeof(fs_head) + 63);
        if (!raw) {
            fs_drop_kept();
            raw = malloc(size + sizeof(fs_head) + 63);
        }
        if (!raw) return 0;
        char *p = (char *)(((uintptr_t)raw + sizeof(fs_head) + 63) / 64 * 64);
        *fs_head_of(p) = {raw, size};
        if (size >= 2 * FS_HUGE) fs_use_huge(p, size);
        return p;
    }
    static void fs_line_free(void *, void *p, size_t) {
        if (!p) return;
        fs_head *b = fs_head_of(p);
        if (b->size <= fs_largest_line) fs_line_blocks.put(b);
        else fs_free_line(b);
    }

    template <void *new_block(void *, size_t)> void *fs_calloc(void *, size_t count, size_t size) {
        if (size && count > SIZE_MAX / 2 / size) return 0;
        void *p = new_block(0, count * size);
        return p ? memset(p, 0, count * size) : 0;
    }
    template <void *new_block(void *, size_t), void old_block(void *, void *, size_t)>
    void *fs_realloc(void *, void *p, size_t size) {  /* numpy.ndarray.resize */
        void *q = new_block(0, size);
        if (q && p) {
            const size_t old = fs_head_of(p)->size;
            memcpy(q, p, old < size ? old : size);
            old_block(0, p, 0);
        }
        return q;
    }
    static PyDataMem_Handler fs_handler = {
        "fastsoft", 1, {0, fs_malloc, fs_calloc<fs_malloc>, fs_realloc<fs_malloc, fs_free>, fs_free}};
    static PyDataMem_Handler fs_lines = {
        "fastsoft_lines", 1,
        {0, fs_line_malloc, fs_calloc<fs_line_malloc>, fs_realloc<fs_line_malloc, fs_line_free>, fs_line_free}};
    """
    ctypedef struct PyDataMem_Handler:
        pass
    PyDataMem_Handler fs_handler, fs_lines
    void fs_drop_kept()
    object PyDataMem_SetHandler(object handler)
    object PyCapsule_New(void* pointer, const char* name, void* destructor)

_handler = PyCapsule_New(&fs_handler, "mem_handler", NULL)
lines = PyCapsule_New(&fs_lines, "mem_handler", NULL)  # the kernels' short ways take it


def empty(tuple shape not None, dtype, bint large=True):
    """numpy.empty for an array that is large, or else not small; it owns its memory as any other does"""
    previous = PyDataMem_SetHandler(_handler if large else lines)
    try:
        return np.empty(shape, dtype)
    finally:
        PyDataMem_SetHandler(previous)


def release():
    """Give back the memory that is kept"""
    fs_drop_kept()
