/* A doorbell: an eventfd in semaphore mode. Posting is one system call, made only when the other side sleeps. */
#ifndef SIDECAML_DOORBELL_H
#define SIDECAML_DOORBELL_H

#include <stdbool.h>
#include <stdint.h>

/* Of a client: it would block on a doorbell that its worker, whom it trusts, had filled. */
void doorbell_post(int fd);
/* Of a worker: does not block on a doorbell that its client has filled, which wakes the client anyway. */
void doorbell_post_unless_full(int fd);
/* Takes at most `most` posts back. Never blocks. */
void doorbell_drain(int fd, uint32_t most);

enum {
    WOKE_TIMEOUT = 0,
    WOKE_ANSWER = 1, /* bits */
    WOKE_CONTROL = 2,
    WOKE_SIGNAL = 4,
};
/* Sleeps until the doorbell or the control socket is readable (or hung up), a signal came, or timeout_ns passed
 * (UINT64_MAX: never); returns what woke it. */
int doorbell_sleep(int answer_fd, int control_fd, uint64_t timeout_ns);
/* Whether the control socket has something to say. One system call, no sleep. */
bool control_is_ready(int control_fd);

#endif
