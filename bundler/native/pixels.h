/*
 * Pixels from a socket to a framebuffer: the one loop over every pixel, without anything of QuickJS, so that
 * test/native/ can run it under the sanitizers.
 *
 * The sender is not trusted. Whatever it sends, reads and writes stay inside `buffer` and `band`, and every
 * byte that is written lies inside the view, which pixels_begin() has checked against the framebuffer.
 */
#ifndef STUBDOM_PIXELS_H
#define STUBDOM_PIXELS_H

#include <stddef.h>
#include <stdint.h>

enum {
    pixel_size = 4, /* bytes: one format only, 32 bits as the framebuffer has them */
    pixels_buffer_size = 256 << 10,
    pixels_band_size = 64 << 10,
    /* Longest side of a screen; a row must fit into the band, and so into the buffer. */
    pixels_longest_side = pixels_band_size / pixel_size,
    /* Bytes after which pixels_draw() lets the rest of the program run. */
    pixels_budget = 1 << 20,
    /* A row that is a write of its own counts as so many at least: a system call, and an event to dom0. */
    pixels_row_cost = 4 << 10,
};

/* What the calls below return; negative is -errno. */
enum pixels_result { pixels_end = 0, pixels_done = 1, pixels_wait = 2, pixels_more = 3 };

/* All in pixels, but for the stride and the size. */
struct pixels_plan {
    int32_t framebuffer; /* descriptor, written with pwrite(2) */
    int32_t stride, size; /* of the framebuffer, in bytes */
    int32_t source_width, source_height; /* the screen that the rectangle is part of */
    int32_t left, top, width, height; /* where that whole screen goes; never larger than the source */
    int32_t rect_x, rect_y, rect_width, rect_height;
};

struct pixels {
    int socket;
    size_t start, end; /* what of `buffer` was received and not taken */
    struct pixels_plan plan;
    int32_t row; /* of the rectangle: the next one */
    size_t spent; /* of the budget, by however many rectangles since others had their turn */
    _Alignas(8) uint8_t buffer[pixels_buffer_size];
    _Alignas(8) uint8_t band[pixels_band_size]; /* rows of the framebuffer under construction */
};

void pixels_open(struct pixels *p, int socket);

/* Fills `into` whole (done), or takes nothing (wait, end, error). Size: at most pixels_band_size. */
int pixels_take(struct pixels *p, uint8_t *into, size_t size);

/* Starts a rectangle; its pixels are what the socket brings next. 0 or -EINVAL. */
int pixels_begin(struct pixels *p, const struct pixels_plan *plan);

/*
 * Draws what has arrived of the rectangle: done, wait (for the socket), more (call again, soon), end, or
 * -errno. What lies outside of the source screen is dropped.
 */
int pixels_draw(struct pixels *p);

/* Writes zeros, black, to the first `size` bytes; 0 or -errno. */
int pixels_clear(struct pixels *p, int framebuffer, size_t size);

#endif
