/*
 * What saving and restoring a device model's state needs: a fast checksum, memory that direct I/O takes, loop
 * devices, and threads for the calls that wait for a disk, so that the event loop never does.
 */
#include <fcntl.h>
#include <linux/loop.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <termios.h>
#include <unistd.h>

#include "native.h"

/*
 * XXH64, from its specification (xxHash, doc/xxhash_spec.md): 64 bits, and as fast as memory is read also
 * where the processor is emulated and has no CRC instruction.
 */
#define PRIME_1 0x9E3779B185EBCA87ull
#define PRIME_2 0xC2B2AE3D27D4EB4Full
#define PRIME_3 0x165667B19E3779F9ull
#define PRIME_4 0x85EBCA77C2B2AE63ull
#define PRIME_5 0x27D4EB2F165667C5ull

static uint64_t rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static uint64_t word64(const uint8_t *p)
{
    uint64_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static uint32_t word32(const uint8_t *p)
{
    uint32_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

static uint64_t lane(uint64_t accumulator, uint64_t input)
{
    return rotate(accumulator + input * PRIME_2, 31) * PRIME_1;
}

static uint64_t merge(uint64_t hash, uint64_t accumulator)
{
    return (hash ^ lane(0, accumulator)) * PRIME_1 + PRIME_4;
}

static uint64_t xxh64(const uint8_t *p, size_t size, uint64_t seed)
{
    const uint8_t *end = p + size;
    uint64_t hash = seed + PRIME_5;

    if (size >= 32) {
        uint64_t a = seed + PRIME_1 + PRIME_2, b = seed + PRIME_2, c = seed, d = seed - PRIME_1;
        for (; end - p >= 32; p += 32) {
            a = lane(a, word64(p));
            b = lane(b, word64(p + 8));
            c = lane(c, word64(p + 16));
            d = lane(d, word64(p + 24));
        }
        hash = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
        hash = merge(merge(merge(merge(hash, a), b), c), d);
    }
    hash += size;
    for (; end - p >= 8; p += 8)
        hash = rotate(hash ^ lane(0, word64(p)), 27) * PRIME_1 + PRIME_4;
    for (; end - p >= 4; p += 4)
        hash = rotate(hash ^ word32(p) * PRIME_1, 23) * PRIME_2 + PRIME_3;
    for (; p < end; p++)
        hash = rotate(hash ^ *p * PRIME_5, 11) * PRIME_1;
    hash = (hash ^ hash >> 33) * PRIME_2;
    hash = (hash ^ hash >> 29) * PRIME_3;
    return hash ^ hash >> 32;
}

/* hash(bytes, seed) -> BigInt */
NATIVE(native_hash)
{
    uint8_t *data;
    size_t size;
    int64_t seed;
    if (native_bytes(ctx, argv[0], &data, &size) || JS_ToBigInt64(ctx, &seed, argv[1]))
        return JS_EXCEPTION;
    return JS_NewBigUint64(ctx, xxh64(data, size, seed));
}

static void unmap_buffer(JSRuntime *rt, void *size, void *memory)
{
    (void)rt;
    munmap(memory, (uintptr_t)size);
}

/* alignedBuffer(size) -> ArrayBuffer of zeros that begins at a page */
NATIVE(native_aligned_buffer)
{
    int64_t size;
    void *memory;
    if (JS_ToInt64(ctx, &size, argv[0]))
        return JS_EXCEPTION;
    if (size <= 0 || size > 16 << 20)
        return JS_ThrowRangeError(ctx, "no buffer of %lld bytes", (long long)size);
    /* Whole and at once: a page that comes when it is touched is a trap to the hypervisor by itself. */
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED)
        return JS_ThrowRangeError(ctx, "no buffer of %lld bytes", (long long)size);
    return JS_NewArrayBuffer(ctx, memory, size, unmap_buffer, (void *)(uintptr_t)size, 0);
}

/*
 * The threads. Jobs are begun in the order of submission, two at a time: while one waits for its disk, the next one
 * is already on its way there. Each holds on to the buffer that it works on until the event loop has taken its result.
 */
enum { most_threads = 2 };
enum operation { read_at, write_at, sync_data, drain_terminal, operations };

struct job {
    struct job *next;
    enum operation operation;
    int fd;
    uint8_t *data;
    size_t size;
    int64_t offset, result;
    uint32_t id;
    JSValue buffer; /* touched by the event loop's thread alone */
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct job *waiting, **last_waiting, *done, **last_done;
    int threads, unfinished, ready;
    uint32_t next_id;
} worker = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .more = PTHREAD_COND_INITIALIZER,
    .last_waiting = &worker.waiting,
    .last_done = &worker.done,
    .ready = -1,
};

