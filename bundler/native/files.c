/* Files, directories and mounts. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "native.h"

/* open(path, flags, mode) */
NATIVE(native_open)
{
    int32_t flags, mode;
    const char *path = JS_ToCString(ctx, argv[0]);
    if (!path)
        return JS_EXCEPTION;
    JSValue result = JS_EXCEPTION;
    if (!JS_ToInt32(ctx, &flags, argv[1]) && !JS_ToInt32(ctx, &mode, argv[2]))
        result = native_result(ctx, open(path, flags | O_CLOEXEC | O_NOCTTY, mode));
    JS_FreeCString(ctx, path);
    return result;
}

NATIVE(native_close)
{
    int32_t fd;
    if (JS_ToInt32(ctx, &fd, argv[0]))
        return JS_EXCEPTION;
    return native_result(ctx, close(fd));
}

static JSValue transfer(JSContext *ctx, JSValueConst *argv, int writing)
{
    int32_t fd;
    uint8_t *data;
    size_t size;
    ssize_t done;

    if (JS_ToInt32(ctx, &fd, argv[0]) || native_bytes(ctx, argv[1], &data, &size))
        return JS_EXCEPTION;
    do
        done = writing ? write(fd, data, size) : read(fd, data, size);
    while (done < 0 && errno == EINTR);
    return native_result(ctx, done);
}

NATIVE(native_read)
{
    return transfer(ctx, argv, 0);
}

NATIVE(native_write)
{
    return transfer(ctx, argv, 1);
}

/* seek(fd, offset) */
NATIVE(native_seek)
{
    int32_t fd;
    int64_t offset;
    if (JS_ToInt32(ctx, &fd, argv[0]) || JS_ToInt64(ctx, &offset, argv[1]))
        return JS_EXCEPTION;
    return native_result(ctx, lseek(fd, offset, SEEK_SET));
}

NATIVE(native_data_sync)
{
    int32_t fd;
    if (JS_ToInt32(ctx, &fd, argv[0]))
        return JS_EXCEPTION;
    return native_result(ctx, fdatasync(fd));
}

/* size(fd): of a file or a block device */
NATIVE(native_size)
{
    int32_t fd;
    struct stat s;
    uint64_t size;
    if (JS_ToInt32(ctx, &fd, argv[0]))
        return JS_EXCEPTION;
    if (fstat(fd, &s))
        return native_result(ctx, -1);
    if (!S_ISBLK(s.st_mode))
        return JS_NewInt64(ctx, s.st_size);
    if (ioctl(fd, BLKGETSIZE64, &size))
        return native_result(ctx, -1);
    return JS_NewInt64(ctx, size);
}

/* status(path, follow) -> [mode, size] of what is there: of a symbolic link itself, unless it is to be followed */
NATIVE(native_status)
{
    struct stat s;
    const char *path = JS_ToCString(ctx, argv[0]);
    if (!path)
        return JS_EXCEPTION;
    int failed = JS_ToBool(ctx, argv[1]) > 0 ? stat(path, &s) : lstat(path, &s);
    JS_FreeCString(ctx, path);
    if (failed)
        return native_result(ctx, -1);
    JSValue pair = JS_NewArray(ctx);
    JS_SetPropertyUint32(ctx, pair, 0, JS_NewInt64(ctx, s.st_mode));
    JS_SetPropertyUint32(ctx, pair, 1, JS_NewInt64(ctx, s.st_size));
    return pair;
}

/* readDirectory(path) -> names without . and .., in no order */
NATIVE(native_read_directory)
{
    const char *path = JS_ToCString(ctx, argv[0]);
    if (!path)
        return JS_EXCEPTION;
    DIR *dir = opendir(path);
    JS_FreeCString(ctx, path);
    if (!dir)
        return native_result(ctx, -1);
    JSValue names = JS_NewArray(ctx);
    uint32_t count = 0;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            JS_SetPropertyUint32(ctx, names, count++, JS_NewString(ctx, entry->d_name));
    closedir(dir);
    return names;
}

/* One path and one of the calls that need no more. */
static JSValue with_path(JSContext *ctx, JSValueConst *argv, int (*apply)(const char *))
{
    const char *path = JS_ToCString(ctx, argv[0]);
    if (!path)
        return JS_EXCEPTION;
    JSValue result = native_result(ctx, apply(path));
    JS_FreeCString(ctx, path);
    return result;
}

static int make_directory(const char *path)
{
    return mkdir(path, 0755);
}

static int make_fifo(const char *path)
{
    return mkfifo(path, 0600);
}

NATIVE(native_make_directory)
{
    return with_path(ctx, argv, make_directory);
}

NATIVE(native_make_fifo)
{
    return with_path(ctx, argv, make_fifo);
}

NATIVE(native_remove)
{
    return with_path(ctx, argv, remove);
}

static JSValue with_two_paths(JSContext *ctx, JSValueConst *argv, int (*apply)(const char *, const char *))
{
    const char *first = JS_ToCString(ctx, argv[0]);
    const char *second = first ? JS_ToCString(ctx, argv[1]) : NULL;
    JSValue result = second ? native_result(ctx, apply(first, second)) : JS_EXCEPTION;
    JS_FreeCString(ctx, first);
    JS_FreeCString(ctx, second);
    return result;
}

NATIVE(native_rename)
{
    return with_two_paths(ctx, argv, rename);
}

NATIVE(native_symlink)
{
    return with_two_paths(ctx, argv, symlink);
}

NATIVE(native_read_link)
{
    char target[PATH_MAX];
    const char *path = JS_ToCString(ctx, argv[0]);
    if (!path)
        return JS_EXCEPTION;
    ssize_t size = readlink(path, target, sizeof target);
    JS_FreeCString(ctx, path);
    return size < 0 ? native_result(ctx, -1) : JS_NewStringLen(ctx, target, size);
}

/* mount(source, target, type, flags, data) */
NATIVE(native_mount)
{
    const char *text[4] = {NULL};
    static const int at[4] = {0, 1, 2, 4};
    int32_t flags;
    JSValue result = JS_EXCEPTION;

    for (int i = 0; i < 4; i++)
        if (!(text[i] = JS_ToCString(ctx, argv[at[i]])))
            goto out;
    if (!JS_ToInt32(ctx, &flags, argv[3]))
        result = native_result(ctx, mount(text[0], text[1], text[2], flags, text[3]));
out:
    for (int i = 0; i < 4; i++)
        JS_FreeCString(ctx, text[i]);
    return result;
}
