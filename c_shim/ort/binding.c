/* A session's tensors bound to memory, and runs on it. */
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "deadline.h"
#include "failure.h"

struct sidecaml_binding {
    OrtSession *session;
    OrtIoBinding *io;
    OrtRunOptions *options;
    OrtMemoryInfo *memory;
    struct deadline deadline;
    /* What sidecaml_binding_outputs gave last. */
    uint32_t count;
    struct sidecaml_output *outputs;
    OrtValue **values;
};

static int no_memory(struct sidecaml_failure *why) {
    return fail(why, SIDECAML_E_NO_MEMORY, "no memory for a binding");
}

/* --- Life -------------------------------------------------------------------------------------------------------- */

/* Called by whoever watches deadlines, while the binding runs. */
static void tell(void *options, bool stop) {
    OrtStatus *status = stop ? ort_api->RunOptionsSetTerminate(options) : ort_api->RunOptionsUnsetTerminate(options);
    if (status) ort_api->ReleaseStatus(status); /* it only sets a flag */
}

static int make_parts(sidecaml_binding *binding, struct sidecaml_failure *why) {
    int status = ort_check(ort_api->CreateIoBinding(binding->session, &binding->io), why);
    if (status == 0)
        status = ort_check(ort_api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &binding->memory), why);
    if (status == 0) status = ort_check(ort_api->CreateRunOptions(&binding->options), why);
    /* It logs nothing: a failure is the caller's to hear of. */
    if (status == 0)
        status = ort_check(ort_api->RunOptionsSetRunLogSeverityLevel(binding->options, ORT_LOGGING_LEVEL_FATAL), why);
    return status;
}

int sidecaml_binding_create(sidecaml_session *session, sidecaml_binding **out, struct sidecaml_failure *why) {
    sidecaml_binding *binding = calloc(1, sizeof *binding);
    if (!binding) return no_memory(why);
    binding->session = session->session;
    int status = make_parts(binding, why);
    deadline_add(&binding->deadline, tell, binding->options);
    if (status < 0)
        sidecaml_binding_destroy(binding);
    else
        *out = binding;
    return status;
}

static void forget_outputs(sidecaml_binding *binding) {
    for (uint32_t i = 0; i < binding->count; i++) {
        ort_api->ReleaseValue(binding->values[i]);
        free(binding->outputs[i].dims);
    }
    free(binding->outputs);
    binding->outputs = NULL;
    free(binding->values);
    binding->values = NULL;
    binding->count = 0;
}

void sidecaml_binding_destroy(sidecaml_binding *binding) {
    if (!binding) return;
    deadline_remove(&binding->deadline);
    forget_outputs(binding);
    if (binding->io) ort_api->ReleaseIoBinding(binding->io);
    if (binding->memory) ort_api->ReleaseMemoryInfo(binding->memory);
    if (binding->options) ort_api->ReleaseRunOptions(binding->options);
    free(binding);
}

/* --- Binding ----------------------------------------------------------------------------------------------------- */

static bool tensor_bytes(uint32_t dtype, const uint64_t *dims, uint32_t rank, int64_t *shape, uint64_t *bytes) {
    if (!sidecaml_tensor_bytes(dtype, dims, rank, bytes)) return false;
    for (uint32_t i = 0; i < rank; i++)
        shape[i] = (int64_t)dims[i]; /* none is beyond 2^62 then */
    return true;
}

/* The caller's memory as a value of ONNX Runtime's. */
static int wrap(const sidecaml_binding *binding, uint32_t dtype, const uint64_t *dims, uint32_t rank, void *address,
                OrtValue **out, struct sidecaml_failure *why) {
    ONNXTensorElementDataType element = onnx_of_dtype(dtype);
    int64_t shape[SIDECAML_MAX_RANK];
    uint64_t bytes;
    if (!element) return fail(why, SIDECAML_E_INVALID, "there is no element type %u", dtype);
    if (dtype == SIDECAML_STRING) return fail(why, SIDECAML_E_INVALID, "strings cannot be bound where they are");
    if (rank > SIDECAML_MAX_RANK || !address || !tensor_bytes(dtype, dims, rank, shape, &bytes))
        return fail(why, SIDECAML_E_INVALID, "there is no tensor of such dimensions at such a place");
    return ort_check(
        ort_api->CreateTensorWithDataAsOrtValue(binding->memory, address, bytes, shape, rank, element, out), why);
}

