/*
 * Tests of bundler/native/heap.c as it is in the program; the suite has a heap of malloc()'s, in which the sanitizers see
 * more.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cases.h"
#include "heap.c"

static JSMallocFunctions functions;
static JSMallocState state = {.malloc_limit = SIZE_MAX};

/* In the place of QuickJS. */
JSRuntime *JS_NewRuntime2(const JSMallocFunctions *given, void *opaque)
{
    (void)opaque;
    functions = *given;
    return NULL;
}

static void *get(size_t size)
{
    return functions.js_malloc(&state, size);
}

static void give(void *p)
{
    functions.js_free(&state, p);
}

static size_t pages_touched(void)
{
    return (heap.untouched - heap.start) / page_size;
}

static void any_mix(void)
{
    enum { pieces = 3000 };
    static struct {
        unsigned char *at;
        size_t size;
        unsigned char fill;
    } held[pieces];
    uint32_t random = 1;

    for (int turn = 0; turn < 300000; turn++) {
        random = random * 1664525 + 1013904223;
        int n = (random >> 8) % pieces;
        size_t size = 1 + (random >> 20) % (random & 64 ? 64 : 1500);
        for (size_t i = 0; i < held[n].size; i++)
            HOLDS(held[n].at[i] == held[n].fill);
        if (held[n].at && random & 128) {
            held[n].at = functions.js_realloc(&state, held[n].at, size);
            for (size_t i = 0; i < size && i < held[n].size; i++)
                HOLDS(held[n].at[i] == held[n].fill);
        } else {
            give(held[n].at);
            held[n].at = get(size);
        }
        HOLDS(held[n].at && (uintptr_t)held[n].at % step == 0);
        HOLDS(functions.js_malloc_usable_size(held[n].at) >= size);
        held[n].size = functions.js_malloc_usable_size(held[n].at);
        held[n].fill = turn;
        memset(held[n].at, held[n].fill, held[n].size);
    }
    for (int n = 0; n < pieces; n++)
        give(held[n].at);
    HOLDS(state.malloc_count == 0 && state.malloc_size == 0 && heap_in_use() == 0);
}

static void pages_serve_again(void)
{
    enum { pieces = 5000 };
    static void *held[pieces];

    for (size_t size = 16, most = 0; size <= largest; size += 16) {
        size_t bytes = 0;
        for (int n = 0; n < pieces; n++, bytes += size)
            held[n] = bytes < 1 << 20 ? get(size) : NULL;
        /* What one size had is the next one's. */
        if (size == 16)
            most = pages_touched();
        else if (size > 256)
            HOLDS(pages_touched() <= (1 << 20) / page_size * 5 / 4 + largest / step);
        HOLDS(pages_touched() >= most);
        for (int n = 0; n < pieces; n++)
            give(held[(n * 7 + 3) % pieces]);
    }
}

static void one_piece_keeps_its_page(void)
{
    void *first = get(100);
    size_t touched = pages_touched();

    for (int n = 0; n < 1000; n++) {
        give(first);
        HOLDS(get(100) == first);
    }
    HOLDS(pages_touched() == touched);
    give(first);
}

static void limit_holds(void)
{
    state.malloc_limit = 10000;
    void *p = get(5000);
    HOLDS(p && !get(5000));
    p = functions.js_realloc(&state, p, 9000);
    HOLDS(p && !get(2000) && !functions.js_realloc(&state, p, 11000));
    HOLDS(state.malloc_count == 1 && state.malloc_size >= 9000);
    give(p);
}

static void other_sizes(void)
{
    HOLDS(functions.js_realloc(&state, NULL, 0) == NULL);
    char *p = functions.js_realloc(&state, NULL, 10);
    strcpy(p, "piece");
    HOLDS(functions.js_realloc(&state, p, 16) == p && functions.js_realloc(&state, p, 3) == p);
    p = functions.js_realloc(&state, p, 100000);
    HOLDS(!strcmp(p, "piece"));
    p = functions.js_realloc(&state, p, 300000);
    p = functions.js_realloc(&state, p, 30);
    HOLDS(!strcmp(p, "piece") && functions.js_malloc_usable_size(p) == 32);
    HOLDS(functions.js_realloc(&state, p, 0) == NULL);
    give(NULL);
    HOLDS(state.malloc_count == 0 && state.malloc_size == 0);
}

static void used_up(void)
{
    enum { pieces = region_size / largest + 1000 };
    static void *held[pieces];

    for (int n = 0; n < pieces; n++) {
        held[n] = get(largest);
        HOLDS(held[n]);
        memset(held[n], n, largest);
    }
    HOLDS(heap.untouched == heap.end && !is_small(held[pieces - 1]));
    for (int n = 0; n < pieces; n++)
        give(held[n]);
    HOLDS(is_small(get(16)));
}

static void prepared(void)
{
    heap_prepare(256 << 10, 128 << 10);
    for (size_t at = 0; at < 256 << 10; at += page_size)
        HOLDS(heap.start[at] == 0);
    any_mix();
}

static const struct test_case tests[] = {
    {"any mix keeps what is in its pieces", any_mix},
    {"pages whose pieces came back serve any size", pages_serve_again},
    {"a piece that comes and goes keeps its page", one_piece_keeps_its_page},
    {"the limit holds", limit_holds},
    {"nothing, more, less", other_sizes},
    {"malloc() helps out", used_up},
    {"prepared memory", prepared},
};

int main(int argc, char **argv)
{
    heap_new_runtime();
    return run_case("heap", tests, sizeof tests / sizeof *tests, argc, argv);
}
