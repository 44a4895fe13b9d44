/* The framebuffer device (linux/fb.h), and pixels.c as an object of class PixelSource. */
#include <linux/fb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "native.h"
#include "pixels.h"

/* framebufferMode(fd) -> [width, height, stride, size, bits, red offset, green offset, blue offset] */
NATIVE(native_framebuffer_mode)
{
    struct fb_var_screeninfo var;
    struct fb_fix_screeninfo fix;
    int32_t fd;

    if (JS_ToInt32(ctx, &fd, argv[0]))
        return JS_EXCEPTION;
    if (ioctl(fd, FBIOGET_VSCREENINFO, &var) || ioctl(fd, FBIOGET_FSCREENINFO, &fix))
        return native_result(ctx, -1);
    const uint32_t fields[] = {var.xres,           var.yres,         fix.line_length,    fix.smem_len,
                               var.bits_per_pixel, var.red.offset, var.green.offset, var.blue.offset};
    JSValue list = JS_NewArray(ctx);
    for (uint32_t i = 0; i < sizeof fields / sizeof *fields; i++)
        JS_SetPropertyUint32(ctx, list, i, JS_NewUint32(ctx, fields[i]));
    return list;
}

/* setFramebufferMode(fd, width, height) */
NATIVE(native_set_framebuffer_mode)
{
    struct fb_var_screeninfo var;
    int32_t fd;
    uint32_t width, height;

    if (JS_ToInt32(ctx, &fd, argv[0]) || JS_ToUint32(ctx, &width, argv[1]) ||
        JS_ToUint32(ctx, &height, argv[2]))
        return JS_EXCEPTION;
    if (ioctl(fd, FBIOGET_VSCREENINFO, &var))
        return native_result(ctx, -1);
    var.xres = var.xres_virtual = width;
    var.yres = var.yres_virtual = height;
    var.xoffset = var.yoffset = 0;
    var.activate = FB_ACTIVATE_NOW;
    return native_result(ctx, ioctl(fd, FBIOPUT_VSCREENINFO, &var));
}

static JSClassID class_id;

static void finalize(JSRuntime *rt, JSValue value)
{
    (void)rt;
    free(JS_GetOpaque(value, class_id));
}

static JSClassDef definition = {"PixelSource", .finalizer = finalize};

void framebuffer_register(JSContext *ctx)
{
    JS_NewClassID(&class_id);
    JS_NewClass(JS_GetRuntime(ctx), class_id, &definition);
    JS_SetClassProto(ctx, class_id, JS_NewObject(ctx));
}

/* The source of an open PixelSource, or NULL with a pending exception. */
static struct pixels *source_of(JSContext *ctx, JSValueConst value)
{
    struct pixels *p = JS_GetOpaque2(ctx, value, class_id);
    if (!p && !JS_HasException(ctx))
        JS_ThrowTypeError(ctx, "pixel source is closed");
    return p;
}

/* pixelsOpen(socket) -> PixelSource; the socket stays the caller's */
NATIVE(native_pixels_open)
{
    int32_t socket;
    if (JS_ToInt32(ctx, &socket, argv[0]))
        return JS_EXCEPTION;
    struct pixels *p = malloc(sizeof *p);
    if (!p)
        return JS_NewInt32(ctx, -ENOMEM);
    pixels_open(p, socket);
    JSValue object = JS_NewObjectClass(ctx, class_id);
    if (JS_IsException(object))
        free(p);
    else
        JS_SetOpaque(object, p);
    return object;
}

/* pixelsTake(source, into) -> 0 end, 1 done, 2 wait */
NATIVE(native_pixels_take)
{
    uint8_t *data;
    size_t size;
    struct pixels *p = source_of(ctx, argv[0]);
    if (!p || native_bytes(ctx, argv[1], &data, &size))
        return JS_EXCEPTION;
    return JS_NewInt32(ctx, pixels_take(p, data, size));
}

/* pixelsBegin(source, plan: Int32Array in the order of struct pixels_plan) */
NATIVE(native_pixels_begin)
{
    struct pixels_plan plan;
    uint8_t *data;
    size_t size;
    struct pixels *p = source_of(ctx, argv[0]);
    if (!p || native_bytes(ctx, argv[1], &data, &size))
        return JS_EXCEPTION;
    if (size != sizeof plan)
        return JS_NewInt32(ctx, -EINVAL);
    memcpy(&plan, data, sizeof plan);
    return JS_NewInt32(ctx, pixels_begin(p, &plan));
}

/* pixelsDraw(source) -> 0 end, 1 done, 2 wait, 3 more */
NATIVE(native_pixels_draw)
{
    struct pixels *p = source_of(ctx, argv[0]);
    return p ? JS_NewInt32(ctx, pixels_draw(p)) : JS_EXCEPTION;
}

/* pixelsClear(source, framebuffer, size in bytes) */
NATIVE(native_pixels_clear)
{
    int32_t fd;
    uint32_t size;
    struct pixels *p = source_of(ctx, argv[0]);
    if (!p || JS_ToInt32(ctx, &fd, argv[1]) || JS_ToUint32(ctx, &size, argv[2]))
        return JS_EXCEPTION;
    return JS_NewInt32(ctx, pixels_clear(p, fd, size));
}

NATIVE(native_pixels_close)
{
    struct pixels *p = JS_GetOpaque(argv[0], class_id);
    if (p)
        JS_SetOpaque((JSValue)argv[0], NULL);
    free(p);
    return JS_UNDEFINED;
}
