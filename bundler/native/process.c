/* Children, signals and the end of the machine. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* Otherwise __HYPERVISOR_sched_op is the call of 2005, which takes the reason where the pointer stands. */
#define __XEN_INTERFACE_VERSION__ 0x00040400
#include <xen/xen.h>
#include <xen/sched.h>
#include <xen/sys/privcmd.h>

#include "native.h"

enum { most_strings = 8192, most_descriptors = 64, new_session = 1, controlling_terminal = 2, confined = 4 };

/* A NULL-terminated vector from an array of strings and Uint8Arrays (bytes that are not text). */
static char **string_vector(JSContext *ctx, JSValueConst array)
{
    int64_t count;
    if (native_length(ctx, array, &count))
        return NULL;
    if (count > most_strings) {
        JS_ThrowRangeError(ctx, "%lld strings, at most %d", (long long)count, most_strings);
        return NULL;
    }
    char **vector = js_mallocz(ctx, (count + 1) * sizeof *vector);
    if (!vector)
        return NULL;
    for (int64_t i = 0; i < count; i++) {
        JSValue item = JS_GetPropertyUint32(ctx, array, i);
        uint8_t *data;
        size_t size;
        int failed = 1;

        if (JS_IsString(item)) {
            const char *text = JS_ToCStringLen(ctx, &size, item);
            if (text) {
                vector[i] = js_strndup(ctx, text, size);
                failed = !vector[i];
                JS_FreeCString(ctx, text);
            }
        } else if (!JS_IsException(item) && !native_bytes(ctx, item, &data, &size)) {
            vector[i] = js_strndup(ctx, (const char *)data, size);
            failed = !vector[i];
        }
        JS_FreeValue(ctx, item);
        if (failed) {
            for (int64_t j = 0; j <= i; j++)
                js_free(ctx, vector[j]);
            js_free(ctx, vector);
            return NULL;
        }
    }
    return vector;
}

static void free_vector(JSContext *ctx, char **vector)
{
    if (!vector)
        return;
    for (char **p = vector; *p; p++)
        js_free(ctx, *p);
    js_free(ctx, vector);
}

/*
 * Of our capabilities what is executed next keeps those that a device of the host takes to be passed through (its
 * configuration beyond 64 bytes, its ports and its memory, in sysfs), and being root gives it no others. Who lacks one that we
 * have can neither trace us nor open our memory: cap_ptrace_access_check() of Linux. Who is of another group cannot set our
 * limits either, check_prlimit_permission(); files are root's still.
 */
static int confine(void)
{
    static const int kept[] = {CAP_SYS_RAWIO, CAP_SYS_ADMIN};
    static const gid_t nobody = 65534;
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct now[2], sets[2] = {0};

    if (syscall(SYS_capget, &head, now))
        return -1;
    if (now[0].effective & 1U << CAP_SETGID &&
        (syscall(SYS_setgroups, 0, NULL) || syscall(SYS_setresgid, nobody, nobody, nobody)))
        return -1;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        sets[0].permitted |= now[0].permitted & 1U << kept[i];
    sets[0].inheritable = sets[0].effective = sets[0].permitted;
    if (prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED, 0, 0, 0) || syscall(SYS_capset, &head, sets))
        return -1;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (sets[0].permitted & 1U << kept[i] && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, kept[i], 0, 0))
            return -1;
    return 0;
}

static double executed_at;

/* In the child, in our memory, until execve: only system calls. Returns only to report errno. */
static void become(char **argv, char **env, int *fds, int count, int flags)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if ((flags & new_session) && setsid() < 0)
        return;
    /* First out of the way of the targets, then each to its place (dup2 clears close-on-exec). */
    for (int i = 0; i < count; i++) {
        int fd = fds[i] < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : fds[i];
        fds[i] = fcntl(fd, F_DUPFD_CLOEXEC, most_descriptors + 1);
        if (fds[i] < 0)
            return;
    }
    for (int i = 0; i < count; i++)
        if (dup2(fds[i], i) < 0)
            return;
    /* Ours never block; a program's standard input does, or a shell takes "nothing yet" for the end. */
    if (count > 0 && fcntl(0, F_SETFL, fcntl(0, F_GETFL) & ~O_NONBLOCK))
        return;
    if ((flags & controlling_terminal) && ioctl(0, TIOCSCTTY, 0))
        return;
    if (close_range(count, ~0U, CLOSE_RANGE_CLOEXEC))
        return;
    if ((flags & confined) && confine())
        return;
    executed_at = boot_time_ms();
    execve(argv[0], argv, env);
}

/* executedAt() -> CLOCK_BOOTTIME ms at which the program of the last spawn() was executed, which may run before we do */
NATIVE(native_executed_at)
{
    return JS_NewFloat64(ctx, executed_at);
}

