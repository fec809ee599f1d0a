#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <unistd.h>

#include "failure.h"

static void *watch(void *argument) {
    /* Not POLLIN: messages belong to the worker's own loop. A poll of no events still reports the hang-up. */
    struct pollfd peer = {.fd = (int)(intptr_t)argument, .events = POLLRDHUP};
    while (poll(&peer, 1, -1) < 0 && errno == EINTR) {
    }
    /* At once, with no clean-up by an interpreter that may be in the middle of a run: all we hold are descriptors. */
    _exit(0);
}

int sidecaml_exit_with_peer(int fd, struct sidecaml_failure *why) {
    pthread_t thread;
    sigset_t all, before;
    /* Signals are the main thread's: it waits, and must be interrupted. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    errno = pthread_create(&thread, NULL, watch, (void *)(intptr_t)fd);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (errno) return fail_errno(why, "starting the thread that watches the supervisor");
    pthread_detach(thread);
    return 0;
}
