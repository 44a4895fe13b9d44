/*
 * fdatasync() for QEMU, loaded before its C library (LD_PRELOAD): a flush that dom0 could not carry out fails.
 *
 * Linux' blkfront takes flushing for absent once a flush without data has failed, completes that flush and each later one of
 * the disk without an error, and sends none of them (blkif_interrupt(), blkif_queue_rq() in drivers/block/xen-blkfront.c).
 * Such a flush is all that QEMU's fdatasync() comes to where dom0 writes into a page cache of its own and finds out with the
 * flush that its disk is full or broken. The guest would take for safe what is lost.
 *
 * What blkfront does say, before it completes the flush, is a line in the kernel's log. That is read here behind each flush
 * that went well, from a descriptor of /dev/kmsg whose number process 1 gives in STUBDOM_KERNEL_LOG; a disk that it names
 * fails this and every later flush with EIO. The line is printed at most ten times in 5 s, and once a disk: there are fewer.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    RECORD = 2048, /* bytes that a record of the log takes, less than half of it its text (Linux' PRINTKRB_RECORD_MAX) */
    DISKS = 26,    /* a letter each, and QEMU has far fewer */
    NAME = 32,     /* bytes of a disk's name (DISK_NAME_LEN), with its end */
};

static const char before[] = ";blkfront: ", after[] = ": empty ";

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int kernel_log = -1;
static char broken[DISKS][NAME];
static size_t broken_count;

__attribute__((constructor)) static void begin(void)
{
    const char *number = getenv("STUBDOM_KERNEL_LOG");

    if (number == NULL)
        return;
    kernel_log = atoi(number);
    /* What was logged before is nothing of QEMU's disks. */
    lseek(kernel_log, 0, SEEK_END);
}

static bool is_broken(const char *name)
{
    for (size_t i = 0; i < broken_count; i++)
        if (strcmp(broken[i], name) == 0)
            return true;
    return false;
}

/* Of a record of /dev/kmsg, "4,123,4567890,-;blkfront: xvdb: empty flush op failed", keeps the disk's name. */
static void note(const char *record)
{
    const char *name = strstr(record, before);
    if (name == NULL)
        return;
    name += sizeof before - 1;
    const char *end = strstr(name, after);
    if (end == NULL || (size_t)(end - name) >= NAME || strstr(end, " op failed") == NULL)
        return;

    char disk[NAME] = {0};
    memcpy(disk, name, (size_t)(end - name));
    if (!is_broken(disk) && broken_count < DISKS)
        memcpy(broken[broken_count++], disk, NAME);
}

/* Reads what has been logged since. */
static void catch_up(void)
{
    static bool told;
    char record[RECORD + 1];

    for (;;) {
        ssize_t length = syscall(SYS_read, kernel_log, record, RECORD);
        if (length > 0) {
            record[length] = 0;
            note(record);
        } else if (length < 0 && errno == EPIPE) {
            /* The log has gone round before all of it was read; the next read goes on with the oldest that there is. */
            if (!told)
                fputs("stubdom: the kernel's log was lost in part; a disk's flush may have failed unseen\n", stderr);
            told = true;
        } else if (length == 0 || errno != EINTR) {
            return;
        }
    }
}

/* Whether the descriptor is of a disk that has failed a flush. */
static bool of_broken(int fd)
{
    char link[32], path[PATH_MAX];

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return true; /* One has failed; which is not known. */
    path[length] = 0;
    const char *slash = strrchr(path, '/');
    return is_broken(slash == NULL ? path : slash + 1);
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
    if (syscall(SYS_fdatasync, fd) != 0)
        return -1;
    if (kernel_log < 0)
        return 0;
    pthread_mutex_lock(&mutex);
    catch_up();
    bool failed = broken_count > 0 && of_broken(fd);
    pthread_mutex_unlock(&mutex);
    if (!failed)
        return 0;
    errno = EIO;
    return -1;
}
