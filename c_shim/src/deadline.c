#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "deadline.h"
#include "failure.h"

/* Guards the list, `watching`, and what is told to the runs. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t earlier; /* made with the watcher: only then can it have a clock */
static struct deadline *all;
static bool watching;
/* Until when the watcher sleeps; while it is awake, or not there, a past value or UINT64_MAX. */
static _Atomic uint64_t wake_at = UINT64_MAX;

/* --- The watcher, with the lock held ----------------------------------------------------------------------------- */

/* Tells every run whose time is over; the earliest deadline of the others. */
static uint64_t look(uint64_t now) {
    uint64_t earliest = UINT64_MAX;
    for (struct deadline *one = all; one; one = one->next) {
        uint64_t at = load64(&one->at, seq_cst); /* LOOK */
        if (at == DEADLINE_NONE || at == DEADLINE_PASSED) continue;
        if (at > now) {
            if (at < earliest) earliest = at;
        } else if (cas64(&one->at, &at, DEADLINE_PASSED, acq_rel)) { /* DONE */
            one->tell(one->context, true);
        }
    }
    return earliest;
}

static void sleep_until(uint64_t at) {
    const struct timespec time = {.tv_sec = (time_t)(at / 1000000000), .tv_nsec = (long)(at % 1000000000)};
    if (at == UINT64_MAX)
        pthread_cond_wait(&earlier, &lock);
    else
        pthread_cond_timedwait(&earlier, &lock, &time);
}

static void *watch(void *unused) {
    pthread_mutex_lock(&lock);
    for (;;) {
        uint64_t earliest = look(sidecaml_now_ns());
        store64(&wake_at, earliest, seq_cst); /* LOOK */
        if (look(sidecaml_now_ns()) >= earliest) sleep_until(earliest);
    }
    return unused;
}

/* --- Starting it ------------------------------------------------------------------------------------------------- */

/* A child has no watcher, and nobody in it is in the middle of a run: the thread that forked was not. */
static void forget_watcher(void) {
    for (struct deadline *one = all; one; one = one->next) {
        if (load64(&one->at, relaxed) == DEADLINE_PASSED) one->tell(one->context, false);
        store64(&one->at, DEADLINE_NONE, relaxed);
    }
    watching = false;
    store64(&wake_at, UINT64_MAX, relaxed);
    pthread_mutex_unlock(&lock);
}

static void before_fork(void) {
    pthread_mutex_lock(&lock);
}

static void after_fork(void) {
    pthread_mutex_unlock(&lock);
}

static int make_signal(void) {
    pthread_condattr_t attributes;
    int error = pthread_condattr_init(&attributes);
    if (error) return error;
    error = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    if (!error) error = pthread_cond_init(&earlier, &attributes);
    pthread_condattr_destroy(&attributes);
    return error;
}

/* No signal handler of the program may run on a thread that it knows nothing of. */
static int start_thread(void) {
    pthread_t thread;
    sigset_t none, before;
    sigfillset(&none);
    pthread_sigmask(SIG_SETMASK, &none, &before);
    int error = pthread_create(&thread, NULL, watch, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error) pthread_detach(thread);
    return error;
}

static int start(struct sidecaml_failure *why) {
    static bool fork_is_handled;
    int error = 0;
    if (!fork_is_handled) error = pthread_atfork(before_fork, after_fork, forget_watcher);
    if (!error) fork_is_handled = true;
    if (!error) error = make_signal();
    if (!error) error = start_thread();
    watching = !error;
    errno = error;
    return error ? fail_errno(why, "a thread for deadlines could not be started") : 0;
}

/* --- What is watched --------------------------------------------------------------------------------------------- */

void deadline_add(struct deadline *deadline, void (*tell)(void *context, bool stop), void *context) {
    deadline->tell = tell;
    deadline->context = context;
    store64(&deadline->at, DEADLINE_NONE, relaxed); /* the watcher sees it by the lock */
    pthread_mutex_lock(&lock);
    deadline->next = all;
    all = deadline;
    pthread_mutex_unlock(&lock);
}

void deadline_remove(struct deadline *deadline) {
    pthread_mutex_lock(&lock);
    struct deadline **link = &all;
    while (*link != deadline)
        link = &(*link)->next;
    *link = deadline->next;
    pthread_mutex_unlock(&lock);
}

int deadline_arm(struct deadline *deadline, uint64_t at, struct sidecaml_failure *why) {
    store64(&deadline->at, at, seq_cst);           /* ARM */
    if (at >= load64(&wake_at, seq_cst)) return 0; /* ARM */
    pthread_mutex_lock(&lock);
    int status = watching ? 0 : start(why);
    if (status == 0)
        pthread_cond_signal(&earlier);
    else
        store64(&deadline->at, DEADLINE_NONE, relaxed);
    pthread_mutex_unlock(&lock);
    return status;
}

bool deadline_disarm(struct deadline *deadline, uint64_t at) {
    if (cas64(&deadline->at, &at, DEADLINE_NONE, acq_rel)) return false; /* DONE */
    pthread_mutex_lock(&lock);                                           /* STOPPED */
    store64(&deadline->at, DEADLINE_NONE, relaxed);
    deadline->tell(deadline->context, false);
    pthread_mutex_unlock(&lock);
    return true;
}
