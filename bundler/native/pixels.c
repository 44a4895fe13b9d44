/* See pixels.h. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pixels.h"

static int32_t min(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* The first of `to` target positions that takes its pixel from source position `at` of `from` or later. */
static int32_t first_target(int32_t at, int32_t from, int32_t to)
{
    return ((int64_t)at * to + from - 1) / from;
}

/* The source position of target position `at`: the nearest one below. */
static int32_t source_of(int32_t at, int32_t from, int32_t to)
{
    return (int64_t)at * from / to;
}

void pixels_open(struct pixels *p, int socket)
{
    p->socket = socket;
    p->start = p->end = 0;
    memset(&p->plan, 0, sizeof p->plan);
    p->row = 0;
    p->spent = 0;
}

/* Receives what there is into the free part of the buffer; done when it brought anything. */
static int receive(struct pixels *p)
{
    if (p->start > 0) {
        memmove(p->buffer, p->buffer + p->start, p->end - p->start);
        p->end -= p->start;
        p->start = 0;
    }
    for (;;) {
        ssize_t got = recv(p->socket, p->buffer + p->end, sizeof p->buffer - p->end, MSG_DONTWAIT);
        if (got > 0) {
            p->end += got;
            return pixels_done;
        }
        if (got == 0)
            return pixels_end;
        if (errno == EAGAIN)
            return pixels_wait;
        if (errno != EINTR)
            return -errno;
    }
}

int pixels_take(struct pixels *p, uint8_t *into, size_t size)
{
    if (size > pixels_band_size)
        return -EINVAL;
    while (p->end - p->start < size) {
        int result = receive(p);
        if (result != pixels_done)
            return result;
    }
    memcpy(into, p->buffer + p->start, size);
    p->start += size;
    return pixels_done;
}

static int is_side(int32_t length)
{
    return length >= 1 && length <= pixels_longest_side;
}

int pixels_begin(struct pixels *p, const struct pixels_plan *plan)
{
    const struct pixels_plan *q = plan;

    if (!is_side(q->source_width) || !is_side(q->source_height) || q->size < 0 ||
        q->width < 1 || q->width > q->source_width || q->height < 1 || q->height > q->source_height ||
        q->left < 0 || q->top < 0 || q->left > pixels_longest_side || q->top > pixels_longest_side ||
        q->stride < (q->left + q->width) * pixel_size || q->stride > pixels_band_size ||
        (int64_t)(q->top + q->height) * q->stride > q->size ||
        q->rect_x < 0 || q->rect_y < 0 || q->rect_width < 0 || q->rect_height < 0 ||
        q->rect_x > UINT16_MAX || q->rect_y > UINT16_MAX ||
        q->rect_width > pixels_longest_side || q->rect_height > UINT16_MAX)
        return -EINVAL;
    p->plan = *plan;
    p->row = q->rect_width == 0 ? q->rect_height : 0;
    return 0;
}

static int write_out(int fd, const uint8_t *data, size_t size, int64_t at)
{
    while (size > 0) {
        ssize_t done = pwrite(fd, data, size, at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? -errno : -EIO;
        data += done;
        at += done;
        size -= done;
    }
    return 0;
}

static void copy_row(uint32_t *to, const uint8_t *from, const struct pixels_plan *q, int32_t first, int32_t count)
{
    if (q->width == q->source_width) {
        memcpy(to, from + (first - q->rect_x) * pixel_size, count * pixel_size);
        return;
    }
    for (int32_t i = 0; i < count; i++) {
        int32_t column = source_of(first + i, q->source_width, q->width) - q->rect_x;
        memcpy(to + i, from + column * pixel_size, pixel_size);
    }
}

/*
 * Writes `rows` whole rows of the rectangle that lie in the buffer. Each pwrite(2) to fbfront costs a system
 * call and an event to dom0, so rows that reach from side to side go out together, the bars beside them
 * (black) included; as they came, where they need no change.
 */
static int write_rows(struct pixels *p, const uint8_t *from, int32_t rows)
{
    const struct pixels_plan *q = &p->plan;
    int32_t right = min(q->rect_x + q->rect_width, q->source_width);
    if (q->rect_x >= right)
        return 0;
    int32_t first = first_target(q->rect_x, q->source_width, q->width);
    int32_t count = first_target(right, q->source_width, q->width) - first;
    if (count <= 0)
        return 0;

    int whole = count == q->width;
    size_t piece = whole ? (size_t)q->stride : (size_t)count * pixel_size;
    size_t indent = whole ? (size_t)q->left * pixel_size : 0;
    int64_t column = whole ? 0 : (int64_t)(q->left + first) * pixel_size;
    int32_t capacity = whole ? (int32_t)(sizeof p->band / piece) : 1;
    int32_t y = q->rect_y + p->row;
    int32_t end = min(y + rows, q->source_height);
    if (whole && q->rect_width == q->width && q->width == q->source_width && q->height == q->source_height &&
        q->stride == q->width * pixel_size)
        return y < end ? write_out(q->framebuffer, from, (end - y) * piece, (int64_t)(q->top + y) * q->stride) : 0;
    if (whole && piece > (size_t)count * pixel_size)
        memset(p->band, 0, capacity * piece);

    int32_t target = first_target(min(y, end), q->source_height, q->height);
    int32_t target_end = first_target(end, q->source_height, q->height);
    while (target < target_end) {
        int32_t batch = min(capacity, target_end - target);
        for (int32_t i = 0; i < batch; i++) {
            int32_t row = source_of(target + i, q->source_height, q->height) - y;
            copy_row((uint32_t *)(p->band + i * piece + indent),
                     from + (size_t)row * q->rect_width * pixel_size, q, first, count);
        }
        int failed = write_out(q->framebuffer, p->band, batch * piece,
                               (int64_t)(q->top + target) * q->stride + column);
        if (failed)
            return failed;
        target += batch;
    }
    return 0;
}

int pixels_draw(struct pixels *p)
{
    const struct pixels_plan *q = &p->plan;
    size_t row_size = (size_t)q->rect_width * pixel_size;
    /* What a row costs, as write_rows() writes it. */
    int whole = q->rect_x == 0 && q->rect_width >= q->source_width;
    size_t least = whole ? (size_t)q->stride : pixels_row_cost;
    size_t cost = row_size > least ? row_size : least;

    while (p->row < q->rect_height) {
        if (p->spent >= pixels_budget) {
            p->spent = 0;
            return pixels_more;
        }
        size_t ready = (p->end - p->start) / row_size;
        if (ready == 0) {
            int result = receive(p);
            if (result == pixels_wait)
                p->spent = 0;
            if (result != pixels_done)
                return result;
            continue;
        }
        int32_t affordable = (pixels_budget - p->spent + cost - 1) / cost;
        int32_t rows = min(min((int32_t)ready, affordable), q->rect_height - p->row);
        int failed = write_rows(p, p->buffer + p->start, rows);
        if (failed)
            return failed;
        p->row += rows;
        p->start += rows * row_size;
        p->spent += rows * cost;
    }
    return pixels_done;
}

int pixels_clear(struct pixels *p, int framebuffer, size_t size)
{
    memset(p->band, 0, sizeof p->band);
    for (size_t at = 0; at < size; at += sizeof p->band) {
        size_t piece = size - at < sizeof p->band ? size - at : sizeof p->band;
        int failed = write_out(framebuffer, p->band, piece, at);
        if (failed)
            return failed;
    }
    return 0;
}