/*
 * -> pid, or -errno. The child borrows our memory until it executes the program, and we stand still that long:
 * copying page tables is slow in a PV domain, where each new one is Xen's business, and so is every page that
 * either side writes after.
 */
static pid_t start(char **argv, char **env, int *fds, int count, int flags)
{
    volatile int failure = 0; /* the child writes it */
    pid_t pid = vfork();

    if (pid == 0) {
        become(argv, env, fds, count, flags);
        failure = errno;
        _exit(127);
    }
    if (pid < 0)
        return -errno;
    if (failure)
        waitpid(pid, NULL, 0);
    return failure ? -failure : pid;
}

/* spawn(argv, env, descriptors (-1: /dev/null), flags) -> pid */
NATIVE(native_spawn)
{
    char **args = NULL, **env = NULL;
    int fds[most_descriptors];
    int64_t count;
    int32_t flags;
    JSValue result = JS_EXCEPTION;

    if (native_length(ctx, argv[2], &count) || JS_ToInt32(ctx, &flags, argv[3]))
        return JS_EXCEPTION;
    if (count > most_descriptors)
        return JS_NewInt32(ctx, -EMFILE);
    for (int i = 0; i < count; i++) {
        JSValue item = JS_GetPropertyUint32(ctx, argv[2], i);
        int bad = JS_ToInt32(ctx, &fds[i], item);
        JS_FreeValue(ctx, item);
        if (bad)
            return JS_EXCEPTION;
    }
    if (!(args = string_vector(ctx, argv[0])) || !(env = string_vector(ctx, argv[1])))
        goto out;
    if (!args[0]) {
        result = JS_NewInt32(ctx, -EINVAL);
        goto out;
    }
    result = JS_NewInt32(ctx, start(args, env, fds, (int)count, flags));
out:
    free_vector(ctx, args);
    free_vector(ctx, env);
    return result;
}

/* reap() -> [pid, exit code or -1, signal name or null], or null */
NATIVE(native_reap)
{
    int status;
    pid_t pid = waitpid(-1, &status, WNOHANG);
    if (pid <= 0)
        return JS_NULL;
    JSValue triple = JS_NewArray(ctx);
    const char *abbreviation = WIFSIGNALED(status) ? sigabbrev_np(WTERMSIG(status)) : NULL;
    JSValue signal = JS_NULL;
    if (WIFSIGNALED(status)) {
        char name[16] = "SIG";
        strncat(name, abbreviation ? abbreviation : "?", sizeof name - 4);
        signal = JS_NewString(ctx, name);
    }
    JS_SetPropertyUint32(ctx, triple, 0, JS_NewInt32(ctx, pid));
    JS_SetPropertyUint32(ctx, triple, 1, JS_NewInt32(ctx, WIFEXITED(status) ? WEXITSTATUS(status) : -1));
    JS_SetPropertyUint32(ctx, triple, 2, signal);
    return triple;
}

/* kill(pid, signal number) */
NATIVE(native_kill)
{
    int32_t pid, number;
    if (JS_ToInt32(ctx, &pid, argv[0]) || JS_ToInt32(ctx, &number, argv[1]))
        return JS_EXCEPTION;
    /* 0, -1 and groups would reach ourselves or everybody. */
    if (pid <= 1)
        return JS_NewInt32(ctx, -EPERM);
    return native_result(ctx, kill(pid, number));
}

/* yieldWakeUps(pid): when it wakes, whoever runs goes on until he sleeps or his time is over. */
NATIVE(native_yield_wake_ups)
{
    int32_t pid;
    const struct sched_param none = {0};
    if (JS_ToInt32(ctx, &pid, argv[0]))
        return JS_EXCEPTION;
    /* 0 is ourselves. */
    if (pid <= 1)
        return JS_NewInt32(ctx, -EPERM);
    return native_result(ctx, sched_setscheduler(pid, SCHED_BATCH, &none));
}

