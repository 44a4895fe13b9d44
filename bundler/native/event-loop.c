/*
 * The event loop: epoll over the descriptors that JavaScript watches, one timer deadline, and the queue of
 * promise jobs. Each ready descriptor gets one call a round, so that no peer, however busy, starves another.
 */
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "native.h"

enum { events_a_round = 16, readable = 1, writable = 2 };

struct watch {
    JSValue on_readable, on_writable;
    /* Tells a handler registered during this round from the one whose event is being delivered. */
    uint32_t generation;
    uint8_t mask;
};

struct rejection {
    struct rejection *next;
    JSValue promise, reason;
};

static struct {
    int epoll;
    struct watch *watches; /* indexed by descriptor */
    int watches_size;
    int watched;
    uint32_t generation;
    double deadline; /* CLOCK_BOOTTIME ms, < 0: none */
    int timer;       /* a timerfd */
    double armed;    /* what it is set to; NaN once it has gone off, until it is set again */
    JSValue on_timer, on_uncaught;
    struct rejection *rejections;
} loop = {.epoll = -1, .deadline = -1, .timer = -1, .armed = -1};

/* In the place of a descriptor and its generation. */
static const uint64_t timer_event = UINT64_MAX;

static double milliseconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

double boot_time_ms(void)
{
    return milliseconds(CLOCK_BOOTTIME);
}

NATIVE(native_now)
{
    return JS_NewFloat64(ctx, boot_time_ms());
}

/* The vDSO answers, as it does not for exact times in a PV domain. */
NATIVE(native_roughly)
{
    return JS_NewFloat64(ctx, milliseconds(CLOCK_MONOTONIC_COARSE));
}

static double started;

void mark_start(void)
{
    started = boot_time_ms();
}

NATIVE(native_started)
{
    return JS_NewFloat64(ctx, started);
}

NATIVE(native_wall_clock)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return JS_NewFloat64(ctx, t.tv_sec * 1e3 + t.tv_nsec / 1000000);
}

int event_loop_open(JSContext *ctx)
{
    (void)ctx;
    loop.on_timer = loop.on_uncaught = JS_UNDEFINED;
    loop.epoll = epoll_create1(EPOLL_CLOEXEC);
    loop.timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = timer_event};
    return loop.epoll < 0 || loop.timer < 0 ? -1 : epoll_ctl(loop.epoll, EPOLL_CTL_ADD, loop.timer, &event);
}

static void free_rejection(JSContext *ctx, struct rejection *r)
{
    JS_FreeValue(ctx, r->promise);
    JS_FreeValue(ctx, r->reason);
    free(r);
}

void event_loop_close(JSContext *ctx)
{
    for (int fd = 0; fd < loop.watches_size; fd++) {
        JS_FreeValue(ctx, loop.watches[fd].on_readable);
        JS_FreeValue(ctx, loop.watches[fd].on_writable);
    }
    free(loop.watches);
    JS_FreeValue(ctx, loop.on_timer);
    JS_FreeValue(ctx, loop.on_uncaught);
    while (loop.rejections) {
        struct rejection *r = loop.rejections;
        loop.rejections = r->next;
        free_rejection(ctx, r);
    }
    if (loop.epoll >= 0)
        close(loop.epoll);
    if (loop.timer >= 0)
        close(loop.timer);
    memset(&loop, 0, sizeof loop);
    loop.epoll = loop.timer = -1;
    loop.deadline = loop.armed = -1;
}

static void print_error(JSContext *ctx, JSValueConst error)
{
    const char *text = JS_ToCString(ctx, error);
    JSValue stack = JS_IsObject(error) ? JS_GetPropertyStr(ctx, error, "stack") : JS_UNDEFINED;
    const char *trace = JS_IsString(stack) ? JS_ToCString(ctx, stack) : NULL;

    fprintf(stderr, "stubdom: uncaught %s\n%s", text ? text : "error", trace ? trace : "");
    JS_FreeCString(ctx, text);
    JS_FreeCString(ctx, trace);
    JS_FreeValue(ctx, stack);
}

