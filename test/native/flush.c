/*
 * Tests of bundler/flush/flush.c, with a kernel whose log and flushes are made up.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cases.h"

enum { LOG = 5, XVDA = 10, XVDB = 11, GONE = 12 };

/* The made-up world: what reads of the log give, in order, NULL for a record that is lost; what a flush comes to. */
static const char *records[64];
static size_t written, taken;
static int flush_error;
static int flushes, reads;

static long failing(int code)
{
    errno = code;
    return -1;
}

static long test_syscall(long number, ...)
{
    va_list args;

    va_start(args, number);
    int fd = va_arg(args, int);
    if (number == SYS_fdatasync) {
        va_end(args);
        flushes++;
        return flush_error == 0 ? 0 : failing(flush_error);
    }
    char *into = va_arg(args, char *);
    size_t room = va_arg(args, size_t);
    va_end(args);
    HOLDS(number == SYS_read && fd == LOG);
    reads++;
    if (taken == written)
        return failing(EAGAIN);
    const char *record = records[taken++];
    if (record == NULL)
        return failing(EPIPE);
    size_t length = strlen(record);
    HOLDS(length <= room);
    memcpy(into, record, length);
    return (long)length;
}

static ssize_t test_readlink(const char *path, char *into, size_t room)
{
    const char *target = strcmp(path, "/proc/self/fd/10") == 0   ? "/dev/xvda"
                         : strcmp(path, "/proc/self/fd/11") == 0 ? "/dev/xvdb"
                                                                 : NULL;
    if (target == NULL)
        return failing(ENOENT);
    size_t length = strlen(target);
    HOLDS(length <= room);
    memcpy(into, target, length);
    return (ssize_t)length;
}

#define syscall test_syscall
#define readlink test_readlink
#define fdatasync our_fdatasync
#include "flush-library.c"
#undef fdatasync

static void says(const char *record)
{
    records[written++] = record;
}

static void given_a_log(void)
{
    kernel_log = LOG;
}

static bool fails(int fd)
{
    errno = 0;
    int result = our_fdatasync(fd);
    HOLDS(result == 0 || (result == -1 && errno == EIO));
    return result != 0;
}

static const char lost_a[] = "4,301,5551212,-;blkfront: xvda: empty flush op failed\n SUBSYSTEM=xen\n";

static void is_the_kernels(void)
{
    given_a_log();
    HOLDS(!fails(XVDA));
    HOLDS(flushes == 1 && reads == 1);
    flush_error = ENOSPC;
    HOLDS(our_fdatasync(XVDA) == -1 && errno == ENOSPC);
    HOLDS(reads == 1);
}

static void without_a_log(void)
{
    says(lost_a);
    HOLDS(!fails(XVDA));
    HOLDS(reads == 0);
}

static void the_disk_that_is_named(void)
{
    given_a_log();
    says("6,300,5551211,-;random: crng init done\n");
    says(lost_a);
    HOLDS(fails(XVDA));
    HOLDS(!fails(XVDB));
    /* For good: blkfront sends none any more. */
    HOLDS(fails(XVDA));
}

static void whoever_reads_it(void)
{
    given_a_log();
    says(lost_a);
    HOLDS(!fails(XVDB));
    HOLDS(fails(XVDA));
}

static void which_is_not_known(void)
{
    given_a_log();
    HOLDS(!fails(GONE));
    says(lost_a);
    HOLDS(fails(GONE));
}

static void what_is_no_lost_flush(void)
{
    given_a_log();
    says("4,1,1,-;blkfront: xvda: flush op failed\n");
    says("4,1,1,-;blkfront: xvda: discard op failed\n");
    says("6,1,1,-;blkfront: xvda: flush diskcache: enabled; persistent grants: disabled;\n");
    says("4,1,1,-;blkfront: a name that is longer than any disk's could ever be: empty flush op failed\n");
    says("4,1,1,-;blkfront: xvda: empty ");
    says("garbage");
    says(";blkfront: ");
    HOLDS(!fails(XVDA));
    HOLDS(taken == written);
}

static void a_record_that_fills_the_room(void)
{
    static char record[RECORD + 1];

    given_a_log();
    memset(record, 'x', RECORD);
    says(record);
    says(lost_a);
    HOLDS(fails(XVDA));
}

static void a_log_that_is_lost_in_part(void)
{
    given_a_log();
    says(NULL);
    says(lost_a);
    HOLDS(fails(XVDA));
    says(NULL);
    HOLDS(!fails(XVDB));
}

static void more_disks_than_there_are(void)
{
    static char lines[40][64];

    given_a_log();
    says(lost_a);
    for (int i = 0; i < 40; i++) {
        snprintf(lines[i], sizeof lines[i], "4,1,1,-;blkfront: xvd%c%c: empty flush op failed\n", 'a' + i / 26, 'a' + i % 26);
        says(lines[i]);
        says(lines[i]);
        HOLDS(!fails(XVDB));
        written = taken = 0;
    }
    HOLDS(fails(XVDA));
}

static const struct test_case cases[] = {
    {"is the kernel's, and asks the log only where that went well", is_the_kernels},
    {"without a log it is the kernel's alone", without_a_log},
    {"fails for the disk that the log names, and no other, for good", the_disk_that_is_named},
    {"fails whichever disk's flush has read of it", whoever_reads_it},
    {"fails where the disk is not known", which_is_not_known},
    {"takes nothing else for a lost flush", what_is_no_lost_flush},
    {"reads on behind the longest record", a_record_that_fills_the_room},
    {"reads on where the log was lost in part", a_log_that_is_lost_in_part},
    {"keeps to its bounds", more_disks_than_there_are},
};

int main(int argc, char **argv)
{
    return run_case("QEMU's flush", cases, sizeof cases / sizeof *cases, argc, argv);
}
