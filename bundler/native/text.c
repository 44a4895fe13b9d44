/* Values in and out of JavaScript: bytes, UTF-8 text, lengths, and the names of errors. */
#include <stdlib.h>
#include <string.h>

#include "native.h"

int native_bytes(JSContext *ctx, JSValueConst value, uint8_t **data, size_t *size)
{
    size_t offset, length, element, buffer_size;
    JSValue buffer = JS_GetTypedArrayBuffer(ctx, value, &offset, &length, &element);

    if (JS_IsException(buffer))
        return -1;
    uint8_t *start = JS_GetArrayBuffer(ctx, &buffer_size, buffer);
    JS_FreeValue(ctx, buffer); /* the caller's typed array keeps it alive */
    if (!start)
        return -1;
    if (offset > buffer_size || length > buffer_size - offset) {
        JS_ThrowRangeError(ctx, "typed array outlives its buffer");
        return -1;
    }
    *data = start + offset;
    *size = length;
    return 0;
}

int native_length(JSContext *ctx, JSValueConst array, int64_t *length)
{
    JSValue value = JS_GetPropertyStr(ctx, array, "length");
    int failed = JS_IsException(value) || JS_ToInt64(ctx, length, value);
    JS_FreeValue(ctx, value);
    if (!failed && *length < 0) {
        JS_ThrowRangeError(ctx, "a length of %lld", (long long)*length);
        failed = 1;
    }
    return failed ? -1 : 0;
}

NATIVE(native_encode_text)
{
    size_t size;
    const char *text = JS_ToCStringLen(ctx, &size, argv[0]);
    if (!text)
        return JS_EXCEPTION;
    JSValue buffer = JS_NewArrayBufferCopy(ctx, (const uint8_t *)text, size);
    JS_FreeCString(ctx, text);
    return buffer;
}

/* Length of the valid UTF-8 sequence at `p`, or 0 (RFC 3629: no overlongs, surrogates or > U+10FFFF). */
static size_t sequence(const uint8_t *p, size_t left)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] >= 0xf0 && p[0] < 0xf8 ? 4 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : 0;
    if (n == 0 || n > left)
        return 0;
    uint32_t code = p[0] & (0x7f >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    return code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : n;
}

NATIVE(native_decode_text)
{
    uint8_t *data;
    size_t size, bad = 0;

    if (native_bytes(ctx, argv[0], &data, &size))
        return JS_EXCEPTION;
    for (size_t i = 0, n; i < size; i += n ? n : 1) {
        n = sequence(data + i, size - i);
        bad += !n;
    }
    if (!bad)
        return JS_NewStringLen(ctx, (const char *)data, size);

    /* Each bad byte becomes U+FFFD, three bytes of UTF-8. */
    char *clean = js_malloc(ctx, size + 2 * bad);
    size_t at = 0;
    if (!clean)
        return JS_EXCEPTION;
    for (size_t i = 0, n; i < size; i += n ? n : 1) {
        n = sequence(data + i, size - i);
        memcpy(clean + at, n ? (const char *)data + i : "\xef\xbf\xbd", n ? n : 3);
        at += n ? n : 3;
    }
    JSValue text = JS_NewStringLen(ctx, clean, at);
    js_free(ctx, clean);
    return text;
}

/* errorName(errno) -> "ENOENT" */
NATIVE(native_error_name)
{
    int32_t number;
    if (JS_ToInt32(ctx, &number, argv[0]))
        return JS_EXCEPTION;
    const char *name = strerrorname_np(number);
    return name ? JS_NewString(ctx, name) : JS_UNDEFINED;
}