/* Hands an error that nobody caught to JavaScript's hook, or to stderr while there is none. Owns `error`. */
static void report_uncaught(JSContext *ctx, JSValue error)
{
    if (JS_IsFunction(ctx, loop.on_uncaught)) {
        JSValue hook = JS_DupValue(ctx, loop.on_uncaught);
        JSValue r = JS_Call(ctx, hook, JS_UNDEFINED, 1, (JSValueConst *)&error);
        JS_FreeValue(ctx, hook);
        if (JS_IsException(r)) {
            JSValue second = JS_GetException(ctx);
            print_error(ctx, error);
            print_error(ctx, second);
            JS_FreeValue(ctx, second);
        }
        JS_FreeValue(ctx, r);
    } else {
        print_error(ctx, error);
    }
    JS_FreeValue(ctx, error);
}

/* A rejection counts as unhandled only if it still is when the job queue has run dry. */
void event_loop_track_rejection(JSContext *ctx, JSValueConst promise, JSValueConst reason,
                                JS_BOOL is_handled, void *opaque)
{
    (void)opaque;
    if (is_handled) {
        for (struct rejection **p = &loop.rejections; *p; p = &(*p)->next) {
            struct rejection *r = *p;
            if (JS_VALUE_GET_PTR(r->promise) == JS_VALUE_GET_PTR(promise)) {
                *p = r->next;
                free_rejection(ctx, r);
                return;
            }
        }
    } else {
        struct rejection *r = malloc(sizeof *r);
        if (!r)
            return;
        r->promise = JS_DupValue(ctx, promise);
        r->reason = JS_DupValue(ctx, reason);
        r->next = loop.rejections;
        loop.rejections = r;
    }
}

static void run_jobs(JSContext *ctx)
{
    for (;;) {
        JSContext *job_ctx;
        int ran = JS_ExecutePendingJob(JS_GetRuntime(ctx), &job_ctx);
        if (ran < 0)
            report_uncaught(job_ctx, JS_GetException(job_ctx));
        if (ran != 0)
            continue;
        if (!loop.rejections)
            return;
        struct rejection *r = loop.rejections;
        loop.rejections = r->next;
        report_uncaught(ctx, JS_DupValue(ctx, r->reason));
        free_rejection(ctx, r);
    }
}

static void call(JSContext *ctx, JSValueConst function)
{
    JSValue held = JS_DupValue(ctx, function);
    JSValue r = JS_Call(ctx, held, JS_UNDEFINED, 0, NULL);
    JS_FreeValue(ctx, held);
    if (JS_IsException(r))
        report_uncaught(ctx, JS_GetException(ctx));
    JS_FreeValue(ctx, r);
    run_jobs(ctx);
}

/* A watch that is still the one the event was for: a handler may have removed or replaced it since. */
static struct watch *current_watch(int fd, uint32_t generation, uint8_t direction)
{
    if (fd >= loop.watches_size)
        return NULL;
    struct watch *w = &loop.watches[fd];
    return w->generation == generation && (w->mask & direction) ? w : NULL;
}

/*
 * Rings of garbage wait for a collection, and QuickJS by itself starts one when half as much again is in use: memory that
 * QEMU could have. So one starts between two rounds of the loop when a little has gathered; not before the
 * first_collection, which is when QEMU runs.
 */
static void collect_when_grown(JSContext *ctx)
{
    enum { growth = 64 << 10 };
    /* QuickJS makes the first one itself when it has come to that. */
    static size_t limit = first_collection + first_collection / 4;

    if (heap_in_use() <= limit)
        return;
    JS_RunGC(JS_GetRuntime(ctx));
    limit = heap_in_use() + growth;
}

/*
 * The kernel watches the deadline, and is told only when there is a new one: to ask for the time is a system call in a
 * PV domain, two of which in each round were a third of all.
 */
static int arm_timer(void)
{
    if (loop.armed == loop.deadline)
        return 0;
    loop.armed = loop.deadline;
    struct itimerspec when = {0}; /* none */
    if (loop.deadline >= 0) {
        int64_t ns = (int64_t)ceil(loop.deadline * 1e6);
        when.it_value.tv_sec = ns / 1000000000;
        when.it_value.tv_nsec = ns ? ns % 1000000000 : 1;
    }
    return timerfd_settime(loop.timer, TFD_TIMER_ABSTIME, &when, NULL);
}

