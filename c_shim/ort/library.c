/* Finding and opening the library, once for the process. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <glob.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "failure.h"
#include "text.h"

#define TEXT_OF(macro) TEXT_OF_WORD(macro)
#define TEXT_OF_WORD(word) #word

const OrtApi *ort_api;
OrtEnv *ort_env;

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static void *library;
static const char *version;
static char *library_path;

static const char *const system_names[] = {
    "libonnxruntime.so.1",
    ("libonnxruntime.so.1." TEXT_OF(ORT_API_VERSION)), /* as Debian calls it */
    "libonnxruntime.so",
};
#define SYSTEM_NAMES (sizeof system_names / sizeof system_names[0])

int ort_check(OrtStatus *status, struct sidecaml_failure *why) {
    if (!status) return 0;
    const char *text = ort_api->GetErrorMessage(status);
    sidecaml_engine_failed(text, strlen(text), why);
    ort_api->ReleaseStatus(status);
    return -SIDECAML_E_ENGINE;
}

int ort_check_model(OrtStatus *status, const char *path, struct sidecaml_failure *why) {
    if (!status) return 0;
    const char *text = ort_api->GetErrorMessage(status);
    sidecaml_model_not_loaded(path, text, strlen(text), why);
    ort_api->ReleaseStatus(status);
    return -SIDECAML_E_MODEL_FAILED;
}

/* dlerror names the file itself. */
static int fail_to_open(struct sidecaml_failure *why) {
    return fail(why, SIDECAML_E_MODEL_FAILED, "ONNX Runtime could not be opened: %s", dlerror());
}

static void *open_named(const char *path, struct sidecaml_failure *why) {
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) fail_to_open(why);
    return handle;
}

/* Where a wheel has it, as a pattern; NULL when there is no environment. */
static const char *wheel_pattern(char *pattern, size_t room) {
    const char *environment = getenv("VIRTUAL_ENV");
    if (!environment || !*environment) return NULL;
    int length =
        snprintf(pattern, room, "%s/lib/python3*/site-packages/onnxruntime/capi/libonnxruntime.so.[0-9]*", environment);
    return length < (int)room ? pattern : NULL;
}

static bool wheel_path(char *path, size_t room) {
    char pattern[PATH_MAX];
    glob_t found;
    if (!wheel_pattern(pattern, sizeof pattern) || glob(pattern, 0, NULL, &found) != 0) return false;
    snprintf(path, room, "%s", found.gl_pathv[0]);
    globfree(&found);
    return true;
}

static void no_library(struct sidecaml_failure *why) {
    char pattern[PATH_MAX], buffer[SIDECAML_FAILURE_BYTES];
    struct text text = text_in(buffer, sizeof buffer);
    text_add(&text, "there is no ONNX Runtime: install the Python package onnxruntime or the system's library, or set "
                    "SIDECAML_ONNXRUNTIME to the path of libonnxruntime.so (looked for: ");
    if (wheel_pattern(pattern, sizeof pattern))
        text_add(&text, "%s", pattern);
    else
        text_add(&text, "no wheel, because VIRTUAL_ENV is not set");
    for (size_t i = 0; i < SYSTEM_NAMES; i++)
        text_add(&text, ", %s", system_names[i]);
    fail(why, SIDECAML_E_MODEL_FAILED, "%s)", buffer);
}

static void *open_system(struct sidecaml_failure *why) {
    for (size_t i = 0; i < SYSTEM_NAMES; i++) {
        void *handle = dlopen(system_names[i], RTLD_NOW | RTLD_LOCAL);
        if (handle) return handle;
    }
    no_library(why);
    return NULL;
}

static void *open_first(const char *path, struct sidecaml_failure *why) {
    const char *named = path && *path ? path : getenv("SIDECAML_ONNXRUNTIME");
    char wheel[PATH_MAX];
    if (named && *named) return open_named(named, why);
    return wheel_path(wheel, sizeof wheel) ? open_named(wheel, why) : open_system(why);
}

