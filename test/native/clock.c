/*
 * Tests of bundler/clock/clock.c, with a counter and a kernel that say what they are told, and with the real ones.
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "cases.h"

/* The made-up world: a kernel's clocks in ns, a counter, and how often the kernel was asked. */
static bool real;
static uint64_t counter = 1000000;
static uint64_t kernel[2] = {1700000000000000000ull, 5000000000ull};
static _Atomic int asked;
/* Ticks that pass while the kernel is asked, after it has read its clock. */
static uint64_t delay;

static uint64_t test_rdtsc(void)
{
    return real ? __rdtsc() : counter;
}

static long test_syscall(long number, ...)
{
    va_list args;

    va_start(args, number);
    if (number == SYS_gettimeofday) {
        struct timeval *time = va_arg(args, struct timeval *);
        void *zone = va_arg(args, void *);
        va_end(args);
        return syscall(number, time, zone);
    }
    clockid_t clock = va_arg(args, clockid_t);
    struct timespec *time = va_arg(args, struct timespec *);
    va_end(args);
    asked++;
    if (real || clock > CLOCK_MONOTONIC)
        return syscall(number, clock, time);
    time->tv_sec = (time_t)(kernel[clock] / 1000000000);
    time->tv_nsec = (long)(kernel[clock] % 1000000000);
    counter += delay;
    return 0;
}

#define __rdtsc test_rdtsc
#define syscall test_syscall
#define clock_gettime our_clock_gettime
#define gettimeofday our_gettimeofday
#include "clock-library.c"
#undef clock_gettime
#undef gettimeofday

enum { TICKS = 3 }; /* a nanosecond: a counter of 3 GHz */

/* Time passes, as the counter and the kernel see it. */
static void pass(uint64_t ns)
{
    counter += ns * TICKS;
    kernel[0] += ns;
    kernel[1] += ns;
}

