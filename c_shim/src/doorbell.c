#define _GNU_SOURCE
#include "doorbell.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct doorbell doorbell_of(int fd) {
    struct stat info;
    return (struct doorbell){.fd = fd, .socket = fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode)};
}

/* --- An eventfd -------------------------------------------------------------------------------------------------- */
/* EFD_NONBLOCK is not enough: the flag belongs to the open file, which the other process shares and may change. */

static void count_up(int fd) {
    uint64_t one = 1;
    while (write(fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

static bool has_room(int fd) {
    /* An eventfd takes no RWF_NOWAIT for writing. Only a peer that fills it just now could still make the write wait.
     */
    struct pollfd room = {.fd = fd, .events = POLLOUT};
    return poll(&room, 1, 0) == 1 && room.revents & POLLOUT;
}

static ssize_t count_down(int fd) {
    uint64_t token;
    struct iovec part = {.iov_base = &token, .iov_len = sizeof token};
    ssize_t bytes = preadv2(fd, &part, 1, -1, RWF_NOWAIT);
    /* Before Linux 5.8 an eventfd takes no RWF_NOWAIT for reading either. */
    return bytes < 0 && errno == EOPNOTSUPP ? read(fd, &token, sizeof token) : bytes;
}

/* --- A socket ---------------------------------------------------------------------------------------------------- */

static void send_post(int fd) {
    uint64_t one = 1;
    /* One that finds no room is not missed: posts wait there that nobody has taken yet. */
    while (send(fd, &one, sizeof one, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EINTR) {
    }
}

static ssize_t take_post(int fd) {
    uint64_t token;
    return recv(fd, &token, sizeof token, MSG_DONTWAIT);
}

/* --- Either ------------------------------------------------------------------------------------------------------ */

void doorbell_post(struct doorbell bell) {
    if (bell.socket)
        send_post(bell.fd);
    else
        count_up(bell.fd);
}

void doorbell_post_unless_full(struct doorbell bell) {
    if (bell.socket || has_room(bell.fd)) doorbell_post(bell);
}

uint32_t doorbell_drain(struct doorbell bell, uint32_t most) {
    uint32_t taken = 0;
    while (taken < most && (bell.socket ? take_post(bell.fd) : count_down(bell.fd)) > 0)
        taken++;
    return taken;
}

int doorbell_sleep(struct doorbell answer, int control_fd, uint64_t timeout_ns) {
    struct pollfd fds[] = {{.fd = answer.fd, .events = POLLIN}, {.fd = control_fd, .events = POLLIN | POLLRDHUP}};
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
