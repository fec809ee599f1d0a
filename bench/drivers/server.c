#define _GNU_SOURCE
#include "server.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "describe.h"
#include "failure.h"
#include "memory.h"

#define MEETING_OFFSET SIDECAML_PAGE_BYTES

/* Followed, on a page of its own, by the place to meet. */
struct server_shared {
    struct sidecaml_failure failure;
};
_Static_assert(sizeof(struct server_shared) <= MEETING_OFFSET, "the place to meet has lines of its own");

/* What the child is started with. */
struct order {
    const struct server *server;
    const char *path;
    int (*serve)(struct model *model, void *meeting, struct sidecaml_failure *why);
    int ready_fd;
};

static int load_and_serve(void *argument) {
    const struct order *order = argument;
    const struct server *server = order->server;
    struct sidecaml_failure *why = &server->shared->failure;
    uint64_t ready = 1;
    struct model model;
    int status = model_load(order->path, &model, why);
    if (status == 0) status = model_bind(&model, server->block, why);
    if (status == 0 && write(order->ready_fd, &ready, sizeof ready) < 0) status = fail_errno(why, "write");
    if (status == 0) status = order->serve(&model, server->meeting, why);
    return status < 0 ? 1 : 0;
}

static int map(struct server *server, struct sidecaml_failure *why) {
    void *shared;
    int status = memory_map(server->tensors.bytes, SHARED, &server->block, why);
    if (status == 0) status = memory_map(server->shared_bytes, SHARED, &shared, why);
    if (status < 0) return status;
    server->shared = shared;
    server->meeting = (char *)shared + MEETING_OFFSET;
    return 0;
}

static int await_ready(const struct server *server, int ready_fd, struct sidecaml_failure *why) {
    uint64_t ready;
    int status = child_guard(&server->child, &server->shared->failure, why);
    if (status == 0 && read(ready_fd, &ready, sizeof ready) < 0) status = fail_errno(why, "read");
    return status;
}

static int launch(struct order *order, int core, struct server *server, struct sidecaml_failure *why) {
    order->ready_fd = eventfd(0, EFD_CLOEXEC);
    if (order->ready_fd < 0) return fail_errno(why, "eventfd");
    int status = child_start("the server", core, load_and_serve, order, &server->child, why);
    if (status == 0) status = await_ready(server, order->ready_fd, why);
    close(order->ready_fd);
    return status;
}

int server_start(const struct options *options, uint64_t meeting_bytes,
                 int (*serve)(struct model *model, void *meeting, struct sidecaml_failure *why), struct server *out,
                 struct sidecaml_failure *why) {
    *out = (struct server){.shared_bytes = MEETING_OFFSET + meeting_bytes};
    int status = describe(options->model, &out->tensors, why);
    if (status == 0) status = map(out, why);
    if (status < 0) return status;
    struct order order = {.server = out, .path = options->model, .serve = serve};
    return launch(&order, options->server_core, out, why);
}

void server_stop(struct server *server) {
    child_stop(&server->child);
    memory_unmap(server->block, server->tensors.bytes);
    memory_unmap(server->shared, server->shared_bytes);
}