int sidecaml_binding_input(sidecaml_binding *binding, const char *name, uint32_t dtype, const uint64_t *dims,
                           uint32_t rank, void *address, struct sidecaml_failure *why) {
    OrtValue *value;
    int status = wrap(binding, dtype, dims, rank, address, &value, why);
    if (status < 0) return status;
    status = ort_check(ort_api->BindInput(binding->io, name, value), why);
    ort_api->ReleaseValue(value); /* the binding has its own reference */
    return status;
}

/* Whatever their bytes, NULs included. */
static int fill_strings(OrtValue *value, const struct sidecaml_strings *strings, struct sidecaml_failure *why) {
    for (uint64_t i = 0; i < strings->count; i++) {
        uint64_t start = strings->offsets[i], length = strings->offsets[i + 1] - start;
        char *room;
        int status = ort_check(ort_api->GetResizedStringTensorElementBuffer(value, i, length, &room), why);
        if (status < 0) return status;
        memcpy(room, strings->text + start, length);
    }
    return 0;
}

static int bind_strings(sidecaml_binding *binding, const char *name, const int64_t *shape, uint32_t rank,
                        const struct sidecaml_strings *strings, struct sidecaml_failure *why) {
    OrtAllocator *allocator;
    OrtValue *value;
    int status = ort_check(ort_api->GetAllocatorWithDefaultOptions(&allocator), why);
    if (status == 0)
        status = ort_check(
            ort_api->CreateTensorAsOrtValue(allocator, shape, rank, ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING, &value), why);
    if (status < 0) return status;
    status = fill_strings(value, strings, why);
    if (status == 0) status = ort_check(ort_api->BindInput(binding->io, name, value), why);
    ort_api->ReleaseValue(value);
    return status;
}

int sidecaml_binding_input_strings(sidecaml_binding *binding, const char *name, const uint64_t *dims, uint32_t rank,
                                   const struct sidecaml_strings_place *place, struct sidecaml_failure *why) {
    int64_t shape[SIDECAML_MAX_RANK];
    uint64_t bytes;
    struct sidecaml_strings strings;
    if (rank > SIDECAML_MAX_RANK || !tensor_bytes(SIDECAML_STRING, dims, rank, shape, &bytes))
        return fail(why, SIDECAML_E_INVALID, "there is no tensor of such dimensions");
    int status = sidecaml_strings_read(place, bytes / sizeof(uint64_t) - 1, "input", name, &strings, why);
    if (status < 0) return status;
    status = bind_strings(binding, name, shape, rank, &strings, why);
    sidecaml_strings_clear(&strings);
    return status;
}

int sidecaml_binding_output(sidecaml_binding *binding, const char *name, uint32_t dtype, const uint64_t *dims,
                            uint32_t rank, void *address, struct sidecaml_failure *why) {
    OrtValue *value;
    int status = wrap(binding, dtype, dims, rank, address, &value, why);
    if (status < 0) return status;
    status = ort_check(ort_api->BindOutput(binding->io, name, value), why);
    ort_api->ReleaseValue(value);
    return status;
}

int sidecaml_binding_output_anywhere(sidecaml_binding *binding, const char *name, struct sidecaml_failure *why) {
    return ort_check(ort_api->BindOutputToDevice(binding->io, name, binding->memory), why);
}

/* --- Running ----------------------------------------------------------------------------------------------------- */

