/* floor-block: the least that a call costs when both sides sleep: two eventfds, read and written every time. */
#define _GNU_SOURCE
#include <sys/eventfd.h>
#include <unistd.h>

#include "failure.h"
#include "server.h"

static struct {
    struct server server;
    int request_fd;
    int answer_fd;
} blocking = {.request_fd = -1, .answer_fd = -1};

/* The kernel orders memory here: an eventfd's counter changes under a lock, so what a process wrote before its write is
 * seen after the read that takes the token. That holds for inputs one way and for outputs the other. */
static int post(int fd, struct sidecaml_failure *why) {
    uint64_t token = 1;
    return write(fd, &token, sizeof token) < 0 ? fail_errno(why, "write of an eventfd") : 0;
}

static int take(int fd, struct sidecaml_failure *why) {
    uint64_t token;
    return read(fd, &token, sizeof token) < 0 ? fail_errno(why, "read of an eventfd") : 0;
}

/* A failed run ends the process, and the client's guard tells why. */
static int serve(struct model *model, void *meeting, struct sidecaml_failure *why) {
    int status = 0;
    (void)meeting;
    while (status == 0) {
        status = take(blocking.request_fd, why);
        if (status == 0) status = model_run(model, why);
        if (status == 0) status = post(blocking.answer_fd, why);
    }
    return status;
}

static int run(struct sidecaml_failure *why) {
    int status = post(blocking.request_fd, why);
    return status < 0 ? status : take(blocking.answer_fd, why);
}

static int open_path(const struct options *options, struct opened *out, struct sidecaml_failure *why) {
    struct server *server = &blocking.server;
    blocking.request_fd = eventfd(0, EFD_CLOEXEC);
    blocking.answer_fd = eventfd(0, EFD_CLOEXEC);
    if (blocking.request_fd < 0 || blocking.answer_fd < 0) return fail_errno(why, "eventfd");
    int status = server_start(options, 0, serve, server, why);
    *out = (struct opened){.tensors = &server->tensors, .block = server->block, .server = server->child.pid};
    return status;
}

static void close_path(void) {
    server_stop(&blocking.server);
    if (blocking.request_fd >= 0) close(blocking.request_fd);
    if (blocking.answer_fd >= 0) close(blocking.answer_fd);
}

const struct path floor_block_path = {.name = "floor-block", .open = open_path, .run = run, .close = close_path};
