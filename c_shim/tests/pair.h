/* A channel and a worker of one process over memfds, for the tests. */
#ifndef SIDECAML_PAIR_H
#define SIDECAML_PAIR_H

#include "sidecaml/sidecaml.h"

/* As the supervisor makes them: a segment and a status page that nothing names, doorbells in semaphore mode. */
struct pair_fds {
    int segment, request, answer, status;
};
int make_memfd(uint64_t bytes);
int make_doorbell(void);
/* As for users that are not trusted: the worker's end, which takes nothing in, and the client's. */
void make_socket_doorbell(int *worker, int *client);
int must_dup(int fd);
/* A connected pair of sequenced-packet sockets. */
void make_sockets(int ends[2]);

struct pair {
    sidecaml_worker *worker;
    sidecaml_channel *channel;
    int index;          /* of the channel in the worker */
    int worker_control; /* the worker's end; its other end is `supervisor` */
    int supervisor;
    int daemon;  /* the other end of the channel's control socket */
    int segment; /* one more descriptor of the segment */
};

/* One input "x" and one output "y" of `bytes` uint8 each. */
void pair_layout(struct sidecaml_layout *layout, uint32_t slots, uint64_t bytes);
void pair_open(struct pair *pair, const struct sidecaml_layout *layout, enum sidecaml_policy policy);
/* Closes what is still open: fields may have been closed by the test and set to NULL or -1. */
void pair_close(struct pair *pair);

/* One more channel on a worker: its segment must not be given away before. */
/* `how` as for sidecaml_worker_attach. */
sidecaml_channel *pair_add_channel_as(sidecaml_worker *worker, uint32_t how, const struct sidecaml_layout *layout,
                                      int status_fd, enum sidecaml_policy policy, int *index, int *daemon);
sidecaml_channel *pair_add_channel(sidecaml_worker *worker, const struct sidecaml_layout *layout, int status_fd,
                                   enum sidecaml_policy policy, int *index, int *daemon);
/* As sidecaml_worker_serve, and goes on where its turn is over: this thread may not have been run meanwhile. */
int pair_serve(sidecaml_worker *worker, uint64_t timeout_ns, struct sidecaml_request *out,
               struct sidecaml_failure *why);
/* The worker alone: `status_fd` is one more descriptor of its page, `supervisor` the other end of its control. */
sidecaml_worker *make_worker(enum sidecaml_policy policy, int *status_fd, int *control, int *supervisor);

#endif
