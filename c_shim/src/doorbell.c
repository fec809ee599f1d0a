#define _GNU_SOURCE
#include "doorbell.h"

#include <errno.h>
#include <poll.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* EFD_NONBLOCK is not enough: the flag belongs to the open file, which the other process shares and may change. */

void doorbell_post(int fd) {
    uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

void doorbell_post_unless_full(int fd) {
    /* An eventfd takes no RWF_NOWAIT for writing. Only a peer that fills it just now could still make the write wait.
     */
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    if (poll(&room, 1, 0) == 1 && room.revents & POLLOUT) doorbell_post(fd);
}

static ssize_t take_one(int fd) {
    uint64_t token;
    struct iovec part = {.iov_base = &token, .iov_len = sizeof token};
    ssize_t bytes = preadv2(fd, &part, 1, -1, RWF_NOWAIT);
    /* Before Linux 5.8 an eventfd takes no RWF_NOWAIT for reading either. */
    return bytes < 0 && errno == EOPNOTSUPP ? read(fd, &token, sizeof token) : bytes;
}

void doorbell_drain(int fd, uint32_t most) {
    for (uint32_t i = 0; i < most; i++)
        if (take_one(fd) <= 0) return;
}

int doorbell_sleep(int answer_fd, int control_fd, uint64_t timeout_ns) {
    struct pollfd fds[] = {{.fd = answer_fd, .events = POLLIN}, {.fd = control_fd, .events = POLLIN | POLLRDHUP}};
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                               .tv_nsec = (long)(timeout_ns % 1000000000u)};
    int ready = ppoll(fds, 2, timeout_ns == UINT64_MAX ? NULL : &timeout, NULL);
    if (ready < 0) return WOKE_SIGNAL;
    return (fds[0].revents ? WOKE_ANSWER : 0) | (fds[1].revents ? WOKE_CONTROL : 0);
}

bool control_is_ready(int control_fd) {
    struct pollfd fd = {.fd = control_fd, .events = POLLIN | POLLRDHUP};
    return poll(&fd, 1, 0) > 0 && fd.revents;
}
