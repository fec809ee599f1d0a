/* First runs of a model, on zeros: they allocate what later ones reuse, and show whether outputs are as declared. */
#include <stdlib.h>

#include "api.h"
#include "failure.h"

static int no_memory(struct sidecaml_failure *why) {
    return fail(why, SIDECAML_E_NO_MEMORY, "no memory for zeros");
}

/* *zeros is the caller's to free, also after a failure. */
static int bind_zeros(sidecaml_binding *binding, const struct sidecaml_session_tensor *input, void **zeros,
                      struct sidecaml_failure *why) {
    uint64_t dims[SIDECAML_MAX_RANK];
    uint64_t bytes;
    for (uint32_t i = 0; i < input->rank; i++)
        dims[i] = input->dims[i] < 0 ? 1 : (uint64_t)input->dims[i];
    if (!sidecaml_tensor_bytes(input->dtype, dims, input->rank, &bytes)) return no_memory(why);
    *zeros = calloc(1, bytes ? bytes : 1);
    if (!*zeros) return no_memory(why);
    if (input->dtype == SIDECAML_STRING) {
        const struct sidecaml_strings_place place = {*zeros, bytes / sizeof(uint64_t) - 1, 0};
        return sidecaml_binding_input_strings(binding, input->name, dims, input->rank, &place, why);
    }
    return sidecaml_binding_input(binding, input->name, input->dtype, dims, input->rank, *zeros, why);
}

static int run(sidecaml_binding *binding, const struct sidecaml_session *session, struct sidecaml_failure *why) {
    int status = 0;
    for (uint32_t i = session->inputs; status == 0 && i < session->count; i++)
        status = sidecaml_binding_output_anywhere(binding, session->tensors[i].name, why);
    return status < 0 ? status : sidecaml_binding_run(binding, why);
}

static int check_ranks(sidecaml_binding *binding, const struct sidecaml_session *session,
                       struct sidecaml_failure *why) {
    const struct sidecaml_output *outputs;
    uint32_t count;
    int status = sidecaml_binding_outputs(binding, &outputs, &count, why);
    for (uint32_t i = 0; status == 0 && i < count; i++)
        status = sidecaml_model_check_rank(&session->tensors[session->inputs + i], outputs[i].rank, why);
    return status;
}

static int warm_up(sidecaml_binding *binding, const struct sidecaml_session *session, void **zeros, uint32_t times,
                   struct sidecaml_failure *why) {
    int status = 0;
    for (uint32_t i = 0; status == 0 && i < session->inputs; i++)
        status = bind_zeros(binding, &session->tensors[i], &zeros[i], why);
    for (uint32_t i = 0; status == 0 && i < times; i++)
        status = run(binding, session, why);
    return status < 0 || times == 0 ? status : check_ranks(binding, session, why);
}

int sidecaml_session_warm_up(sidecaml_session *session, uint32_t times, struct sidecaml_failure *why) {
    sidecaml_binding *binding;
    void **zeros = calloc(session->inputs + 1, sizeof zeros[0]); /* one more: calloc(0) may be NULL */
    if (!zeros) return no_memory(why);
    int status = sidecaml_binding_create(session, &binding, why);
    if (status == 0) {
        status = warm_up(binding, session, zeros, times, why);
        sidecaml_binding_destroy(binding);
    }
    for (uint32_t i = 0; i < session->inputs; i++)
        free(zeros[i]);
    free(zeros);
    return status;
}
