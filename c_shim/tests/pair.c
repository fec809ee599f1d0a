#define _GNU_SOURCE
#include "pair.h"

#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "check.h"

int make_memfd(uint64_t bytes) {
    int fd = memfd_create("sidecaml-test", MFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQ(ftruncate(fd, (off_t)bytes), 0);
    return fd;
}

int make_doorbell(void) {
    int fd = eventfd(0, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

void make_socket_doorbell(int *worker, int *client) {
    int ends[2];
    make_sockets(ends);
    CHECK_EQ(shutdown(ends[0], SHUT_RD), 0);
    *worker = ends[0];
    *client = ends[1];
}

int must_dup(int fd) {
    int copy = dup(fd);
    CHECK(copy >= 0);
    return copy;
}

void make_sockets(int ends[2]) {
    CHECK_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
}

void pair_layout(struct sidecaml_layout *layout, uint32_t slots, uint64_t bytes) {
    struct sidecaml_tensor_spec specs[] = {
        {.name = "x", .dtype = SIDECAML_UINT8, .rank = 1, .max_dims = {bytes}},
        {.name = "y", .dtype = SIDECAML_UINT8, .rank = 1, .output = true, .max_dims = {bytes}},
    };
    CHECK_EQ(sidecaml_layout_compute(specs, 2, slots, 77, layout, NULL), 0);
}

sidecaml_worker *make_worker(enum sidecaml_policy policy, int *status_fd, int *control, int *supervisor) {
    struct sidecaml_failure why;
    int ends[2];
    make_sockets(ends);
    *control = ends[0];
    *supervisor = ends[1];
    int page = make_memfd(SIDECAML_PAGE_BYTES);
    *status_fd = must_dup(page);
    sidecaml_worker *worker;
    if (sidecaml_worker_create(page, 0, *control, policy, &worker, &why) < 0)
        check_failed(__FILE__, __LINE__, "%s", why.text);
    return worker;
}

sidecaml_channel *pair_add_channel_as(sidecaml_worker *worker, uint32_t how, const struct sidecaml_layout *layout,
                                      int status_fd, enum sidecaml_policy policy, int *index, int *daemon) {
    struct sidecaml_failure why;
    struct pair_fds made = {make_memfd(layout->segment_bytes), make_doorbell(), make_doorbell(), must_dup(status_fd)};
    struct sidecaml_worker_fds worker_fds = {must_dup(made.segment), must_dup(made.request), must_dup(made.answer), -1};
    int place = sidecaml_worker_attach(worker, &worker_fds, layout, how, &why);
    if (place < 0) check_failed(__FILE__, __LINE__, "%s", why.text);
    int ends[2];
    make_sockets(ends);
    struct sidecaml_channel_fds fds = {made.segment, made.request, made.answer, made.status, ends[0]};
    sidecaml_channel *channel;
    if (sidecaml_channel_attach(&fds, layout->fingerprint, policy, &channel, &why) < 0)
        check_failed(__FILE__, __LINE__, "%s", why.text);
    *index = place;
    *daemon = ends[1];
    return channel;
}

sidecaml_channel *pair_add_channel(sidecaml_worker *worker, const struct sidecaml_layout *layout, int status_fd,
                                   enum sidecaml_policy policy, int *index, int *daemon) {
    return pair_add_channel_as(worker, 0, layout, status_fd, policy, index, daemon);
}

void pair_open(struct pair *pair, const struct sidecaml_layout *layout, enum sidecaml_policy policy) {
    memset(pair, 0, sizeof *pair);
    int status_fd;
    pair->worker = make_worker(policy, &status_fd, &pair->worker_control, &pair->supervisor);
    pair->channel = pair_add_channel(pair->worker, layout, status_fd, policy, &pair->index, &pair->daemon);
    pair->segment = must_dup(sidecaml_channel_segment_fd(pair->channel));
    close(status_fd);
}

static void close_open(int fd) {
    if (fd >= 0) close(fd);
}

void pair_close(struct pair *pair) {
    sidecaml_channel_close(pair->channel);
    sidecaml_worker_destroy(pair->worker);
    close_open(pair->worker_control);
    close_open(pair->supervisor);
    close_open(pair->daemon);
    close_open(pair->segment);
}

int pair_serve(sidecaml_worker *worker, uint64_t timeout_ns, struct sidecaml_request *out,
               struct sidecaml_failure *why) {
    int status;
    do
        status = sidecaml_worker_serve(worker, timeout_ns, out, why);
    while (status == -SIDECAML_E_AGAIN);
    return status;
}
