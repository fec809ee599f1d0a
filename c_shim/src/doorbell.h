/* A doorbell: an eventfd in semaphore mode, or one end of a socket pair whose messages are the posts. Posting is one
 * system call, made only when the other side sleeps.
 *
 * An eventfd is one open file, which both sides hold: who shares it can fill it and take O_NONBLOCK from it, and so
 * make the other's write wait. The ends of a socket pair are two open files, and a send waits only when its own side
 * wants to.
 */
#ifndef SIDECAML_DOORBELL_H
#define SIDECAML_DOORBELL_H

#include <stdbool.h>
#include <stdint.h>

struct doorbell {
    int fd;
    bool socket;
};

struct doorbell doorbell_of(int fd);
/* Of a client: it would block on an eventfd that its worker, whom it trusts, had filled. Never raises SIGPIPE. */
void doorbell_post(struct doorbell bell);
/* Of a worker: does not block on a doorbell that its client has filled, which wakes the client anyway. */
void doorbell_post_unless_full(struct doorbell bell);
/* Takes at most `most` posts back; how many it were. Never blocks. */
uint32_t doorbell_drain(struct doorbell bell, uint32_t most);

enum {
    WOKE_TIMEOUT = 0,
    WOKE_ANSWER = 1, /* bits */
    WOKE_CONTROL = 2,
    WOKE_SIGNAL = 4,
};
/* Sleeps until the doorbell or the control socket is readable (or hung up), a signal came, or timeout_ns passed
 * (UINT64_MAX: never); returns what woke it. */
int doorbell_sleep(struct doorbell answer, int control_fd, uint64_t timeout_ns);
/* Whether the control socket has something to say. One system call, no sleep. */
bool control_is_ready(int control_fd);

#endif