int sidecaml_binding_run(sidecaml_binding *binding, struct sidecaml_failure *why) {
    return ort_check(ort_api->RunWithBinding(binding->session, binding->options, binding->io), why);
}

static int too_late(struct sidecaml_failure *why) {
    return fail(why, SIDECAML_E_TIMEOUT, "%s", sidecaml_error_text(SIDECAML_E_TIMEOUT));
}

int sidecaml_binding_run_until(sidecaml_binding *binding, uint64_t deadline_ns, struct sidecaml_failure *why) {
    if (deadline_ns == DEADLINE_NONE || deadline_ns == DEADLINE_PASSED) return sidecaml_binding_run(binding, why);
    if (sidecaml_now_ns() >= deadline_ns) return too_late(why);
    int status = deadline_arm(&binding->deadline, deadline_ns, why);
    if (status < 0) return status;
    status = sidecaml_binding_run(binding, why);
    bool stopped = deadline_disarm(&binding->deadline, deadline_ns);
    return stopped && status < 0 ? too_late(why) : status;
}

static int take_values(sidecaml_binding *binding, struct sidecaml_failure *why) {
    OrtAllocator *allocator;
    OrtValue **values = NULL;
    size_t count = 0;
    int status = ort_check(ort_api->GetAllocatorWithDefaultOptions(&allocator), why);
    if (status == 0) status = ort_check(ort_api->GetBoundOutputValues(binding->io, allocator, &values, &count), why);
    if (status < 0) return status;
    binding->values = calloc(count + 1, sizeof(OrtValue *)); /* one more: calloc(0) may be NULL */
    binding->outputs = calloc(count + 1, sizeof binding->outputs[0]);
    bool kept = binding->values && binding->outputs;
    for (size_t i = 0; i < count; i++) {
        if (kept)
            binding->values[i] = values[i];
        else
            ort_api->ReleaseValue(values[i]);
    }
    if (kept) binding->count = (uint32_t)count;
    if (values) status = ort_check(ort_api->AllocatorFree(allocator, values), why);
    return kept ? status : no_memory(why);
}

static int read_dims(const OrtTensorTypeAndShapeInfo *info, struct sidecaml_output *output, uint32_t *dtype,
                     struct sidecaml_failure *why) {
    size_t rank;
    ONNXTensorElementDataType element;
    int status = ort_check(ort_api->GetDimensionsCount(info, &rank), why);
    if (status == 0) status = ort_check(ort_api->GetTensorElementType(info, &element), why);
    if (status < 0) return status;
    *dtype = dtype_of_onnx(element);
    if (!*dtype) return fail(why, SIDECAML_E_ENGINE, "an output has an element type that no channel carries");
    output->rank = (uint32_t)rank;
    int64_t *dims = calloc(rank + 1, sizeof dims[0]);
    if (!dims) return no_memory(why);
    output->dims = (uint64_t *)dims;
    status = ort_check(ort_api->GetDimensions(info, dims, rank), why);
    if (status == 0 && !sidecaml_tensor_bytes(*dtype, output->dims, output->rank, &output->bytes))
        return fail(why, SIDECAML_E_ENGINE, "an output is larger than any memory");
    return status;
}

static int read_output(OrtValue *value, struct sidecaml_output *output, struct sidecaml_failure *why) {
    int is_tensor = 0;
    uint32_t dtype;
    OrtTensorTypeAndShapeInfo *info;
    int status = ort_check(ort_api->IsTensor(value, &is_tensor), why);
    if (status == 0 && !is_tensor) return fail(why, SIDECAML_E_ENGINE, "an output is no tensor");
    if (status == 0) status = ort_check(ort_api->GetTensorTypeAndShape(value, &info), why);
    if (status < 0) return status;
    status = read_dims(info, output, &dtype, why);
    ort_api->ReleaseTensorTypeAndShapeInfo(info);
    if (status < 0) return status;
    if (dtype == SIDECAML_STRING) return ort_check(ort_api->GetStringTensorDataLength(value, &output->bytes), why);
    return ort_check(ort_api->GetTensorMutableData(value, &output->address), why);
}

