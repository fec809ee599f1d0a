#include "sidecaml/shared_session.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "failure.h"

/* As many as the daemon makes: the first runs allocate what later ones reuse. */
#define WARM_UP_RUNS 3

/* What makes a file the same one, and unchanged. */
struct identity {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct sidecaml_shared_session {
    struct identity identity;
    uint32_t threads;
    unsigned holds;
    sidecaml_session *session;
    struct sidecaml_shared_session *next;
};

/* Guards the list and every count of holds. */
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static struct sidecaml_shared_session *all;

/* Zeros for a file that is not there: loading it says so. */
static struct identity identity_of(const char *model) {
    struct stat file;
    if (stat(model, &file) != 0) return (struct identity){0};
    return (struct identity){file.st_dev, file.st_ino, file.st_size, file.st_mtim};
}

static bool same(const struct identity *a, const struct identity *b) {
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

static struct sidecaml_shared_session *find(const struct identity *identity, uint32_t threads) {
    for (struct sidecaml_shared_session *shared = all; shared; shared = shared->next)
        if (shared->threads == threads && same(&shared->identity, identity)) return shared;
    return NULL;
}

/* A failure on zeros need not matter; a rank that is not as declared does. */
static int load(const char *model, uint32_t threads, sidecaml_session **out, struct sidecaml_failure *why) {
    int status = sidecaml_session_create(model, threads, out, why);
    if (status < 0) return status;
    if (sidecaml_session_warm_up(*out, WARM_UP_RUNS, why) != -SIDECAML_E_UNSUPPORTED) return 0;
    sidecaml_session_destroy(*out);
    return -SIDECAML_E_UNSUPPORTED;
}

static int add(const char *model, const struct identity *identity, uint32_t threads,
               struct sidecaml_shared_session **out, struct sidecaml_failure *why) {
    struct sidecaml_shared_session *shared = calloc(1, sizeof *shared);
    if (!shared) return fail(why, SIDECAML_E_NO_MEMORY, "no memory for a session");
    int status = load(model, threads, &shared->session, why);
    if (status < 0) {
        free(shared);
        return status;
    }
    shared->identity = *identity;
    shared->threads = threads;
    shared->next = all;
    all = shared;
    *out = shared;
    return 0;
}

int sidecaml_shared_session_acquire(const char *model, uint32_t threads, sidecaml_shared_session **out,
                                    struct sidecaml_failure *why) {
    struct identity identity = identity_of(model);
    int status = 0;
    pthread_mutex_lock(&guard);
    *out = find(&identity, threads);
    if (!*out) status = add(model, &identity, threads, out, why);
    if (status == 0) (*out)->holds++;
    pthread_mutex_unlock(&guard);
    return status;
}

sidecaml_shared_session *sidecaml_shared_session_retain(sidecaml_shared_session *shared) {
    pthread_mutex_lock(&guard);
    shared->holds++;
    pthread_mutex_unlock(&guard);
    return shared;
}

static void unlink_from_all(const struct sidecaml_shared_session *shared) {
    struct sidecaml_shared_session **link = &all;
    while (*link != shared)
        link = &(*link)->next;
    *link = shared->next;
}

void sidecaml_shared_session_release(sidecaml_shared_session *shared) {
    if (!shared) return;
    pthread_mutex_lock(&guard);
    bool last = --shared->holds == 0;
    if (last) unlink_from_all(shared);
    pthread_mutex_unlock(&guard);
    if (!last) return;
    sidecaml_session_destroy(shared->session);
    free(shared);
}

sidecaml_session *sidecaml_shared_session_get(const sidecaml_shared_session *shared) {
    return shared->session;
}
