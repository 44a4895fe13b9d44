/*
 * clock_gettime() and gettimeofday() for QEMU, loaded before its C library (LD_PRELOAD).
 *
 * QEMU asks for the time some twenty times for one emulated access. On hardware Linux answers that without a system
 * call (vDSO); in a paravirtual domain only where Xen calls its TSC stable (clocksource=tsc, not the default), and
 * each call enters and leaves the kernel through Xen. Here the kernel is asked once in a while, and what passes
 * until then is taken from the processor's time stamp counter (TSC).
 *
 * What makes that safe, whatever the counter does (a host that slept has it start anew, and Linux's own clocksource
 * "tsc" would stand still for as long as it ran before):
 *  - a reading is carried on for at most HORIZON, in the thread that made it; a counter that went back, or far
 *    ahead, fails the same comparison;
 *  - the counter's rate is measured against the kernel's clock, again and again; two measurements that do not agree
 *    switch it off until two do;
 *  - CLOCK_MONOTONIC never goes back, from thread to thread neither.
 * So the answer is a few ns behind the kernel's as a rule, 4 us off where two measurements just agreed, and HORIZON where
 * the counter's rate has changed since.
 *
 * A counter that starts anew and is asked in the very millisecond of its count at which a thread asked last before it
 * slept is believed: once in ten million sleeps.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define NS 1000000000ull

enum {
    HORIZON = 1000000,  /* ns that a reading of the kernel's clock is carried on for, at most */
    DOUBT = 50000,      /* ns: a reading that took longer (the vCPU was taken away) is not carried on */
    WINDOW = 100000000, /* ns over which the rate is measured, at least */
    LIMIT = 2000000000, /* and at most: shifted by 32 it fits */
    AGREE = 8,          /* two measurements agree when they differ by less than 2^-AGREE */
};

/* Nanoseconds a tick, times 2^32; 0 while unknown. */
static _Atomic uint64_t rate;
/* The latest CLOCK_MONOTONIC that anybody was told, in ns. */
static _Atomic uint64_t latest;

/* One reading of the kernel's clock, and the counter right behind it. Valid while ticks is not 0. */
struct reading {
    uint64_t ticks; /* how far it may be carried on */
    uint64_t rate;
    uint64_t tsc;
    uint64_t ns;
};

/* By clock: CLOCK_REALTIME is 0, CLOCK_MONOTONIC 1. */
static _Thread_local struct reading readings[2] __attribute__((tls_model("initial-exec")));

/* Measures the counter's rate from readings of CLOCK_MONOTONIC, of whatever thread comes by. */
static void measure(uint64_t tsc, uint64_t ns)
{
    static atomic_flag busy = ATOMIC_FLAG_INIT;
    static uint64_t from_tsc, from_ns, before;

    if (atomic_flag_test_and_set_explicit(&busy, memory_order_acquire))
        return;
    /* Less than nothing for a thread that was held up on its way here. */
    int64_t span = (int64_t)(ns - from_ns);
    if (span >= WINDOW) {
        /* Over a longer time the product would not fit, and what is known stays so. */
        if (span <= LIMIT || tsc <= from_tsc) {
            uint64_t now = tsc > from_tsc ? ((uint64_t)span << 32) / (tsc - from_tsc) : 0;
            uint64_t apart = now > before ? now - before : before - now;

            atomic_store_explicit(&rate, apart < now >> AGREE ? now : 0, memory_order_relaxed);
            before = now;
        }
        from_tsc = tsc;
        from_ns = ns;
    }
    atomic_flag_clear_explicit(&busy, memory_order_release);
}

/* Asks the kernel; 0, or -1 with errno. */
static int ask(clockid_t clock, uint64_t *ns)
{
    struct timespec time;
    uint64_t before = __rdtsc();

    if (syscall(SYS_clock_gettime, clock, &time) != 0)
        return -1;
    uint64_t tsc = __rdtsc();
    *ns = (uint64_t)time.tv_sec * NS + (uint64_t)time.tv_nsec;

    struct reading *reading = &readings[clock];
    uint64_t each = atomic_load_explicit(&rate, memory_order_relaxed);
    bool quick = each == 0 || tsc - before < ((uint64_t)DOUBT << 32) / each;
    reading->rate = each;
    reading->tsc = tsc;
    reading->ns = *ns;
    reading->ticks = each != 0 && quick ? ((uint64_t)HORIZON << 32) / each : 0;
    if (clock == CLOCK_MONOTONIC && quick)
        measure(tsc, *ns);
    return 0;
}

/* The clock's time in ns: the last reading, carried on, or a new one. */
static int now(clockid_t clock, uint64_t *ns)
{
    struct reading reading = readings[clock];
    uint64_t passed = __rdtsc() - reading.tsc;

    if (passed < reading.ticks)
        *ns = reading.ns + (passed * reading.rate >> 32);
    else if (ask(clock, ns) != 0)
        return -1;
    if (clock == CLOCK_MONOTONIC) {
        uint64_t told = atomic_load_explicit(&latest, memory_order_relaxed);
        while (told < *ns && !atomic_compare_exchange_weak_explicit(&latest, &told, *ns, memory_order_relaxed,
                                                                    memory_order_relaxed)) {
        }
        if (told > *ns)
            *ns = told;
    }
    return 0;
}

__attribute__((visibility("default"))) int clock_gettime(clockid_t clock, struct timespec *time)
{
    uint64_t ns;

    if (clock != CLOCK_REALTIME && clock != CLOCK_MONOTONIC)
        return (int)syscall(SYS_clock_gettime, clock, time);
    if (now(clock, &ns) != 0)
        return -1;
    time->tv_sec = (time_t)(ns / NS);
    time->tv_nsec = (long)(ns % NS);
    return 0;
}

__attribute__((visibility("default"))) int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    uint64_t ns;

    if (zone != NULL)
        return (int)syscall(SYS_gettimeofday, time, zone);
    if (now(CLOCK_REALTIME, &ns) != 0)
        return -1;
    time->tv_sec = (time_t)(ns / NS);
    time->tv_usec = (suseconds_t)(ns % NS / 1000);
    return 0;
}
