/*
 * The part of the agent that JavaScript cannot reach: system calls, the event loop and libxenvchan, as the
 * module "stubdom-native". Every function takes plain numbers, strings and Uint8Arrays and returns a
 * result >= 0 or -errno; agent/platform/quickjs/ turns that into the platform port.
 */
#ifndef STUBDOM_NATIVE_H
#define STUBDOM_NATIVE_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include <quickjs/quickjs.h>

/* A native function with QuickJS's signature; `argv` is padded with undefined to the declared length. */
#define UNUSED __attribute__((unused))
#define NATIVE(name)                                                                \
    JSValue name(JSContext *ctx UNUSED, JSValueConst this_val UNUSED, int argc UNUSED, \
                 JSValueConst *argv UNUSED)

/* What a system call returned, as the module's convention has it: the result or -errno. */
static inline JSValue native_result(JSContext *ctx, int64_t result)
{
    return JS_NewInt64(ctx, result < 0 ? -(int64_t)errno : result);
}

/* The bytes of a Uint8Array (or any typed array); -1 with a pending TypeError for anything else. */
int native_bytes(JSContext *ctx, JSValueConst value, uint8_t **data, size_t *size);

/* Length of an array; -1 with a pending exception for what has none. */
int native_length(JSContext *ctx, JSValueConst array, int64_t *length);

/* What the program loads when it needs it, ended by a name of NULL; a bundle of one piece has none. */
extern const struct bundled_module {
    const char *name;
    const uint8_t *bytecode;
    const uint32_t *size;
} bundled_modules[] __attribute__((weak));

/* heap.c */
/* A runtime whose memory heap.c gives; the only one in the program. */
JSRuntime *heap_new_runtime(void);
/* Bytes that the runtime uses. */
size_t heap_in_use(void);
/*
 * Gets memory that will be needed at once: so many bytes for small pieces, so many for large ones. In a PV domain each
 * page that is first touched by itself costs a fault by way of Xen. Where the kernel refuses, they come one by one.
 */
void heap_prepare(size_t small, size_t large);

/* event-loop.c */
/* Bytes in use at which garbage is collected for the first time: QEMU runs then. */
enum { first_collection = 1 << 20 };
void mark_start(void); /* as soon as main() is entered */
double boot_time_ms(void); /* CLOCK_BOOTTIME */
int event_loop_open(JSContext *ctx);
/* Runs until exit() is called or nothing is left to wait for; returns the process's exit status. */
int event_loop_run(JSContext *ctx);
void event_loop_close(JSContext *ctx);
void event_loop_track_rejection(JSContext *ctx, JSValueConst promise, JSValueConst reason,
                                JS_BOOL is_handled, void *opaque);

NATIVE(native_watch);
NATIVE(native_arm_timer);
NATIVE(native_on_timer);
NATIVE(native_on_uncaught);
NATIVE(native_now);
NATIVE(native_roughly);
NATIVE(native_started);
NATIVE(native_wall_clock);

/* files.c */
NATIVE(native_open);
NATIVE(native_close);
NATIVE(native_read);
NATIVE(native_write);
NATIVE(native_seek);
NATIVE(native_data_sync);
NATIVE(native_size);
NATIVE(native_status);
NATIVE(native_read_directory);
NATIVE(native_make_directory);
NATIVE(native_make_fifo);
NATIVE(native_remove);
NATIVE(native_rename);
NATIVE(native_read_link);
NATIVE(native_symlink);
NATIVE(native_mount);

/* process.c */
void hold_privcmd(void);
NATIVE(native_spawn);
NATIVE(native_executed_at);
NATIVE(native_reap);
NATIVE(native_kill);
NATIVE(native_yield_wake_ups);
NATIVE(native_signals);
NATIVE(native_power_off);
NATIVE(native_end_within);
NATIVE(native_crash_along);
NATIVE(native_exit);
NATIVE(native_pid);
NATIVE(native_environment);

/* sockets.c */
NATIVE(native_socket_pair);
NATIVE(native_listen_unix);
NATIVE(native_accept);
NATIVE(native_connect_unix);
NATIVE(native_send_descriptor);
NATIVE(native_pipe);
NATIVE(native_netlink_route);
NATIVE(native_kernel_events);
NATIVE(native_open_tap);
NATIVE(native_terminal_raw);
NATIVE(native_open_terminal_raw);

/* storage.c */
NATIVE(native_hash);
NATIVE(native_aligned_buffer);
NATIVE(native_jobs_ready);
NATIVE(native_submit);
NATIVE(native_results);
NATIVE(native_loop_attach);
NATIVE(native_loop_resize);
NATIVE(native_device_number);
NATIVE(native_truncate);
NATIVE(native_try_lock);
NATIVE(native_free_space);
NATIVE(native_pipe_size);

/* text.c */
NATIVE(native_encode_text);
NATIVE(native_decode_text);
NATIVE(native_error_name);

/* vchan.c */
void vchan_register(JSContext *ctx);
NATIVE(native_hold_devices);
NATIVE(native_vchan_listen);
NATIVE(native_vchan_descriptor);
NATIVE(native_vchan_acknowledge);
NATIVE(native_vchan_state);
NATIVE(native_vchan_read);
NATIVE(native_vchan_write);
NATIVE(native_vchan_close);

/* framebuffer.c */
void framebuffer_register(JSContext *ctx);
NATIVE(native_framebuffer_mode);
NATIVE(native_set_framebuffer_mode);
NATIVE(native_pixels_open);
NATIVE(native_pixels_take);
NATIVE(native_pixels_begin);
NATIVE(native_pixels_draw);
NATIVE(native_pixels_clear);
NATIVE(native_pixels_close);

/* module.c */
JSModuleDef *js_init_module_stubdom_native(JSContext *ctx, const char *name);
void native_set_arguments(int argc, char **argv);

#endif
