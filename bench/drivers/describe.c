#include "describe.h"

#include "child.h"
#include "failure.h"
#include "memory.h"

struct description {
    const char *path;
    struct tensors tensors;
    struct sidecaml_failure failure;
};

static int load(void *argument) {
    struct description *description = argument;
    struct model model;
    int status = model_load(description->path, &model, &description->failure);
    if (status < 0) return 1;
    description->tensors = model.tensors;
    model_unload(&model);
    return 0;
}

static int run_child(struct description *description, struct sidecaml_failure *why) {
    struct child child;
    int status = child_start("the process that describes the model", ANY_CORE, load, description, &child, why);
    if (status < 0) return status;
    return child_wait(&child, &description->failure, why);
}

int describe(const char *path, struct tensors *out, struct sidecaml_failure *why) {
    void *shared;
    int status = memory_map(sizeof(struct description), SHARED, &shared, why);
    if (status < 0) return status;
    struct description *description = shared;
    description->path = path;
    status = run_child(description, why);
    *out = description->tensors;
    memory_unmap(shared, sizeof *description);
    return status;
}
