/* One way to have a model run: what bench_c does not know of it. A process opens one path, once. */
#ifndef SIDECAML_BENCH_PATH_H
#define SIDECAML_BENCH_PATH_H

#include <sys/types.h>

#include "model.h"

struct options {
    const char *model;
    int server_core; /* ANY_CORE when none was named */
};

/* Where a caller finds the tensors. */
struct opened {
    const struct tensors *tensors;
    char *block;
    pid_t server; /* 0 when the model runs in this process */
};

struct path {
    const char *name;
    int (*open)(const struct options *options, struct opened *out, struct sidecaml_failure *why);
    int (*run)(struct sidecaml_failure *why);
    /* Also after an open that failed. */
    void (*close)(void);
};

extern const struct path floor_path, floor_block_path, inprocess_path, uds_msgpack_path;

#endif
