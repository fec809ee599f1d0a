#define _GNU_SOURCE
#include "bell.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "atomics.h"
#include "failure.h"
#include "memory.h"

/* --- POSIX semaphores, made by others ---------------------------------------------------------------------------- */

static int posix_make(struct bell *bell, const char *name, struct sidecaml_failure *why) {
    if (!name) return fail(why, SIDECAML_E_INVALID, "--mechanism posix needs --semaphores NAME1 NAME2");
    bell->semaphore = sem_open(name, 0);
    if (bell->semaphore != SEM_FAILED) return 0;
    return fail(why, SIDECAML_E_SYSTEM, "semaphore \"%s\" could not be opened: %s", name, strerror(errno));
}

static int posix_post(struct bell *bell, struct sidecaml_failure *why) {
    return sem_post(bell->semaphore) < 0 ? fail_errno(why, "sem_post") : 0;
}

static int posix_wait(struct bell *bell, struct sidecaml_failure *why) {
    while (sem_wait(bell->semaphore) < 0)
        if (errno != EINTR) return fail_errno(why, "sem_wait");
    return 0;
}

/* --- A futex ----------------------------------------------------------------------------------------------------- */

static int futex_make(struct bell *bell, const char *name, struct sidecaml_failure *why) {
    void *memory;
    (void)name;
    int status = memory_map(sizeof *bell->word, SHARED, &memory, why);
    if (status == 0) bell->word = memory;
    return status;
}

/* Release, to the exchange of the waiter: what came before the token is seen by whoever takes it. */
static int futex_post(struct bell *bell, struct sidecaml_failure *why) {
    store32(bell->word, 1, release);
    return syscall(SYS_futex, bell->word, FUTEX_WAKE, 1, NULL, NULL, 0) < 0 ? fail_errno(why, "FUTEX_WAKE") : 0;
}

/* No wake-up is lost: the kernel looks at the word again before it puts anybody to sleep. */
static int futex_wait(struct bell *bell, struct sidecaml_failure *why) {
    while (exchange32(bell->word, 0, acquire) == 0)
        if (syscall(SYS_futex, bell->word, FUTEX_WAIT, 0, NULL, NULL, 0) < 0 && errno != EAGAIN && errno != EINTR)
            return fail_errno(why, "FUTEX_WAIT");
    return 0;
}

/* --- An eventfd -------------------------------------------------------------------------------------------------- */

static int eventfd_make(struct bell *bell, const char *name, struct sidecaml_failure *why) {
    (void)name;
    bell->fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
    return bell->fd < 0 ? fail_errno(why, "eventfd") : 0;
}

static int eventfd_post(struct bell *bell, struct sidecaml_failure *why) {
    uint64_t token = 1;
    return write(bell->fd, &token, sizeof token) < 0 ? fail_errno(why, "write of an eventfd") : 0;
}

static int eventfd_wait(struct bell *bell, struct sidecaml_failure *why) {
    uint64_t token;
    while (read(bell->fd, &token, sizeof token) < 0)
        if (errno != EINTR) return fail_errno(why, "read of an eventfd");
    return 0;
}

static const struct mechanism mechanisms[] = {
    {"posix", posix_make, posix_post, posix_wait},
    {"futex", futex_make, futex_post, futex_wait},
    {"eventfd", eventfd_make, eventfd_post, eventfd_wait},
};
#define MECHANISM_COUNT (sizeof mechanisms / sizeof mechanisms[0])

int find_mechanism(const char *name, const struct mechanism **out, struct sidecaml_failure *why) {
    for (size_t i = 0; i < MECHANISM_COUNT; i++) {
        if (strcmp(mechanisms[i].name, name) == 0) {
            *out = &mechanisms[i];
            return 0;
        }
    }
    return fail(why, SIDECAML_E_INVALID, "unknown mechanism \"%s\": expected posix, futex or eventfd", name);
}
