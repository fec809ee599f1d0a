#include "crash_point.h"

#ifdef SIDECAML_CRASH_POINTS

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MOST_PATH 512

static int signal_in(const char *path) {
    char order[8] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, order, sizeof order - 1) < 4) abort();
    close(fd);
    return order[0] == 'S' ? SIGSTOP : SIGKILL;
}

void crash_point(const char *name) {
    static const char *folder;
    if (!folder) folder = getenv("SIDECAML_CRASH_POINTS");
    if (!folder) folder = "";
    if (!*folder) return;
    int before = errno;
    char wanted[MOST_PATH], taken[MOST_PATH], hit[MOST_PATH], next[MOST_PATH];
    snprintf(wanted, sizeof wanted, "%s/%s", folder, name);
    snprintf(taken, sizeof taken, "%s/taken/%s.%d", folder, name, (int)getpid());
    snprintf(hit, sizeof hit, "%s/hit/%s.%d", folder, name, (int)getpid());
    snprintf(next, sizeof next, "%s/next/%s", folder, name);
    if (rename(wanted, taken) == 0) {
        rename(next, wanted);
        /* The suite removes what it finds among the hits, so that is read before. */
        int number = signal_in(taken);
        if (rename(taken, hit) != 0) abort();
        kill(getpid(), number);
    }
    errno = before;
}

#endif
