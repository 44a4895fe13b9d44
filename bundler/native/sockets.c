/* Sockets, pipes, TAP devices and terminals; all non-blocking and close-on-exec. */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "native.h"

static JSValue pair(JSContext *ctx, const int fds[2])
{
    JSValue both = JS_NewArray(ctx);
    JS_SetPropertyUint32(ctx, both, 0, JS_NewInt32(ctx, fds[0]));
    JS_SetPropertyUint32(ctx, both, 1, JS_NewInt32(ctx, fds[1]));
    return both;
}

NATIVE(native_socket_pair)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
        return native_result(ctx, -1);
    return pair(ctx, fds);
}

NATIVE(native_pipe)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
        return native_result(ctx, -1);
    return pair(ctx, fds);
}

/* A unix stream socket bound to or connected with the path in argv[0]. */
static JSValue unix_socket(JSContext *ctx, JSValueConst *argv, int listening)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t size;
    const char *path = JS_ToCStringLen(ctx, &size, argv[0]);

    if (!path)
        return JS_EXCEPTION;
    if (size >= sizeof address.sun_path) {
        JS_FreeCString(ctx, path);
        return JS_NewInt32(ctx, -ENAMETOOLONG);
    }
    memcpy(address.sun_path, path, size);
    JS_FreeCString(ctx, path);

    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return native_result(ctx, -1);
    int failed;
    if (listening) {
        unlink(address.sun_path);
        failed = bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 16);
    } else {
        failed = connect(fd, (struct sockaddr *)&address, sizeof address);
    }
    if (failed) {
        JSValue result = native_result(ctx, -1);
        close(fd);
        return result;
    }
    return JS_NewInt32(ctx, fd);
}

NATIVE(native_listen_unix)
{
    return unix_socket(ctx, argv, 1);
}

NATIVE(native_connect_unix)
{
    return unix_socket(ctx, argv, 0);
}

NATIVE(native_accept)
{
    int32_t fd;
    if (JS_ToInt32(ctx, &fd, argv[0]))
        return JS_EXCEPTION;
    return native_result(ctx, accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

/*
 * sendDescriptor(socket, bytes, descriptor): bytes taken, at least one, with which a copy of `descriptor` goes
 * over (SCM_RIGHTS, unix(7)). Both stay ours.
 */
NATIVE(native_send_descriptor)
{
    int32_t fd, passed;
    uint8_t *data;
    size_t size;
    /* The bytes last: a conversion may run code that detaches them. */
    if (JS_ToInt32(ctx, &fd, argv[0]) || JS_ToInt32(ctx, &passed, argv[2]) ||
        native_bytes(ctx, argv[1], &data, &size))
        return JS_EXCEPTION;
    /* On a stream a descriptor travels with a byte, or not at all. */
    if (!size)
        return JS_NewInt32(ctx, -EINVAL);

    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof passed)];
    } control = {.header = {
                     .cmsg_len = CMSG_LEN(sizeof passed),
                     .cmsg_level = SOL_SOCKET,
                     .cmsg_type = SCM_RIGHTS,
                 }};
    struct iovec bytes = {.iov_base = data, .iov_len = size};
    struct msghdr message = {
        .msg_iov = &bytes,
        .msg_iovlen = 1,
        .msg_control = control.space,
        .msg_controllen = sizeof control.space,
    };
    memcpy(CMSG_DATA(&control.header), &passed, sizeof passed);
    return native_result(ctx, sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL));
}

/* A netlink socket of `protocol`, bound to `groups`, with the socket options in `on` (0 ends them) set. */
static JSValue netlink_socket(JSContext *ctx, int protocol, uint32_t groups, const int *on)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = groups};
    int yes = 1;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
    if (fd < 0)
        return native_result(ctx, -1);
    for (; *on; on++)
        setsockopt(fd, SOL_NETLINK, *on, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&address, sizeof address)) {
        JSValue result = native_result(ctx, -1);
        close(fd);
        return result;
    }
    return JS_NewInt32(ctx, fd);
}

/* netlinkRoute(groups) */
NATIVE(native_netlink_route)
{
    /* Extended acknowledgements carry the kernel's own words about an error. */
    static const int options[] = {NETLINK_EXT_ACK, NETLINK_CAP_ACK, 0};
    uint32_t groups;
    if (JS_ToUint32(ctx, &groups, argv[0]))
        return JS_EXCEPTION;
    return netlink_socket(ctx, NETLINK_ROUTE, groups, options);
}

/*
 * kernelEvents(): group 1 is the kernel's own, udevd repeats in group 2. An overrun is no error: what the
 * reader wants to know is that something happened, and the events before it say so.
 */
NATIVE(native_kernel_events)
{
    static const int options[] = {NETLINK_NO_ENOBUFS, 0};
    return netlink_socket(ctx, NETLINK_KOBJECT_UEVENT, 1, options);
}

/* openTap(name, with vnet header) */
NATIVE(native_open_tap)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    size_t size;
    const char *name = JS_ToCStringLen(ctx, &size, argv[0]);
    if (!name)
        return JS_EXCEPTION;
    if (size >= sizeof request.ifr_name) {
        JS_FreeCString(ctx, name);
        return JS_NewInt32(ctx, -ENAMETOOLONG);
    }
    memcpy(request.ifr_name, name, size);
    JS_FreeCString(ctx, name);
    if (JS_ToBool(ctx, argv[1]))
        request.ifr_flags |= IFF_VNET_HDR;

    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return native_result(ctx, -1);
    if (ioctl(fd, TUNSETIFF, &request)) {
        JSValue result = native_result(ctx, -1);
        close(fd);
        return result;
    }
    return JS_NewInt32(ctx, fd);
}

static int make_raw(int fd)
{
    struct termios t;
    if (tcgetattr(fd, &t))
        return -1;
    cfmakeraw(&t);
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    return tcsetattr(fd, TCSANOW, &t);
}

NATIVE(native_terminal_raw)
{
    int32_t fd;
    if (JS_ToInt32(ctx, &fd, argv[0]))
        return JS_EXCEPTION;
    return native_result(ctx, make_raw(fd));
}

/*
 * openTerminalRaw(path): an hvc terminal is cooked again with every first open, and bytes that wait in its
 * ring are passed on by a kernel thread as soon as it is open. On the stub domain's one processor that thread
 * cannot run before the mode is set while we have real-time priority.
 */
NATIVE(native_open_terminal_raw)
{
    struct sched_param urgent = {.sched_priority = sched_get_priority_max(SCHED_FIFO)}, normal = {0};
    const char *path = JS_ToCString(ctx, argv[0]);
    if (!path)
        return JS_EXCEPTION;
    int raised = !sched_setscheduler(0, SCHED_FIFO, &urgent);
    int fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    int failed = fd < 0 || make_raw(fd);
    int reason = errno;
    if (raised)
        sched_setscheduler(0, SCHED_OTHER, &normal);
    JS_FreeCString(ctx, path);
    if (!failed)
        return JS_NewInt32(ctx, fd);
    if (fd >= 0)
        close(fd);
    return JS_NewInt32(ctx, -reason);
}
