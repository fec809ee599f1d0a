#include "ort.h"

#include <stdio.h>

#include "check.h"

_Thread_local struct sidecaml_failure why;

const char *model_path(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/models/%s.onnx", TEST_FILES, name);
    return path;
}

const char *fake_path(const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/fakes/lib%s.so", TEST_FILES, name);
    return path;
}

sidecaml_session *load(const char *name) {
    sidecaml_session *session;
    if (sidecaml_session_create(model_path(name), 1, &session, &why) < 0)
        check_failed(__FILE__, __LINE__, "%s", why.text);
    return session;
}

void bind_floats(sidecaml_binding *binding, const char *name, bool output, const uint64_t *dims, uint32_t rank,
                 void *address) {
    int status = output ? sidecaml_binding_output(binding, name, SIDECAML_FLOAT32, dims, rank, address, &why)
                        : sidecaml_binding_input(binding, name, SIDECAML_FLOAT32, dims, rank, address, &why);
    if (status < 0) check_failed(__FILE__, __LINE__, "%s", why.text);
}
