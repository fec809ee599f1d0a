/* c-inprocess: the C call, in the caller's own process. */
#include "memory.h"
#include "path.h"

static struct {
    struct model model;
    void *block;
    uint64_t bytes;
} inprocess;

static int open_path(const struct options *options, struct opened *out, struct sidecaml_failure *why) {
    int status = model_load(options->model, &inprocess.model, why);
    if (status < 0) return status;
    inprocess.bytes = inprocess.model.tensors.bytes;
    status = memory_map(inprocess.bytes, PRIVATE, &inprocess.block, why);
    if (status == 0) status = model_bind(&inprocess.model, inprocess.block, why);
    *out = (struct opened){.tensors = &inprocess.model.tensors, .block = inprocess.block};
    return status;
}

static int run(struct sidecaml_failure *why) {
    return model_run(&inprocess.model, why);
}

static void close_path(void) {
    model_unload(&inprocess.model);
    memory_unmap(inprocess.block, inprocess.bytes);
}

const struct path inprocess_path = {.name = "c-inprocess", .open = open_path, .run = run, .close = close_path};