/* signals(numbers) -> signalfd; they are blocked from now on */
NATIVE(native_signals)
{
    int64_t count;
    sigset_t set;

    if (native_length(ctx, argv[0], &count))
        return JS_EXCEPTION;
    sigemptyset(&set);
    for (int64_t i = 0; i < count; i++) {
        int32_t number;
        JSValue item = JS_GetPropertyUint32(ctx, argv[0], i);
        int bad = JS_ToInt32(ctx, &number, item);
        JS_FreeValue(ctx, item);
        if (bad)
            return JS_EXCEPTION;
        if (sigaddset(&set, number))
            return native_result(ctx, -1);
    }
    if (sigprocmask(SIG_BLOCK, &set, NULL))
        return native_result(ctx, -1);
    return native_result(ctx, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

/* The hypervisor's own device, or -1. */
static int privcmd = -1;

/* Idempotent. Where there is none, as outside of Xen, nothing is held. */
void hold_privcmd(void)
{
    if (privcmd < 0)
        privcmd = open("/dev/xen/privcmd", O_RDWR | O_CLOEXEC);
}

/*
 * SCHEDOP_shutdown with SHUTDOWN_crash (xen/include/public/sched.h): the domain ends at once and the
 * toolstack sees reason "crash". Linux offers no other way that does not print a panic first.
 */
_Static_assert(__HYPERVISOR_sched_op == 29, "SCHEDOP_shutdown with a pointer to its argument");
static int sched_op(unsigned command, void *argument)
{
    privcmd_hypercall_t call = {
        .op = __HYPERVISOR_sched_op,
        .arg = {command, (uintptr_t)argument},
    };
    hold_privcmd();
    return privcmd < 0 ? -1 : ioctl(privcmd, IOCTL_PRIVCMD_HYPERCALL, &call);
}

/* Whom crashAlong() has named, or -1: written once, before any thread can want it. */
static int companion = -1;

static int xen_crash(void)
{
    struct sched_shutdown shutdown = {.reason = SHUTDOWN_crash};
    if (companion >= 0) {
        struct sched_remote_shutdown theirs = {.domain_id = companion, .reason = SHUTDOWN_crash};
        sched_op(SCHEDOP_remote_shutdown, &theirs); /* refused, the guest stays as it is */
    }
    return sched_op(SCHEDOP_shutdown, &shutdown);
}

/*
 * crashAlong(domid): where this domain crashes, that one does too, so that the toolstack acts on it. Xen lets a stub domain do
 * so to its target alone.
 */
NATIVE(native_crash_along)
{
    uint32_t domid;
    if (JS_ToUint32(ctx, &domid, argv[0]))
        return JS_EXCEPTION;
    if (domid >= DOMID_FIRST_RESERVED)
        return JS_NewInt32(ctx, -EINVAL);
    if (getpid() != 1)
        return JS_NewInt32(ctx, -EPERM);
    companion = domid;
    return JS_NewInt32(ctx, 0);
}

/*
 * SCHEDOP_watchdog (xen/include/public/sched.h): Xen ends the domain after so many seconds, with a reason of its own. Where a
 * console's backend reads no more, Linux waits in its driver for room in the ring, interrupts off, on the only processor:
 * then no thread of ours has a turn. Without privcmd, and if Xen refuses, the thread alone must do.
 */
static void xen_watchdog(uint32_t seconds)
{
    struct sched_watchdog watchdog = {.timeout = seconds};
    sched_op(SCHEDOP_watchdog, &watchdog);
}

/* Seconds by which Xen is later than we are, for the reason that we give is the better one. */
#define XEN_LATER 5

static void *dead_man(void *seconds)
{
    struct timespec rest = { .tv_sec = (intptr_t)seconds };
    while (nanosleep(&rest, &rest))
        ;
    xen_crash();
    reboot(RB_POWER_OFF);
    return NULL;
}

/*
 * endWithin(seconds): the machine ends by then with reason "crash", whatever the main thread hangs in. A xenstored that is
 * stuck holds up whoever unwatches, a disk without a backend whoever syncs, and neither wait can be interrupted. If all of it
 * hangs, Xen ends it a little later with reason "watchdog".
 */
NATIVE(native_end_within)
{
    uint32_t seconds;
    pthread_t thread;
    if (JS_ToUint32(ctx, &seconds, argv[0]))
        return JS_EXCEPTION;
    if (getpid() != 1)
        return JS_NewInt32(ctx, -EPERM);
    xen_watchdog(seconds + XEN_LATER);
    int error = pthread_create(&thread, NULL, dead_man, (void *)(intptr_t)seconds);
    if (!error)
        pthread_detach(thread);
    return JS_NewInt32(ctx, -error);
}

/* powerOff("poweroff" | "reboot" | "crash") */
NATIVE(native_power_off)
{
    const char *how = JS_ToCString(ctx, argv[0]);
    if (!how)
        return JS_EXCEPTION;
    int command = !strcmp(how, "reboot") ? RB_AUTOBOOT : RB_POWER_OFF;
    int crash = !strcmp(how, "crash");
    JS_FreeCString(ctx, how);
    if (getpid() != 1)
        return JS_NewInt32(ctx, -EPERM);
    sync();
    if (crash)
        xen_crash(); /* where that is refused, powering off still ends the domain */
    return native_result(ctx, reboot(command));
}

NATIVE(native_exit)
{
    int32_t code;
    if (JS_ToInt32(ctx, &code, argv[0]))
        return JS_EXCEPTION;
    exit(code);
}

NATIVE(native_pid)
{
    return JS_NewInt32(ctx, getpid());
}

/* environment(name) -> value or undefined */
NATIVE(native_environment)
{
    const char *name = JS_ToCString(ctx, argv[0]);
    if (!name)
        return JS_EXCEPTION;
    const char *value = getenv(name);
    JS_FreeCString(ctx, name);
    return value ? JS_NewString(ctx, value) : JS_UNDEFINED;
}
