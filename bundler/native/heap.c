/*
 * JavaScript's heap: tens of thousands of small pieces in the first moments, which malloc() takes a quarter of the
 * program's instructions for. Here a piece of up to 512 bytes is one of a page of equal pieces:
 *
 *     page    0       32                                     4096
 *             +-------+---------+---------+-- - - --+---------+
 *             | head  | piece   | piece   |         | piece   |
 *             +-------+---------+---------+-- - - --+---------+
 *
 * so that taking one and giving it back is a list's head, and no piece has a head of its own. A page whose pieces have
 * all come back serves any size again. Larger pieces, a hundredth of all, are malloc()'s, and so is everything when
 * the pages are used up. One thread: the runtime's.
 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "native.h"

enum { page_size = 4096, step = 16, region_size = 24 << 20 };
#ifdef HEAP_OF_MALLOC
/* The sanitizers see what becomes of a piece only where each one is malloc()'s. */
enum { largest = 0 };
#else
enum { largest = 512 };
#endif

struct piece {
    struct piece *next;
};

struct page {
    struct piece *free;
    struct page *next, **link; /* in the list of its size's pages with free pieces, or of empty pages */
    uint16_t size, used;
};
enum { head_size = 32 };
_Static_assert(sizeof(struct page) <= head_size && head_size % step == 0, "pieces are aligned as malloc()'s");

static struct {
    char *start, *untouched, *end; /* of the region */
    struct page *partial[largest / step + 1];
    struct page *empty;
    size_t in_use;
} heap;

static void link_page(struct page **list, struct page *page)
{
    page->next = *list;
    page->link = list;
    if (page->next)
        page->next->link = &page->next;
    *list = page;
}

static void unlink_page(struct page *page)
{
    *page->link = page->next;
    if (page->next)
        page->next->link = page->link;
}

/* A page of pieces of that size, or NULL. */
static struct page *new_page(size_t size)
{
    struct page *page = heap.empty;
    if (page) {
        unlink_page(page);
    } else {
        if (heap.untouched == heap.end)
            return NULL;
        page = (struct page *)heap.untouched;
        heap.untouched += page_size;
    }
    page->free = NULL;
    page->size = size;
    page->used = 0;
    for (size_t at = head_size + (page_size - head_size) / size * size; at > head_size;) {
        at -= size;
        struct piece *piece = (struct piece *)((char *)page + at);
        piece->next = page->free;
        page->free = piece;
    }
    link_page(&heap.partial[size / step], page);
    return page;
}

static inline int is_small(const void *p)
{
    return (uintptr_t)p - (uintptr_t)heap.start < (uintptr_t)(heap.end - heap.start);
}

static inline struct page *page_of(const void *p)
{
    return (struct page *)((uintptr_t)p & ~(uintptr_t)(page_size - 1));
}

static size_t usable_size(const void *p)
{
    if (is_small(p))
        return page_of(p)->size;
    return malloc_usable_size((void *)p);
}

static inline void *take(size_t size)
{
    if (size > largest)
        return malloc(size);
    size_t class = (size + step - 1) / step;
    struct page *page = heap.partial[class];
    if (!page && !(page = new_page(class * step)))
        return malloc(size);
    struct piece *piece = page->free;
    page->free = piece->next;
    page->used++;
    if (!page->free)
        unlink_page(page);
    return piece;
}

static inline void give_back(void *p)
{
    if (!is_small(p)) {
        free(p);
        return;
    }
    struct page *page = page_of(p);
    struct piece *piece = p;
    int was_full = !page->free;

    piece->next = page->free;
    page->free = piece;
    page->used--;
    if (was_full)
        link_page(&heap.partial[page->size / step], page);
    /* Its size's last page stays, or one piece that comes and goes would make it anew each time. */
    if (!page->used && (page->next || page->link != &heap.partial[page->size / step])) {
        unlink_page(page);
        link_page(&heap.empty, page);
    }
}

/* Beside a piece's own size, as QuickJS counts by itself. */
enum { overhead = 8 };

static void *piece_malloc(JSMallocState *state, size_t size)
{
    if (state->malloc_size + size > state->malloc_limit)
        return NULL;
    void *p = take(size);
    if (p) {
        state->malloc_count++;
        state->malloc_size += usable_size(p) + overhead;
        heap.in_use = state->malloc_size;
    }
    return p;
}

static void piece_free(JSMallocState *state, void *p)
{
    if (!p)
        return;
    state->malloc_count--;
    state->malloc_size -= usable_size(p) + overhead;
    heap.in_use = state->malloc_size;
    give_back(p);
}

static void *piece_realloc(JSMallocState *state, void *p, size_t size)
{
    if (!p)
        return size ? piece_malloc(state, size) : NULL;
    if (!size) {
        piece_free(state, p);
        return NULL;
    }
    size_t old = usable_size(p);
    int moves = is_small(p) || size <= largest;

    if (is_small(p) && size <= old && size + step > old)
        return p;
    if (state->malloc_size + size - old > state->malloc_limit)
        return NULL;
    void *q = moves ? take(size) : realloc(p, size);
    if (!q)
        return NULL;
    state->malloc_size += usable_size(q) - old;
    heap.in_use = state->malloc_size;
    if (moves) {
        memcpy(q, p, old < size ? old : size);
        give_back(p);
    }
    return q;
}

JSRuntime *heap_new_runtime(void)
{
    static const JSMallocFunctions functions = {piece_malloc, piece_free, piece_realloc, usable_size};

    if (largest) {
        /* A reservation. Where the kernel refuses, all is malloc()'s. */
        void *region =
            mmap(NULL, region_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (region != MAP_FAILED) {
            heap.start = heap.untouched = region;
            heap.end = heap.start + region_size;
        }
    }
    return JS_NewRuntime2(&functions, NULL);
}

size_t heap_in_use(void)
{
    return heap.in_use;
}

static void populate(void *start, void *end)
{
    madvise(start, (char *)end - (char *)start, MADV_POPULATE_WRITE);
}

void heap_prepare(size_t small, size_t large)
{
    if (heap.start)
        populate(heap.start, heap.start + small);
    /* malloc() grows by more than it needs, and keeps that. */
    mallopt(M_TOP_PAD, large);
    void *first = malloc(96 << 10), *second = malloc(96 << 10);
    void *end = sbrk(0);
    if (first && end != (void *)-1)
        populate(page_of(first), end);
    free(second);
    free(first);
    mallopt(M_TOP_PAD, 64 << 10);
}
