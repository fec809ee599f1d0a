/* A model in a session, and what it says of its tensors. */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "failure.h"

#define TYPE_TEXT_BYTES 256

static int no_memory(struct sidecaml_failure *why) {
    return fail(why, SIDECAML_E_NO_MEMORY, "no memory for a session");
}

/* --- Tensors ----------------------------------------------------------------------------------------------------- */

/* A session whose tensors are being read. */
struct reading {
    struct sidecaml_session *session;
    const char *path;
    struct sidecaml_failure *why;
};

static int check(const struct reading *reading, OrtStatus *status) {
    return ort_check_model(status, reading->path, reading->why);
}

static int read_name(const struct reading *reading, uint32_t index, char **out) {
    const struct sidecaml_session *session = reading->session;
    OrtAllocator *allocator;
    char *name;
    int status = check(reading, ort_api->GetAllocatorWithDefaultOptions(&allocator));
    if (status < 0) return status;
    status = check(reading,
                   index < session->inputs
                       ? ort_api->SessionGetInputName(session->session, index, allocator, &name)
                       : ort_api->SessionGetOutputName(session->session, index - session->inputs, allocator, &name));
    if (status < 0) return status;
    *out = strdup(name);
    status = check(reading, ort_api->AllocatorFree(allocator, name));
    return *out ? status : no_memory(reading->why);
}

static int copy_dim_names(const struct reading *reading, struct sidecaml_session_tensor *tensor,
                          const OrtTensorTypeAndShapeInfo *info) {
    const char **names = calloc(tensor->rank, sizeof names[0]);
    if (!names) return no_memory(reading->why);
    int status = check(reading, ort_api->GetSymbolicDimensions(info, names, tensor->rank));
    for (uint32_t i = 0; status == 0 && i < tensor->rank; i++) {
        bool named = tensor->dims[i] < 0 && names[i];
        tensor->dim_names[i] = strdup(named ? names[i] : "");
        if (!tensor->dim_names[i]) status = no_memory(reading->why);
    }
    free(names);
    return status;
}

static int read_shape(const struct reading *reading, struct sidecaml_session_tensor *tensor,
                      const OrtTensorTypeAndShapeInfo *info) {
    size_t rank;
    int status = check(reading, ort_api->GetDimensionsCount(info, &rank));
    if (status < 0 || rank == 0) return status;
    tensor->dims = calloc(rank, sizeof tensor->dims[0]);
    tensor->dim_names = calloc(rank, sizeof tensor->dim_names[0]);
    if (!tensor->dims || !tensor->dim_names) return no_memory(reading->why);
    tensor->rank = (uint32_t)rank;
    status = check(reading, ort_api->GetDimensions(info, tensor->dims, rank));
    return status < 0 ? status : copy_dim_names(reading, tensor, info);
}

static int read_type(const struct reading *reading, struct sidecaml_session_tensor *tensor, const OrtTypeInfo *type) {
    char text[TYPE_TEXT_BYTES];
    enum ONNXType kind;
    const OrtTensorTypeAndShapeInfo *info;
    int status = check(reading, ort_type_text(type, text, sizeof text));
    if (status < 0) return status;
    tensor->type = strdup(text);
    if (!tensor->type) return no_memory(reading->why);
    tensor->dtype = sidecaml_dtype_of_type(text);
    status = check(reading, ort_api->GetOnnxTypeFromTypeInfo(type, &kind));
    if (status < 0 || kind != ONNX_TYPE_TENSOR) return status;
    status = check(reading, ort_api->CastTypeInfoToTensorInfo(type, &info));
    return status < 0 ? status : read_shape(reading, tensor, info);
}

static int read_tensor(const struct reading *reading, uint32_t index) {
    const struct sidecaml_session *session = reading->session;
    struct sidecaml_session_tensor *tensor = &session->tensors[index];
    OrtTypeInfo *type;
    int status = read_name(reading, index, &tensor->name);
    if (status < 0) return status;
    status = check(reading, index < session->inputs
                                ? ort_api->SessionGetInputTypeInfo(session->session, index, &type)
                                : ort_api->SessionGetOutputTypeInfo(session->session, index - session->inputs, &type));
    if (status < 0) return status;
    status = read_type(reading, tensor, type);
    ort_api->ReleaseTypeInfo(type);
    return status;
}

