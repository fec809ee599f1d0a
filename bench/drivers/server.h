/* A process that runs a model on tensors in shared memory. How the two sides meet is the path's own. */
#ifndef SIDECAML_BENCH_SERVER_H
#define SIDECAML_BENCH_SERVER_H

#include "child.h"
#include "model.h"
#include "path.h"

struct server {
    struct tensors tensors;
    void *block;
    void *meeting;
    struct server_shared *shared;
    uint64_t shared_bytes;
    struct child child;
};

/* Starts it on memory that both see, with a zeroed place of `meeting_bytes` to meet at. In that process `serve` answers
 * call after call; it returns, with the failure written, when a run fails. */
int server_start(const struct options *options, uint64_t meeting_bytes,
                 int (*serve)(struct model *model, void *meeting, struct sidecaml_failure *why), struct server *out,
                 struct sidecaml_failure *why);
void server_stop(struct server *server);

#endif
