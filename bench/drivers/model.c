#include "model.h"

#include <stdbool.h>
#include <string.h>

#include "caller.h"
#include "checked.h"
#include "failure.h"

#define THREADS 1

static int copy_name(const struct sidecaml_session_tensor *found, struct tensor *out, struct sidecaml_failure *why) {
    if (strlen(found->name) >= sizeof out->name)
        return fail(why, SIDECAML_E_INVALID, "tensor \"%s\": a name of the benchmark has at most %zu bytes",
                    found->name, sizeof out->name - 1);
    strcpy(out->name, found->name);
    return 0;
}

static int measure(const struct sidecaml_session_tensor *found, struct tensor *out, struct sidecaml_failure *why) {
    uint64_t dims[SIDECAML_MAX_RANK];
    if (!sidecaml_dtype_bits(found->dtype))
        return fail(why, SIDECAML_E_INVALID, "tensor \"%s\" is a %s, which no channel carries", found->name,
                    found->type);
    if (found->rank > SIDECAML_MAX_RANK)
        return fail(why, SIDECAML_E_INVALID, "tensor \"%s\" has %u dimensions; at most %d are possible", found->name,
                    found->rank, SIDECAML_MAX_RANK);
    out->dtype = found->dtype;
    out->elements = 1;
    for (uint32_t i = 0; i < found->rank; i++) {
        if (found->dims[i] < 0)
            return fail(why, SIDECAML_E_INVALID,
                        "tensor \"%s\": dimension %u is dynamic; the benchmark takes models of fixed dimensions",
                        found->name, i);
        dims[i] = (uint64_t)found->dims[i];
        out->elements *= dims[i]; /* what overflows has no bytes below */
    }
    if (!sidecaml_tensor_bytes(found->dtype, dims, found->rank, &out->bytes))
        return fail(why, SIDECAML_E_INVALID, "tensor \"%s\" is too large", found->name);
    return 0;
}

static int place(struct tensor *tensor, uint64_t *end, struct sidecaml_failure *why) {
    uint64_t alignment = tensor->bytes >= SIDECAML_PAGE_BYTES ? SIDECAML_PAGE_BYTES : SIDECAML_TENSOR_ALIGN;
    if (!checked_align(*end, alignment, &tensor->offset) || !checked_add(tensor->offset, tensor->bytes, end))
        return fail(why, SIDECAML_E_INVALID, "tensor \"%s\" is too large", tensor->name);
    return 0;
}

static int describe_tensor(const struct sidecaml_session_tensor *found, bool input, uint64_t *end, struct tensor *out,
                           struct sidecaml_failure *why) {
    int status = copy_name(found, out, why);
    if (status == 0) status = measure(found, out, why);
    if (status == 0 && input && !caller_fills(found->dtype))
        return fail(why, SIDECAML_E_INVALID,
                    "input \"%s\" is a %s; the benchmark fills tensor(float) and tensor(int64)", found->name,
                    found->type);
    return status < 0 ? status : place(out, end, why);
}

static int describe(const sidecaml_session *session, struct tensors *out, struct sidecaml_failure *why) {
    const struct sidecaml_session_tensor *found = sidecaml_session_tensors(session, &out->inputs, &out->count);
    if (out->count > SIDECAML_MAX_TENSORS)
        return fail(why, SIDECAML_E_INVALID, "a model has at most %d inputs and outputs, not %u", SIDECAML_MAX_TENSORS,
                    out->count);
    out->bytes = 0;
    for (uint32_t i = 0; i < out->count; i++) {
        int status = describe_tensor(&found[i], i < out->inputs, &out->bytes, &out->tensor[i], why);
        if (status < 0) return status;
    }
    return 0;
}

int model_load(const char *path, struct model *out, struct sidecaml_failure *why) {
    *out = (struct model){0};
    int status = sidecaml_session_create(path, THREADS, &out->session, why);
    if (status == 0) status = sidecaml_binding_create(out->session, &out->binding, why);
    if (status == 0) status = describe(out->session, &out->tensors, why);
    if (status < 0) model_unload(out);
    return status;
}

void model_unload(struct model *model) {
    sidecaml_binding_destroy(model->binding);
    sidecaml_session_destroy(model->session);
    *model = (struct model){0};
}

int model_bind(struct model *model, char *block, struct sidecaml_failure *why) {
    uint32_t inputs, count;
    const struct sidecaml_session_tensor *found = sidecaml_session_tensors(model->session, &inputs, &count);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t dims[SIDECAML_MAX_RANK];
        for (uint32_t d = 0; d < found[i].rank; d++)
            dims[d] = (uint64_t)found[i].dims[d];
        int (*bind)(sidecaml_binding *, const char *, uint32_t, const uint64_t *, uint32_t, void *,
                    struct sidecaml_failure *) = i < inputs ? sidecaml_binding_input : sidecaml_binding_output;
        int status = bind(model->binding, found[i].name, found[i].dtype, dims, found[i].rank,
                          block + model->tensors.tensor[i].offset, why);
        if (status < 0) return status;
    }
    return 0;
}

int model_run(struct model *model, struct sidecaml_failure *why) {
    return sidecaml_binding_run(model->binding, why);
}
