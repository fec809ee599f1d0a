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
    bool known; /* the file is there */
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

/* Guards the list and every count of holds; never held for long, because finalisers take it. */
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
/* Held while a model is loaded, so that none is loaded twice. Taken before `guard`. */
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
static struct sidecaml_shared_session *all;

/* Unknown for a file that is not there: loading it says so. */
static struct identity identity_of(const char *model) {
    struct stat file;
    if (stat(model, &file) != 0) return (struct identity){0};
    return (struct identity){true, file.st_dev, file.st_ino, file.st_size, file.st_mtim};
}

static bool same(const struct identity *a, const struct identity *b) {
    return a->known && b->known && a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

/* Held once more; NULL when there is none. */
static struct sidecaml_shared_session *find(const struct identity *identity, uint32_t threads) {
    struct sidecaml_shared_session *found = NULL;
    pthread_mutex_lock(&guard);
    for (struct sidecaml_shared_session *shared = all; shared && !found; shared = shared->next)
        if (shared->threads == threads && same(&shared->identity, identity)) found = shared;
    if (found) found->holds++;
    pthread_mutex_unlock(&guard);
    return found;
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
    shared->holds = 1;
    pthread_mutex_lock(&guard);
    shared->next = all;
    all = shared;
    pthread_mutex_unlock(&guard);
    *out = shared;
    return 0;
}

int sidecaml_shared_session_acquire(const char *model, uint32_t threads, sidecaml_shared_session **out,
                                    struct sidecaml_failure *why) {
    struct identity identity = identity_of(model);
    pthread_mutex_lock(&loading);
    *out = find(&identity, threads);
    int status = *out ? 0 : add(model, &identity, threads, out, why);
    pthread_mutex_unlock(&loading);
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