int event_loop_run(JSContext *ctx)
{
    run_jobs(ctx);
    while (loop.watched > 0 || loop.deadline >= 0) {
        struct epoll_event events[events_a_round];

        collect_when_grown(ctx);
        if (arm_timer()) {
            perror("stubdom: timerfd_settime");
            return 1;
        }
        int count = epoll_wait(loop.epoll, events, events_a_round, -1);
        if (count < 0 && errno != EINTR) {
            perror("stubdom: epoll_wait");
            return 1;
        }
        for (int i = 0; i < count; i++) {
            int fd = (int)(uint32_t)events[i].data.u64;
            uint32_t generation = events[i].data.u64 >> 32;
            uint32_t got = events[i].events;
            struct watch *w;

            if (events[i].data.u64 == timer_event) {
                loop.armed = NAN;
                /* A handler before it may have put it off. */
                if (loop.deadline >= 0 && boot_time_ms() >= loop.deadline) {
                    loop.deadline = -1;
                    call(ctx, loop.on_timer);
                }
                continue;
            }
            /* Errors and hang-ups count as readiness: the next read or write reports them. */
            if ((got & (EPOLLIN | EPOLLERR | EPOLLHUP)) && (w = current_watch(fd, generation, readable)))
                call(ctx, w->on_readable);
            if ((got & (EPOLLOUT | EPOLLERR | EPOLLHUP)) && (w = current_watch(fd, generation, writable)))
                call(ctx, w->on_writable);
        }
    }
    return 0;
}

static int grow_watches(int fd)
{
    if (fd < loop.watches_size)
        return 0;
    int size = fd + 16;
    struct watch *w = realloc(loop.watches, size * sizeof *w);
    if (!w)
        return -1;
    for (int i = loop.watches_size; i < size; i++)
        w[i] = (struct watch){.on_readable = JS_UNDEFINED, .on_writable = JS_UNDEFINED};
    loop.watches = w;
    loop.watches_size = size;
    return 0;
}

/* watch(fd, direction: 1 readable | 2 writable, handler or null) */
NATIVE(native_watch)
{
    int32_t fd, direction;

    if (JS_ToInt32(ctx, &fd, argv[0]) || JS_ToInt32(ctx, &direction, argv[1]))
        return JS_EXCEPTION;
    if (fd < 0 || fd >= 4096 || (direction != readable && direction != writable))
        return JS_NewInt32(ctx, -EBADF);
    if (grow_watches(fd))
        return JS_NewInt32(ctx, -ENOMEM);

    struct watch *w = &loop.watches[fd];
    JSValue *slot = direction == readable ? &w->on_readable : &w->on_writable;
    uint8_t before = w->mask;
    int on = JS_IsFunction(ctx, argv[2]);
    uint8_t after = on ? before | direction : before & ~direction;

    if (after != before) {
        uint32_t generation = before ? w->generation : ++loop.generation;
        struct epoll_event event = {
            .events = (after & readable ? EPOLLIN : 0) | (after & writable ? EPOLLOUT : 0),
            .data.u64 = (uint64_t)generation << 32 | (uint32_t)fd,
        };
        int operation = !before ? EPOLL_CTL_ADD : after ? EPOLL_CTL_MOD : EPOLL_CTL_DEL;
        /* A descriptor closed too early has left the set by itself; forgetting it must still work. */
        if (epoll_ctl(loop.epoll, operation, fd, &event) && after)
            return JS_NewInt32(ctx, -errno);
        w->generation = generation;
        w->mask = after;
        loop.watched += !before - !after;
    }
    JSValue old = *slot;
    *slot = on ? JS_DupValue(ctx, argv[2]) : JS_UNDEFINED;
    JS_FreeValue(ctx, old);
    return JS_NewInt32(ctx, 0);
}

/* armTimer(deadline in CLOCK_BOOTTIME ms; < 0: none) */
NATIVE(native_arm_timer)
{
    double deadline;
    if (JS_ToFloat64(ctx, &deadline, argv[0]))
        return JS_EXCEPTION;
    /* Thirty years are for ever, and as nanoseconds fit the kernel's integer. */
    loop.deadline = deadline >= 0 ? fmin(deadline, 1e12) : -1;
    return JS_UNDEFINED;
}

static JSValue set_hook(JSContext *ctx, JSValue *hook, JSValueConst function)
{
    JSValue old = *hook;
    if (!JS_IsFunction(ctx, function))
        return JS_ThrowTypeError(ctx, "a function is needed");
    *hook = JS_DupValue(ctx, function);
    JS_FreeValue(ctx, old);
    return JS_UNDEFINED;
}

NATIVE(native_on_timer)
{
    return set_hook(ctx, &loop.on_timer, argv[0]);
}

NATIVE(native_on_uncaught)
{
    return set_hook(ctx, &loop.on_uncaught, argv[0]);
}