static uint64_t told(clockid_t clock)
{
    struct timespec time;

    HOLDS(our_clock_gettime(clock, &time) == 0);
    HOLDS(time.tv_nsec >= 0 && time.tv_nsec < 1000000000);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Lets it measure the rate twice, and makes a reading that can be carried on. */
static void settle(void)
{
    for (int i = 0; i < 4; i++) {
        told(CLOCK_MONOTONIC);
        pass(110000000);
    }
    told(CLOCK_MONOTONIC);
    asked = 0;
}

static bool near(uint64_t a, uint64_t b)
{
    return (a > b ? a - b : b - a) <= 10;
}

static void asks_while_unknown(void)
{
    for (int i = 1; i <= 100; i++) {
        HOLDS(told(CLOCK_MONOTONIC) == kernel[1]);
        HOLDS(asked == i);
        pass(1000);
    }
}

static void carries_on(void)
{
    settle();
    for (int i = 0; i < 999; i++) {
        pass(1000);
        HOLDS(near(told(CLOCK_MONOTONIC), kernel[1]));
    }
    HOLDS(asked == 0);
    pass(2000);
    HOLDS(told(CLOCK_MONOTONIC) == kernel[1]);
    HOLDS(asked == 1);
}

static void counter_starts_anew(void)
{
    settle();
    uint64_t before = told(CLOCK_MONOTONIC);
    /* The host slept for a minute. */
    kernel[1] += 60000000000ull;
    counter = 5;
    HOLDS(told(CLOCK_MONOTONIC) == kernel[1]);
    HOLDS(told(CLOCK_MONOTONIC) > before);
    settle();
    pass(1000);
    HOLDS(near(told(CLOCK_MONOTONIC), kernel[1]));
    HOLDS(asked == 0);
}

static void rate_changes(void)
{
    settle();
    uint64_t last = 0;
    /* Twice as fast from now on. */
    for (int i = 0; i < 1000; i++) {
        counter += 1000000;
        pass(500000);
        int before = asked;
        uint64_t got = told(CLOCK_MONOTONIC);
        /* One measurement of the new rate, after 100 ms, does not agree; the second, after 200, does. */
        HOLDS(i < 220 || i > 380 || asked == before + 1);
        HOLDS(got >= last && got + 1000000 > kernel[1] && got < kernel[1] + 1000000);
        last = got;
    }
    settle();
    pass(1000);
    HOLDS(near(told(CLOCK_MONOTONIC), kernel[1]));
    HOLDS(asked == 0);
}

static void slow_reading(void)
{
    settle();
    pass(2000000);
    delay = 100000 * TICKS; /* the vCPU was away for 100 us, at the wrong moment */
    told(CLOCK_MONOTONIC);
    HOLDS(asked == 1);
    delay = 0;
    kernel[1] += 100000;
    HOLDS(told(CLOCK_MONOTONIC) == kernel[1]);
    HOLDS(asked == 2);
}

static void realtime_is_set(void)
{
    settle();
    HOLDS(told(CLOCK_REALTIME) == kernel[0]);
    kernel[0] -= 3600000000000ull;
    pass(1000);
    told(CLOCK_REALTIME); /* may still be what it would have been */
    pass(1000000);
    HOLDS(told(CLOCK_REALTIME) == kernel[0]);
}

static void time_of_day(void)
{
    struct timeval time;

    settle();
    HOLDS(our_gettimeofday(&time, NULL) == 0);
    HOLDS((uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_usec == kernel[0] / 1000);
    HOLDS(asked == 1);
    pass(100000);
    HOLDS(our_gettimeofday(&time, NULL) == 0);
    HOLDS(asked == 1);
    struct timezone zone;
    HOLDS(our_gettimeofday(&time, &zone) == 0);
}

/* Nobody asks for a while, or one thread comes late with its reading: what is known stays known. */
static void gaps(void)
{
    settle();
    pass(3000000000ull);
    HOLDS(told(CLOCK_MONOTONIC) == kernel[1]);
    uint64_t late = kernel[1];
    uint64_t then = counter;
    pass(110000000);
    told(CLOCK_MONOTONIC);
    measure(then, late);
    asked = 0;
    pass(1000);
    HOLDS(near(told(CLOCK_MONOTONIC), kernel[1]));
    HOLDS(asked == 0);
    pass(110000000);
    told(CLOCK_MONOTONIC);
    pass(1000);
    told(CLOCK_MONOTONIC);
    HOLDS(asked == 1);
}

static void other_clocks(void)
{
    struct timespec time;

    settle();
    HOLDS(our_clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time) == 0);
    HOLDS(our_clock_gettime(CLOCK_BOOTTIME, &time) == 0);
    HOLDS(asked == 2);
    HOLDS(our_clock_gettime(77, &time) == -1 && errno == EINVAL);
}

/* The latest time that any thread was told. */
static _Atomic uint64_t newest;

static void *watch(void *unused)
{
    struct timespec kernels;

    for (int i = 0; i < 200000; i++) {
        uint64_t before = atomic_load(&newest);
        uint64_t got = told(CLOCK_MONOTONIC);
        HOLDS(got >= before);
        uint64_t last = before;
        while (last < got && !atomic_compare_exchange_weak(&newest, &last, got)) {
        }
        if (i % 1000 == 0) {
            clock_gettime(CLOCK_MONOTONIC, &kernels);
            HOLDS(got <= (uint64_t)kernels.tv_sec * 1000000000 + (uint64_t)kernels.tv_nsec + 100000);
            usleep(2500);
        }
    }
    return unused;
}

static void real_threads(void)
{
    pthread_t threads[4];

    real = true;
    for (int i = 0; i < 3; i++) {
        told(CLOCK_MONOTONIC);
        usleep(110000);
    }
    asked = 0;
    for (int i = 0; i < 4; i++)
        HOLDS(pthread_create(&threads[i], NULL, watch, NULL) == 0);
    for (int i = 0; i < 4; i++)
        HOLDS(pthread_join(threads[i], NULL) == 0);
    HOLDS(asked < 4 * 200000 / 4);
}

static const struct test_case tests[] = {
    {"the kernel is asked until two measurements agree", asks_while_unknown},
    {"a reading is carried on for a millisecond", carries_on},
    {"the counter starts anew", counter_starts_anew},
    {"the counter's rate changes", rate_changes},
    {"a reading that took long is not carried on", slow_reading},
    {"the time of day is set back", realtime_is_set},
    {"gettimeofday()", time_of_day},
    {"a thread that does not ask for seconds, and one that comes late", gaps},
    {"other clocks, and one that there is not", other_clocks},
    {"four threads, the real counter: it never goes back, nor ahead", real_threads},
};

int main(int argc, char **argv)
{
    return run_case("clock", tests, sizeof tests / sizeof *tests, argc, argv);
}