static char *path_of(void *handle) {
    struct link_map *map;
    return strdup(dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0 && *map->l_name ? map->l_name : "the program itself");
}

/* The NUMBER of a version 1.NUMBER.x, of which the C API has been kept ever since; 0 for any other. */
static unsigned long minor_of(const char *number) {
    return strncmp(number, "1.", 2) == 0 ? strtoul(number + 2, NULL, 10) : 0;
}

static const OrtApi *api_of(const OrtApiBase *base, struct sidecaml_failure *why) {
    const char *number = base->GetVersionString();
    unsigned long minor = minor_of(number);
    /* An old library would say so itself, on standard error. */
    const OrtApi *api = minor && minor < ORT_API_VERSION ? NULL : base->GetApi(ORT_API_VERSION);
    if (!api)
        fail(why, SIDECAML_E_MODEL_FAILED,
             minor && minor < ORT_API_VERSION
                 ? "%s is ONNX Runtime %s, and sidecaml was built for 1.%d: install that or a newer one"
                 : "%s is ONNX Runtime %s, which does not offer the C API of 1.%d that sidecaml was built for: install "
                   "that one",
             library_path, number, ORT_API_VERSION);
    return api;
}

static int make_environment(const OrtApi *api, struct sidecaml_failure *why) {
    OrtStatus *status = api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "sidecaml", &ort_env);
    if (!status) return 0;
    char sentence[SIDECAML_FAILURE_BYTES / 2];
    const char *text = api->GetErrorMessage(status);
    sidecaml_sentence(text, strlen(text), sentence, sizeof sentence);
    api->ReleaseStatus(status);
    return fail(why, SIDECAML_E_MODEL_FAILED, "%s could not be started: %s", library_path, sentence);
}

static int enter(void *handle, const OrtApiBase *base, struct sidecaml_failure *why) {
    const OrtApi *api = base ? api_of(base, why) : NULL;
    if (!base) fail(why, SIDECAML_E_MODEL_FAILED, "%s is not ONNX Runtime: it has no C API", library_path);
    if (!api) return -SIDECAML_E_MODEL_FAILED;
    int status = make_environment(api, why);
    if (status < 0) return status;
    ort_api = api;
    version = base->GetVersionString();
    library = handle;
    return 0;
}

static int use(void *handle, struct sidecaml_failure *why) {
    const OrtApiBase *(*base)(void);
    library_path = path_of(handle);
    if (!library_path) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for a path");
    *(void **)&base = dlsym(handle, "OrtGetApiBase");
    if (!base)
        return fail(why, SIDECAML_E_MODEL_FAILED, "%s is not ONNX Runtime: it has no OrtGetApiBase", library_path);
    return enter(handle, base(), why);
}

static int open_now(const char *path, struct sidecaml_failure *why) {
    /* Too late once it is loaded: it would keep a database under the home directory. */
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    void *handle = open_first(path, why);
    if (!handle) return -SIDECAML_E_MODEL_FAILED;
    int status = use(handle, why);
    if (status < 0) {
        free(library_path);
        library_path = NULL;
        dlclose(handle);
    }
    return status;
}

static int check_same(const char *path, struct sidecaml_failure *why) {
    if (!path || !*path) return 0;
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD);
    if (handle) dlclose(handle);
    if (handle == library) return 0;
    return fail(why, SIDECAML_E_INVALID, "%s was asked for and %s is in use: a process has one ONNX Runtime", path,
                library_path);
}

int sidecaml_ort_open(const char *path, struct sidecaml_failure *why) {
    pthread_mutex_lock(&opening);
    int status = library ? check_same(path, why) : open_now(path, why);
    pthread_mutex_unlock(&opening);
    return status;
}

const char *sidecaml_ort_version(void) {
    return version;
}

const char *sidecaml_ort_path(void) {
    return library ? library_path : NULL;
}