int sidecaml_binding_outputs(sidecaml_binding *binding, const struct sidecaml_output **out, uint32_t *count,
                             struct sidecaml_failure *why) {
    forget_outputs(binding);
    int status = take_values(binding, why);
    for (uint32_t i = 0; status == 0 && i < binding->count; i++)
        status = read_output(binding->values[i], &binding->outputs[i], why);
    if (status < 0) return status;
    *out = binding->outputs;
    *count = binding->count;
    return 0;
}

_Static_assert(sizeof(size_t) == sizeof(uint64_t), "ONNX Runtime writes a table of offsets as a slot has it");

/* How many strings an output has; INVALID when it is none, or has no room there. */
static int count_strings(const sidecaml_binding *binding, uint32_t number, const struct sidecaml_strings_place *place,
                         uint64_t *count, struct sidecaml_failure *why) {
    const struct sidecaml_output *output = number < binding->count ? &binding->outputs[number] : NULL;
    uint64_t bytes;
    if (!output || output->address || !sidecaml_tensor_bytes(SIDECAML_STRING, output->dims, output->rank, &bytes))
        return fail(why, SIDECAML_E_INVALID, "output %u of the last run is no tensor of strings", number);
    *count = bytes / sizeof(uint64_t) - 1;
    if (*count > place->most || output->bytes > place->text_bytes)
        return fail(why, SIDECAML_E_INVALID, "the strings of output %u have no room there", number);
    return 0;
}

int sidecaml_binding_copy_strings(sidecaml_binding *binding, uint32_t number, const char *name,
                                  const struct sidecaml_strings_place *place, struct sidecaml_failure *why) {
    uint64_t count = 0, bytes, *table = place->start;
    struct sidecaml_strings copy;
    int status = count_strings(binding, number, place, &count, why);
    if (status < 0) return status;
    bytes = binding->outputs[number].bytes;
    status = ort_check(ort_api->GetStringTensorContent(binding->values[number], sidecaml_strings_text(place), bytes,
                                                       (size_t *)table, count),
                       why);
    if (status < 0) return status;
    table[count] = bytes;
    status = sidecaml_strings_read(place, count, "output", name, &copy, why);
    if (status == 0) sidecaml_strings_clear(&copy);
    if (status == -SIDECAML_E_BAD_STRINGS && why) why->code = SIDECAML_E_ENGINE;
    return status == -SIDECAML_E_BAD_STRINGS ? -SIDECAML_E_ENGINE : status;
}

/* --- All tensors at once ----------------------------------------------------------------------------------------- */

static int bind_all(sidecaml_binding *binding, const sidecaml_session *session, void *const *addresses,
                    const uint64_t (*dims)[SIDECAML_MAX_RANK], struct sidecaml_failure *why) {
    int status = 0;
    for (uint32_t t = 0; status == 0 && t < session->count; t++) {
        const struct sidecaml_session_tensor *tensor = &session->tensors[t];
        int (*bind)(sidecaml_binding *, const char *, uint32_t, const uint64_t *, uint32_t, void *,
                    struct sidecaml_failure *) = t < session->inputs ? sidecaml_binding_input : sidecaml_binding_output;
        status = bind(binding, tensor->name, tensor->dtype, dims[t], tensor->rank, addresses[t], why);
    }
    return status;
}

int sidecaml_session_bind(sidecaml_session *session, void *const *addresses, const uint64_t (*dims)[SIDECAML_MAX_RANK],
                          sidecaml_binding **out, struct sidecaml_failure *why) {
    int status = sidecaml_binding_create(session, out, why);
    if (status < 0) return status;
    status = bind_all(*out, session, addresses, dims, why);
    if (status < 0) sidecaml_binding_destroy(*out);
    return status;
}