/* All of the buffer; less only at the end of the file. */
static int64_t transfer(const struct job *job)
{
    size_t done = 0;
    while (done < job->size) {
        ssize_t count = job->operation == write_at
                            ? pwrite(job->fd, job->data + done, job->size - done, job->offset + done)
                            : pread(job->fd, job->data + done, job->size - done, job->offset + done);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return -errno;
        if (count == 0)
            return job->operation == write_at ? -ENOSPC : (int64_t)done;
        done += count;
    }
    return done;
}

static int64_t carry_out(const struct job *job)
{
    switch (job->operation) {
    case sync_data:
        return fdatasync(job->fd) ? -errno : 0;
    case drain_terminal:
        return tcdrain(job->fd) ? -errno : 0;
    default:
        return transfer(job);
    }
}

static void *work(void *unused)
{
    (void)unused;
    for (;;) {
        pthread_mutex_lock(&worker.lock);
        while (!worker.waiting)
            pthread_cond_wait(&worker.more, &worker.lock);
        struct job *job = worker.waiting;
        worker.waiting = job->next;
        if (!worker.waiting)
            worker.last_waiting = &worker.waiting;
        pthread_mutex_unlock(&worker.lock);

        job->next = NULL;
        job->result = carry_out(job);

        pthread_mutex_lock(&worker.lock);
        *worker.last_done = job;
        worker.last_done = &job->next;
        worker.unfinished--;
        pthread_mutex_unlock(&worker.lock);
        eventfd_write(worker.ready, 1);
    }
    return NULL;
}

/* None is free for one more job, and there may be one more. */
static int need_thread(void)
{
    pthread_mutex_lock(&worker.lock);
    int busy = worker.unfinished >= worker.threads;
    pthread_mutex_unlock(&worker.lock);
    return busy && worker.threads < most_threads;
}

static int start_thread(void)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;

    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 << 10);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    /* Signals are the event loop's: it takes them from a signalfd. */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int failed = pthread_create(&thread, &attributes, work, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    worker.threads += !failed;
    return failed;
}

/* Made before the first thread is, which could otherwise have a result and nothing to tell it by. */
static int ready_descriptor(void)
{
    if (worker.ready < 0)
        worker.ready = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return worker.ready;
}

/* jobsReady() -> descriptor, readable while results wait */
NATIVE(native_jobs_ready)
{
    return native_result(ctx, ready_descriptor());
}

/* submit(operation, fd, bytes or null, offset) -> id */
NATIVE(native_submit)
{
    int32_t operation, fd;
    int64_t offset;
    uint8_t *data = NULL;
    size_t size = 0;

    if (JS_ToInt32(ctx, &operation, argv[0]) || JS_ToInt32(ctx, &fd, argv[1]) ||
        JS_ToInt64(ctx, &offset, argv[3]))
        return JS_EXCEPTION;
    if (operation < 0 || operation >= operations)
        return JS_NewInt32(ctx, -EINVAL);
    if (operation <= write_at && native_bytes(ctx, argv[2], &data, &size))
        return JS_EXCEPTION;
    if (ready_descriptor() < 0)
        return native_result(ctx, -1);
    int failed = need_thread() ? start_thread() : 0;
    if (failed && !worker.threads)
        return JS_NewInt32(ctx, -failed);
    struct job *job = malloc(sizeof *job);
    if (!job)
        return JS_NewInt32(ctx, -ENOMEM);
    *job = (struct job){
        .operation = operation,
        .fd = fd,
        .data = data,
        .size = size,
        .offset = offset,
        .id = ++worker.next_id & INT32_MAX,
        .buffer = JS_DupValue(ctx, argv[2]),
    };
    uint32_t id = job->id; /* once it is in the list, the job may be done and gone */
    pthread_mutex_lock(&worker.lock);
    *worker.last_waiting = job;
    worker.last_waiting = &job->next;
    worker.unfinished++;
    pthread_cond_signal(&worker.more);
    pthread_mutex_unlock(&worker.lock);
    return JS_NewInt32(ctx, id);
}

/* results() -> [id, result, id, result...] of the jobs done since the last call */
NATIVE(native_results)
{
    eventfd_t count;
    JSValue list = JS_NewArray(ctx);
    uint32_t at = 0;

    if (worker.ready >= 0)
        eventfd_read(worker.ready, &count);
    pthread_mutex_lock(&worker.lock);
    struct job *job = worker.done;
    worker.done = NULL;
    worker.last_done = &worker.done;
    pthread_mutex_unlock(&worker.lock);
    while (job) {
        struct job *next = job->next;
        JS_SetPropertyUint32(ctx, list, at++, JS_NewInt64(ctx, job->id));
        JS_SetPropertyUint32(ctx, list, at++, JS_NewInt64(ctx, job->result));
        JS_FreeValue(ctx, job->buffer);
        free(job);
        job = next;
    }
    return list;
}

