/*
 * What the suite needs beside the module under test, as the module "test-native": detaching a buffer, and the
 * other side of a libxenvchan that lives in memory, since the real one needs a hypervisor. Registered by
 * wrapping the registration of "stubdom-native", so that the program's own main() runs unchanged.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <libxenvchan.h>

#include "native.h"

enum { ring_size = 64 };

/* libxenvchan.h's struct first, so that a pointer to it is one to ours. */
struct fake {
    struct libxenvchan ring;
    int event, live; /* live: as libxenvchan_is_open() tells it */
    size_t inbound, outbound;
    uint8_t in[ring_size], out[ring_size];
};

static struct fake *latest; /* the one that the suite's calls below are about */
static int listen_failure;  /* errno of the next server_init, < 0: fails without one */

struct libxenvchan *libxenvchan_server_init(struct xentoollog_logger *logger, int domain, const char *path,
                                            size_t read_min, size_t write_min)
{
    (void)logger, (void)read_min, (void)write_min;
    if (listen_failure) {
        if (listen_failure > 0)
            errno = listen_failure;
        listen_failure = 0;
        return NULL;
    }
    struct fake *fake = calloc(1, sizeof *fake);
    fake->ring.xs_path = strdup(path);
    fake->ring.event_port = domain;
    fake->ring.blocking = 1;
    fake->event = eventfd(0, 0);
    fake->live = 2;
    latest = fake;
    return &fake->ring;
}

void libxenvchan_close(struct libxenvchan *ring)
{
    struct fake *fake = (struct fake *)ring;
    if (!ring)
        return;
    if (latest == fake)
        latest = NULL;
    close(fake->event);
    free(ring->xs_path);
    free(fake);
}

int libxenvchan_fd_for_select(struct libxenvchan *ring)
{
    return ((struct fake *)ring)->event;
}

int libxenvchan_wait(struct libxenvchan *ring)
{
    eventfd_t count;
    return eventfd_read(((struct fake *)ring)->event, &count);
}

int libxenvchan_is_open(struct libxenvchan *ring)
{
    return ((struct fake *)ring)->live;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

int libxenvchan_read(struct libxenvchan *ring, void *data, size_t size)
{
    struct fake *fake = (struct fake *)ring;
    size_t count = least(size, fake->inbound);
    if (!count && fake->live == 0)
        return -1;
    memcpy(data, fake->in, count);
    fake->inbound -= count;
    memmove(fake->in, fake->in + count, fake->inbound);
    return count;
}

int libxenvchan_write(struct libxenvchan *ring, const void *data, size_t size)
{
    struct fake *fake = (struct fake *)ring;
    size_t count = least(size, ring_size - fake->outbound);
    if (fake->live == 0)
        return -1;
    memcpy(fake->out + fake->outbound, data, count);
    fake->outbound += count;
    return count;
}

/* detach(ArrayBuffer) */
static NATIVE(detach)
{
    JS_DetachArrayBuffer(ctx, argv[0]);
    return JS_UNDEFINED;
}

/* collect(): runs the garbage collector, and with it finalizers */
static NATIVE(collect)
{
    JS_RunGC(JS_GetRuntime(ctx));
    return JS_UNDEFINED;
}

/* failListen(errno of the next vchanListen, -1 for none) */
static NATIVE(fail_listen)
{
    if (JS_ToInt32(ctx, &listen_failure, argv[0]))
        return JS_EXCEPTION;
    return JS_UNDEFINED;
}

/* vchanOpen() -> whether the latest ring has not been closed */
static NATIVE(vchan_open)
{
    return JS_NewBool(ctx, latest != NULL);
}

/* vchanIsBlocking() */
static NATIVE(vchan_is_blocking)
{
    return JS_NewBool(ctx, latest && (latest->ring.blocking || !(fcntl(latest->event, F_GETFL) & O_NONBLOCK)));
}

/* clientState(0 | 1 | 2): the client leaves, comes, or has never come; notifies */
static NATIVE(client_state)
{
    if (JS_ToInt32(ctx, &latest->live, argv[0]))
        return JS_EXCEPTION;
    eventfd_write(latest->event, 1);
    return JS_UNDEFINED;
}

/* clientSend(bytes) -> bytes taken; notifies */
static NATIVE(client_send)
{
    uint8_t *data;
    size_t size;
    if (native_bytes(ctx, argv[0], &data, &size))
        return JS_EXCEPTION;
    size = least(size, ring_size - latest->inbound);
    memcpy(latest->in + latest->inbound, data, size);
    latest->inbound += size;
    eventfd_write(latest->event, 1);
    return JS_NewInt32(ctx, size);
}

/* clientReceive() -> ArrayBuffer of all that was written */
static NATIVE(client_receive)
{
    JSValue bytes = JS_NewArrayBufferCopy(ctx, latest->out, latest->outbound);
    latest->outbound = 0;
    return bytes;
}

static const JSCFunctionListEntry functions[] = {
    JS_CFUNC_DEF("detach", 1, detach),
    JS_CFUNC_DEF("collect", 0, collect),
    JS_CFUNC_DEF("failListen", 1, fail_listen),
    JS_CFUNC_DEF("vchanOpen", 0, vchan_open),
    JS_CFUNC_DEF("vchanIsBlocking", 0, vchan_is_blocking),
    JS_CFUNC_DEF("clientState", 1, client_state),
    JS_CFUNC_DEF("clientSend", 1, client_send),
    JS_CFUNC_DEF("clientReceive", 0, client_receive),
};

static int initialize(JSContext *ctx, JSModuleDef *module)
{
    return JS_SetModuleExportList(ctx, module, functions, sizeof functions / sizeof *functions);
}

JSModuleDef *__real_js_init_module_stubdom_native(JSContext *ctx, const char *name);
JSModuleDef *__wrap_js_init_module_stubdom_native(JSContext *ctx, const char *name);

JSModuleDef *__wrap_js_init_module_stubdom_native(JSContext *ctx, const char *name)
{
    JSModuleDef *module = JS_NewCModule(ctx, "test-native", initialize);
    if (!module || JS_AddModuleExportList(ctx, module, functions, sizeof functions / sizeof *functions))
        return NULL;
    return __real_js_init_module_stubdom_native(ctx, name);
}
