/* A model in a session, and what it says of its tensors. */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "failure.h"

#define TYPE_TEXT_BYTES 256

static int check(OrtStatus *status, struct sidecaml_failure *why) {
    return ort_check(status, SIDECAML_E_MODEL_FAILED, why);
}

static int no_memory(struct sidecaml_failure *why) {
    return fail(why, SIDECAML_E_NO_MEMORY, "no memory for a session");
}

/* --- Tensors ----------------------------------------------------------------------------------------------------- */

static int read_name(const sidecaml_session *session, uint32_t index, char **out, struct sidecaml_failure *why) {
    OrtAllocator *allocator;
    char *name;
    int status = check(ort_api->GetAllocatorWithDefaultOptions(&allocator), why);
    if (status < 0) return status;
    status = check(index < session->inputs
                       ? ort_api->SessionGetInputName(session->session, index, allocator, &name)
                       : ort_api->SessionGetOutputName(session->session, index - session->inputs, allocator, &name),
                   why);
    if (status < 0) return status;
    *out = strdup(name);
    status = check(ort_api->AllocatorFree(allocator, name), why);
    return *out ? status : no_memory(why);
}

static int copy_dim_names(struct sidecaml_session_tensor *tensor, const OrtTensorTypeAndShapeInfo *info,
                          struct sidecaml_failure *why) {
    const char **names = calloc(tensor->rank, sizeof names[0]);
    if (!names) return no_memory(why);
    int status = check(ort_api->GetSymbolicDimensions(info, names, tensor->rank), why);
    for (uint32_t i = 0; status == 0 && i < tensor->rank; i++) {
        tensor->dim_names[i] = strdup(names[i] ? names[i] : "");
        if (!tensor->dim_names[i]) status = no_memory(why);
    }
    free(names);
    return status;
}

static int read_shape(struct sidecaml_session_tensor *tensor, const OrtTensorTypeAndShapeInfo *info,
                      struct sidecaml_failure *why) {
    size_t rank;
    int status = check(ort_api->GetDimensionsCount(info, &rank), why);
    if (status < 0 || rank == 0) return status;
    tensor->dims = calloc(rank, sizeof tensor->dims[0]);
    tensor->dim_names = calloc(rank, sizeof tensor->dim_names[0]);
    if (!tensor->dims || !tensor->dim_names) return no_memory(why);
    tensor->rank = (uint32_t)rank;
    status = check(ort_api->GetDimensions(info, tensor->dims, rank), why);
    return status < 0 ? status : copy_dim_names(tensor, info, why);
}

static int read_type(struct sidecaml_session_tensor *tensor, const OrtTypeInfo *type, struct sidecaml_failure *why) {
    char text[TYPE_TEXT_BYTES];
    enum ONNXType kind;
    const OrtTensorTypeAndShapeInfo *info;
    ONNXTensorElementDataType element;
    int status = ort_type_text(type, text, sizeof text, why);
    if (status < 0) return status;
    tensor->type = strdup(text);
    if (!tensor->type) return no_memory(why);
    status = check(ort_api->GetOnnxTypeFromTypeInfo(type, &kind), why);
    if (status < 0 || kind != ONNX_TYPE_TENSOR) return status;
    status = check(ort_api->CastTypeInfoToTensorInfo(type, &info), why);
    if (status == 0) status = check(ort_api->GetTensorElementType(info, &element), why);
    if (status < 0) return status;
    tensor->dtype = dtype_of_onnx(element);
    return read_shape(tensor, info, why);
}

static int read_tensor(const sidecaml_session *session, uint32_t index, struct sidecaml_failure *why) {
    struct sidecaml_session_tensor *tensor = &session->tensors[index];
    OrtTypeInfo *type;
    int status = read_name(session, index, &tensor->name, why);
    if (status < 0) return status;
    status = check(index < session->inputs
                       ? ort_api->SessionGetInputTypeInfo(session->session, index, &type)
                       : ort_api->SessionGetOutputTypeInfo(session->session, index - session->inputs, &type),
                   why);
    if (status < 0) return status;
    status = read_type(tensor, type, why);
    ort_api->ReleaseTypeInfo(type);
    return status;
}

static int read_tensors(sidecaml_session *session, struct sidecaml_failure *why) {
    size_t inputs, outputs;
    int status = check(ort_api->SessionGetInputCount(session->session, &inputs), why);
    if (status == 0) status = check(ort_api->SessionGetOutputCount(session->session, &outputs), why);
    if (status < 0) return status;
    session->tensors = calloc(inputs + outputs + 1, sizeof session->tensors[0]); /* one more: calloc(0) may be NULL */
    if (!session->tensors) return no_memory(why);
    session->inputs = (uint32_t)inputs;
    session->count = (uint32_t)(inputs + outputs);
    for (uint32_t i = 0; status == 0 && i < session->count; i++)
        status = read_tensor(session, i, why);
    return status;
}

static void free_tensor(struct sidecaml_session_tensor *tensor) {
    for (uint32_t i = 0; i < tensor->rank; i++)
        free(tensor->dim_names[i]);
    free(tensor->dim_names);
    free(tensor->dims);
    free(tensor->type);
    free(tensor->name);
}

const struct sidecaml_session_tensor *sidecaml_session_tensors(const sidecaml_session *session, uint32_t *inputs,
                                                               uint32_t *count) {
    *inputs = session->inputs;
    *count = session->count;
    return session->tensors;
}

/* --- Life -------------------------------------------------------------------------------------------------------- */

/* The same as those of the python lane: both must compute the same bits. */
static int set_options(OrtSessionOptions *options, uint32_t threads, struct sidecaml_failure *why) {
    int status = check(ort_api->SetIntraOpNumThreads(options, (int)threads), why);
    if (status == 0) status = check(ort_api->SetInterOpNumThreads(options, 1), why);
    /* A pool that spins takes the processor from whoever waits for the answer. */
    if (status == 0)
        status = check(ort_api->AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0"), why);
    if (status == 0) status = check(ort_api->SetSessionLogSeverityLevel(options, ORT_LOGGING_LEVEL_ERROR), why);
    return status;
}

static int load(const char *model, uint32_t threads, OrtSession **out, struct sidecaml_failure *why) {
    OrtSessionOptions *options;
    int status = check(ort_api->CreateSessionOptions(&options), why);
    if (status < 0) return status;
    status = set_options(options, threads, why);
    if (status == 0) status = check(ort_api->CreateSession(ort_env, model, options, out), why);
    ort_api->ReleaseSessionOptions(options);
    return status;
}

int sidecaml_session_create(const char *model, uint32_t threads, sidecaml_session **out, struct sidecaml_failure *why) {
    if (threads == 0 || threads > INT16_MAX)
        return fail(why, SIDECAML_E_INVALID, "a session has 1 to %d threads, not %u", INT16_MAX, threads);
    int status = sidecaml_ort_open(NULL, why);
    if (status < 0) return status;
    sidecaml_session *session = calloc(1, sizeof *session);
    if (!session) return no_memory(why);
    status = load(model, threads, &session->session, why);
    if (status == 0) status = read_tensors(session, why);
    if (status < 0) {
        sidecaml_session_destroy(session);
        return status;
    }
    *out = session;
    return 0;
}

void sidecaml_session_destroy(sidecaml_session *session) {
    if (!session) return;
    for (uint32_t i = 0; i < session->count; i++)
        free_tensor(&session->tensors[i]);
    free(session->tensors);
    if (session->session) ort_api->ReleaseSession(session->session);
    free(session);
}
