/* The table of what "stubdom-native" exports; agent/platform/quickjs/native.d.ts is its twin. */
#include "native.h"

#define FUNCTION(name, arguments, implementation) JS_CFUNC_DEF(name, arguments, implementation)

static const JSCFunctionListEntry functions[] = {
    FUNCTION("watch", 3, native_watch),
    FUNCTION("armTimer", 1, native_arm_timer),
    FUNCTION("onTimer", 1, native_on_timer),
    FUNCTION("onUncaught", 1, native_on_uncaught),
    FUNCTION("now", 0, native_now),
    FUNCTION("roughly", 0, native_roughly),
    FUNCTION("started", 0, native_started),
    FUNCTION("wallClock", 0, native_wall_clock),

    FUNCTION("open", 3, native_open),
    FUNCTION("close", 1, native_close),
    FUNCTION("read", 2, native_read),
    FUNCTION("write", 2, native_write),
    FUNCTION("seek", 2, native_seek),
    FUNCTION("dataSync", 1, native_data_sync),
    FUNCTION("size", 1, native_size),
    FUNCTION("status", 2, native_status),
    FUNCTION("readDirectory", 1, native_read_directory),
    FUNCTION("makeDirectory", 1, native_make_directory),
    FUNCTION("makeFifo", 1, native_make_fifo),
    FUNCTION("remove", 1, native_remove),
    FUNCTION("rename", 2, native_rename),
    FUNCTION("readLink", 1, native_read_link),
    FUNCTION("symlink", 2, native_symlink),
    FUNCTION("mount", 5, native_mount),

    FUNCTION("spawn", 4, native_spawn),
    FUNCTION("executedAt", 0, native_executed_at),
    FUNCTION("reap", 0, native_reap),
    FUNCTION("kill", 2, native_kill),
    FUNCTION("yieldWakeUps", 1, native_yield_wake_ups),
    FUNCTION("signals", 1, native_signals),
    FUNCTION("powerOff", 1, native_power_off),
    FUNCTION("endWithin", 1, native_end_within),
    FUNCTION("crashAlong", 1, native_crash_along),
    FUNCTION("exit", 1, native_exit),
    FUNCTION("pid", 0, native_pid),
    FUNCTION("environment", 1, native_environment),

    FUNCTION("socketPair", 0, native_socket_pair),
    FUNCTION("listenUnix", 1, native_listen_unix),
    FUNCTION("accept", 1, native_accept),
    FUNCTION("connectUnix", 1, native_connect_unix),
    FUNCTION("sendDescriptor", 3, native_send_descriptor),
    FUNCTION("pipe", 0, native_pipe),
    FUNCTION("netlinkRoute", 1, native_netlink_route),
    FUNCTION("kernelEvents", 0, native_kernel_events),
    FUNCTION("openTap", 2, native_open_tap),
    FUNCTION("terminalRaw", 1, native_terminal_raw),
    FUNCTION("openTerminalRaw", 1, native_open_terminal_raw),

    FUNCTION("hash", 2, native_hash),
    FUNCTION("alignedBuffer", 1, native_aligned_buffer),
    FUNCTION("jobsReady", 0, native_jobs_ready),
    FUNCTION("submit", 4, native_submit),
    FUNCTION("results", 0, native_results),
    FUNCTION("loopAttach", 2, native_loop_attach),
    FUNCTION("loopResize", 1, native_loop_resize),
    FUNCTION("deviceNumber", 1, native_device_number),
    FUNCTION("truncate", 2, native_truncate),
    FUNCTION("tryLock", 1, native_try_lock),
    FUNCTION("freeSpace", 1, native_free_space),
    FUNCTION("pipeSize", 2, native_pipe_size),

    FUNCTION("encodeText", 1, native_encode_text),
    FUNCTION("decodeText", 1, native_decode_text),
    FUNCTION("errorName", 1, native_error_name),

    FUNCTION("holdDevices", 0, native_hold_devices),
    FUNCTION("vchanListen", 2, native_vchan_listen),
    FUNCTION("vchanDescriptor", 1, native_vchan_descriptor),
    FUNCTION("vchanAcknowledge", 1, native_vchan_acknowledge),
    FUNCTION("vchanState", 1, native_vchan_state),
    FUNCTION("vchanRead", 2, native_vchan_read),
    FUNCTION("vchanWrite", 2, native_vchan_write),
    FUNCTION("vchanClose", 1, native_vchan_close),

    FUNCTION("framebufferMode", 1, native_framebuffer_mode),
    FUNCTION("setFramebufferMode", 3, native_set_framebuffer_mode),
    FUNCTION("pixelsOpen", 1, native_pixels_open),
    FUNCTION("pixelsTake", 2, native_pixels_take),
    FUNCTION("pixelsBegin", 2, native_pixels_begin),
    FUNCTION("pixelsDraw", 1, native_pixels_draw),
    FUNCTION("pixelsClear", 3, native_pixels_clear),
    FUNCTION("pixelsClose", 1, native_pixels_close),
};

static int argument_count;
static char **arguments;

void native_set_arguments(int argc, char **argv)
{
    argument_count = argc;
    arguments = argv;
}

static int initialize(JSContext *ctx, JSModuleDef *module)
{
    JSValue list = JS_NewArray(ctx);

    vchan_register(ctx);
    framebuffer_register(ctx);
    for (int i = 0; i < argument_count; i++)
        JS_SetPropertyUint32(ctx, list, i, JS_NewString(ctx, arguments[i]));
    JS_SetModuleExport(ctx, module, "argv", list);
    return JS_SetModuleExportList(ctx, module, functions, sizeof functions / sizeof *functions);
}

JSModuleDef *js_init_module_stubdom_native(JSContext *ctx, const char *name)
{
    JSModuleDef *module = JS_NewCModule(ctx, name, initialize);
    if (!module)
        return NULL;
    JS_AddModuleExport(ctx, module, "argv");
    JS_AddModuleExportList(ctx, module, functions, sizeof functions / sizeof *functions);
    return module;
}