static int read_tensors(const struct reading *reading) {
    struct sidecaml_session *session = reading->session;
    size_t inputs, outputs;
    int status = check(reading, ort_api->SessionGetInputCount(session->session, &inputs));
    if (status == 0) status = check(reading, ort_api->SessionGetOutputCount(session->session, &outputs));
    if (status < 0) return status;
    session->tensors = calloc(inputs + outputs + 1, sizeof session->tensors[0]); /* one more: calloc(0) may be NULL */
    if (!session->tensors) return no_memory(reading->why);
    session->inputs = (uint32_t)inputs;
    session->count = (uint32_t)(inputs + outputs);
    for (uint32_t i = 0; status == 0 && i < session->count; i++)
        status = read_tensor(reading, i);
    return status;
}

static int name_dims(struct sidecaml_session_tensor *tensor, struct sidecaml_failure *why) {
    for (uint32_t i = 0; i < tensor->rank; i++) {
        if (tensor->dims[i] >= 0) continue;
        tensor->dims[i] = -1;
        if (*tensor->dim_names[i]) continue;
        free(tensor->dim_names[i]);
        tensor->dim_names[i] = sidecaml_model_dim_name(tensor->name, i);
        if (!tensor->dim_names[i]) return no_memory(why);
    }
    return 0;
}

static int judge_tensors(struct sidecaml_session *session, struct sidecaml_failure *why) {
    int status = sidecaml_model_check_tensors(session->tensors, session->inputs, session->count, why);
    for (uint32_t i = 0; status == 0 && i < session->count; i++)
        status = name_dims(&session->tensors[i], why);
    return status;
}

const struct sidecaml_session_tensor *sidecaml_session_tensors(const sidecaml_session *session, uint32_t *inputs,
                                                               uint32_t *count) {
    *inputs = session->inputs;
    *count = session->count;
    return session->tensors;
}

/* --- Life -------------------------------------------------------------------------------------------------------- */

/* The same as those of the python lane: both must compute the same bits. */
static OrtStatus *set_options(OrtSessionOptions *options, uint32_t threads) {
    OrtStatus *status = ort_api->SetIntraOpNumThreads(options, (int)threads);
    if (!status) status = ort_api->SetInterOpNumThreads(options, 1);
    /* A pool that spins takes the processor from whoever waits for the answer. */
    if (!status) status = ort_api->AddSessionConfigEntry(options, "session.intra_op.allow_spinning", "0");
    return status ? status : ort_api->SetSessionLogSeverityLevel(options, ORT_LOGGING_LEVEL_ERROR);
}

static int load(const struct reading *reading, uint32_t threads) {
    OrtSessionOptions *options;
    int status = check(reading, ort_api->CreateSessionOptions(&options));
    if (status < 0) return status;
    status = check(reading, set_options(options, threads));
    if (status == 0)
        status = check(reading, ort_api->CreateSession(ort_env, reading->path, options, &reading->session->session));
    ort_api->ReleaseSessionOptions(options);
    return status;
}

int sidecaml_session_create(const char *model, uint32_t threads, sidecaml_session **out, struct sidecaml_failure *why) {
    if (threads == 0 || threads > INT16_MAX)
        return fail(why, SIDECAML_E_INVALID, "a session has 1 to %d threads, not %u", INT16_MAX, threads);
    int status = sidecaml_model_check_file(model, strlen(model), why);
    if (status == 0) status = sidecaml_ort_open(NULL, why);
    if (status < 0) return status;
    const struct reading reading = {calloc(1, sizeof *reading.session), model, why};
    if (!reading.session) return no_memory(why);
    status = load(&reading, threads);
    if (status == 0) status = read_tensors(&reading);
    if (status == 0) status = judge_tensors(reading.session, why);
    if (status < 0) {
        sidecaml_session_destroy(reading.session);
        return status;
    }
    *out = reading.session;
    return 0;
}

void sidecaml_session_destroy(sidecaml_session *session) {
    if (!session) return;
    for (uint32_t i = 0; i < session->count; i++)
        sidecaml_session_tensor_clear(&session->tensors[i]);
    free(session->tensors);
    if (session->session) ort_api->ReleaseSession(session->session);
    free(session);
}
