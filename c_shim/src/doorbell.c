#define _GNU_SOURCE
#include "doorbell.h"

#include <errno.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

void doorbell_post(int fd) {
    uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

void doorbell_drain(int fd, uint32_t most) {
    uint64_t token;
    for (uint32_t i = 0; i < most; i++)
        if (read(fd, &token, sizeof token) != sizeof token) return;
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
