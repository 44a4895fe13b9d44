/* One libxenvchan server ring as an object of class Vchan. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include <libxenvchan.h>

#include "native.h"

static JSClassID vchan_class;

static void finalize(JSRuntime *rt, JSValue value)
{
    (void)rt;
    libxenvchan_close(JS_GetOpaque(value, vchan_class));
}

static JSClassDef definition = {"Vchan", .finalizer = finalize};

void vchan_register(JSContext *ctx)
{
    JS_NewClassID(&vchan_class);
    JS_NewClass(JS_GetRuntime(ctx), vchan_class, &definition);
    JS_SetClassProto(ctx, vchan_class, JS_NewObject(ctx));
}

/*
 * holdDevices(): libxenvchan's way to xenstored, and the last hypercalls', are the devices that have those names now, whatever
 * has them later: QEMU is root. The library asks a socket where it finds one, and waits for its answer for ever; and without
 * privcmd a domain that crashes seems to have ended well.
 */
NATIVE(native_hold_devices)
{
    (void)argv;
    char path[32];
    int fd = open("/dev/xen/xenbus", O_PATH | O_CLOEXEC);
    if (fd < 0)
        return native_result(ctx, fd);
    hold_privcmd();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return native_result(ctx, setenv("XENSTORED_PATH", path, 1));
}

/* The ring of an open Vchan, or NULL with a pending exception. */
static struct libxenvchan *ring_of(JSContext *ctx, JSValueConst value)
{
    struct libxenvchan *ring = JS_GetOpaque2(ctx, value, vchan_class);
    if (!ring && !JS_HasException(ctx))
        JS_ThrowTypeError(ctx, "vchan is closed");
    return ring;
}

/* vchanListen(domid, xenstore path) -> Vchan */
NATIVE(native_vchan_listen)
{
    int32_t domid;

    if (JS_ToInt32(ctx, &domid, argv[0]))
        return JS_EXCEPTION;
    const char *path = JS_ToCString(ctx, argv[1]);
    if (!path)
        return JS_EXCEPTION;
    errno = EIO; /* the library does not always say */
    /* Sizes 0: both rings share the one granted page, 1 KiB in and 2 KiB out, enough for QMP. */
    struct libxenvchan *ring = libxenvchan_server_init(NULL, domid, path, 0, 0);
    JS_FreeCString(ctx, path);
    if (!ring)
        return native_result(ctx, -1);
    ring->blocking = 0;
    int fd = libxenvchan_fd_for_select(ring);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);

    JSValue object = JS_NewObjectClass(ctx, vchan_class);
    if (JS_IsException(object)) {
        libxenvchan_close(ring);
        return object;
    }
    JS_SetOpaque(object, ring);
    return object;
}

NATIVE(native_vchan_descriptor)
{
    struct libxenvchan *ring = ring_of(ctx, argv[0]);
    return ring ? JS_NewInt32(ctx, libxenvchan_fd_for_select(ring)) : JS_EXCEPTION;
}

NATIVE(native_vchan_acknowledge)
{
    struct libxenvchan *ring = ring_of(ctx, argv[0]);
    if (!ring)
        return JS_EXCEPTION;
    /* Nothing pending is no error: the event may have been taken already. */
    return JS_NewInt32(ctx, libxenvchan_wait(ring) && errno != EAGAIN ? -errno : 0);
}

/* vchanState(vchan) -> 0 closed, 1 connected, 2 waiting for the client (libxenvchan.h, cli_live) */
NATIVE(native_vchan_state)
{
    struct libxenvchan *ring = ring_of(ctx, argv[0]);
    return ring ? JS_NewInt32(ctx, libxenvchan_is_open(ring)) : JS_EXCEPTION;
}

static JSValue transfer(JSContext *ctx, JSValueConst *argv, int writing)
{
    uint8_t *data;
    size_t size;
    struct libxenvchan *ring = ring_of(ctx, argv[0]);

    if (!ring || native_bytes(ctx, argv[1], &data, &size))
        return JS_EXCEPTION;
    int done = writing ? libxenvchan_write(ring, data, size) : libxenvchan_read(ring, data, size);
    return JS_NewInt32(ctx, done < 0 ? -EPIPE : done);
}

NATIVE(native_vchan_read)
{
    return transfer(ctx, argv, 0);
}

NATIVE(native_vchan_write)
{
    return transfer(ctx, argv, 1);
}

NATIVE(native_vchan_close)
{
    struct libxenvchan *ring = JS_GetOpaque(argv[0], vchan_class);
    /* Closed already, or nothing of ours: JS_SetOpaque would overwrite the inside of any object. */
    if (!ring)
        return JS_UNDEFINED;
    JS_SetOpaque((JSValue)argv[0], NULL);
    libxenvchan_close(ring);
    return JS_UNDEFINED;
}