/* loopAttach(fd, read only) -> [descriptor, major, minor]; the device goes when its last user does */
NATIVE(native_loop_attach)
{
    int32_t fd;
    if (JS_ToInt32(ctx, &fd, argv[0]))
        return JS_EXCEPTION;
    int read_only = JS_ToBool(ctx, argv[1]);
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0)
        return native_result(ctx, -1);

    int loop = -1;
    /* Between asking for a free device and taking it, another process may take it. */
    for (int attempt = 0; attempt < 64 && loop < 0; attempt++) {
        char path[32];
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0)
            break;
        snprintf(path, sizeof path, "/dev/loop%d", number);
        loop = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
        if (loop < 0)
            break;
        struct loop_config config = {
            .fd = fd,
            .info.lo_flags = LO_FLAGS_AUTOCLEAR | (read_only ? LO_FLAGS_READ_ONLY : 0),
        };
        if (!ioctl(loop, LOOP_CONFIGURE, &config))
            break;
        int failure = errno;
        close(loop);
        loop = -1;
        errno = failure;
        if (failure != EBUSY)
            break;
    }
    JSValue result = native_result(ctx, loop);
    close(control);
    if (loop < 0)
        return result;
    struct stat s;
    fstat(loop, &s);
    JSValue triple = JS_NewArray(ctx);
    JS_SetPropertyUint32(ctx, triple, 0, JS_NewInt32(ctx, loop));
    JS_SetPropertyUint32(ctx, triple, 1, JS_NewInt32(ctx, major(s.st_rdev)));
    JS_SetPropertyUint32(ctx, triple, 2, JS_NewInt32(ctx, minor(s.st_rdev)));
    return triple;
}

/* loopResize(fd): takes over the size of the file behind it */
NATIVE(native_loop_resize)
{
    int32_t fd;
    if (JS_ToInt32(ctx, &fd, argv[0]))
        return JS_EXCEPTION;
    return native_result(ctx, ioctl(fd, LOOP_SET_CAPACITY, 0));
}

/* deviceNumber(fd) -> [major, minor]; ENOTBLK for anything but a block device */
NATIVE(native_device_number)
{
    int32_t fd;
    struct stat s;
    if (JS_ToInt32(ctx, &fd, argv[0]))
        return JS_EXCEPTION;
    if (fstat(fd, &s))
        return native_result(ctx, -1);
    if (!S_ISBLK(s.st_mode))
        return JS_NewInt32(ctx, -ENOTBLK);
    JSValue pair = JS_NewArray(ctx);
    JS_SetPropertyUint32(ctx, pair, 0, JS_NewInt32(ctx, major(s.st_rdev)));
    JS_SetPropertyUint32(ctx, pair, 1, JS_NewInt32(ctx, minor(s.st_rdev)));
    return pair;
}

/* truncate(fd, size) */
NATIVE(native_truncate)
{
    int32_t fd;
    int64_t size;
    if (JS_ToInt32(ctx, &fd, argv[0]) || JS_ToInt64(ctx, &size, argv[1]))
        return JS_EXCEPTION;
    return native_result(ctx, ftruncate(fd, size));
}

/* tryLock(fd): an exclusive flock, EAGAIN when another process has it */
NATIVE(native_try_lock)
{
    int32_t fd;
    if (JS_ToInt32(ctx, &fd, argv[0]))
        return JS_EXCEPTION;
    return native_result(ctx, flock(fd, LOCK_EX | LOCK_NB));
}

/* freeSpace(path) -> bytes that an unprivileged process could still write there */
NATIVE(native_free_space)
{
    struct statvfs s;
    const char *path = JS_ToCString(ctx, argv[0]);
    if (!path)
        return JS_EXCEPTION;
    int failed = statvfs(path, &s);
    JS_FreeCString(ctx, path);
    return failed ? native_result(ctx, -1) : JS_NewInt64(ctx, (int64_t)s.f_bavail * s.f_frsize);
}

/* pipeSize(fd, bytes) */
NATIVE(native_pipe_size)
{
    int32_t fd, size;
    if (JS_ToInt32(ctx, &fd, argv[0]) || JS_ToInt32(ctx, &size, argv[1]))
        return JS_EXCEPTION;
    return native_result(ctx, fcntl(fd, F_SETPIPE_SZ, size));
}
