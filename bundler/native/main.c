/* The program: a QuickJS runtime, the agent's bytecode, and the event loop. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "native.h"

/* The bundle as `qjsc -c` made it. */
extern const uint8_t stubdom_bundle[];
extern const uint32_t stubdom_bundle_size;

/* A bound, not a budget: a bug or a hostile peer gets an exception, not the memory that QEMU needs. */
enum { memory_limit = 24 << 20, stack_limit = 512 << 10 };
/* What process 1 is known to need before QEMU runs. */
enum { small_memory = 768 << 10, large_memory = 192 << 10 };

static JSModuleDef *load_module(JSContext *ctx, const char *name, void *opaque)
{
    (void)opaque;
    for (const struct bundled_module *m = bundled_modules; m && m->name; m++) {
        if (strcmp(m->name, name))
            continue;
        JSValue module = JS_ReadObject(ctx, m->bytecode, *m->size, JS_READ_OBJ_BYTECODE);
        if (JS_IsException(module))
            return NULL;
        JSModuleDef *definition = JS_VALUE_GET_PTR(module);
        JS_FreeValue(ctx, module); /* the context's list of modules holds it */
        return definition;
    }
    JS_ThrowReferenceError(ctx, "module %s is not in the program", name);
    return NULL;
}

/* loadModule(name) -> promise of its namespace: what the bundler makes of import() */
static NATIVE(native_load_module)
{
    const char *name = JS_ToCString(ctx, argv[0]);
    if (!name)
        return JS_EXCEPTION;
    JSValue promise = JS_LoadModule(ctx, "", name);
    JS_FreeCString(ctx, name);
    return promise;
}

static void define_load_module(JSContext *ctx)
{
    JSValue global = JS_GetGlobalObject(ctx);
    JS_SetPropertyStr(ctx, global, "loadModule", JS_NewCFunction(ctx, native_load_module, "loadModule", 1));
    JS_FreeValue(ctx, global);
}

static int fail(JSContext *ctx)
{
    JSValue error = JS_GetException(ctx);
    const char *text = JS_ToCString(ctx, error);
    fprintf(stderr, "stubdom: cannot start: %s\n", text ? text : "unknown error");
    JS_FreeCString(ctx, text);
    JS_FreeValue(ctx, error);
    return 1;
}

static int run(JSContext *ctx)
{
    if (!js_init_module_stubdom_native(ctx, "stubdom-native"))
        return fail(ctx);
    define_load_module(ctx);
    JSValue bundle = JS_ReadObject(ctx, stubdom_bundle, stubdom_bundle_size, JS_READ_OBJ_BYTECODE);
    if (JS_IsException(bundle))
        return fail(ctx);
    if (JS_ResolveModule(ctx, bundle) < 0) {
        JS_FreeValue(ctx, bundle);
        return fail(ctx);
    }
    JSValue done = JS_EvalFunction(ctx, bundle);
    if (JS_IsException(done))
        return fail(ctx);
    /* A rejection of the module's promise is reported by the loop like any other. */
    int status = event_loop_run(ctx);
    if (JS_PromiseState(ctx, done) == JS_PROMISE_REJECTED)
        status = 1;
    JS_FreeValue(ctx, done);
    return status;
}

int main(int argc, char **argv)
{
    mark_start();
    JSRuntime *rt = heap_new_runtime();
    if (getpid() == 1)
        heap_prepare(small_memory, large_memory);
    JSContext *ctx = rt ? JS_NewContext(rt) : NULL;
    if (!ctx) {
        fputs("stubdom: not enough memory to start\n", stderr);
        return 1;
    }
    signal(SIGPIPE, SIG_IGN);
    JS_SetMemoryLimit(rt, memory_limit);
    JS_SetGCThreshold(rt, first_collection);
    JS_SetMaxStackSize(rt, stack_limit);
    JS_SetModuleLoaderFunc(rt, NULL, load_module, NULL);
    JS_SetHostPromiseRejectionTracker(rt, event_loop_track_rejection, NULL);
    native_set_arguments(argc, argv);
    if (event_loop_open(ctx) < 0) {
        perror("stubdom: epoll_create1");
        return 1;
    }
    int status = run(ctx);
    event_loop_close(ctx);
    JS_FreeContext(ctx);
    JS_FreeRuntime(rt);
    return status;
}
