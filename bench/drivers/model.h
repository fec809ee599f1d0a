/* A model in this process, bound to a block of memory: the C call that every path here comes down to. */
#ifndef SIDECAML_BENCH_MODEL_H
#define SIDECAML_BENCH_MODEL_H

#include "sidecaml/ort.h"

/* No pointers: one process may describe a model to another. */
struct tensor {
    char name[SIDECAML_NAME_BYTES];
    uint32_t dtype;
    uint64_t elements;
    uint64_t bytes;
    uint64_t offset; /* in the block: on a line, and from one page on, on a page */
};

/* Inputs, then outputs, in the model's order. */
struct tensors {
    uint32_t inputs;
    uint32_t count;
    uint64_t bytes; /* of the block */
    struct tensor tensor[SIDECAML_MAX_TENSORS];
};

struct model {
    sidecaml_session *session;
    sidecaml_binding *binding;
    struct tensors tensors;
};

/* Loads a model of fixed dimensions, to run on one thread. INVALID names a tensor that cannot be had;
 * MODEL_FAILED with ONNX Runtime's words. */
int model_load(const char *path, struct model *out, struct sidecaml_failure *why);
void model_unload(struct model *model);

/* Every tensor at its offset from `block`, which must outlive the model. */
int model_bind(struct model *model, char *block, struct sidecaml_failure *why);
int model_run(struct model *model, struct sidecaml_failure *why);

#endif
