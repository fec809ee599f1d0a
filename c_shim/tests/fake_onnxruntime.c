/* Libraries that are not quite ONNX Runtime, one for each FAKE. */
#include <onnxruntime_c_api.h>
#include <stddef.h>
#include <stdint.h>

#define OTHER 1     /* some other library */
#define EMPTY 2     /* ONNX Runtime without a table of functions */
#define OLD 3       /* too old; it must not be asked for a table that it lacks, because it would print that */
#define DIFFERENT 4 /* new enough by its number, but without this header's table */
#define BROKEN 5    /* cannot start */

#if FAKE == OTHER
int other;
#else

static const char *version(void) {
    return FAKE == OLD ? "1.2.3" : "1.999.0";
}

/* A status is its text. */
static OrtStatus *create_environment(OrtLoggingLevel level, const char *name, OrtEnv **out) {
    (void)level, (void)name, (void)out;
    return (OrtStatus *)(uintptr_t) "/src/env.cc:12 static Env::Create(int) no threads left";
}

static const char *message(const OrtStatus *status) {
    return (const char *)status;
}

static void release(OrtStatus *status) {
    (void)status;
}

static const OrtApi *api(uint32_t number) {
    static OrtApi table;
    (void)number;
    if (FAKE == OLD) __builtin_trap();
    if (FAKE == DIFFERENT) return NULL;
    table.CreateEnv = create_environment;
    table.GetErrorMessage = message;
    table.ReleaseStatus = release;
    return &table;
}

const OrtApiBase *OrtGetApiBase(void) {
    static const OrtApiBase base = {api, version};
    return FAKE == EMPTY ? NULL : &base;
}
#endif
